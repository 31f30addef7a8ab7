"""Batches: the same every time, nobody on two sides, and pictures that show what they are meant to."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import tiny_training
import torch
from tiny_training import FOLD, RECIPE
from torch.nn.functional import max_pool2d

from synthesis.models.mpr_vit import Sizes, channels_of
from training.data import (
    BRAIN,
    FLAIR,
    FOLDS,
    INSIDE,
    NEAR,
    T1,
    T1C,
    TUMOUR,
    Batch,
    Lesions,
    Slices,
    folds,
    judged,
    perturbed,
    plain_batch,
    split,
    training_batch,
    trains_on_lesion,
)
from training.recipes import Stage, View

ALL_FOLDS = sorted(path.stem for path in FOLDS.glob("lgg*.json"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_training.write_cache(tmp_path_factory.mktemp("work") / "cache")


@pytest.fixture
def slices(cache: Path) -> Slices:
    return Slices(cache / "lgg", split(FOLD)[0])


@pytest.fixture
def lesions(cache: Path) -> Lesions:
    return Lesions(cache / "lesions", trains_on_lesion)


def tensors(batch: Batch) -> list[torch.Tensor]:
    found = [batch.images, batch.delta, batch.tumour, batch.region, batch.map]
    return [*found, batch.corners]


def test_a_step_sees_the_same_batch_in_every_run(slices: Slices, lesions: Lesions) -> None:
    for step in (0, 4):
        one, again = (training_batch(slices, lesions, RECIPE, step) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(again), strict=True))
    assert not torch.equal(one.images, training_batch(slices, lesions, RECIPE, 5).images)


def test_each_stage_has_pictures_of_its_kind(slices: Slices, lesions: Lesions) -> None:
    views: tuple[View, ...] = ("lesions", "heads")
    recipe = replace(RECIPE, stages=tuple(Stage(view, 1, 3) for view in views))
    sides = [training_batch(slices, lesions, recipe, step).images.shape[2:] for step in range(2)]
    assert sides == [(32, 32), (112, 88)]


def test_a_window_shows_the_head_wherever_it_lies(slices: Slices) -> None:
    """And says where it was cut, as the positions of its tokens follow from that."""
    whole = torch.from_numpy(slices.channels(int(slices.index[1])))
    recipe = replace(RECIPE, stages=(Stage("heads", 20, 4),), transplants=0.0, stripped=0.0)
    for step in range(5):
        batch = training_batch(slices, None, recipe, step)
        head = batch.region[:, 0] > 0
        assert (head.flatten(1).sum(dim=1) > 0.8 * whole[INSIDE].sum()).all()
    plain = plain_batch(slices, slices.index[1:2])
    row, column = (4 * int(place) for place in plain.corners[0])
    assert torch.equal(plain.images[0], whole[:2, row : row + 112, column : column + 88])


@pytest.mark.parametrize("view", ["heads", "lesions"])
def test_on_a_grid_of_240_all_is_twice_as_fine_and_lies_in_the_same_tokens(
    slices: Slices, cache: Path, tmp_path: Path, view: View
) -> None:
    fine = tmp_path / "fine"
    fine.mkdir()
    for path in (cache / "lgg").glob("*.npy"):
        np.save(fine / path.name, np.load(path).repeat(2, axis=-1).repeat(2, axis=-2))
    (fine / "cases.json").write_text(
        (cache / "lgg" / "cases.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    recipe = replace(RECIPE, stages=(Stage(view, 20, 4),), transplants=0.0, stripped=0.0, perturbed=False)
    one, other = (
        training_batch(Slices(where, split(FOLD)[0]), Lesions(cache / "lesions", finer=finer), recipe, 3)
        for where, finer in ((cache / "lgg", 1), (fine, 2))
    )
    assert other.images.shape[-1] == 2 * one.images.shape[-1]
    assert (one.corners - other.corners).abs().max() <= 1  # half a pixel may tip the rounding
    assert float(other.tumour.sum()) == pytest.approx(4 * float(one.tumour.sum()), rel=0.05)


@pytest.mark.parametrize("name", ALL_FOLDS)
def test_nobody_is_in_two_folds(name: str) -> None:
    parts = folds(name)
    assert all(parts)
    assert not any(one & other for one, other in combinations(parts, 2))
    for fold, held_out in enumerate(parts):
        train, out = split(fold, name)
        assert out == held_out
        assert train == frozenset().union(*parts) - held_out


@pytest.mark.parametrize("fold", [-1, 3])
def test_a_fold_that_is_none_cannot_be_held_out(fold: int) -> None:
    with pytest.raises(ValueError, match=f"fold {fold} cannot be held out, but 0, 1, 2"):
        split(fold)


def test_who_judges_decides_neither_the_weights_nor_when_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {"names": ["train", "validation", "test"], "folds": [["a", "b"], ["c"], ["d"]], "source": ""}
    (tmp_path / "papers.json").write_text(json.dumps(parts), encoding="utf-8")
    monkeypatch.setattr("training.data.FOLDS", tmp_path)
    assert split(1, "papers") == (frozenset("ab"), frozenset("c"))
    assert judged(1, "papers") == frozenset("d")
    for fold in (0, 2):
        with pytest.raises(ValueError, match="cannot be held out, but 1"):
            split(fold, "papers")


def test_a_batch_without_transplants_does_not_depend_on_whether_there_are_lesions(
    slices: Slices, cache: Path
) -> None:
    recipe = replace(RECIPE, stages=(Stage("heads", 20, 4),), transplants=0.0)
    lesions = Lesions(cache / "lesions", trains_on_lesion)
    one, other = (training_batch(slices, there, recipe, 3) for there in (None, lesions))
    assert torch.equal(one.images, other.images)


def test_a_patient_in_two_folds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "twice.json").write_text(
        json.dumps({"source": "", "folds": [["a", "b"], ["b"]]}), encoding="utf-8"
    )
    monkeypatch.setattr("training.data.FOLDS", tmp_path)
    with pytest.raises(ValueError, match="a patient is named twice"):
        folds("twice")


def test_training_slices_are_of_no_patient_who_is_held_out(cache: Path) -> None:
    train, held_out = (Slices(cache / "lgg", patients) for patients in split(FOLD))
    assert not set(train.patients) & set(held_out.patients)
    assert not set(train.index) & set(held_out.index)


def test_lesions_of_one_patient_are_all_trained_on_or_all_held_out(cache: Path) -> None:
    assert len(Lesions(cache / "lesions", trains_on_lesion).index) == 3
    assert len(Lesions(cache / "lesions", lambda patient: not trains_on_lesion(patient)).index) == 1
    assert trains_on_lesion("BraTS20_003_lesion3") == trains_on_lesion("BraTS20_003_lesion4")


def test_a_cache_without_these_patients_is_refused(cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none of these 1 patients"):
        Slices(cache / "lgg", frozenset({"somebody else"}))


def test_half_of_a_batch_shows_tumour_where_it_must(slices: Slices) -> None:
    recipe = replace(RECIPE, stages=(Stage("heads", 9, 8),), tumour_share=0.5, transplants=0.0)
    for step in range(3):
        batch = training_batch(slices, None, recipe, step)
        assert (batch.tumour[:4].flatten(1).sum(1) > 0).all()


def test_where_nothing_enhances_delta_stays_zero_under_augmentation(cache: Path) -> None:
    slices = Slices(cache / "lgg", split(FOLD)[0])
    recipe = replace(RECIPE, stages=(Stage("heads", 1, 8),), transplants=0.0, shading=0.2, noise=0.1)
    batch = training_batch(slices, None, recipe, 0)
    away = max_pool2d(batch.tumour, 5, 1, 2) == 0
    assert float(batch.delta[away].abs().max()) < 1e-4
    assert float(batch.delta[~away].max()) > 0.3


def test_noise_is_seen_in_the_head_and_not_asked_for(slices: Slices) -> None:
    recipe = replace(RECIPE, stages=(Stage("heads", 1, 8),), transplants=0.0)
    plain, noisy = (training_batch(slices, None, replace(recipe, noise=noise), 0) for noise in (0.0, 0.1))
    assert torch.equal(plain.delta, noisy.delta)
    head = (plain.region > 0).expand_as(plain.images)
    added = noisy.images - plain.images
    assert float(added[head].std()) == pytest.approx(0.1, rel=0.05)
    assert not added[~head].any()


def test_shading_changes_both_contrasts_slowly(slices: Slices) -> None:
    recipe = replace(RECIPE, stages=(Stage("heads", 1, 8),), transplants=0.0)
    plain, shaded = (
        training_batch(slices, None, replace(recipe, shading=shading), 0) for shading in (0.0, 0.1)
    )
    head = (plain.region > 0).expand_as(plain.images)
    ratio = torch.where(head, shaded.images / plain.images.clamp(min=0.1), 1.0)
    assert 0.03 < float(ratio[head].std()) < 0.2
    across = (ratio[..., 1:] - ratio[..., :-1])[head[..., 1:] & head[..., :-1]]
    assert float(across.abs().quantile(0.99)) < 0.05


def test_neighbours_come_as_the_model_will_see_them(cache: Path, slices: Slices) -> None:
    """In training and in use the same channels, also at the ends of a patient's volume."""
    values = np.load(cache / "lgg" / "values.npy").astype(np.float32)
    for own in slices.slices:
        volume = values[own[0] : own[-1] + 1]
        wanted = channels_of(volume, range(len(own)), Sizes(neighbours=2))
        for plane, index in enumerate(own):
            stack = slices.channels(int(index), 2)
            assert np.array_equal(np.concatenate([stack[:2], stack[NEAR:]]), wanted[plane])
    batch = plain_batch(slices, slices.index[:2], 1)
    assert batch.images.shape == (2, 6, 112, 88)


