"""The networks: shapes and sizes, what depends on what, and that every way to compute them agrees."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from synthesis.models.attention import CAN_ORDER, HOPPER, Means, SelfAttention, attend, flash_attn_func
from synthesis.models.blocks import TransformerBlock, VisionTransformer
from synthesis.models.mpr_vit import SIZES, Latent, MprVit, Sizes, channels_of, narrowed
from synthesis.models.ta_vit import TaVit
from synthesis.models.uptake import OUTPUTS, Uptake

TINY = Sizes(size=24, width=16, blocks=2, transformers_at=(1,), dim=64, heads=1, depth=1, tokens=6)
#: The most that bfloat16 may change, as a share: in attention (0.5 % measured) and in a network (2.3 %).
ATTENTION_ERROR, NETWORK_ERROR = 1e-2, 5e-2

#: What the latent is read from, its stage, the shrinking of the map; channels and side of z at 120² and 240².
LATENTS: dict[tuple[Latent, int, int], dict[int, tuple[int, int]]] = {
    ("map", 3, 1): {120: (256, 30), 240: (256, 60)},
    ("map", 2, 1): {120: (128, 60), 240: (128, 120)},
    ("map", 3, 2): {240: (256, 30)},
    ("map", 2, 2): {240: (128, 60)},
    ("features", 3, 1): {120: (256, 30), 240: (256, 60)},
    ("features", 2, 1): {120: (128, 60), 240: (128, 120)},
    ("none", 3, 1): {120: (0, 0), 240: (0, 0)},
}
INPUTS = tuple(product((True, False), (0, 1)))
Net = TypeVar("Net", bound=nn.Module)


def unlike(got: Tensor, expected: Tensor) -> float:
    """Return the length of the difference, as a share of what is expected."""
    return float((got.detach().float() - expected.detach()).norm() / expected.detach().norm())


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


def combinations(name: str, side: int) -> list[tuple[Sizes, tuple[int, int]]]:
    """Return every network of this size and grid, with channels and side of its latent."""
    return [
        (
            replace(
                SIZES[name],
                size=side,
                flair=flair,
                neighbours=neighbours,
                latent=latent,
                latent_stage=stage,
                map_shrink=shrink,
            ),
            shapes[side],
        )
        for ((latent, stage, shrink), shapes), (flair, neighbours) in product(LATENTS.items(), INPUTS)
        if side in shapes
    ]


def of(sizes: Sizes) -> MprVit | TaVit:
    """Return the synthesis network of these sizes."""
    return MprVit(sizes, OUTPUTS) if sizes.latent == "none" else TaVit(sizes)


def answer(net: MprVit | TaVit, images: Tensor) -> Tensor:
    """Return what a synthesis network says, the segmentation being a fresh one with the same inputs."""
    if isinstance(net, MprVit):
        return net(images)
    if net.sizes.latent == "map":
        return net(images, torch.full_like(images[:, :1], 0.5))
    return net(images, MprVit(net.sizes).features(images, net.sizes.latent_stage))


def awake(net: Net) -> Net:
    """Return the network with random numbers where a fresh one has zeros."""
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return net


# --- attention


def test_attention_by_plain_arithmetic_agrees_with_the_fused_kernel() -> None:
    query, key, value = torch.randn(3, 2, 3, 50, 64)
    assert torch.allclose(attend(query, key, value, "sdpa"), attend(query, key, value, "math"), atol=1e-5)
    assert torch.allclose(attend(query, key, value, "auto"), attend(query, key, value, "math"), atol=1e-5)


def test_gradients_of_attention_agree_too() -> None:
    gradients = []
    values = torch.randn(3, 2, 3, 50, 64)
    for means in ("sdpa", "math"):
        leaves = values.clone().requires_grad_()
        attend(*leaves, means).square().sum().backward()
        gradients.append(leaves.grad)
    assert torch.allclose(*gradients, atol=1e-4)


def test_flash_attention_is_refused_where_it_cannot_run() -> None:
    with pytest.raises(ValueError, match="CUDA"):
        attend(torch.ones(1, 1, 4, 64), torch.ones(1, 1, 4, 64), torch.ones(1, 1, 4, 64), "flash")


@pytest.mark.parametrize("means", ["auto", "sdpa", "flash", "math"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_attention_in_bfloat16_agrees_with_plain_arithmetic_in_float32(device: str, means: Means) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    if means == "flash" and (device == "cpu" or flash_attn_func is None):
        pytest.skip("needs flash-attn and CUDA")
    values = torch.randn(3, 2, 3, 900, 64, device=device).bfloat16()
    exact, quick = values.float().requires_grad_(), values.clone().requires_grad_()
    expected, got = attend(*exact, "math"), attend(*quick, means)
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (got.float() * weights).sum().backward()
    assert got.dtype is torch.bfloat16
    assert unlike(got, expected) < ATTENTION_ERROR
    assert exact.grad is not None
    assert quick.grad is not None
    assert unlike(quick.grad, exact.grad) < ATTENTION_ERROR


class Called(TorchDispatchMode):
    """Keeps the names of the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.skipif(
    not (torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == HOPPER and CAN_ORDER),
    reason="needs a Hopper GPU",
)
def test_on_hopper_attention_takes_the_kernel_of_cudnn() -> None:
    query = torch.randn(2, 3, 900, 64, device="cuda", dtype=torch.bfloat16)
    with Called() as called:
        attend(query, query, query, "sdpa")
    assert any("cudnn_attention" in name for name in called.names), called.names


