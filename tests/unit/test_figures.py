"""The figures: identities that hold whatever the images are, and cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.figures import (
    BINS,
    FIGURES,
    BoolArray,
    FloatArray,
    Group,
    auc,
    average_precision,
    box,
    calibration,
    calibration_error,
    dice,
    enhancement,
    enhancing_by_rule,
    group_of,
    in_region,
    row,
    smoothed,
)

SHAPE = (6, 40, 48)
VOXEL_ML = 0.004
SEEDS = st.integers(0, 2**32 - 1)


def images(seed: int) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return a prediction, a truth, and a region of any shape and size from one voxel on."""
    random = np.random.default_rng(seed)
    predicted, truth = (random.uniform(0, 2, SHAPE).astype(np.float32) for _ in range(2))
    region = random.random(SHAPE) < random.uniform(0.001, 1)
    region[2, 20, 20:23] = True
    return predicted, truth, region


def tumour_with_rim(uptake: float = 0.8) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return a T1W, a T1C with a ring that enhances by `uptake`, and the tumour around it; a little noise."""
    random = np.random.default_rng(4)
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    distance = np.hypot(y - 20, x - 24)
    t1 = random.normal(0.8, 0.03, SHAPE).astype(np.float32)
    ring = ((distance > 5) & (distance < 9)).astype(np.float32)
    ring = np.broadcast_to(ring, SHAPE) * np.array([0, 0, 1, 1, 0, 0], np.float32)[:, None, None]
    tumour = np.broadcast_to(distance < 15, SHAPE).copy()
    tumour[0] = tumour[5] = False
    return t1, t1 + np.float32(uptake) * ring, tumour


def whole_planes() -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return a T1W, a T1C that enhances everywhere in two of its planes, and a tumour in all planes."""
    t1 = np.random.default_rng(5).normal(0.8, 0.05, SHAPE).astype(np.float32)
    planes = np.array([0, 0, 1, 1, 0, 0], np.float32)[:, None, None]
    tumour = np.zeros(SHAPE, bool)
    tumour[:, 5:35, 5:40] = True
    return t1, t1 + np.float32(0.5) * planes, tumour


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.floats(0.5, 4))
def test_psnr_is_minus_ten_logarithms_of_nmse(seed: int, peak: float) -> None:
    found = in_region(*images(seed), peak)
    assert found.psnr_in_region == pytest.approx(-10 * math.log10(found.nmse_in_region))
    assert found.psnr_masked_full == pytest.approx(-10 * math.log10(found.nmse_masked_full))


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_the_two_conventions_differ_by_the_share_of_the_region_alone(seed: int) -> None:
    predicted, truth, region = images(seed)
    found, share = in_region(predicted, truth, region, 1.7), region.mean()
    assert found.nmse_masked_full == pytest.approx(share * found.nmse_in_region)
    assert found.psnr_masked_full - found.psnr_in_region == pytest.approx(-10 * math.log10(share))


def test_masked_full_is_what_the_paper_seems_to_count() -> None:
    predicted, truth, region = images(1)
    error = np.mean((predicted * region - truth * region) ** 2) / 1.7**2
    assert in_region(predicted, truth, region, 1.7).nmse_masked_full == pytest.approx(float(error), rel=1e-4)


def test_nmse_is_of_the_peak_not_of_the_signal() -> None:
    truth = np.full(SHAPE, 0.5, np.float32)
    region = np.ones(SHAPE, bool)
    assert in_region(truth + np.float32(0.2), truth, region, 2.0).nmse_in_region == pytest.approx(0.01)


