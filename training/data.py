"""The arrays as batches: sampling, transplants of lesions, augmentation. Step n is the same in every run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from synthesis.models.mpr_vit import Sizes, channels_of
from synthesis.models.window import Window, window_around
from training.prepare import Case
from training.recipes import Recipe
from training.splits import load_split

FOLDS = Path(__file__).parent / "folds"
#: A voxel enhances where T1C/level − T1/level is above this (MODEL notes, section 7).
ENHANCING = 0.2
#: Brighter than this in the T1W is fat: what differs there is fat suppression, not contrast agent.
FAT = 1.8
MOST_DELTA = 3.0
#: The channels of a picture while it is made. Behind them stand T1W and FLAIR of its neighbours.
T1, FLAIR, T1C, TUMOUR, BRAIN, INSIDE, MAP, NEAR = range(8)
#: Of the tumour, unsmoothed: above this it enhances clearly, and is shown twice as often.
CLEARLY = 0.1
#: Sides of the coarse grid, on which lesions are kept, in pixels; of all grids, and of a lesion, in tokens.
GRID, TOKENS, LESION_TOKENS = 120, 30, 8
#: By how many tokens a window lies beside the head, at most.
HEAD_SHIFT = 1.5


@dataclass(frozen=True)
class Batch:
    """B pictures: images (B, C, S, S) and the rest (B, 1, S, S)."""

    #: T1W and FLAIR, of the plane and of so many neighbours as the recipe has, ordered as by `channels_of`.
    images: Tensor
    #: T1C/level − T1/level, 0 in fat and outside the head.
    delta: Tensor
    #: The FLAIR abnormality, 0 or 1.
    tumour: Tensor
    #: 0 air, 1 head, 2 brain.
    region: Tensor
    #: The tumour map that conditions the synthesis, 0–1, perturbed.
    map: Tensor
    #: (B, 2): where the picture begins in the token grid.
    corners: Tensor

    def part(self, rows: slice) -> Batch:
        """Return some of the pictures."""
        return self._each(lambda tensor: tensor[rows], self.corners[rows])

    def to(self, device: torch.device) -> Batch:
        """Return the batch on this device; the corners stay on the CPU, which reads them one by one."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True), self.corners)

    def pin_memory(self) -> Batch:
        """Return the batch where a GPU fetches it from; `DataLoader` calls this."""
        return self._each(Tensor.pin_memory, self.corners)

    def _each(self, change: Callable[[Tensor], Tensor], corners: Tensor) -> Batch:
        images, *rest = (self.images, self.delta, self.tumour, self.region, self.map)
        delta, tumour, region, maps = map(change, rest)
        return Batch(change(images), delta, tumour, region, maps, corners)


def maps_of(cache: Path, recipe: str) -> Path:
    """Return where the tumour maps lie that a recipe predicted, as `Slices` has them."""
    return cache / f"maps-{recipe}.npy"