def test_attention_does_not_depend_on_the_order_of_the_tokens() -> None:
    layer, tokens, order = SelfAttention(64, 1), torch.randn(1, 20, 64), torch.randperm(20)
    assert torch.allclose(layer(tokens)[:, order], layer(tokens[:, order]), atol=1e-5)


# --- conditioning, token by token


def test_a_fresh_conditioned_block_is_the_identity() -> None:
    block, tokens = TransformerBlock(64, 1, conditioned=True), torch.randn(2, 36, 64)
    assert torch.equal(block(tokens, torch.randn(2, 36, 64)), tokens)


def test_the_latent_of_one_token_changes_the_parameters_of_that_token_only() -> None:
    block = TransformerBlock(64, 1, conditioned=True)
    assert block.modulation is not None
    nn.init.normal_(block.modulation.weight, std=0.1)
    nn.init.zeros_(block.attention.out.weight)  # else the others would see it by attention
    tokens, latent = torch.randn(1, 9, 64), torch.randn(1, 9, 64)
    other = latent.clone()
    other[:, 4] += 1
    changed = (block(tokens, latent) - block(tokens, other)).abs().amax(dim=-1)[0] > 1e-6
    assert changed.tolist() == [index == 4 for index in range(9)]


def test_a_latent_of_zeros_is_no_latent() -> None:
    block, tokens = awake(TransformerBlock(64, 1, conditioned=True)), torch.randn(1, 9, 64)
    assert torch.equal(block(tokens, torch.zeros(1, 9, 64)), block(tokens))
    assert not torch.equal(block(tokens, torch.ones(1, 9, 64)), block(tokens))


def test_a_network_without_its_latent_is_one_whose_latent_is_zero() -> None:
    net, images = awake(TaVit(TINY)), torch.rand(1, 2, 24, 24)
    free = net(images, None)
    assert not torch.equal(free, net(images, torch.zeros(1, 1, 24, 24)))  # an empty map says something, too
    for convolution in net.latents.values():
        for parameter in convolution.parameters():
            nn.init.zeros_(parameter)
    assert torch.equal(free, net(images, torch.rand(1, 1, 24, 24)))


@pytest.mark.parametrize("stage", [2, 3])
def test_the_map_reaches_the_output_and_the_latent_where_it_is_drawn(stage: int) -> None:
    net = awake(TaVit(replace(TINY, latent_stage=stage)))
    images, empty = torch.rand(1, 2, 24, 24), torch.zeros(1, 1, 24, 24)
    drawn = empty.clone()
    drawn[..., :8, :8] = 1  # of an oracle, or edited
    assert (net(images, drawn) - net(images, empty)).abs().max() > 1e-2
    change = (net.latent(drawn) - net.latent(empty)).abs()
    middle = change.shape[-1] // 2
    assert change[..., :middle, :middle].mean() > 1.5 * change[..., middle:, middle:].mean()


@pytest.mark.parametrize("stage", [2, 3])
def test_features_of_the_segmentation_reach_the_output(stage: int) -> None:
    net, segmentation = awake(TaVit(replace(TINY, latent="features", latent_stage=stage))), MprVit(TINY)
    images, others = torch.rand(2, 1, 2, 24, 24)
    change = net(images, segmentation.features(images, stage)) - net(
        images, segmentation.features(others, stage)
    )
    assert change.abs().max() > 1e-4


