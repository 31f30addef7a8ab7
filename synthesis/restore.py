"""From the model grid back to the T1W's own grid.

The network's answer is a difference, Δ, in units of the brain level. It is added to the T1W's own voxels: the
result keeps the T1W's sharpness and its exact geometry, and where Δ is 0 it is the T1W, bit for bit.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from synthesis.preprocess import FloatArray

#: Standard deviation, in pixels of the model grid, of the smoothing that hides the facets of linear
#: interpolation. Its kernel is finite, so that zero stays zero a few pixels off.
SMOOTHING = 0.35


def restore(delta: FloatArray, grid: sitk.Image, t1: sitk.Image, t1_level: float) -> sitk.Image:
    """Return T1W + Δ · level on the T1W's own grid, float32, never below 0 where Δ changed it.

    Parameters
    ----------
    delta : ndarray
        (D, S, S) on the model grid, in units of the T1W's brain level.
    grid : sitk.Image
        Geometry of the model grid.
    t1 : sitk.Image
        The T1W as acquired.
    t1_level : float
        Its brain level.

    Raises
    ------
    ValueError
        When Δ has another shape than the grid, or is not finite.
    """
    own = sitk.GetArrayFromImage(t1).astype(np.float32)
    change = sitk.GetArrayFromImage(_resampled(delta, grid, t1))
    changed = np.maximum(own + change * np.float32(t1_level), 0)
    image = sitk.GetImageFromArray(np.where(change == 0, own, changed).astype(np.float32))
    image.CopyInformation(t1)
    return image


def restore_map(probability: FloatArray, grid: sitk.Image, t1: sitk.Image) -> sitk.Image:
    """Return a probability (D, S, S) on the T1W's own grid, float32, 0–1; 0 outside the model grid.

    Raises
    ------
    ValueError
        When the map has another shape than the grid, or is not finite.
    """
    return sitk.Clamp(_resampled(probability, grid, t1), sitk.sitkFloat32, 0.0, 1.0)


def restore_spread(spread: FloatArray, grid: sitk.Image, t1: sitk.Image, t1_level: float) -> sitk.Image:
    """Return a spread of Δ (D, S, S) on the T1W's own grid and in its values, float32, never below 0.

    Raises
    ------
    ValueError
        When the map has another shape than the grid, or is not finite.
    """
    there = sitk.GetArrayFromImage(_resampled(spread, grid, t1))
    image = sitk.GetImageFromArray(np.maximum(there, 0) * np.float32(t1_level))
    image.CopyInformation(t1)
    return image


def _resampled(values: FloatArray, grid: sitk.Image, t1: sitk.Image) -> sitk.Image:
    if values.shape != grid.GetSize()[::-1]:
        raise ValueError(f"Values of shape {values.shape} do not lie on a grid of {grid.GetSize()[::-1]}.")
    if not np.isfinite(values).all():
        raise ValueError("The values are not finite.")
    image = sitk.GetImageFromArray(np.ascontiguousarray(values, dtype=np.float32))
    image.CopyInformation(grid)
    there = sitk.Resample(image, t1, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    pixel = grid.GetSpacing()[0]
    variance = [(SMOOTHING * pixel) ** 2 if spacing < pixel else 0.0 for spacing in t1.GetSpacing()]
    return sitk.DiscreteGaussian(there, variance, 32, 0.01, True) if any(variance) else there
