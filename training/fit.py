"""`python -m training fit RECIPE`: train, judge on what is held out, save; stop anywhere, go on exactly."""

from __future__ import annotations

import logging
import math
import os
import time
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from synthesis.models.mpr_vit import MprVit
from synthesis.models.window import window_around
from synthesis.preprocess import FloatArray
from training.data import (
    GRID,
    TOKENS,
    Batch,
    Lesions,
    Slices,
    folds,
    maps_of,
    plain_batch,
    split,
    training_batch,
    trains_on_lesion,
)
from training.distributed import Ranks, joined
from training.losses import answer, loss_of, squared_error
from training.prepare import read_cases
from training.recipes import RECIPES, Recipe
from training.run import (
    Diverged,
    Run,
    averaged,
    inherit,
    kept_weights,
    learning_rate,
    network,
    path_of,
    sizes_of,
    start,
    step,
    weights_at_start,
)
from training.watch import Watch, sheet_of

__all__ = ["Diverged", "averaged", "fit", "kept_weights", "network", "path_of", "predict_maps", "sizes_of"]

log = logging.getLogger(__name__)

#: A killed run loses no more than this.
SAVE_EVERY_S = 60.0
VALIDATION_SLICES, VALIDATION_BATCH = 48, 8
#: Pictures of a sample sheet.
SAMPLES = 6
#: Processes that make batches ahead of a GPU; on the CPU they would take from the training what they give.
MOST_MAKERS = 8


class Batches(Dataset[Batch]):
    """The batches of a run, by step."""

    def __init__(self, slices: Slices | None, lesions: Lesions | None, recipe: Recipe) -> None:
        self._sources, self._recipe = (slices, lesions), recipe

    def __getitem__(self, step: int) -> Batch:
        return training_batch(*self._sources, self._recipe, step)


def fit(
    recipe: Recipe, cache: Path, runs: Path, resume: bool, fold: int | None, most_steps: int | None = None
) -> Run:
    """Train by the recipe from its cache and ``cache/lesions``; this fold's patients are held out.

    Under `torchrun` the processes share each step's batch; what comes out is the same but for rounding.

    Raises
    ------
    FileExistsError
        When the run exists and is not to be resumed.
    FileNotFoundError
        When the cache, or the recipe to start from, is missing.
    ValueError
        When a batch cannot be divided among the processes.
    Diverged
        When a loss is no number; the state that was saved last stays.
    """
    path = path_of(recipe, runs, fold)
    if path.exists() and not resume:
        raise FileExistsError(f"{path} exists: add --resume, or remove it.")
    with joined() as ranks:
        refuse_uneven(recipe, ranks)
        slices, lesions, held_out = _sources(recipe, cache, fold)
        path.parent.mkdir(parents=True, exist_ok=True)
        run = start(recipe, ranks)
        if recipe.finder:
            run.finder = cast(MprVit, averaged(RECIPES[recipe.finder], runs, fold).to(ranks.device))
        if path.exists():
            run.load(path)
        elif recipe.start_from:
            inherited(run, runs, fold)
        watch = Watch(path.parent.name, path.parent, run.step, recipe.steps) if ranks.writes else None
        with watch or nullcontext():
            train(run, Batches(slices, lesions, recipe), held_out, path, watch, most_steps or recipe.steps)
    return run


def train(
    run: Run, batches: Batches, held_out: Slices | Lesions, path: Path, watch: Watch | None, most_steps: int
) -> None:
    """Do the steps that are left, up to this one, or until patience is over; save and show them.

    Whether to stop follows from the steps and the saved best alone, so that a resumed run stops where a whole
    one does.
    """
    recipe, last = run.recipe, min(run.recipe.steps, most_steps)
    if watch and run.step:
        watch.say(f"goes on at step {run.step}")
    begun, before_s, saved = time.monotonic(), run.seconds, time.monotonic()
    made = iter(_ahead(batches, range(run.step, last), run.ranks))
    while run.step < last and not run.gave_up:
        loss = step(run, next(made))
        run.seconds = before_s + time.monotonic() - begun
        if watch:
            watch.stepped(run.step, run.seconds, learning_rate(recipe, run.step - 1), loss)
        if run.step % recipe.validate_every == 0 or run.step == recipe.steps:
            held_out_loss, delta_error = validation(run, held_out)
            run.judged(held_out_loss if math.isnan(delta_error) else delta_error)
            if watch:
                watch.validated(run.step, run.seconds, held_out_loss, delta_error, shown(run, held_out))
        if run.ranks.writes and (time.monotonic() - saved > SAVE_EVERY_S or run.step == last or run.gave_up):
            run.save(path)
            saved = time.monotonic()
    if watch and run.gave_up and run.best:
        watch.say(f"no better than at step {run.best.step} for a while: its weights are kept")


