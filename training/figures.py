"""The figures by which a synthetic T1C is judged. Pure functions on arrays divided by the brain level.

`in_region` counts the region's voxels only; `masked_full` is the reading of the paper, in which the mean also
runs over the zeros around the region, so that small regions look better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

#: Smoothed uptake above this is enhancement; a patient counts with this many voxels and share of the tumour.
ENHANCING = 0.2
LEAST_VOXELS, LEAST_SHARE = 50, 0.01
#: Uptake up to this is surely none.
NOT_ENHANCING = 0.1


@dataclass(frozen=True)
class Region:
    """How well an image agrees with the true one in a region."""

    psnr_in_region: float
    nmse_in_region: float
    ncc: float
    psnr_masked_full: float


@dataclass(frozen=True)
class Enhancement:
    """How well the uptake in the tumour is placed."""

    #: Voxels of the tumour that enhance; whether the patient counts as enhancing.
    voxels: int
    counts: bool
    #: Of ŷ − T1 for enhancing against other voxels of the tumour; NaN when there is only one kind.
    auc: float
    #: Mean predicted over mean true uptake in the enhancing voxels; NaN without them.
    recovery: float
    #: mL of the tumour that light up where the truth does not.
    false_ml: float


def in_region(predicted: FloatArray, truth: FloatArray, region: BoolArray, peak: float) -> Region:
    """Return the agreement in `region`; `peak` is the true T1C's 99.5th percentile in the brain."""
    error = np.square(predicted[region] - truth[region], dtype=np.float64)
    nmse = float(error.mean()) / peak**2
    full = float(error.sum()) / truth.size / peak**2
    ncc = float(np.corrcoef(predicted[region], truth[region])[0, 1])
    return Region(-10 * float(np.log10(nmse)), nmse, ncc, -10 * float(np.log10(full)))


def enhancement(
    predicted: FloatArray, t1: FloatArray, truth: FloatArray, tumour: BoolArray, voxel_ml: float
) -> Enhancement:
    """Return how the predicted uptake compares with the true one in the tumour, arrays (D, H, W)."""
    true_uptake, uptake = smoothed(truth - t1), smoothed(predicted - t1)
    enhancing = tumour & (true_uptake > ENHANCING)
    count = int(enhancing.sum())
    false = tumour & (uptake > ENHANCING) & (true_uptake <= NOT_ENHANCING)
    return Enhancement(
        voxels=count,
        counts=count >= LEAST_VOXELS and count >= LEAST_SHARE * int(tumour.sum()),
        auc=auc((predicted - t1)[enhancing], (predicted - t1)[tumour & ~enhancing]),
        recovery=float((predicted - t1)[enhancing].mean() / (truth - t1)[enhancing].mean())
        if count
        else float("nan"),
        false_ml=float(false.sum()) * voxel_ml,
    )


def auc(positive: FloatArray, negative: FloatArray) -> float:
    """Return the share of (positive, negative) pairs in the right order, ties by half; NaN without pairs."""
    if not positive.size or not negative.size:
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left").astype(np.float64)
    up_to = np.searchsorted(ordered, positive, side="right")
    return float((below + up_to).sum() / 2 / positive.size / negative.size)


def smoothed(values: FloatArray) -> FloatArray:
    """Return (D, H, W) smoothed in-plane with a standard deviation of one pixel."""
    smooth = sitk.DiscreteGaussian(sitk.GetImageFromArray(values), [1.0, 1.0, 0.0], 32, 0.01, False)
    return np.asarray(sitk.GetArrayFromImage(smooth), dtype=np.float32)
