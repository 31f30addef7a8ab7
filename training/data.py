"""The arrays as batches: sampling, transplants of lesions, augmentation. Step n is the same in every run."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from training.recipes import Recipe

FOLDS = Path(__file__).parent / "folds"
#: A voxel enhances where T1C/level − T1/level is above this (MODEL notes, section 7).
ENHANCING = 0.2
#: Brighter than this in the T1W is fat: what differs there is fat suppression, not contrast agent.
FAT = 1.8
MOST_DELTA = 3.0
T1, FLAIR, T1C, TUMOUR, BRAIN, INSIDE, MAP = range(7)


@dataclass(frozen=True)
class Batch:
    """B slices: images (B, 2, S, S) and the rest (B, 1, S, S)."""

    images: Tensor
    #: T1C/level − T1/level, 0 in fat and outside the head.
    delta: Tensor
    #: The FLAIR abnormality, 0 or 1.
    tumour: Tensor
    #: 0 air, 1 head, 2 brain.
    region: Tensor
    #: The tumour map that conditions the synthesis, 0–1, perturbed.
    map: Tensor

    def split(self, parts: int) -> list[Batch]:
        """Return the batch in this many parts: every n-th slice, so that each has some of every kind."""
        names = [field.name for field in fields(self)]
        chosen = [{name: getattr(self, name)[part::parts] for name in names} for part in range(parts)]
        return [Batch(**tensors) for tensors in chosen if len(tensors["images"])]


class Slices:
    """The slices of some patients of one cache."""

    def __init__(self, cache: Path, patients: frozenset[str], maps: str = "drawn") -> None:
        cases = json.loads((cache / "cases.json").read_text(encoding="utf-8"))
        chosen = [case for case in cases if case["count"] and case["patient"] in patients]
        if not chosen:
            raise FileNotFoundError(f"{cache} holds none of these {len(patients)} patients.")
        self.patients = tuple(case["patient"] for case in chosen)
        self.index = np.concatenate([np.arange(c["first"], c["first"] + c["count"]) for c in chosen])
        names = ("values", "t1c", "tumour", "brain", "inside")
        self._arrays = {name: np.load(cache / f"{name}.npy", mmap_mode="r") for name in names}
        self._predicted = np.load(cache / "predicted.npy", mmap_mode="r") if maps == "predicted" else None
        self.with_tumour = self.index[(self._arrays["tumour"][self.index] > 127).sum(axis=(1, 2)) > 20]

    def channels(self, index: int) -> npt.NDArray[np.float32]:
        """Return slice `index` of the cache as (7, S, S): T1, FLAIR, T1C, tumour, brain, inside, map."""
        get = self._arrays
        tumour = get["tumour"][index] / 255.0
        stack = [*get["values"][index], get["t1c"][index], tumour, get["brain"][index], get["inside"][index]]
        stack.append(tumour if self._predicted is None else self._predicted[index] / 255.0)
        return np.stack(stack).astype(np.float32)


class Lesions:
    """The lesion slices of 32×32, for transplants."""

    def __init__(self, cache: Path) -> None:
        self.values = np.load(cache / "values.npy", mmap_mode="r")
        self.t1c = np.load(cache / "t1c.npy", mmap_mode="r")
        self.mask = np.load(cache / "mask.npy", mmap_mode="r")

    def transplant(self, channels: npt.NDArray[np.float32], random: np.random.Generator) -> None:
        """Blend a lesion into the brain of a slice (7, S, S), in place; do nothing where there is no room."""
        index = int(random.integers(len(self.mask)))
        patch = np.stack([*self.values[index], self.t1c[index], self.mask[index] > 0]).astype(np.float32)
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
        lesion = torch.from_numpy(patch[3].copy())[None, None]
        near = functional.max_pool2d(lesion, 5, 1, 2)
        blend = functional.avg_pool2d(near, 5, 1, 2, count_include_pad=False)[0, 0].numpy()
        blend = blend * (patch[0] > 0.05) * channels[BRAIN][here]
        for channel in (T1, FLAIR, T1C):
            channels[channel][here] = (1 - blend) * channels[channel][here] + blend * patch[channel]
        marked = patch[3] * (blend > 0.5)
        channels[TUMOUR][here] = np.maximum((1 - blend) * channels[TUMOUR][here], marked)
        channels[MAP][here] = np.maximum((1 - blend) * channels[MAP][here], marked)


def split(name: str = "lgg") -> tuple[frozenset[str], frozenset[str]]:
    """Return (patients to train on, patients held out) of ``folds/NAME.json``."""
    values = json.loads((FOLDS / f"{name}.json").read_text(encoding="utf-8"))
    train, held_out = frozenset(values["train"]), frozenset(values["held_out"])
    if train & held_out:
        raise ValueError(f"The split {name} has patients on both sides.")
    return train, held_out


def training_batch(slices: Slices, lesions: Lesions | None, recipe: Recipe, step: int) -> Batch:
    """Return the batch of this step: sampled, transplanted, augmented; decided by seed and step alone."""
    random = np.random.default_rng([recipe.seed, step])
    stacks = []
    for number in range(recipe.batch):
        must = number < recipe.tumour_share * recipe.batch
        stack = slices.channels(int(random.choice(slices.with_tumour if must else slices.index)))
        if lesions is not None and random.random() < recipe.transplants:
            lesions.transplant(stack, random)
        stacks.append(stack)
    moved = _move(torch.from_numpy(np.stack(stacks)), random)
    moved[:, [T1, T1C]] = _rescale(moved[:, [T1, T1C]], random)  # together: where nothing enhances Δ stays 0
    moved[:, [FLAIR]] = _rescale(moved[:, [FLAIR]], random)
    return _batch(moved, perturbed(moved[:, MAP : MAP + 1], random))


def plain_batch(slices: Slices, index: npt.NDArray[np.int64]) -> Batch:
    """Return these slices as they are."""
    stack = torch.from_numpy(np.stack([slices.channels(int(i)) for i in index]))
    return _batch(stack, stack[:, MAP : MAP + 1])


def perturbed(maps: Tensor, random: np.random.Generator) -> Tensor:
    """Return maps (B, 1, S, S) as wrong as a segmentation of a new patient may be."""
    out = []
    for one in maps[:, None]:
        amount = int(random.integers(-2, 3))
        if amount:
            wide = functional.max_pool2d(one * np.sign(amount), 2 * abs(amount) + 1, 1, abs(amount))
            one = wide * np.sign(amount)
        one = functional.avg_pool2d(one, 3, 1, 1)
        keep = 0.0 if random.random() < 0.15 else float(random.uniform(0.6, 1.0))
        noise = torch.from_numpy(random.normal(0, 0.3, (1, 1, 8, 8)).astype(np.float32))
        noise = functional.interpolate(noise, one.shape[-2:], mode="bicubic", align_corners=False)
        out.append((one * keep * (1 + noise)).clamp(0, 1))
    return torch.cat(out)


def _batch(stack: Tensor, maps: Tensor) -> Batch:
    part = {name: stack[:, name : name + 1] for name in range(MAP)}
    inside, brain = (part[INSIDE] > 0.5).float(), (part[BRAIN] > 0.5).float()
    lean = 1 - (part[T1] > FAT).float()
    delta = (part[T1C] - part[T1]).clamp(-1.0, MOST_DELTA) * lean * inside
    return Batch(
        stack[:, :2].contiguous(), delta, (part[TUMOUR] > 0.5).float(), inside + brain * inside, maps
    )


def _move(stack: Tensor, random: np.random.Generator) -> Tensor:
    """Flip, rotate by up to 10°, scale by up to 10 %, shift by up to 8 %; one draw per slice."""
    count = len(stack)
    angle = np.deg2rad(random.uniform(-10, 10, count))
    scale = random.uniform(0.9, 1.1, count)
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
    gamma = torch.from_numpy(random.uniform(0.8, 1.25, (len(values), 1, 1, 1)).astype(np.float32))
    gain = torch.from_numpy(random.uniform(0.93, 1.07, (len(values), 1, 1, 1)).astype(np.float32))
    return gain * values.clamp(min=0) ** gamma