def validation(run: Run, held_out: Slices | Lesions) -> tuple[float, float]:
    """Return what the averaged weights do on an even sample of the held-out slices.

    Returns
    -------
    tuple of float
        The mean loss, and the mean squared error of Δ over the head: no tumour mask has a part in the second.
        It is NaN for a segmentation, which has no Δ.
    """
    run.average.eval()
    chosen = np.unique(np.linspace(0, len(held_out.index) - 1, VALIDATION_SLICES).astype(int))
    index = held_out.index[chosen]
    parts = np.array_split(index, max(1, len(index) // VALIDATION_BATCH))
    losses, errors, voxels = 0.0, 0.0, 0.0
    for part in parts[run.ranks.rank :: run.ranks.count]:
        batch = plain_batch(held_out, part, run.recipe.neighbours).to(run.ranks.device)
        with torch.no_grad():
            out = answer(run.average, batch, finder=run.finder)
        error, count = squared_error(out, batch)
        losses += float(loss_of(out, batch, run.recipe.loss))
        errors, voxels = errors + error, voxels + count
    losses, errors, voxels = run.ranks.sums([losses, errors, voxels])
    return losses / len(parts), errors / voxels if voxels else math.nan


def shown(run: Run, held_out: Slices | Lesions) -> FloatArray:
    """Return the sample sheet of the averaged weights: through the tumours, those that enhance first."""
    if isinstance(held_out, Slices):
        order = np.argsort(~held_out.enhances, kind="stable")
        pools = [held_out.with_tumour[patient] for patient in order]
    else:
        pools = held_out.slices
    pools = [pool for pool in pools if len(pool)] or held_out.slices
    middles = np.array([pool[len(pool) // 2] for pool in pools[:SAMPLES]])
    batch = plain_batch(held_out, middles, run.recipe.neighbours).to(run.ranks.device)
    with torch.no_grad():
        return sheet_of(answer(run.average, batch, finder=run.finder), batch)


def predict_maps(recipe: Recipe, cache: Path, runs: Path) -> None:
    """Write ``maps-RECIPE.npy`` beside the slices: every patient's tumour map by the fold that left him out.

    Raises
    ------
    FileNotFoundError
        When the cache, or the run of a fold, is missing.
    """
    values = np.load(cache / "values.npy", mmap_mode="r")
    inside = np.load(cache / "inside.npy", mmap_mode="r")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    maps = np.zeros((len(values), *values.shape[2:]), dtype=np.uint8)
    for fold in range(len(folds(recipe.folds))):
        net = averaged(recipe, runs, fold).to(device)
        slices = Slices(cache, split(fold, recipe.folds)[1])
        console = Console(stderr=True)
        for own in track(slices.slices, f"fold {fold}", console=console, disable=not console.is_terminal):
            window = window_around(inside[own] > 0, slices.size // TOKENS)
            for part in np.array_split(own, max(1, len(own) // VALIDATION_BATCH)):
                batch = plain_batch(slices, part, recipe.neighbours, window).to(device)
                with torch.no_grad():
                    chances = answer(net, batch)[:, 0].sigmoid()
                window.of(maps)[part] = (255 * chances).round().byte().cpu().numpy()
        log.info("fold %d: maps of %d patients", fold, len(slices.patients))
    path = maps_of(cache, recipe.name)
    partial = path.with_name(f".{path.name}.partial.npy")
    np.save(partial, maps * inside)
    partial.rename(path)


def inherited(run: Run, runs: Path, fold: int | None) -> None:
    """Begin with the weights of the recipe that this one starts from: of the same fold, or of none.

    Raises
    ------
    FileNotFoundError
        When there is no run of that recipe.
    """
    before = RECIPES[run.recipe.start_from]
    weights = weights_at_start(run.recipe, runs, fold)
    taken = inherit(run.net, weights, before.network == run.recipe.network)
    run.average.load_state_dict(run.net.state_dict())
    if run.ranks.writes:
        log.info("%s: %d tensors from %s", run.recipe.name, taken, before.name)


def _ahead(batches: Batches, steps: range, ranks: Ranks) -> DataLoader[Batch]:
    """Return the batches of these steps; for a GPU they are made ahead, by other processes."""
    cuda = ranks.device.type == "cuda"
    makers = min(MOST_MAKERS, max(1, (os.cpu_count() or 1) // ranks.count)) if cuda else 0
    # a generator of its own: the loader draws from the global one otherwise
    return DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=makers,
        pin_memory=cuda,
        generator=torch.Generator(),
    )


def refuse_uneven(recipe: Recipe, ranks: Ranks) -> None:
    for stage in recipe.stages:
        if stage.batch % ranks.count:
            raise ValueError(
                f"{recipe.name} has batches of {stage.batch}, which {ranks.count} processes cannot share."
            )


def _sources(
    recipe: Recipe, cache: Path, fold: int | None
) -> tuple[Slices | None, Lesions | None, Slices | Lesions]:
    """Return slices and lesions to train on, and what is held out."""
    finer, there = recipe.grid // GRID, (cache / "lesions").exists()
    lesions = Lesions(cache / "lesions", trains_on_lesion, finer) if there else None
    if recipe.stages[0].view == "lesions":
        held_out = Lesions(cache / "lesions", lambda patient: not trains_on_lesion(patient), finer)
        return None, lesions, held_out
    if fold is None:
        raise ValueError(f"{recipe.name} wants a fold to hold out.")
    if recipe.maps != "drawn" and not maps_of(cache / recipe.data, recipe.maps).exists():
        raise FileNotFoundError(f"{recipe.name} wants predicted maps: `maps {recipe.maps}` first.")
    train, others = split(fold, recipe.folds, read_cases(cache / recipe.data))
    slices = Slices(cache / recipe.data, train, recipe.maps)
    if slices.size != recipe.grid:
        raise ValueError(
            f"{recipe.name} wants images of {recipe.grid}², {recipe.data} holds {slices.size}²: "
            "`prepare --size` makes others."
        )
    if recipe.tumour_share and not any(map(len, slices.with_tumour)):
        raise ValueError(f"{recipe.name} wants slices with tumour, and nobody's segmentation shows any.")
    left_out = Slices(cache / recipe.data, others, recipe.maps)
    counts = (len(slices.patients), len(train), len(left_out.patients), len(others))
    log.info("%s: %d of %d patients to train on, %d of %d held out", recipe.name, *counts)
    return slices, lesions, left_out