def test_the_truth_itself_has_no_error() -> None:
    _, truth, region = images(2)
    found = in_region(truth, truth, region, 1.0)
    assert (found.nmse_in_region, found.psnr_in_region) == (0, math.inf)
    assert found.ncc == pytest.approx(1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_has_no_psnr(value: float) -> None:
    predicted, truth, region = images(2)
    predicted[2, 20, 20] = value
    with pytest.raises(ValueError, match="no finite numbers"):
        in_region(predicted, truth, region, 1.0)
    region[2, 20, 20] = False
    assert math.isfinite(in_region(predicted, truth, region, 1.0).psnr_in_region)


def test_ncc_does_not_see_gain_and_offset_and_is_none_of_a_constant() -> None:
    _, truth, region = images(3)
    assert in_region(np.float32(0.3) * truth + 1, truth, region, 1.0).ncc == pytest.approx(1, abs=1e-5)
    assert math.isnan(in_region(np.zeros_like(truth), truth, region, 1.0).ncc)


def test_identity_places_nothing() -> None:
    t1, truth, tumour = tumour_with_rim()
    found = enhancement(t1, t1, truth, tumour, VOXEL_ML, chance=np.zeros_like(t1))
    assert (found.group, found.auc, found.chance_auc, found.recovery) == (Group.CLEAR, 0.5, 0.5, 0)
    assert (found.lit, found.dice, found.false_ml) == (0, 0, 0)
    assert found.missed_ml == pytest.approx(found.voxels * VOXEL_ML)
    assert found.ap == pytest.approx(found.voxels / tumour.sum())
    assert found.bias == pytest.approx(-float((truth - t1)[enhancing_by_rule(t1, truth, tumour)].mean()))


def test_the_truth_places_everything() -> None:
    t1, truth, tumour = whole_planes()
    found = enhancement(truth, t1, truth, tumour, VOXEL_ML, chance=smoothed(truth - t1))
    assert (found.auc, found.ap, found.chance_auc) == (1, 1, 1)
    assert (found.recovery, found.dice, found.lit) == (pytest.approx(1), 1, 1)
    assert (found.missed_ml, found.false_ml, found.bias) == (0, 0, 0)


def test_the_truth_lights_up_exactly_what_enhances_where_there_are_edges() -> None:
    t1, truth, tumour = tumour_with_rim()
    found = enhancement(truth, t1, truth, tumour, VOXEL_ML)
    assert (found.missed_ml, found.false_ml) == (0, 0)
    assert 0.8 < found.auc < 1  # the rule looks at smoothed uptake, the area and Dice at uptake as it is
    assert found.dice == dice(tumour & (truth - t1 > 0.2), enhancing_by_rule(t1, truth, tumour)) < 1


def test_dice_is_of_the_predicted_uptake_as_it_is() -> None:
    t1, truth, tumour = whole_planes()
    predicted = t1.copy()
    predicted[2:4, 5:35:2, 5:40] += np.float32(0.3)  # every second line: smoothed, all of it is near 0.15
    found = enhancement(predicted, t1, truth, tumour, VOXEL_ML)
    assert found.dice == pytest.approx(2 / 3)


def test_dice_by_hand_and_of_nothing() -> None:
    some, other, none = (np.array(values, bool) for values in ([1, 1, 0], [0, 1, 0], [0, 0, 0]))
    assert dice(some, other) == pytest.approx(2 / 3)
    assert (dice(some, none), dice(none, some)) == (0, 0)
    assert math.isnan(dice(none, none))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 2.0])
def test_recovery_is_the_share_of_the_uptake_and_blind_to_its_place(share: float) -> None:
    t1, truth, tumour = tumour_with_rim()
    found = enhancement(t1 + np.float32(share) * (truth - t1), t1, truth, tumour, VOXEL_ML)
    assert found.recovery == pytest.approx(share, abs=1e-5)
    assert found.lit == float(share >= 0.4)


def test_auc_and_precision_do_not_change_under_monotone_maps() -> None:
    random = np.random.default_rng(6)
    positive, negative = random.normal(0.4, 1, 400), random.normal(0, 1, 900)
    for change in (np.exp, np.arctan, lambda x: x**3 + 7):
        assert auc(change(positive), change(negative)) == auc(positive, negative)
        assert average_precision(change(positive), change(negative)) == average_precision(positive, negative)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_auc_is_the_share_of_pairs_in_the_right_order(seed: int) -> None:
    random = np.random.default_rng(seed)
    positive, negative = (random.integers(0, 6, size).astype(np.float32) for size in (7, 11))
    ahead = np.sign(positive[:, None] - negative[None]) / 2 + 0.5
    assert auc(positive, negative) == pytest.approx(float(ahead.mean()))
    assert auc(positive, negative) + auc(negative, positive) == pytest.approx(1)


def test_average_precision_by_hand() -> None:
    # Ranks: hit, miss, hit, miss. Precision 1 at recall 1/2, 2/3 at recall 1.
    positive, negative = np.array([0.9, 0.7], np.float32), np.array([0.8, 0.1], np.float32)
    assert average_precision(positive, negative) == pytest.approx(1 / 2 + 2 / 3 / 2)


def test_equal_scores_give_the_precision_of_chance() -> None:
    positive, negative = np.ones(3, np.float32), np.ones(9, np.float32)
    assert (auc(positive, negative), average_precision(positive, negative)) == (0.5, 0.25)
    assert math.isnan(auc(positive, negative[:0]))
    assert math.isnan(average_precision(positive[:0], negative))


def test_what_lights_up_in_a_tumour_that_does_not_enhance_is_false() -> None:
    t1, _, tumour = whole_planes()
    predicted = t1.copy()
    predicted[2, 10:20, 10:30] += 0.5
    found = enhancement(predicted, t1, t1, tumour, VOXEL_ML)
    assert found.group is Group.NONE
    assert math.isnan(found.auc) and math.isnan(found.recovery) and math.isnan(found.dice)
    assert found.false_ml == pytest.approx(200 * VOXEL_ML, rel=0.2)


