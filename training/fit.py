"""`python -m training fit RECIPE`: AdamW, cosine, an average of the weights; stops and resumes exactly."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from synthesis.models.mpr_vit import SIZES, MprVit, Sizes
from synthesis.models.ta_vit import TaVit
from training.data import ENHANCING, Batch, Lesions, Slices, plain_batch, split, training_batch
from training.recipes import RECIPES, Recipe

log = logging.getLogger(__name__)

#: Weights of a voxel in the synthesis loss: air, head, brain; added in tumour.
REGION_WEIGHTS = (0.02, 0.3, 1.0)
TUMOUR_WEIGHT = 3.0
#: L1 asks for the median, which for an uncertain voxel is "no enhancement"; the square asks for the mean.
SQUARE_WEIGHT = 2.0
SAVE_EVERY, LOG_EVERY, VALIDATE_EVERY = 40, 10, 120
VALIDATION_SLICES = 48
HALVES = 2


@dataclass
class Run:
    """A training run at some step: everything that the next step depends on."""

    recipe: Recipe
    net: nn.Module
    average: nn.Module
    optimiser: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write the run; whole or not at all."""
        state = {
            "recipe": self.recipe.name,
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        torch.save(state, partial)
        partial.rename(path)

    def load(self, path: Path) -> None:
        """Take up a saved run."""
        state: dict[str, Any] = torch.load(path, weights_only=True)
        if state["recipe"] != self.recipe.name:
            raise ValueError(f"{path.name} is of recipe {state['recipe']}, not of {self.recipe.name}.")
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])


def sizes_of(recipe: Recipe) -> Sizes:
    """Return the sizes of the recipe's network."""
    return replace(SIZES[recipe.sizes], skips=recipe.skips)


def network(recipe: Recipe) -> nn.Module:
    """Return the recipe's network, fresh."""
    sizes = sizes_of(recipe)
    return MprVit(sizes) if recipe.network == "segmentation" else TaVit(sizes)


def start(recipe: Recipe) -> Run:
    """Return the run at step 0."""
    torch.manual_seed(recipe.seed)
    net = network(recipe).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        net.parameters(), recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay
    )
    return Run(recipe, net, copy.deepcopy(net), optimiser)


def inherit(net: nn.Module, weights: dict[str, Tensor], whole: bool) -> int:
    """Copy the weights whose name and shape agree; the head only from a network of the same kind."""
    own = net.state_dict()
    same = {
        name: value
        for name, value in weights.items()
        if name in own and own[name].shape == value.shape and (whole or not name.startswith("decoder.head"))
    }
    net.load_state_dict(own | same)
    return len(same)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the rate of this step: linear warm-up, then half a cosine to 2 %."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    along = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * along)))


def segmentation_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Return cross entropy in the head plus 1 − soft Dice over the batch."""
    head = (batch.region > 0).float()
    entropy = functional.binary_cross_entropy_with_logits(logits, batch.tumour, reduction="none")
    share = (logits.sigmoid() * head, batch.tumour * head)
    dice = 2 * (share[0] * share[1]).sum() / (share[0].sum() + share[1].sum() + 1.0)
    return (entropy * head).sum() / head.sum() + 1 - dice


def synthesis_loss(delta: Tensor, batch: Batch, enhancing_weight: float = 1.0) -> Tensor:
    """Return L1 + L2 of Δ, weighted towards tumour and enhancement."""
    weight = torch.tensor(REGION_WEIGHTS)[batch.region.round().long()]
    smooth = functional.avg_pool2d(batch.delta, 3, 1, 1)
    enhancing = batch.tumour * (smooth > ENHANCING).float()
    weight = weight + TUMOUR_WEIGHT * batch.tumour + enhancing_weight * enhancing
    error = delta - batch.delta
    return (weight * (error.abs() + SQUARE_WEIGHT * error.square())).sum() / weight.sum()


def loss_of(net: nn.Module, batch: Batch, enhancing_weight: float = 1.0) -> Tensor:
    """Return the loss of this network on this batch; bfloat16 where the processor has it."""
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
        images = batch.images.contiguous(memory_format=torch.channels_last)
        out = net(images, batch.map) if isinstance(net, TaVit) else net(images)
    if isinstance(net, TaVit):
        return synthesis_loss(out.float(), batch, enhancing_weight)
    return segmentation_loss(out.float(), batch)


def has_bfloat16() -> bool:
    """Return whether this processor computes in bfloat16."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def step(run: Run, batch: Batch) -> float:
    """Do one step of optimisation; return the loss before it."""
    run.net.train()
    for group in run.optimiser.param_groups:
        group["lr"] = learning_rate(run.recipe, run.step)
    loss = set_gradients(run.net, batch, run.recipe.enhancing_weight)
    nn.utils.clip_grad_norm_(run.net.parameters(), 1.0)
    run.optimiser.step()
    keep = min(run.recipe.ema, (1 + run.step) / (10 + run.step))
    with torch.no_grad():
        for slow, fast in zip(run.average.parameters(), run.net.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)
    run.step += 1
    return loss


