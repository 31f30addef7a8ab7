"""Slices per second of the networks: eager float32 beside what is shipped, in turn, in one run.

Only the answers are asserted, never the time. For figures run it alone on a quiet machine:
``pytest -s tests/benchmarks/test_models_speed.py``. The half that wants a GPU is skipped without one.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from synthesis.models.attention import HEAD_DIM, SelfAttention, attend, flash_attn_func
from synthesis.models.load import DEFAULT, WEIGHTS, LoadedModel, load_model
from synthesis.models.mpr_vit import MprVit, Sizes
from synthesis.models.ta_vit import TaVit
from synthesis.models.uptake import OUTPUTS
from synthesis.models.window import Window, window_around
from synthesis.phantom.lesion import bend, draw_lesion, grow
from synthesis.phantom.scan import Scan, acquire
from synthesis.phantom.study import FLAIR, T1W
from synthesis.phantom.tissue import HeadMap
from synthesis.preprocess import BoolArray, FloatArray, ModelInput, to_model_grid
from synthesis.threads import limit_threads
from training.data import Batch
from training.distributed import Ranks
from training.losses import loss_of
from training.muon import optimisers_of
from training.recipes import RECIPES
from training.run import network, start, step

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

#: A whole head as BraTS has it. Every fifth plane is computed; with 1 all are, and it takes minutes.
PLANES, EVERY, TOGETHER = 155, 5, 8
#: Of the range of what is compared: the limit of what an image may differ from eager float32.
MOST_DIFFERENCE = 1e-2
#: Of the tumour map, at the single worst voxel: a logistic function is steep at the tumour's edge.
MOST_IN_MAP = 2e-2
TRAINED = "small-heads"
#: Its steps.
(STAGE,) = RECIPES[TRAINED].stages
STEPS = 2
#: Rows and columns of the matrices whose product says what a chip can do.
LARGE = 8192
TOKENS = (900, 3600)
#: Side of a token in pixels.
TOKEN = 4


@dataclass
class Spent:
    """Time spent on something."""

    wall_s: float = 0.0
    #: Of all threads: what another process takes from this one does not count.
    cpu_s: float = 0.0

    def on(self, work: Callable[[], Any]) -> Any:
        """Do the work, and add what it took."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.process_time() - cpu
        return result


def show(title: str, unit: str, count: float, spent: Mapping[str, Spent]) -> None:
    """Print a row for each way, compared with the first."""
    print(f"\n{title}\n{'':24}{unit + '/s':>12}{'ratio':>8}{'CPU ms':>10}{'ratio':>8}")
    first = next(iter(spent.values()))
    for name, one in spent.items():
        print(
            f"{name:24}{count / one.wall_s:12.2f}{first.wall_s / one.wall_s:8.2f}"
            f"{1e3 * one.cpu_s / count:10.0f}{first.cpu_s / one.cpu_s:8.2f}"
        )


@pytest.fixture(scope="module")
def head() -> ModelInput:
    """Return a head of 155 planes on the model grid."""
    limit_threads()
    random = np.random.default_rng(1)
    tissue = HeadMap.load()
    person = bend(tissue, random)
    tissue = grow(tissue, draw_lesion(random), random)

    def scanned(scan: Scan) -> sitk.Image:
        fine = replace(scan, slices=PLANES, thickness_mm=1.2, gap_mm=0.0, matrix=128, pixel_mm=1.9)
        image = sitk.GetImageFromArray(acquire(tissue, person, fine, random).astype(np.float32))
        image.SetSpacing((fine.pixel_mm, fine.pixel_mm, fine.spacing_mm))
        image.SetDirection(fine.axes().ravel().tolist())
        image.SetOrigin(fine.first_pixel_mm().tolist())
        return image

    return to_model_grid(scanned(T1W), scanned(FLAIR))


class EveryPlane(ModelInput):
    """Planes of which none is left out, though they show no head."""

    @property
    def usable(self) -> BoolArray:
        """(D,): all of them."""
        return np.ones(len(self.values), dtype=bool)


class Exact(LoadedModel):
    """The same model as PyTorch runs it unasked: float32, planes of channels one after the other."""

    def _tensor(self, values: FloatArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)


class Eager(Exact):
    """And with all of each plane."""

    def _window(self, found: ModelInput) -> Window:
        return window_around(np.ones_like(found.inside), TOKEN)


