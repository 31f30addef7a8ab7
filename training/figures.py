"""The figures by which a synthetic T1C is judged. Pure functions on arrays divided by the brain level.

`in_region` counts the region's voxels only; `masked_full` is the reading of the paper, in which the mean also
runs over the zeros around the region, so that small regions look better: by −10·log10 of their share in dB.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.float64]
Box = tuple[slice, slice, slice]
#: Patients that a figure is meant for.
Over = Literal["all", "none", "enhancing", "clear"]

#: Smoothed uptake above this is enhancement; a patient counts with this many voxels and share of the tumour.
ENHANCING = 0.2
LEAST_VOXELS, LEAST_SHARE = 50, 0.01
#: From this share of the tumour on a patient clearly enhances: it parts `lgg` as the INDEX of the data does.
CLEAR_SHARE = 0.1
#: Uptake up to this is surely none.
NOT_ENHANCING = 0.1
#: A tumour lights up when this share of its uptake is recovered: the least that may ship as default.
LIT = 0.4
#: Pixels that the kernel of `smoothed` reaches.
REACH = 4
#: Bins of the calibration curve.
BINS = 10
#: Mean differences within these are of no importance; set before anything was compared. PSNR: a fifth of the
#: gain over identity that is demanded in the brain. NCC: half of the spread between patients in the paper
#: (0.041). AUC and Dice: half of what is noise with 17 patients (MODEL notes, 8). Recovery: half of the way
#: from the least that may ship to what is demanded. False enhancement: a ball of 1 cm.
PSNR_DB, NCC, AUC, RECOVERY, DICE, FALSE_ML = 0.5, 0.02, 0.05, 0.1, 0.05, 0.5


class Group(StrEnum):
    """How much of a patient's tumour truly enhances: nothing that counts, some, or clearly."""

    NONE = "none"
    SOME = "some"
    CLEAR = "clear"


@dataclass(frozen=True)
class Region:
    """How well an image agrees with the true one in a region."""

    psnr_in_region: float
    nmse_in_region: float
    ncc: float
    psnr_masked_full: float
    nmse_masked_full: float


@dataclass(frozen=True)
class Enhancement:
    """How well the uptake in the tumour is placed; NaN where there is nothing to place."""

    #: Voxels of the tumour that enhance.
    voxels: int
    group: Group
    #: Area under the ROC curve, and average precision, of ŷ − T1: enhancing against other tumour.
    auc: float
    ap: float
    #: The same area of the predicted chance of enhancement.
    chance_auc: float
    #: Over the enhancing voxels: mean predicted by mean true uptake (NaN unless above 0); their difference.
    recovery: float
    bias: float
    #: 1 when the tumour lights up, 0 when it does not, NaN without a recovery.
    lit: float
    #: Of the voxels with predicted uptake above `ENHANCING`, not smoothed, with those that enhance.
    dice: float
    #: mL that enhance and stay dark; mL that light up and should not.
    missed_ml: float
    false_ml: float

    @property
    def counts(self) -> bool:
        """Whether the patient counts as enhancing."""
        return self.group is not Group.NONE


@dataclass(frozen=True)
class Row:
    """An exam's figures under one arm, by column; or the average over the exams of a patient."""

    #: Name of the exam; of an average, the patient's.
    patient: str
    arm: str
    #: Of an average, that of the exam with most enhancement.
    group: Group
    figures: Mapping[str, float]
    #: Whose exam it is; empty where patients have one exam each.
    person: str = ""
    #: What this is the average of; empty for an exam.
    exams: tuple[Row, ...] = ()

    @property
    def each(self) -> tuple[Row, ...]:
        """The exams."""
        return self.exams or (self,)


@dataclass(frozen=True)
class Figure:
    """What is reported over patients: a column, and the patients it is meant for."""

    column: str
    title: str
    over: Over = "all"
    #: Within this two arms are equivalent. None: not tested, for it follows from a figure that is.
    margin: float | None = None

    @property
    def key(self) -> str:
        """The figure's name in JSON."""
        return self.column if self.over == "all" else f"{self.column}_{self.over}"

    def value(self, row: Row) -> float:
        """Return the row's value, over the exams that the figure is meant for; NaN when none has a number."""
        return average(exam.figures.get(self.column, math.nan) for exam in row.each if self._meant(exam))

    def _meant(self, exam: Row) -> bool:
        return self.over in ("all", exam.group.value) or (
            self.over == "enhancing" and exam.group is not Group.NONE
        )