def test_light_outside_the_tumour_is_not_counted() -> None:
    t1, _, tumour = whole_planes()
    assert enhancement(np.where(tumour, t1, t1 + 2), t1, t1, tumour & ~tumour, VOXEL_ML).false_ml == 0


def test_an_expert_overrules_the_rule() -> None:
    t1, truth, tumour = tumour_with_rim()
    labelled = np.zeros(SHAPE, bool)
    labelled[2:4, 12:28, 14:20] = True
    found = enhancement(truth, t1, truth, tumour, VOXEL_ML, labelled=labelled)
    assert found.voxels == labelled.sum()
    assert found.recovery == pytest.approx(1)


def test_where_an_expert_drew_no_uptake_there_is_nothing_to_recover() -> None:
    t1, truth, tumour = tumour_with_rim(-0.1)
    found = enhancement(truth, t1, truth, tumour, VOXEL_ML, labelled=truth < t1)
    assert math.isnan(found.recovery) and math.isnan(found.lit)
    assert (found.bias, found.dice) == (0, 0)


@pytest.mark.parametrize(
    ("enhancing", "tumour", "group"),
    [
        (49, 100, Group.NONE),
        (50, 5001, Group.NONE),
        (50, 5000, Group.SOME),
        (99, 1000, Group.SOME),
        (100, 1000, Group.CLEAR),
        (0, 0, Group.NONE),
    ],
)
def test_a_patient_counts_with_fifty_voxels_and_one_percent(
    enhancing: int, tumour: int, group: Group
) -> None:
    assert group_of(enhancing, tumour) is group


@pytest.mark.parametrize("group", list(Group))
def test_a_figure_is_taken_over_the_patients_that_it_is_meant_for(group: Group) -> None:
    t1, truth, tumour = tumour_with_rim()
    placed = enhancement(truth, t1, truth, tumour, VOXEL_ML)
    one = row("a", "model", {"brain": in_region(t1, truth, tumour, 1.0)}, placed, {"map_dice": 0.5})
    one = type(one)(one.patient, one.arm, group, one.figures)
    meant = {figure.key for figure in FIGURES if math.isfinite(figure.value(one))}
    assert {"brain_ncc", "map_dice", "false_ml"} <= meant
    assert ("recovery_enhancing" in meant) == (group is not Group.NONE)
    assert ("recovery_clear" in meant) == (group is Group.CLEAR)
    assert ("false_ml_none" in meant) == (group is Group.NONE)
    assert "core_ncc" not in meant


def test_no_two_figures_have_one_name() -> None:
    keys = [figure.key for figure in FIGURES]
    assert len(keys) == len(set(keys))


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_the_box_around_the_tumour_is_enough(seed: int) -> None:
    random = np.random.default_rng(seed)
    predicted, t1, truth = (random.uniform(0, 2, SHAPE).astype(np.float32) for _ in range(3))
    tumour = np.zeros(SHAPE, bool)
    z, y, x = (int(random.integers(0, n - 3)) for n in SHAPE)
    tumour[z : z + 3, y : y + 9, x : x + 7] = True
    near = box(tumour)
    small = enhancement(*(array[near] for array in (predicted, t1, truth, tumour)), VOXEL_ML)
    assert small == enhancement(predicted, t1, truth, tumour, VOXEL_ML)


def test_the_box_of_nothing_is_everything() -> None:
    assert np.zeros(SHAPE)[box(np.zeros(SHAPE, bool))].shape == SHAPE


def test_smoothing_is_in_plane_keeps_the_mean_and_has_a_standard_deviation_of_one_pixel() -> None:
    point = np.zeros((3, 31, 31), np.float32)
    point[1, 15, 15] = 1
    out: npt.NDArray[np.float64] = smoothed(point).astype(float)
    assert out[[0, 2]].max() == 0
    assert out.sum() == pytest.approx(1, abs=1e-3)
    across = out[1].sum(axis=0)
    assert across @ np.square(np.arange(31) - 15) == pytest.approx(1, abs=0.05)


def test_a_chance_that_comes_true_as_often_as_it_says_is_calibrated() -> None:
    random = np.random.default_rng(8)
    chance = random.random(40_000).astype(np.float32)
    honest = calibration(chance, random.random(chance.size) < chance)
    boastful = calibration(chance, random.random(chance.size) < chance / 2)
    assert honest.shape == (3, BINS)
    assert honest[0].sum() == chance.size
    assert calibration_error(honest) < 0.02
    assert calibration_error(boastful) == pytest.approx(0.25, abs=0.02)
    assert math.isnan(calibration_error(np.zeros((3, BINS))))


def test_certainty_belongs_to_the_last_bin() -> None:
    counts = calibration(np.array([0.0, 1.0], np.float32), np.array([False, True]))
    assert counts[0].tolist() == [1, *[0] * (BINS - 2), 1]
    assert calibration_error(counts) == 0