def as_trained(shipped: LoadedModel, kind: type[Exact]) -> Exact:
    """Return the shipped model with its weights as they stand in the file."""
    tensors = load_file(WEIGHTS / f"{DEFAULT}.safetensors")

    def filled(net: nn.Module, prefix: str) -> nn.Module:
        own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        net.load_state_dict(own)
        return net.eval().requires_grad_(False)

    finder, maker = (Sizes.from_json(shipped.card["sizes"][part]) for part in ("segmentation", "synthesis"))
    members = range(shipped.members)
    return kind(
        **vars(shipped)
        | {
            "segmentation": tuple(filled(MprVit(finder), f"segmentation.{m}.") for m in members),
            "synthesis": tuple(filled(synthesiser(maker), f"synthesis.{m}.") for m in members),
            "dtype": torch.float32,
        }
    )


def synthesiser(sizes: Sizes) -> nn.Module:
    """Return the network that answers with uptake, fresh."""
    return MprVit(sizes, out_channels=OUTPUTS) if sizes.latent == "none" else TaVit(sizes)


def pieces(head: ModelInput) -> Iterator[dict[str, Any]]:
    """Yield the planes to compute, a few together, as what makes a `ModelInput`."""
    chosen = np.arange(0, len(head.values), EVERY)
    for first in range(0, len(chosen), TOGETHER):
        planes = chosen[first : first + TOGETHER]
        yield vars(head) | {"values": head.values[planes], "inside": head.inside[planes]}


def test_a_head_is_answered_faster_than_by_eager_float32_and_the_same(head: ModelInput) -> None:
    shipped = load_model("default", "cpu")
    plain, exact = (as_trained(shipped, kind) for kind in (Eager, Exact))
    spent = {
        "eager float32": Spent(),
        "— planes and window of the head": Spent(),
        f"shipped, {str(shipped.dtype)[6:]}": Spent(),
    }
    wanted, made, t1 = [], [], []
    for piece in pieces(head):
        slow, windowed, fast = spent.values()
        slow.on(lambda piece=piece: plain.predict(EveryPlane(**piece)))
        wanted.append(windowed.on(lambda piece=piece: exact.predict(ModelInput(**piece))))
        made.append(fast.on(lambda piece=piece: shipped.predict(ModelInput(**piece))))
        t1.append(piece["values"][:, 0])
    count = sum(map(len, t1))
    show(
        f"inference: {count} of {PLANES} planes, {shipped.members} members, "
        f"{torch.get_num_threads()} threads, one job",
        "slices",
        count,
        spent,
    )
    used = np.concatenate([ModelInput(**piece).usable for piece in pieces(head)])
    parts = {}
    for part, underneath in (("tumour", 0.0), ("delta", np.concatenate(t1)[used])):
        want, have = (np.concatenate([getattr(one, part) for one in many])[used] for many in (wanted, made))
        picture = want + underneath  # the map itself, or the T1C
        parts[part] = float(np.abs(have - want).max() / (picture.max() - picture.min()))
    print("largest difference, of the range:", {part: round(value, 5) for part, value in parts.items()})
    assert 0 < used.sum() < count
    assert parts["delta"] < MOST_DIFFERENCE
    assert parts["tumour"] < MOST_IN_MAP


def batch_of(head: ModelInput) -> Batch:
    """Return a batch of windows around the head, and a change that its FLAIR tells."""
    window = window_around(head.inside, TOKEN, fixed=True)
    planes = (np.linspace(0.3, 0.7, STAGE.batch) * len(head.values)).astype(int)
    images = torch.from_numpy(window.of(head.values[planes]).copy())
    inside = torch.from_numpy(window.of(head.inside[planes, None]).astype(np.float32))
    bright = ((images[:, 1:] > 1.5) * inside).float()
    return Batch(images, 0.5 * bright, bright, 2 * inside, bright, window.corners(STAGE.batch))


def eager_steps(net: nn.Module, batch: Batch) -> Iterator[float]:
    """Yield the loss of step after step in float32: what `training.run.step` does, without its means."""
    recipe = RECIPES[TRAINED]
    average = copy.deepcopy(net)
    optimisers = optimisers_of(replace(recipe, learning_rate=recipe.learning_rate / recipe.warmup), net)
    while True:
        net.zero_grad()
        loss = loss_of(net(batch.images, batch.map, batch.corners), batch, recipe.loss)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), net.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
        yield float(loss.detach())