def _of_region(name: str, title: str, over: Over = "all") -> tuple[Figure, ...]:
    return (
        Figure(f"{name}_psnr_in_region", f"PSNR in {title}, dB", over, PSNR_DB),
        Figure(f"{name}_ncc", f"NCC in {title}", over, NCC),
        Figure(f"{name}_nmse_in_region", f"NMSE in {title}", over),
        Figure(f"{name}_psnr_masked_full", f"PSNR of {title}, whole volume masked, dB", over),
        Figure(f"{name}_nmse_masked_full", f"NMSE of {title}, whole volume masked", over),
    )


FIGURES = (
    *_of_region("brain", "brain without tumour"),
    *_of_region("tumour", "whole tumour"),
    *_of_region("core", "labelled core"),
    *_of_region("enhancing_label", "labelled enhancing part"),
    *_of_region("enhancing_rule", "voxels with smoothed uptake > 0.2", "enhancing"),
    Figure("auc", "AUC of uptake, enhancing", "enhancing", AUC),
    Figure("auc", "AUC of uptake, clearly enhancing", "clear"),
    Figure("ap", "average precision of uptake, enhancing", "enhancing", AUC),
    Figure("ap", "average precision of uptake, clearly enhancing", "clear"),
    Figure("chance_auc", "AUC of the chance, enhancing", "enhancing"),
    Figure("chance_auc", "AUC of the chance, clearly enhancing", "clear"),
    Figure("recovery", "recovery, enhancing", "enhancing", RECOVERY),
    Figure("recovery", "recovery, clearly enhancing", "clear"),
    Figure("bias", "bias of uptake, enhancing", "enhancing"),
    Figure("bias", "bias of uptake, clearly enhancing", "clear"),
    Figure("lit", f"share that lights up (recovery ≥ {LIT}), clearly enhancing", "clear"),
    Figure("dice", "Dice of uptake > 0.2, enhancing", "enhancing", DICE),
    Figure("dice", "Dice of uptake > 0.2, clearly enhancing", "clear"),
    Figure("missed_ml", "missed enhancement, mL, enhancing", "enhancing"),
    Figure("false_ml", "false enhancement, mL, all", "all", FALSE_ML),
    Figure("false_ml", "false enhancement, mL, tumours that do not enhance", "none"),
    Figure("map_dice", "Dice of the tumour map"),
)


def row(
    patient: str,
    arm: str,
    regions: Mapping[str, Region],
    placed: Enhancement,
    others: Mapping[str, float],
    person: str = "",
) -> Row:
    """Return the figures of an exam as one row; the columns of a region begin with its name."""
    figures = {
        f"{name}_{key}": value for name, found in regions.items() for key, value in asdict(found).items()
    }
    figures |= {key: float(value) for key, value in asdict(placed).items() if key != "group"}
    return Row(patient, arm, placed.group, figures | dict(others), person)


def in_region(predicted: FloatArray, truth: FloatArray, region: BoolArray, peak: float) -> Region:
    """Return the agreement in a region that is not empty.

    Parameters
    ----------
    predicted, truth : ndarray
        (D, H, W), the whole volume: `masked_full` is the mean over all of it.
    region : ndarray
        (D, H, W).
    peak : float
        The true T1C's 99.5th percentile in the brain.

    Raises
    ------
    ValueError
        When a voxel of the region is no finite number.
    """
    inside, true = predicted[region], truth[region]
    error = np.square(inside - true, dtype=np.float64)
    nmse = float(error.mean()) / peak**2
    if not math.isfinite(nmse):
        raise ValueError("The region holds voxels that are no finite numbers: there is no error to state.")
    full = float(error.sum()) / truth.size / peak**2
    varies = float(inside.std()) > 0 and float(true.std()) > 0
    ncc = float(np.corrcoef(inside, true)[0, 1]) if varies else math.nan
    return Region(_decibels(nmse), nmse, ncc, _decibels(full), full)


def enhancing_by_rule(t1: FloatArray, truth: FloatArray, tumour: BoolArray) -> BoolArray:
    """Return the voxels of the tumour with smoothed uptake above `ENHANCING`, (D, H, W)."""
    return tumour & (smoothed(truth - t1) > ENHANCING)