def set_gradients(net: nn.Module, batch: Batch, enhancing_weight: float) -> float:
    """Put the gradients of the mean loss over the halves of the batch into the network; return that loss.

    The halves run side by side: on busy cores that waits far less than splitting every operation.
    """
    parameters = list(net.parameters())

    def half(part: Batch) -> tuple[float, tuple[Tensor, ...]]:
        loss = loss_of(net, part, enhancing_weight)
        return float(loss.detach()), torch.autograd.grad(loss, parameters)

    with ThreadPoolExecutor(HALVES) as pool:
        results = list(pool.map(half, batch.split(HALVES)))
    for parameter, *gradients in zip(parameters, *(gradients for _, gradients in results), strict=True):
        parameter.grad = torch.stack(gradients).mean(dim=0)
    return float(np.mean([loss for loss, _ in results]))


@torch.no_grad()
def validation_loss(run: Run, slices: Slices) -> float:
    """Return the mean loss of the averaged weights on an even sample of the held-out slices."""
    run.average.eval()
    index = slices.index[np.linspace(0, len(slices.index) - 1, VALIDATION_SLICES).astype(int)]
    parts = np.array_split(index, max(1, len(index) // 8))
    return float(np.mean([float(loss_of(run.average, plain_batch(slices, part))) for part in parts]))


@torch.no_grad()
def predict_maps(net: nn.Module, cache: Path) -> None:
    """Write ``predicted.npy`` beside the slices: the tumour map of every slice, 0–255."""
    net.eval()
    values = np.load(cache / "values.npy", mmap_mode="r")
    inside = np.load(cache / "inside.npy", mmap_mode="r")
    maps = np.zeros((len(values), *values.shape[2:]), dtype=np.uint8)
    for first in range(0, len(values), 8):
        part = torch.from_numpy(values[first : first + 8].astype(np.float32))
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
            logits = net(part.contiguous(memory_format=torch.channels_last))
        maps[first : first + 8] = (255 * logits.float().sigmoid()[:, 0]).round().byte().numpy()
    np.save(cache / "predicted.npy", maps * inside)


def fit(recipe: Recipe, cache: Path, runs: Path, resume: bool, most_steps: int | None = None) -> Run:
    """Train by the recipe from ``cache/lgg`` and ``cache/lesions``; the run lives in ``runs/RECIPE.pt``.

    Raises
    ------
    FileExistsError
        When the run exists and is not to be resumed.
    FileNotFoundError
        When the cache, or the recipe to start from, is missing.
    """
    path = runs / f"{recipe.name}.pt"
    if path.exists() and not resume:
        raise FileExistsError(f"{path.name} exists: add --resume, or remove it.")
    runs.mkdir(parents=True, exist_ok=True)
    run = start(recipe)
    if path.exists():
        run.load(path)
        log.info("resumed at step %d", run.step)
    elif recipe.start_from:
        before = torch.load(runs / f"{recipe.start_from}.pt", weights_only=True)["average"]
        whole = RECIPES[recipe.start_from].network == recipe.network
        log.info("%d tensors from %s", inherit(run.net, before, whole), recipe.start_from)
        run.average.load_state_dict(run.net.state_dict())
    train, held_out = split()
    slices, validation = (Slices(cache / "lgg", some, recipe.maps) for some in (train, held_out))
    lesions = Lesions(cache / "lesions") if (cache / "lesions").exists() else None
    last = min(recipe.steps, most_steps or recipe.steps)
    begun, before_s, losses = time.monotonic(), run.seconds, []
    while run.step < last:
        losses.append(step(run, training_batch(slices, lesions, recipe, run.step)))
        run.seconds = before_s + time.monotonic() - begun
        if run.step % LOG_EVERY == 0:
            log.info("step %d/%d loss %.4f %.0f s", run.step, recipe.steps, np.mean(losses), run.seconds)
            losses = []
        if run.step % VALIDATE_EVERY == 0 or run.step == recipe.steps:
            log.info("step %d held-out loss %.4f", run.step, validation_loss(run, validation))
        if run.step % SAVE_EVERY == 0 or run.step == last:
            run.save(path)
    return run