def test_a_neighbour_is_scaled_as_its_plane_and_gets_the_same_lesion(
    slices: Slices, lesions: Lesions
) -> None:
    recipe = replace(RECIPE, neighbours=1, stages=(Stage("heads", 4, 4),), transplants=0.0)
    for step in range(4):
        batch = training_batch(slices, lesions, recipe, step)
        assert batch.images.shape == (4, 6, 112, 88)
    channels = slices.channels(int(slices.index[1]), 1)
    before = channels.copy()
    random = np.random.default_rng(1)
    for _ in range(20):
        lesions.transplant(channels, random)
    changed = [np.abs(channels[at] - before[at]) > 0 for at in (T1, FLAIR, NEAR, NEAR + 1)]
    assert all(one.sum() > 100 for one in changed)
    own, near = changed[0] | changed[1], changed[2] | changed[3]
    assert (own & near).sum() > 0.95 * (own | near).sum()


def test_pictures_without_skull_show_the_brain_alone(slices: Slices) -> None:
    recipe = replace(RECIPE, stages=(Stage("heads", 1, 4),), transplants=0.0, stripped=1.0)
    batch = training_batch(slices, None, recipe, 0)
    assert not (batch.region == 1).any()
    assert not batch.images[(batch.region == 0).expand_as(batch.images)].gt(0.9).any()