def test_a_step_of_training_beside_eager_float32(head: ModelInput) -> None:
    batch = batch_of(head)
    torch.manual_seed(RECIPES[TRAINED].seed)
    plain = eager_steps(network(RECIPES[TRAINED]), batch)
    run = start(RECIPES[TRAINED])
    spent = {"eager float32": Spent(), "training": Spent()}
    losses = [(next(plain), step(run, batch))]  # what is set up in the first step is not counted
    for _ in range(STEPS):
        slow, fast = spent.values()
        losses.append((slow.on(lambda: next(plain)), fast.on(lambda: step(run, batch))))
    show(f"training {TRAINED}: {STAGE.batch} {STAGE.view} a step", "steps", STEPS, spent)
    slow_losses, fast_losses = np.array(losses).T
    assert slow_losses[-1] < slow_losses[0]
    assert np.isclose(slow_losses[0], fast_losses[0], rtol=0.005)
    assert np.allclose(slow_losses, fast_losses, rtol=0.05)  # rounding parts the runs from step to step


def test_means_of_attention_on_the_processor() -> None:
    limit_threads()
    query, key, value = torch.randn(3, TOGETHER, 3, TOKENS[0], HEAD_DIM).unbind()
    wanted = attend(query, key, value, "math")
    half = [one.bfloat16() for one in (query, key, value)]
    spent = {name: Spent() for name in ("sdpa, float32", "math", "sdpa", "auto")}
    answers = {}
    with torch.inference_mode():
        for _ in range(1 + STEPS):
            for name, one in spent.items():
                means, _, single = name.partition(", ")
                inputs = (query, key, value) if single else half
                answers[name] = one.on(lambda means=means, inputs=inputs: attend(*inputs, means))
    show(f"attention: {TOKENS[0]} tokens, bfloat16", "slices", TOGETHER * (1 + STEPS), spent)
    for answer in answers.values():
        assert torch.allclose(answer.float(), wanted, atol=MOST_DIFFERENCE)


def multiplications(net: nn.Module, *inputs: Tensor) -> float:
    """Return 10⁹ multiply-adds of one answer, attention counted; inputs on the device "meta"."""
    counted = copy.deepcopy(net).to("meta")
    for module in counted.modules():
        if isinstance(module, SelfAttention):
            module.means = "math"  # a fused kernel's are not counted everywhere
    with FlopCounterMode(display=False) as counter:
        counted(*inputs)
    return counter.get_total_flops() / 2e9


def test_the_count_of_multiplications_is_that_of_the_table() -> None:
    sizes = Sizes()
    images, tumour = (torch.zeros(1, channels, 120, 120, device="meta") for channels in (2, 1))
    assert multiplications(MprVit(sizes), images) == pytest.approx(6.9, abs=0.1)
    assert multiplications(TaVit(sizes), images, tumour) == pytest.approx(8.1, abs=0.1)


def on_gpu_s(work: Callable[[], Any], repeats: int = 30) -> float:
    """Return the seconds that the GPU takes for this, after a warm-up."""
    for _ in range(5):
        work()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / repeats


@pytest.fixture(scope="module")
def chip_rate() -> float:
    """Return the multiply-adds per second, in 10⁹, of a large product in bfloat16 on this GPU."""
    left, right = torch.randn(2, LARGE, LARGE, device="cuda", dtype=torch.bfloat16).unbind()
    rate = LARGE**3 / 1e9 / on_gpu_s(lambda: left @ right)
    print(f"\n{torch.cuda.get_device_name()}: {rate / 500:.0f} TFLOP/s in {LARGE}³, bfloat16")
    return rate


def peak_gb(work: Callable[[], Any]) -> float:
    """Return the most memory that this took on the GPU, with what was there before."""
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e9