def test_features_after_the_bottleneck_are_what_the_decoder_gets() -> None:
    net, images = awake(MprVit(TINY)), torch.rand(2, 2, 24, 24)
    quarter, half, whole = net.encoder(images)
    assert torch.equal(net.decoder(net.features(images, 3), half, whole), net(images))
    assert torch.equal(net.features(images, 2), half)
    assert not torch.equal(net.features(images, 3), quarter)


# --- places


def test_positions_are_interpolated_for_another_grid() -> None:
    transformer = VisionTransformer(16, 64, 1, depth=1, tokens=6, patch=1, conditioned=False)
    assert transformer(torch.randn(1, 16, 9, 7)).shape == (1, 16, 9, 7)


def test_a_crop_knows_where_it_lies() -> None:
    net, crop = awake(TaVit(TINY)), torch.rand(1, 2, 16, 16).expand(2, -1, -1, -1)
    maps = torch.zeros(2, 1, 16, 16)
    here, there = net(crop, maps, torch.tensor([[0, 0], [2, 1]]))
    assert not torch.allclose(here, there, atol=1e-4)
    assert torch.allclose(net(crop[:1], maps[:1], torch.tensor([[2, 1]]))[0], there, atol=1e-4)


def test_the_whole_picture_is_a_crop_at_the_first_token() -> None:
    net, images = awake(MprVit(TINY)), torch.rand(2, 2, 24, 24)
    assert torch.equal(net(images, torch.zeros(2, 2, dtype=torch.long)), net(images))


# --- shapes and sizes


def test_fresh_networks_answer_zero() -> None:
    images, tumour = torch.rand(2, 2, 24, 24), torch.rand(2, 1, 24, 24)
    assert not MprVit(TINY)(images).any()
    assert not TaVit(TINY)(images, tumour).any()


def check(sizes: Sizes, latent: tuple[int, int], device: str) -> None:
    """Build the network, let it answer one picture, and measure its latent."""
    with torch.device(device):
        net, images = of(sizes), torch.zeros(1, sizes.in_channels, sizes.size, sizes.size)
        segmentation = MprVit(sizes) if sizes.latent == "features" else None
    with torch.inference_mode():
        if isinstance(net, MprVit):
            assert net(images).shape == (1, OUTPUTS, sizes.size, sizes.size)
            return
        source = segmentation.features(images, sizes.latent_stage) if segmentation else images[:, :1]
        assert net(images, source).shape == (1, OUTPUTS, sizes.size, sizes.size)
        channels, side = latent
        assert net.latent(source).shape == (1, channels, side, side)


@pytest.mark.parametrize(("sizes", "latent"), combinations("small", 120))
def test_every_small_network_answers(sizes: Sizes, latent: tuple[int, int]) -> None:
    check(sizes, latent, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "latent"), combinations("small", 240))
