"""Heads on the model grid without a scanner: an egg of folded tissue, the same for the same seed."""

from __future__ import annotations

import functools

import numpy as np
import SimpleITK as sitk

from synthesis.preprocess import FloatArray, ModelInput

#: Fluid, grey matter, white matter, lesion, fat.
ON_T1W, ON_FLAIR = (0.35, 0.85, 1.05, 0.6, 2.5), (0.2, 1.1, 0.95, 1.6, 1.8)


def smooth_noise(random: np.random.Generator, shape: tuple[int, ...], sigma: float) -> FloatArray:
    image = sitk.GetImageFromArray(random.normal(size=shape).astype(np.float32))
    for axis in (0, 1):
        image = sitk.RecursiveGaussian(image, sigma, False, 0, axis)
    smooth = sitk.GetArrayFromImage(image)
    return np.asarray(smooth / smooth.std(), dtype=np.float32)


@functools.cache
def head(seed: int) -> ModelInput:
    """Return an egg of folded grey and white matter, fluid between, a lesion in it and fat around it."""
    random = np.random.default_rng(seed)
    shape, spacing = (22, 80, 80), (3.0, 3.0, 6.0)
    z, y, x = np.meshgrid(
        *[(np.arange(n) - n / 2) * mm for n, mm in zip(shape, spacing[::-1], strict=True)], indexing="ij"
    )
    radius = np.sqrt((x / 75) ** 2 + (y / 95) ** 2 + (z / 70) ** 2)
    folds, gaps = smooth_noise(random, shape, 3.0), smooth_noise(random, shape, 2.0)
    lesion = (x - random.uniform(-30, 30)) ** 2 + (y - random.uniform(-30, 30)) ** 2 + z**2 < 22**2
    tissue = np.where(folds > 0, 2, 1)
    tissue[lesion] = 3
    tissue[gaps > 1.6] = 0
    tissue[radius > 0.92] = 4
    inside = radius < 1
    channels = []
    for values in (ON_T1W, ON_FLAIR):
        blurred = sitk.DiscreteGaussian(sitk.GetImageFromArray(np.array(values)[tissue]), [0.3, 0.3, 0.0])
        noisy = sitk.GetArrayFromImage(blurred) * inside + random.normal(0, 0.02, shape)
        channels.append(np.abs(noisy) * (1 + 0.1 * smooth_noise(random, shape, 25.0)))
    grid = sitk.Image(shape[::-1], sitk.sitkFloat32)
    grid.SetSpacing(spacing)
    return ModelInput(np.stack(channels, axis=1).astype(np.float32), 300.0, 200.0, grid, inside)