def test_a_transplant_brings_its_enhancement_and_its_mask(slices: Slices, lesions: Lesions) -> None:
    channels = slices.channels(int(slices.index[1]))
    channels[TUMOUR] = 0
    channels[T1C] = channels[T1]
    random = np.random.default_rng(1)
    for _ in range(20):
        lesions.transplant(channels, random)
    brighter = channels[T1C] - channels[T1] > 0.4
    assert brighter.sum() > 100
    assert channels[TUMOUR][brighter].mean() > 0.9
    assert channels[BRAIN][brighter].all()


def test_perturbed_maps_stay_probabilities_and_some_are_left_out() -> None:
    maps = torch.zeros(80, 1, 48, 48)
    maps[:, :, 16:32, 16:32] = 1
    out = perturbed(maps, np.random.default_rng(0))
    assert 0 <= float(out.min()) <= float(out.max()) <= 1
    assert not torch.equal(out[0], out[1])
    left_out = int((out.amax(dim=(1, 2, 3)) == 0).sum())
    assert 1 <= left_out <= 20


def test_a_batch_taken_apart_keeps_its_pictures_together(slices: Slices) -> None:
    batch = plain_batch(slices, slices.index[:4])
    part = batch.part(slice(1, 3)).to(torch.device("cpu"))
    assert all(torch.equal(a, b[1:3]) for a, b in zip(tensors(part), tensors(batch), strict=True))