def test_every_small_network_answers_at_240(sizes: Sizes, latent: tuple[int, int]) -> None:
    check(sizes, latent, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("side", [120, 240])
@pytest.mark.parametrize("name", ["medium", "base"])
def test_every_larger_network_fits_together(name: str, side: int) -> None:
    for sizes, latent in combinations(name, side):
        check(sizes, latent, "meta")


#: Million parameters and 10⁹ multiplications, as `SIZES` says: TA-ViT at 120², 240², MPR-ViT at 120², 240².
MEASURED = {
    "small": ((6.5, 8.1), (6.8, 20.3), (5.4, 6.9), (5.7, 19.2)),
    "medium": ((25.9, 29.2), (26.8, 60.2), (20.1, 23.6), (21.0, 54.7)),
    "base": ((58.6, 63.3), (60.2, 127.9), (45.2, 50.8), (46.8, 115.4)),
}
#: Million parameters of the plan: TA-ViT at 120² and 240², the segmentation at 120².
PLANNED = {"small": (5.9, 6.5, 5.0), "medium": (24.5, 26.0, 19.0), "base": (56.2, 58.6, 43.0)}


def measured(net: nn.Module, *inputs: Tensor) -> tuple[float, float]:
    """Return million parameters, and 10⁹ multiplications of one answer."""
    with FlopCounterMode(display=False) as counter:
        net(*inputs)
    # a multiplication with its addition counts as two operations
    return sum(p.numel() for p in net.parameters()) / 1e6, counter.get_total_flops() / 2e9


@pytest.mark.parametrize("name", SIZES)
def test_sizes_have_the_parameters_and_cost_the_multiplications_that_are_said(name: str) -> None:
    with torch.device("meta"):
        found = []
        for network, side in product((TaVit, MprVit), (120, 240)):
            sizes, images = (
                replace(SIZES[name], size=side, map_shrink=side // 120),
                torch.empty(1, 2, side, side),
            )
            net = TaVit(sizes) if network is TaVit else MprVit(sizes, OUTPUTS)
            found.append(measured(net, images, *([images[:, :1]] if network is TaVit else [])))
    assert np.allclose(found, MEASURED[name], atol=0.06)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_have_about_the_parameters_that_were_planned(name: str) -> None:
    sizes = SIZES[name]
    with torch.device("meta"):
        nets = TaVit(sizes), TaVit(replace(sizes, size=240, map_shrink=2)), MprVit(sizes)
    count = [sum(parameter.numel() for parameter in net.parameters()) / 1e6 for net in nets]
    assert np.allclose(count, PLANNED[name], rtol=0.11)


def test_a_larger_image_keeps_the_token_grid_or_has_a_finer_one() -> None:
    images, tumour = torch.rand(1, 2, 48, 48), torch.rand(1, 1, 48, 48)
    coarse, fine = TaVit(replace(TINY, size=48)), TaVit(replace(TINY, size=48, tokens=12))
    assert coarse(images, tumour).shape == fine(images, tumour).shape == (1, 3, 48, 48)
    assert (coarse.sizes.patch, fine.sizes.patch) == (2, 1)


def test_a_shrunk_map_is_the_map_of_the_smaller_grid() -> None:
    large = TaVit(replace(TINY, size=48, map_shrink=2))
    small = TaVit(TINY)
    small.map_encoder.load_state_dict(large.map_encoder.state_dict())
    tumour = torch.rand(1, 1, 24, 24)
    assert torch.allclose(
        large.latent(tumour.repeat_interleave(2, 2).repeat_interleave(2, 3)), small.latent(tumour)
    )


def test_sizes_survive_the_card() -> None:
    sizes = replace(SIZES["medium"], flair=False, neighbours=2, latent="features", latent_stage=2)
    assert Sizes.from_json(sizes.to_json()) == sizes


def test_a_card_without_a_key_means_what_was_before_there_was_one() -> None:
    values = SIZES["small"].to_json()
    for key in ("flair", "neighbours", "latent", "latent_stage", "map_shrink", "skips"):
        del values[key]
    assert Sizes.from_json(values) == SIZES["small"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dim": 100}, "heads"),
        ({"size": 100}, "token grid"),
        ({"latent": "thoughts"}, "no latent"),
        ({"latent_stage": 1}, "no latent"),
        ({"neighbours": -1}, "neighbours"),
        ({"latent": "features", "map_shrink": 2, "size": 240}, "shrunk"),
        ({"map_shrink": 0}, "shrunk"),
        ({"map_shrink": 2}, "coarser than the token grid"),
    ],
)
def test_sizes_that_make_no_network_are_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Sizes.from_json(SIZES["small"].to_json() | changes)


def test_a_tavit_without_a_latent_is_refused() -> None:
    with pytest.raises(ValueError, match="MprVit"):
        TaVit(replace(TINY, latent="none"))


# --- what is seen of a volume


def volume() -> np.ndarray:
    """Return six planes whose T1W is 10·plane and whose FLAIR is one more."""
    planes = 10 * np.arange(6)[:, None] + np.arange(2)
    return np.broadcast_to(planes[..., None, None], (6, 2, 4, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("flair", "neighbours", "seen"),
    [
        (True, 0, [[0, 1], [30, 31]]),
        (False, 0, [[0], [30]]),
        (False, 1, [[0, 0, 10], [30, 20, 40]]),
        (True, 2, [[0, 1, 0, 1, 10, 11, 0, 1, 20, 21], [30, 31, 20, 21, 40, 41, 10, 11, 50, 51]]),
    ],
)
def test_a_plane_is_seen_with_its_neighbours_the_last_standing_again_at_the_ends(
    flair: bool, neighbours: int, seen: list[list[int]]
) -> None:
    sizes = replace(TINY, flair=flair, neighbours=neighbours)
    images = channels_of(volume(), [0, 3], sizes)
    assert images.dtype == np.float32
    assert images.shape == (2, sizes.in_channels, 4, 4)
    assert images[:, :, 1, 2].tolist() == seen


@pytest.mark.parametrize(("flair", "neighbours"), tuple(product((True, False), (0, 1, 2))))
def test_what_a_network_sees_is_among_what_one_with_more_inputs_sees(flair: bool, neighbours: int) -> None:
    most, sizes = replace(TINY, neighbours=2), replace(TINY, flair=flair, neighbours=neighbours)
    images = torch.from_numpy(channels_of(volume(), range(6), most))
    assert np.array_equal(narrowed(images, sizes).numpy(), channels_of(volume(), range(6), sizes))


# --- training, and the ways to compute


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize(("latent", "stage"), [("map", 3), ("map", 2), ("features", 3), ("none", 3)])
def test_gradients_reach_every_parameter(latent: Latent, stage: int, skips: bool) -> None:
    # of 8 channels each would be a group of its own, and a bias before the norm no matter
    net = awake(of(replace(TINY, width=32, latent=latent, latent_stage=stage, skips=skips)))
    answer(net, torch.rand(2, 2, 24, 24)).square().mean().backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or p.grad.norm() < 1e-7 * p.norm()]
    assert not still


def test_networks_agree_in_bfloat16() -> None:
    net, images, tumour = awake(TaVit(TINY)), torch.rand(2, 2, 24, 24), torch.rand(2, 1, 24, 24)
    with torch.inference_mode():
        exact = net(images, tumour)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = net(images, tumour).float()
        half = net.bfloat16()(images.bfloat16(), tumour.bfloat16()).float()
    assert unlike(mixed, exact) < NETWORK_ERROR
    assert unlike(half, exact) < NETWORK_ERROR


@pytest.mark.slow
def test_a_network_is_one_graph() -> None:
    net, images, tumour = awake(TaVit(TINY)), torch.rand(2, 2, 24, 24), torch.rand(2, 1, 24, 24)
    traced = torch.compile(net, backend="aot_eager", fullgraph=True)
    assert torch.allclose(traced(images, tumour), net(images, tumour), atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # its own
def test_a_compiled_block_agrees() -> None:
    block, tokens, latent = awake(TransformerBlock(64, 1, conditioned=True)), *torch.randn(2, 2, 36, 64)
    compiled = torch.compile(block)
    assert torch.allclose(compiled(tokens, latent), block(tokens, latent), atol=1e-4)


def test_the_memory_format_changes_nothing() -> None:
    net, images, tumour = awake(TaVit(TINY)), torch.rand(2, 2, 24, 24), torch.rand(2, 1, 24, 24)
    plain = net(images, tumour)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert torch.allclose(net(images.contiguous(memory_format=torch.channels_last), tumour), plain, atol=1e-4)


# --- the answer


def test_the_change_is_its_mean_and_moves_with_the_chance_to_enhance() -> None:
    out = torch.randn(2, OUTPUTS, 5, 5)
    uptake, chance = Uptake.of(out), torch.sigmoid(out[:, 1:2])
    assert float(uptake.amplitude.min()) > 0
    assert torch.equal(uptake.delta(), out[:, :1])
    assert torch.allclose(uptake.delta(offset=-100.0), uptake.mean - chance * uptake.amplitude)
    assert torch.allclose(uptake.delta(offset=100.0), uptake.mean + (1 - chance) * uptake.amplitude)
    assert torch.equal(uptake.chance(2.0, 1.0), torch.sigmoid(2 * out[:, 1:2] + 1))


def test_answers_of_several_networks_are_averaged_part_by_part() -> None:
    first, second = Uptake.of(torch.randn(1, 3, 4, 4)), Uptake.of(torch.randn(1, 3, 4, 4))
    both = Uptake.together([first, second])
    assert torch.allclose(both.log_odds, (first.log_odds + second.log_odds) / 2)
    assert torch.allclose(both.amplitude, (first.amplitude + second.amplitude) / 2)
    assert torch.allclose(Uptake.together([first, first]).delta(), first.delta())
