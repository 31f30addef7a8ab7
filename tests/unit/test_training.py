"""Training: the same batches every time, exact resumption, losses and figures that mean what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from synthesis.models.mpr_vit import SIZES, Sizes
from training import data as data_module
from training.data import Batch, Lesions, Slices, perturbed, split, training_batch
from training.figures import auc, enhancement, in_region
from training.fit import fit, learning_rate, segmentation_loss, start, step, synthesis_loss
from training.recipes import RECIPES, Recipe

TINY = Sizes(size=24, width=8, blocks=2, transformers_at=(1,), dim=64, heads=1, depth=1, tokens=6)


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Return a recipe of seconds."""
    monkeypatch.setitem(SIZES, "tiny", TINY)
    return Recipe(
        "tiny", "synthesis", steps=6, sizes="tiny", maps="drawn", batch=2, warmup=2, transplants=1.0
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cache of two patients of 48 pixels and two lesions, with a split."""
    random = np.random.default_rng(0)
    lgg, lesions, folds = tmp_path / "lgg", tmp_path / "lesions", tmp_path / "folds"
    for folder in (lgg, lesions, folds):
        folder.mkdir()
    shape = (6, 48, 48)
    tumour = np.zeros(shape, np.uint8)
    tumour[:, 20:28, 20:28] = 255
    np.save(lgg / "values.npy", random.uniform(0.8, 1.2, (6, 2, 48, 48)).astype(np.float16))
    np.save(lgg / "t1c.npy", random.uniform(0.8, 1.2, shape).astype(np.float16))
    np.save(lgg / "tumour.npy", tumour)
    np.save(lgg / "brain.npy", np.ones(shape, np.uint8))
    np.save(lgg / "inside.npy", np.ones(shape, np.uint8))
    cases = [{"patient": name, "first": i * 3, "count": 3, "refused": ""} for i, name in enumerate("ab")]
    (lgg / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    mask = np.zeros((2, 32, 32), np.uint8)
    mask[:, 10:22, 10:22] = 2
    np.save(lesions / "values.npy", np.ones((2, 2, 32, 32), np.float16))
    np.save(lesions / "t1c.npy", np.ones((2, 32, 32), np.float16) + mask)
    np.save(lesions / "mask.npy", mask)
    (folds / "lgg.json").write_text(json.dumps({"train": ["a"], "held_out": ["b"]}), encoding="utf-8")
    monkeypatch.setattr(data_module, "FOLDS", folds)
    return tmp_path


def test_a_step_sees_the_same_batch_in_every_run(cache: Path, recipe: Recipe) -> None:
    slices, lesions = Slices(cache / "lgg", frozenset("a")), Lesions(cache / "lesions")
    first, second = (training_batch(slices, lesions, recipe, 4) for _ in range(2))
    other = training_batch(slices, lesions, recipe, 5)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.map, second.map)
    assert not torch.equal(first.images, other.images)


def test_a_resumed_run_has_the_same_next_loss(cache: Path, recipe: Recipe) -> None:
    whole = fit(recipe, cache, cache / "whole", resume=False, most_steps=3)
    fit(recipe, cache, cache / "parts", resume=False, most_steps=2)
    parts = fit(recipe, cache, cache / "parts", resume=True, most_steps=3)
    batch = training_batch(Slices(cache / "lgg", frozenset("a")), None, recipe, 3)
    assert step(parts, batch) == step(whole, batch)
    assert all(
        torch.equal(one, other)
        for one, other in zip(parts.average.parameters(), whole.average.parameters(), strict=True)
    )


def test_a_run_is_not_overwritten(cache: Path, recipe: Recipe) -> None:
    fit(recipe, cache, cache / "runs", resume=False, most_steps=1)
    with pytest.raises(FileExistsError, match="--resume"):
        fit(recipe, cache, cache / "runs", resume=False, most_steps=1)


def test_a_transplant_brings_its_enhancement_and_its_mask(cache: Path) -> None:
    channels = Slices(cache / "lgg", frozenset("a")).channels(0)
    before = channels.copy()
    random = np.random.default_rng(1)
    for _ in range(20):
        Lesions(cache / "lesions").transplant(channels, random)
    changed = np.abs(channels[data_module.T1C] - before[data_module.T1C]) > 0.8
    assert changed.any()
    assert channels[data_module.TUMOUR][changed].mean() > 0.9


def test_perturbed_maps_stay_probabilities_and_some_are_left_out() -> None:
    maps = torch.zeros(40, 1, 48, 48)
    maps[:, :, 16:32, 16:32] = 1
    out = perturbed(maps, np.random.default_rng(0))
    assert 0 <= float(out.min()) <= float(out.max()) <= 1
    empty = int((out.amax(dim=(1, 2, 3)) == 0).sum())
    assert 1 <= empty <= 15


def test_the_learning_rate_rises_and_falls(recipe: Recipe) -> None:
    rates = [learning_rate(recipe, step) for step in range(recipe.steps)]
    assert rates.index(max(rates)) == recipe.warmup - 1 or rates.index(max(rates)) == recipe.warmup
    assert rates[-1] < max(rates) / 2


def batch_of(delta: float, tumour: float) -> Batch:
    """Return one slice of brain with this Δ and tumour everywhere."""
    full = torch.ones(1, 1, 24, 24)
    return Batch(torch.ones(1, 2, 24, 24), delta * full, tumour * full, 2 * full, tumour * full)


def test_the_losses_are_least_for_the_truth() -> None:
    right, wrong = torch.full((1, 1, 24, 24), 0.5), torch.zeros(1, 1, 24, 24)
    batch = batch_of(0.5, 1.0)
    assert float(synthesis_loss(right, batch)) == 0
    assert float(synthesis_loss(wrong, batch)) > 0.5
    assert float(segmentation_loss(20 * right, batch)) < float(segmentation_loss(wrong, batch))


def test_a_fresh_synthesis_starts_as_identity(recipe: Recipe) -> None:
    run = start(recipe)
    out = run.net(torch.rand(1, 2, 24, 24), torch.rand(1, 1, 24, 24))
    assert not out.any()


def test_the_split_holds_out_eight_patients_some_of_them_enhancing() -> None:
    train, held_out = split()
    assert len(held_out) == 8
    assert len(train) == 32
    assert not train & held_out


def test_every_recipe_starts_from_one_that_exists() -> None:
    assert all(recipe.start_from in ("", *RECIPES) for recipe in RECIPES.values())


def test_auc_counts_ordered_pairs() -> None:
    low, high = np.array([0.0, 1.0], np.float32), np.array([2.0, 3.0], np.float32)
    assert auc(high, low) == 1
    assert auc(low, high) == 0
    assert auc(low, low) == 0.5
    assert np.isnan(auc(low, low[:0]))


def test_the_papers_reading_flatters_small_regions() -> None:
    random = np.random.default_rng(0)
    truth = random.uniform(0, 1, (4, 20, 20)).astype(np.float32)
    region = np.zeros(truth.shape, bool)
    region[:, :4, :4] = True
    figures = in_region(truth + np.float32(0.1), truth, region, 1.0)
    assert figures.psnr_in_region == pytest.approx(20, abs=0.01)
    assert figures.psnr_masked_full == pytest.approx(20 + 10 * np.log10(25), abs=0.01)
    assert figures.ncc == pytest.approx(1, abs=1e-5)


def test_identity_recovers_no_enhancement_and_the_truth_all_of_it() -> None:
    t1 = np.ones((3, 40, 40), np.float32)
    truth = t1.copy()
    truth[:, 10:20, 10:20] = 1.8
    tumour = np.zeros(t1.shape, bool)
    tumour[:, 5:30, 5:30] = True
    none, all_of_it = (enhancement(image, t1, truth, tumour, 0.001) for image in (t1, truth))
    assert none.counts
    assert (none.auc, none.recovery, none.false_ml) == (0.5, 0.0, 0.0)
    assert all_of_it.auc > 0.85
    assert all_of_it.recovery == pytest.approx(1)