@needs_cuda
@pytest.mark.parametrize("batch", [8, 64])
def test_inference_on_a_gpu(chip_rate: float, batch: int) -> None:
    model = load_model("default", "cuda")
    sizes = model.synthesis[0].sizes
    if sizes.latent != "map":
        pytest.skip("Only a network that reads the map is fed here.")

    def pictures(channels: int) -> torch.Tensor:
        made = torch.rand(batch, channels, sizes.size, sizes.size, device="cuda")
        return made.contiguous(memory_format=torch.channels_last)

    finder = model.segmentation[0]
    for name, net, inputs in (
        ("segmentation", finder, (pictures(finder.sizes.in_channels),)),
        ("synthesis", model.synthesis[0], (pictures(sizes.in_channels), pictures(1))),
    ):
        fresh = MprVit(net.sizes) if name == "segmentation" else synthesiser(net.sizes)
        work = batch * multiplications(fresh, *(one[:1].to("meta") for one in inputs))
        with torch.inference_mode():
            seconds = on_gpu_s(lambda net=net, inputs=inputs: net(*inputs))
            memory = peak_gb(lambda net=net, inputs=inputs: net(*inputs))
            assert bool(torch.isfinite(net(*inputs)).all())
        print(
            f"{name}, {batch} slices: {batch / seconds:.0f} slices/s, "
            f"{work / seconds / chip_rate:.1%} of the product's rate, {memory:.2f} GB"
        )


@needs_cuda
def test_training_on_a_gpu(chip_rate: float, head: ModelInput) -> None:
    batch = batch_of(head)
    run = start(RECIPES[TRAINED], Ranks(device=torch.device("cuda")))
    pictures = (batch.images[:1].to("meta"), batch.map[:1].to("meta"))
    forward = STAGE.batch * multiplications(network(RECIPES[TRAINED]), *pictures)
    losses: list[float] = []
    seconds = on_gpu_s(lambda: losses.append(step(run, batch)))
    memory = peak_gb(lambda: step(run, batch))
    print(
        f"\ntraining {TRAINED}, {STAGE.batch} {STAGE.view}: {1 / seconds:.1f} steps/s, "
        f"{3 * forward / seconds / chip_rate:.1%} of the product's rate, {memory:.2f} GB"
    )
    assert losses[-1] < losses[0]


@needs_cuda
@pytest.mark.parametrize("tokens", TOKENS)
def test_means_of_attention_on_a_gpu(chip_rate: float, tokens: int) -> None:
    shape = (TOGETHER, 3, tokens, HEAD_DIM)
    tensors = [torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    work = 2 * TOGETHER * 3 * tokens**2 * HEAD_DIM / 1e9
    with torch.no_grad():
        wanted = attend(*(one.float() for one in tensors), means="math")
    print(f"\nattention, {tokens} tokens: ms forward, with backward; share of the product's rate; GB")
    for name, answer in ways(tensors).items():
        try:
            with torch.no_grad():
                found = answer()
        except (RuntimeError, UserWarning) as error:  # PyTorch warns why a kernel does not run, and raises
            print(f"{name:24} does not run: {str(error).splitlines()[0][:80]}")
            continue
        with torch.no_grad():
            forward = on_gpu_s(answer)

        def both(answer: Callable[[], Tensor] = answer) -> None:
            answer().sum().backward()

        whole = on_gpu_s(both)
        print(
            f"{name:24}{1e3 * forward:8.3f}{1e3 * whole:8.3f}"
            f"{work / forward / chip_rate:8.1%}{peak_gb(both):8.2f}"
        )
        assert torch.allclose(found.float(), wanted, atol=MOST_DIFFERENCE)


def ways(tensors: list[Tensor]) -> dict[str, Callable[[], Tensor]]:
    """Return every way to attend on a GPU: ours by name, and each of PyTorch's kernels alone."""

    def kernel(backend: SDPBackend) -> Callable[[], Tensor]:
        def answer() -> Tensor:
            with sdpa_kernel([backend]):
                return scaled_dot_product_attention(*tensors)

        return answer

    found: dict[str, Callable[[], Tensor]] = {
        "auto": lambda: attend(*tensors, means="auto"),
        "sdpa": lambda: attend(*tensors, means="sdpa"),
        "math": lambda: attend(*tensors, means="math"),
    }
    if flash_attn_func is not None:
        found["flash"] = lambda: attend(*tensors, means="flash")
    for backend in (
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ):
        found[f"PyTorch's {backend.name.removesuffix('_ATTENTION').lower()}"] = kernel(backend)
    return found
