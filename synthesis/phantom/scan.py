"""A scanner for the phantom: sequences, slices in space, and the signal of each voxel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from synthesis.phantom.tissue import CONSTANTS, Constants, Fractions, HeadMap, Tissue

Pixels = npt.NDArray[np.uint16]
Axes = npt.NDArray[np.float64]

#: Row direction, column direction and slice normal of each plane, as columns, LPS.
PLANES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "axial": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "sagittal": ((0, 1, 0), (0, 0, -1), (-1, 0, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}
#: Blur of the head's map before sampling: takes the steps off the borders of the labels.
POINT_SPREAD_VOXELS = 0.5
#: White matter in a picture, in stored values; scanners of 12 bits use a range like this.
WHITE_MATTER_VALUE = 420.0
MOST_VALUE = 4095
#: Noise in each of the two channels, as a share of white matter.
NOISE = 0.02


@dataclass(frozen=True)
class Scan:
    """One series to acquire. Defaults are those of a 2D spin echo at 1.5 T."""

    description: str
    tr_ms: float
    te_ms: float
    #: None: no inversion.
    ti_ms: float | None = None
    scanning_sequence: str = "SE"
    sequence_variant: str = "NONE"
    acquisition_type: str = "2D"
    echo_train: int = 1
    flip_deg: float = 90.0
    plane: str = "axial"
    slices: int = 22
    thickness_mm: float = 5.0
    gap_mm: float = 1.0
    matrix: int = 256
    pixel_mm: float = 0.9
    #: Tilt of the slices about the axis from ear to ear, then about the axis from foot to head.
    tilt_deg: float = 8.0
    turn_deg: float = 2.0
    #: Centre of the stack in LPS.
    centre_mm: tuple[float, float, float] = (0.5, 6.0, 15.0)
    #: How the head has moved since the first series: shift in LPS and turn about the axis from foot to head.
    moved_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    moved_deg: float = 0.0
    #: A gadolinium agent is on board.
    enhanced: bool = False
    localizer: bool = False

    @property
    def spacing_mm(self) -> float:
        """Return the distance of neighbouring slices."""
        return self.thickness_mm + self.gap_mm

    def axes(self) -> Axes:
        """Return row direction, column direction and normal as the columns of a rotation, LPS."""
        return np.asarray(
            _rotation(self.tilt_deg, self.turn_deg) @ np.array(PLANES[self.plane], dtype=float).T
        )

    def first_pixel_mm(self) -> Axes:
        """Return the centre of the first pixel of the first slice, LPS."""
        half = np.array([self.matrix - 1, self.matrix - 1, self.slices - 1]) / 2
        steps = half * [self.pixel_mm, self.pixel_mm, self.spacing_mm]
        return np.asarray(np.array(self.centre_mm) - self.axes() @ steps)

    def position_mm(self, index: int) -> Axes:
        """Return the Image Position (Patient) of a slice."""
        return np.asarray(self.first_pixel_mm() + index * self.spacing_mm * self.axes()[:, 2])


def _rotation(tilt_deg: float, turn_deg: float) -> Axes:
    a, b = math.radians(tilt_deg), math.radians(turn_deg)
    tilt = np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    turn = np.array([[math.cos(b), -math.sin(b), 0], [math.sin(b), math.cos(b), 0], [0, 0, 1]])
    return np.asarray(turn @ tilt)


def signal(tissue: Constants, scan: Scan) -> float:
    """Return the signal of a tissue by the spin echo equation, with or without inversion."""
    pd, t1 = tissue.pd, tissue.t1_ms
    if scan.enhanced:
        pd, t1 = tissue.pd_enhanced or pd, tissue.t1_enhanced_ms or t1
    recovered = 1 - math.exp(-scan.tr_ms / t1)
    if scan.ti_ms is not None:
        recovered = abs(1 - 2 * math.exp(-scan.ti_ms / t1) + math.exp(-scan.tr_ms / t1))
    return pd * recovered * math.exp(-scan.te_ms / tissue.t2_ms)


def weigh(head: HeadMap, scan: Scan) -> Fractions:
    """Return the signal of each voxel of the head `(z, y, x)`, white matter = 1."""
    table = np.array([signal(CONSTANTS[tissue], scan) for tissue in Tissue], dtype=np.float32)
    table /= table[Tissue.WHITE_MATTER]
    rest = np.clip(1 - head.white - head.grey, 0, 1)
    return np.asarray(
        table[head.labels] * rest
        + table[Tissue.WHITE_MATTER] * head.white
        + table[Tissue.GREY_MATTER] * head.grey
    )


def acquire(head: HeadMap, person: sitk.Transform, scan: Scan, rng: np.random.Generator) -> Pixels:
    """Return the stored values `(slice, row, column)` of a scan: partial volume, bias field, Rician noise.

    `person` leads from this patient's head to the map, as `lesion.bend` makes it.
    """
    volume = sitk.GetImageFromArray(_across(weigh(head, scan), scan, head.voxel_mm))
    volume.SetSpacing((head.voxel_mm,) * 3)
    volume.SetOrigin(head.origin_mm)
    volume = sitk.SmoothingRecursiveGaussian(volume, POINT_SPREAD_VOXELS * head.voxel_mm)

    resampler = sitk.ResampleImageFilter()
    resampler.SetTransform(sitk.CompositeTransform([person, _motion(scan)]))
    resampler.SetInterpolator(sitk.sitkBSpline)
    resampler.SetOutputDirection(scan.axes().ravel().tolist())
    resampler.SetOutputOrigin(scan.first_pixel_mm().tolist())
    resampler.SetOutputSpacing((scan.pixel_mm, scan.pixel_mm, scan.spacing_mm))
    resampler.SetSize((scan.matrix, scan.matrix, scan.slices))
    return _receive(sitk.GetArrayFromImage(resampler.Execute(volume)), scan, rng)


def _across(volume: Fractions, scan: Scan, voxel_mm: float) -> Fractions:
    """Return the mean over the thickness of a slice, along the axis of the map nearest to its normal."""
    axis = 2 - int(np.argmax(np.abs(scan.axes()[:, 2])))
    half = scan.thickness_mm / voxel_mm / 2
    steps = range(-math.ceil(half), math.ceil(half) + 1)
    weights = [max(0.0, min(step + 0.5, half) - max(step - 0.5, -half)) for step in steps]
    total = sum(weight * np.roll(volume, step, axis) for step, weight in zip(steps, weights, strict=True))
    return np.asarray(total / sum(weights), dtype=np.float32)


def _motion(scan: Scan) -> sitk.Transform:
    """Return the map from the place in the scanner to the place in the head as it lay at first."""
    motion = sitk.Euler3DTransform()
    motion.SetRotation(0.0, 0.0, -math.radians(scan.moved_deg))
    motion.SetTranslation([-shift for shift in scan.moved_mm])
    return motion


def _receive(signal_: Fractions, scan: Scan, rng: np.random.Generator) -> Pixels:
    """Return stored values: the coil's bias, thermal noise in two channels, magnitude, scaling."""
    depth, height, width = (
        np.linspace(-1, 1, size, dtype=np.float32) if size > 1 else np.zeros(1, np.float32)
        for size in signal_.shape
    )
    strengths = rng.uniform(-0.06, 0.06, 3)
    bias = 1 + (
        strengths[0] * depth[:, None, None]
        + strengths[1] * height[None, :, None]
        + strengths[2] * width[None, None, :]
        + 0.08 * (height[None, :, None] ** 2 + width[None, None, :] ** 2)
    )
    real = np.clip(signal_, 0, None) * bias
    real += NOISE * rng.standard_normal(real.shape, dtype=np.float32)
    imaginary = NOISE * rng.standard_normal(real.shape, dtype=np.float32)
    magnitude = np.hypot(real, imaginary) * WHITE_MATTER_VALUE
    return np.asarray(np.clip(np.round(magnitude), 0, MOST_VALUE), dtype=np.uint16)