def enhancement(
    predicted: FloatArray,
    t1: FloatArray,
    truth: FloatArray,
    tumour: BoolArray,
    voxel_ml: float,
    chance: FloatArray | None = None,
    labelled: BoolArray | None = None,
) -> Enhancement:
    """Return how the predicted uptake compares with the true one in the tumour.

    What is missed or false is taken from uptake smoothed as the truth is; all else from uptake as it is.

    Parameters
    ----------
    predicted, t1, truth : ndarray
        (D, H, W): ŷ, T1W and T1C. A `box` around the tumour is enough, and faster.
    tumour : ndarray
        (D, H, W).
    voxel_ml : float
        Volume of a voxel.
    chance : ndarray, optional
        (D, H, W): predicted chance of enhancement.
    labelled : ndarray, optional
        (D, H, W): the enhancing voxels as an expert drew them; else they are those of `enhancing_by_rule`.
    """
    uptake, true = predicted - t1, truth - t1
    smooth, smooth_true = smoothed(uptake), smoothed(true)
    enhancing = tumour & (smooth_true > ENHANCING if labelled is None else labelled)
    others = tumour & ~enhancing
    count, alight = int(enhancing.sum()), tumour & (smooth > ENHANCING)
    recovery = _ratio(float(uptake[enhancing].mean()), float(true[enhancing].mean())) if count else math.nan
    return Enhancement(
        voxels=count,
        group=group_of(count, int(tumour.sum())),
        auc=auc(uptake[enhancing], uptake[others]),
        ap=average_precision(uptake[enhancing], uptake[others]),
        chance_auc=math.nan if chance is None else auc(chance[enhancing], chance[others]),
        recovery=recovery,
        bias=float((uptake - true)[enhancing].mean()) if count else math.nan,
        lit=float(recovery >= LIT) if math.isfinite(recovery) else math.nan,
        dice=dice(tumour & (uptake > ENHANCING), enhancing) if count else math.nan,
        missed_ml=int((enhancing & (smooth <= NOT_ENHANCING)).sum()) * voxel_ml,
        false_ml=int((alight & ~enhancing & (smooth_true <= NOT_ENHANCING)).sum()) * voxel_ml,
    )


def group_of(enhancing: int, tumour: int) -> Group:
    """Return the group of a patient with so many enhancing voxels in so large a tumour."""
    if enhancing < LEAST_VOXELS or enhancing < LEAST_SHARE * tumour:
        return Group.NONE
    return Group.CLEAR if enhancing >= CLEAR_SHARE * tumour else Group.SOME


def dice(marked: BoolArray, drawn: BoolArray) -> float:
    """Return how far two regions overlap, 0 to 1; NaN when both are empty."""
    return _ratio(2.0 * int((marked & drawn).sum()), float(marked.sum() + drawn.sum()))


def average(values: Iterable[float]) -> float:
    """Return the mean of those that are finite; NaN without any."""
    found = [value for value in values if math.isfinite(value)]
    return math.fsum(found) / len(found) if found else math.nan


def auc(positive: FloatArray, negative: FloatArray) -> float:
    """Return the share of (positive, negative) pairs in the right order, ties by half; NaN without pairs."""
    if not positive.size or not negative.size:
        return math.nan
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left").astype(np.float64)
    up_to = np.searchsorted(ordered, positive, side="right")
    return float((below + up_to).sum() / 2 / positive.size / negative.size)


def average_precision(positive: FloatArray, negative: FloatArray) -> float:
    """Return the mean precision over recall, Σ (Rₖ − Rₖ₋₁) Pₖ, equal scores as one; NaN without pairs."""
    if not positive.size or not negative.size:
        return math.nan
    scores = np.concatenate([positive, negative])
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(order < positive.size)
    last = np.flatnonzero(np.diff(scores[order], append=np.float32(np.nan)) != 0)  # of its equals
    recall, precision = hits[last] / positive.size, hits[last] / (last + 1)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def calibration(chance: FloatArray, happened: BoolArray) -> Counts:
    """Return (3, `BINS`): of each bin of chance its voxels, the sum of their chances, those that enhance."""
    index = np.minimum((chance * BINS).astype(int), BINS - 1)
    weights = (None, chance, happened.astype(np.float64))
    return np.stack([np.bincount(index, weight, BINS).astype(np.float64) for weight in weights])


def calibration_error(counts: Counts) -> float:
    """Return the mean distance of chance and share over the voxels; NaN without any."""
    voxels, chances, happened = counts
    return _ratio(float(np.abs(chances - happened).sum()), float(voxels.sum()))


def smoothed(values: FloatArray) -> FloatArray:
    """Return (D, H, W) smoothed in-plane with a standard deviation of one pixel."""
    smooth = sitk.DiscreteGaussian(sitk.GetImageFromArray(values), [1.0, 1.0, 0.0], 32, 0.01, False)
    return np.asarray(sitk.GetArrayFromImage(smooth), dtype=np.float32)


def box(region: BoolArray) -> Box:
    """Return the slices that hold the region and what smoothing in it looks at; all when it is empty."""
    spans = []
    for axis in range(3):
        seen = np.flatnonzero(region.any(axis=tuple({0, 1, 2} - {axis})))
        reach = REACH if axis else 0
        spans.append(
            slice(max(0, int(seen[0]) - reach), int(seen[-1]) + 1 + reach) if seen.size else slice(None)
        )
    return spans[0], spans[1], spans[2]


def _decibels(nmse: float) -> float:
    return math.inf if nmse == 0 else -10 * math.log10(nmse)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