class Slices:
    """The slices of some patients of one cache."""

    def __init__(self, cache: Path, patients: frozenset[str], maps: str = "drawn") -> None:
        cases = json.loads((cache / "cases.json").read_text(encoding="utf-8"))
        chosen = [
            case
            for case in cases
            if case["count"] and case["patient"] in patients and case.get("labelled", True)
        ]
        if not chosen:
            raise FileNotFoundError(f"{cache} holds none of these {len(patients)} patients.")
        self.patients = tuple(case["patient"] for case in chosen)
        names = ("values", "t1c", "tumour", "brain", "inside")
        self._arrays = {name: np.load(cache / f"{name}.npy", mmap_mode="r") for name in names}
        self._predicted = None if maps == "drawn" else np.load(maps_of(cache, maps), mmap_mode="r")
        #: Of every patient, its slices; those of them with tumour; whether the tumour enhances.
        self.slices = [np.arange(case["first"], case["first"] + case["count"]) for case in chosen]
        #: Rows and columns of the grid.
        self.size = int(self._arrays["inside"].shape[-1])
        self.with_tumour = [own[self._shows_tumour(own)] for own in self.slices]
        self.enhances = np.array([self._enhancing_share(own) >= CLEARLY for own in self.with_tumour])

    @property
    def index(self) -> npt.NDArray[np.int64]:
        """All slices of all patients."""
        return np.concatenate(self.slices)

    def draw(self, tumour: bool, random: np.random.Generator) -> int:
        """Return a slice: each patient has the same chance, with `tumour` the enhancing ones twice that."""
        pool = self.with_tumour if tumour else self.slices
        weight = np.array([float(len(own) > 0) for own in pool])
        if tumour:
            weight *= 1 + self.enhances
        patient = random.choice(len(pool), p=weight / weight.sum())
        return int(random.choice(pool[patient]))

    def channels(self, index: int, neighbours: int = 0) -> npt.NDArray[np.float32]:
        """Return slice `index` of the cache, (7 + 4 · neighbours, S, S); `T1` to `NEAR` say what is where."""
        get = self._arrays
        tumour = get["tumour"][index] / 255.0
        stack = [*get["values"][index], get["t1c"][index], tumour, get["brain"][index], get["inside"][index]]
        stack.append(tumour if self._predicted is None else self._predicted[index] / 255.0)
        stack.extend(beside(get["values"], self.slices, index, neighbours))
        return np.stack(stack).astype(np.float32)

    def _shows_tumour(self, own: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return np.asarray((self._arrays["tumour"][own] > 127).sum(axis=(1, 2)) > 20)

    def _enhancing_share(self, own: npt.NDArray[np.int64]) -> float:
        """Return the share of the tumour that enhances, in these slices."""
        marked = self._arrays["tumour"][own] > 127
        uptake = self._arrays["t1c"][own].astype(np.float32) - self._arrays["values"][own][:, 0]
        return float((uptake[marked] > ENHANCING).mean()) if marked.any() else 0.0


class Lesions:
    """The lesion slices of 32×32, to learn from and to transplant; for a finer grid so many times `finer`."""

    def __init__(
        self, cache: Path, patients: Callable[[str], bool] = lambda patient: True, finer: int = 1
    ) -> None:
        self.finer = finer
        self.values, self.t1c, self.mask, self.inside = (
            np.load(cache / f"{name}.npy", mmap_mode="r") for name in ("values", "t1c", "mask", "inside")
        )
        cases = json.loads((cache / "cases.json").read_text(encoding="utf-8"))
        self.slices = [
            np.arange(case["first"], case["first"] + case["count"])
            for case in cases
            if case["count"] and patients(case["patient"])
        ]

    @property
    def index(self) -> npt.NDArray[np.int64]:
        """All slices of all lesions."""
        return np.concatenate(self.slices)

    def draw(self, random: np.random.Generator) -> int:
        """Return a slice: each lesion has the same chance."""
        return int(random.choice(self.slices[random.integers(len(self.slices))]))

    def channels(self, index: int, neighbours: int = 0) -> npt.NDArray[np.float32]:
        """Return slice `index` as `Slices.channels` does: all that is not padding is brain."""
        tumour, inside = self.mask[index] > 0, self.inside[index]
        stack = [*self.values[index], self.t1c[index], tumour, inside, inside, tumour]
        stack.extend(beside(self.values, self.slices, index, neighbours))
        kept = np.stack(stack).astype(np.float32)
        if self.finer == 1:
            return kept
        fine = functional.interpolate(torch.from_numpy(kept)[None], scale_factor=self.finer, mode="bilinear")
        return np.asarray(fine[0].numpy())

    def transplant(self, channels: npt.NDArray[np.float32], random: np.random.Generator) -> None:
        """Blend a lesion into the brain of a slice and its neighbours, (7 + 4 · neighbours, S, S), in place.

        Nothing is done where there is no room.
        """
        neighbours = (len(channels) - NEAR) // 4
        patch = self.channels(self.draw(random), neighbours)
        patch = np.rot90(patch, int(random.integers(4)), axes=(1, 2))
        if random.random() < 0.5:
            patch = patch[:, :, ::-1]
        side = patch.shape[-1]
        room = np.argwhere((channels[BRAIN] > 0) & (channels[FLAIR] > 0.4))
        if len(room) < 400:
            return
        row, column = random.choice(room) - side // 2
        size = channels.shape[-1]
        if not (0 <= row <= size - side and 0 <= column <= size - side):
            return
        here = np.s_[row : row + side, column : column + side]
        lesion = torch.from_numpy(patch[TUMOUR].copy())[None, None]
        near = functional.max_pool2d(lesion, 5, 1, 2)
        blend = functional.avg_pool2d(near, 5, 1, 2, count_include_pad=False)[0, 0].numpy()
        blend = blend * (patch[T1] > 0.05) * channels[BRAIN][here]
        for channel in (T1, FLAIR, T1C, *range(NEAR, len(channels))):
            channels[channel][here] = (1 - blend) * channels[channel][here] + blend * patch[channel]
        marked = patch[TUMOUR] * (blend > 0.5)
        channels[TUMOUR][here] = np.maximum((1 - blend) * channels[TUMOUR][here], marked)
        channels[MAP][here] = np.maximum((1 - blend) * channels[MAP][here], marked)


def beside(
    values: npt.NDArray[np.floating], ranges: Sequence[npt.NDArray[np.int64]], index: int, neighbours: int
) -> list[npt.NDArray[np.floating]]:
    """Return T1W and FLAIR of the slices below and above, 4 · neighbours images, ordered as by `channels_of`.

    `ranges` are the slices of each volume: beyond its ends the last one stands again.
    """
    if not neighbours:
        return []
    first = [int(own[0]) for own in ranges]
    own = ranges[int(np.searchsorted(first, index, side="right")) - 1]
    volume = values[own[0] : own[-1] + 1]
    return list(channels_of(volume, [index - own[0]], Sizes(neighbours=neighbours))[0, 2:])


def folds(name: str = "lgg") -> tuple[frozenset[str], ...]:
    """Return the patients of each fold of ``folds/NAME.json``; one stands in one fold only."""
    return load_split(FOLDS / f"{name}.json").folds


def split(fold: int, name: str = "lgg", cases: Sequence[Case] = ()) -> tuple[frozenset[str], frozenset[str]]:
    """Return (patients to train on, patients held out while training): this fold is held out.

    Where parts are called "train", "validation" and "test", "validation" is the one held out: what it says
    decides when to stop, so "test" has no part in it.

    Raises
    ------
    ValueError
        When there is no such fold, it is not one to hold out, or a person of these cases is on both sides.
    """
    parts = load_split(FOLDS / f"{name}.json", cases)
    named = "train" in parts.names
    possible = [parts.names.index("validation")] if named else list(range(len(parts.folds)))
    if fold not in possible:
        raise ValueError(f"{name}: fold {fold} cannot be held out, but {', '.join(map(str, possible))}.")
    return parts.folds[parts.names.index("train")] if named else parts.others(fold), parts.folds[fold]


def judged(fold: int, name: str = "lgg") -> frozenset[str]:
    """Return who judges what was trained with this fold held out: that fold, or the part called "test"."""
    parts = load_split(FOLDS / f"{name}.json")
    return parts.folds[parts.names.index("test") if "test" in parts.names else fold]


def trains_on_lesion(patient: str) -> bool:
    """Return whether a lesion's patient is trained on: every eighth is held out, by number."""
    return int(patient.split("_")[1]) % 8 != 0


def training_batch(slices: Slices | None, lesions: Lesions | None, recipe: Recipe, step: int) -> Batch:
    """Return the batch of this step: sampled, transplanted, augmented; decided by seed and step alone."""
    random = np.random.default_rng([recipe.seed, step])
    stage = recipe.stage(step)
    stacks = []
    for number in range(stage.batch):
        if stage.view == "lesions" and lesions is not None:
            stacks.append(lesions.channels(lesions.draw(random), recipe.neighbours))
            continue
        if slices is None:
            raise ValueError(f"{recipe.name} wants slices, and there are none.")
        with_tumour = number < recipe.tumour_share * stage.batch
        stack = slices.channels(slices.draw(with_tumour, random), recipe.neighbours)
        if random.random() < recipe.transplants and lesions is not None:  # drawn in any case
            lesions.transplant(stack, random)
        if random.random() < recipe.stripped:
            stack *= stack[BRAIN]
        stacks.append(stack)
    moved = torch.from_numpy(np.stack(stacks))
    if stage.view == "lesions":
        moved = _move(torch.rot90(moved, int(random.integers(4)), (2, 3)), random, most_scale=0.25)
        corners = torch.from_numpy(random.integers(0, TOKENS - LESION_TOKENS + 1, (len(moved), 2)))
    else:
        moved = _move(moved, random)
        moved, corners = _heads(moved, random.uniform(-HEAD_SHIFT, HEAD_SHIFT, (len(moved), 2)))
    t1 = [T1, T1C, *range(NEAR, moved.shape[1], 2)]  # together: where nothing enhances Δ stays 0
    flair = [FLAIR, *range(NEAR + 1, moved.shape[1], 2)]
    for scaled in (t1, flair):
        moved[:, scaled] = _rescale(moved[:, scaled], random)
        if recipe.shading:
            moved[:, scaled] *= 1 + _smooth_noise(recipe.shading, moved[:, :1], random, knots=4)
    maps = moved[:, MAP : MAP + 1]
    batch = _batch(moved, perturbed(maps, random) if recipe.perturbed else maps, corners)
    if recipe.noise:
        noise = random.normal(0, recipe.noise, tuple(batch.images.shape)).astype(np.float32)
        batch = replace(batch, images=batch.images + torch.from_numpy(noise) * (batch.region > 0))
    return batch


def plain_batch(
    slices: Slices | Lesions,
    index: npt.NDArray[np.int64],
    neighbours: int = 0,
    window: Window | None = None,
) -> Batch:
    """Return these slices as they are, seen through this window, or each through the smallest."""
    stack = torch.from_numpy(np.stack([slices.channels(int(i), neighbours) for i in index]))
    if isinstance(slices, Lesions):
        corners = torch.full((len(stack), 2), (TOKENS - LESION_TOKENS) // 2)
    elif window is not None:
        stack, corners = window.of(stack), window.corners(len(stack))
    else:
        stack, corners = _heads(stack, np.zeros((len(stack), 2)))
    return _batch(stack, stack[:, MAP : MAP + 1], corners)


def perturbed(maps: Tensor, random: np.random.Generator) -> Tensor:
    """Return maps (B, 1, S, S) as wrong as a segmentation of a new patient may be."""
    out = []
    for one in maps[:, None]:
        amount = int(random.integers(-1, 2))
        if amount:
            wide = functional.max_pool2d(one * np.sign(amount), 2 * abs(amount) + 1, 1, abs(amount))
            one = wide * np.sign(amount)
        one = functional.avg_pool2d(one, 3, 1, 1)
        keep = 0.0 if random.random() < 0.08 else float(random.uniform(0.7, 1.0))
        out.append((one * keep * (1 + _smooth_noise(0.15, one, random, knots=8))).clamp(0, 1))
    return torch.cat(out)


def _smooth_noise(spread: float, like: Tensor, random: np.random.Generator, knots: int) -> Tensor:
    """Return noise (B, 1, H, W) that varies slowly, by as many knots along each side."""
    drawn = random.normal(0, spread, (len(like), 1, knots, knots)).astype(np.float32)
    return functional.interpolate(
        torch.from_numpy(drawn), like.shape[-2:], mode="bicubic", align_corners=False
    )


def _heads(stack: Tensor, shifts: npt.NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Return windows of 28×22 tokens around the heads, these many tokens beside; and corners (B, 2)."""
    token = stack.shape[-1] // TOKENS
    windows = [
        window_around((one[INSIDE] > 0.5).numpy(), token, fixed=True, beside=tuple(token * shift))
        for one, shift in zip(stack, shifts, strict=True)
    ]
    shown = [window.of(one) for window, one in zip(windows, stack, strict=True)]
    return torch.stack(shown), torch.tensor([window.corner for window in windows])


def _batch(stack: Tensor, maps: Tensor, corners: Tensor) -> Batch:
    part = {name: stack[:, name : name + 1] for name in range(MAP)}
    inside, brain = (part[INSIDE] > 0.5).float(), (part[BRAIN] > 0.5).float()
    lean = 1 - (part[T1] > FAT).float()
    delta = (part[T1C] - part[T1]).clamp(-1.0, MOST_DELTA) * lean * inside
    return Batch(
        torch.cat([stack[:, :T1C], stack[:, NEAR:]], dim=1),
        delta,
        (part[TUMOUR] > 0.5).float(),
        inside + brain * inside,
        maps,
        corners,
    )


def _move(stack: Tensor, random: np.random.Generator, most_scale: float = 0.1) -> Tensor:
    """Flip, rotate by up to 10°, scale by up to `most_scale`, shift by up to 8 %; one draw per slice."""
    count = len(stack)
    angle = np.deg2rad(random.uniform(-10, 10, count))
    scale = random.uniform(1 - most_scale, 1 + most_scale, count)
    mirror = np.where(random.random(count) < 0.5, -1.0, 1.0)
    shift = random.uniform(-0.08, 0.08, (count, 2))
    theta = np.zeros((count, 2, 3), dtype=np.float32)
    theta[:, 0, 0], theta[:, 0, 1] = mirror * np.cos(angle) / scale, -np.sin(angle) / scale
    theta[:, 1, 0], theta[:, 1, 1] = mirror * np.sin(angle) / scale, np.cos(angle) / scale
    theta[:, :, 2] = shift
    where = functional.affine_grid(torch.from_numpy(theta), list(stack.shape), align_corners=False)
    return functional.grid_sample(stack, where, align_corners=False)


def _rescale(values: Tensor, random: np.random.Generator) -> Tensor:
    """Change gamma and gain of (B, C, S, S), a slice at a time: another scanner, a level measured wrongly."""
    gamma = torch.from_numpy(random.uniform(0.88, 1.14, (len(values), 1, 1, 1)).astype(np.float32))
    gain = torch.from_numpy(random.uniform(0.96, 1.04, (len(values), 1, 1, 1)).astype(np.float32))
    return gain * values.clamp(min=0) ** gamma
