"""From a T1W and a registered FLAIR to what the networks see. Training and inference both go through here.

Intensities are divided by the median of the patient's own brain, so that 1 is "brain" whatever the scanner.
The planes are axial, rows run from anterior to posterior and columns from the patient's right to the left.
All geometry is in millimetres in the patient's frame (LPS), as SimpleITK keeps it.

No bias field is taken out. Measured with N4 (in the head, on voxels of 4 mm) on BRAINIX and three patients of
lgg: within the brain the T1W's field varies by 9 to 28 % (5th to 95th percentile), the FLAIR's by 11 to 22 %,
but the brain's level moves by 2 % at most. On the patient with the strongest field the predicted change moved
by 0.010 of 0.086 brain levels on average (correlation 0.99), and the outline of the tumour lost a quarter
(Dice 0.80 between the two). The networks learned from images as scanners send them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from synthesis.errors import RefusedInput

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]

#: In-plane field of view of the model grid. Larger heads enlarge it.
FIELD_MM = 240.0
#: Distance of the axial planes that are laid through a sagittal or coronal acquisition.
REFORMAT_MM = 4.0
#: What lies further below the vertex than this is neck.
HEAD_HEIGHT_MM = 200.0
#: Scalp, skull and the fluid under it end about this far inside the skin.
BRAIN_DEPTH_MM = 15.0
#: No scalp: of this depth less than this share is brighter than 1.5 brains (heads of lgg: 8 to 55 %), while
#: outside of the head at least so much is exactly 0.
SCALP_MM, LEAST_SCALP, FAT_VALUE, BLACK = 8.0, 0.02, 1.5, 0.99
#: Masks are measured on voxels of about this size.
COARSE_MM = 3.0
#: Orbital fat and marrow reach 4 times the brain; more is a hot spot beside a surface coil.
HIGHEST_VALUE = 5.0
#: Smaller heads than this (litres) are noise, a phantom's rod, or a few slices of scalp.
LEAST_HEAD_L = 0.2
#: Less than this share of the brain's level is no signal.
LEAST_SIGNAL = 0.05
#: A plane is used when both images show signal in this share of the head.
LEAST_SHOWN = 0.5
#: Standard deviation of a box one sample wide is 0.29, of its Gaussian of equal half-width 0.42.
SIGMA_PER_SAMPLE = 0.42


@dataclass(frozen=True)
class ModelInput:
    """A patient on the model grid."""

    #: (D, 2, S, S): T1W and FLAIR, each divided by its own brain level, 0–`HIGHEST_VALUE`.
    values: FloatArray
    #: Brain medians in the units of the two images.
    t1_level: float
    flair_level: float
    #: Geometry of the model grid, D×S×S.
    grid: sitk.Image
    #: (D, S, S): the head.
    inside: BoolArray
    #: How far head and neck reach below the grid, mm.
    below_mm: float = 0.0
    #: Whether scalp and skull were taken off before.
    stripped: bool = False

    @property
    def usable(self) -> BoolArray:
        """(D,): the planes in which both images show most of the head."""
        head = self.inside.sum(axis=(1, 2))
        shown = ((self.values > LEAST_SIGNAL) & self.inside[:, None]).sum(axis=(2, 3)).min(axis=1)
        return np.asarray((head > 0) & (shown > LEAST_SHOWN * head), dtype=bool)

    @property
    def without_flair(self) -> float:
        """Share of the head on the usable planes where the T1W shows signal and the FLAIR none."""
        t1, flair = (self.values[self.usable] > LEAST_SIGNAL).swapaxes(0, 1)
        shown = t1 & self.inside[self.usable]
        return float((shown & ~flair).sum() / max(1, shown.sum()))


def brain_level(image: sitk.Image) -> float:
    """Return the median of the brain in a head or in a skull-stripped brain.

    Raises
    ------
    RefusedInput
        When the volume is blank.
    """
    coarse = _coarse(image)
    return level_in(sitk.GetArrayFromImage(coarse), _inner(coarse, head_mask(coarse))[0])


def level_in(values: npt.NDArray[np.floating], region: BoolArray) -> float:
    """Return the median of `values` in `region`, fluid, air, fat and vessels left out.

    Raises
    ------
    RefusedInput
        When the region holds no signal.
    """
    found = values[region & np.isfinite(values)]
    found = found[found > 0]
    if found.size < 50:
        raise RefusedInput("BLANK_VOLUME", "The images hold no brain that could be measured.")
    middle = float(np.median(found[found >= 0.25 * np.percentile(found, 90)]))
    return float(np.median(found[(found > 0.5 * middle) & (found < 1.7 * middle)]))


def head_mask(image: sitk.Image) -> sitk.Image:
    """Return the head (uint8, 1 inside, air in it filled) on the grid of `image`.

    Bright fat does not raise the threshold: values are capped at twice their median first.

    Raises
    ------
    RefusedInput
        When the volume is blank or holds nothing of a head's size.
    """
    values = np.nan_to_num(sitk.GetArrayViewFromImage(image).astype(np.float32), posinf=0.0, neginf=0.0)
    if float(values.max()) <= 0 or float(values.min()) == float(values.max()):
        raise RefusedInput("BLANK_VOLUME", "The images are blank.")
    brightest = float(np.percentile(values[values > 0], 99.5))
    cap = 2.0 * float(np.median(values[values > 0.1 * brightest]))
    capped = sitk.GetImageFromArray(np.clip(values, 0.0, cap))
    capped.CopyInformation(image)
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.SetInsideValue(0)
    otsu.SetOutsideValue(1)
    otsu.Execute(capped)
    rough = capped > 0.6 * otsu.GetThreshold()
    mask = sitk.GetImageFromArray(_filled(sitk.GetArrayFromImage(rough)))
    mask.CopyInformation(image)
    largest = sitk.RelabelComponent(sitk.ConnectedComponent(mask)) == 1
    litres = float(np.prod(image.GetSpacing())) * int(sitk.GetArrayViewFromImage(largest).sum()) / 1e6
    if litres < LEAST_HEAD_L:
        raise RefusedInput("NOT_A_HEAD", "The images show nothing of the size of a head.")
    return sitk.Cast(largest, sitk.sitkUInt8)


def brain_region(image: sitk.Image) -> BoolArray:
    """Return the inside of the head, (D, H, W) on the grid of `image`: brain and fluid, no scalp or skull."""
    coarse = _coarse(image)
    inner = sitk.GetImageFromArray(_inner(coarse, head_mask(coarse))[0].astype(np.uint8))
    inner.CopyInformation(coarse)
    there = sitk.Resample(inner, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0, sitk.sitkUInt8)
    return np.asarray(sitk.GetArrayFromImage(there) > 0)


def to_model_grid(t1: sitk.Image, flair_on_t1: sitk.Image, size: int = 120) -> ModelInput:
    """Return the patient on the model grid.

    Parameters
    ----------
    t1, flair_on_t1 : sitk.Image
        Both on the T1W's grid; the FLAIR is 0 where it was not acquired.
    size : int
        Rows and columns of the model grid: 240 mm / `size` each, more only for a head that does not fit.

    Raises
    ------
    RefusedInput
        When one of the two is blank.
    """
    t1, flair = sitk.Cast(t1, sitk.sitkFloat32), sitk.Cast(flair_on_t1, sitk.sitkFloat32)
    coarse = _coarse(t1)
    head = head_mask(coarse)
    inner, stripped = _inner(coarse, head)
    t1_level = level_in(sitk.GetArrayFromImage(coarse), inner)
    flair_level = level_in(sitk.GetArrayFromImage(_coarse(flair)), inner)
    grid = model_grid(t1, head, size)
    inside = sitk.Resample(head, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0, sitk.sitkUInt8)
    planes = [onto(image, grid) / level for image, level in ((t1, t1_level), (flair, flair_level))]
    return ModelInput(
        values=np.clip(np.stack(planes, axis=1), 0.0, HIGHEST_VALUE).astype(np.float32),
        t1_level=t1_level,
        flair_level=flair_level,
        grid=grid,
        inside=sitk.GetArrayFromImage(inside) > 0,
        below_mm=_below_mm(head, grid),
        stripped=stripped,
    )


def onto(image: sitk.Image, grid: sitk.Image) -> FloatArray:
    """Return `image` on the model grid, (D, S, S), smoothed first where the grid is the coarser."""
    target = [_pitch_along(grid, column) for column in _axes(image).T]
    finer = [max(t * t - s * s, 0.0) for t, s in zip(target, image.GetSpacing(), strict=True)]
    variance = [SIGMA_PER_SAMPLE**2 * v for v in finer]
    smooth = sitk.DiscreteGaussian(image, variance, 32, 0.01, True) if any(variance) else image
    there = sitk.Resample(smooth, grid, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    return np.asarray(sitk.GetArrayFromImage(there), dtype=np.float32)


def model_grid(t1: sitk.Image, head: sitk.Image, size: int) -> sitk.Image:
    """Return the geometry of the model grid (a zero image) for this T1W and its head mask.

    The T1W's own planes are kept where they are nearer to axial than to anything else; otherwise axial planes
    are laid through the head.
    """
    axes = _axes(t1)
    third = axes[:, 2]
    own_planes = abs(third[2]) >= np.sqrt(0.5)
    normal = third * np.sign(third[2]) if own_planes else np.array([0.0, 0.0, 1.0])
    left = np.array([1.0, 0.0, 0.0])
    columns = left - (left @ normal) * normal
    columns /= np.linalg.norm(columns)
    rows = np.cross(normal, columns)
    frame = np.stack([columns, rows, normal], axis=1)

    low, high = _extent(head, frame)
    middle = (low + high) / 2
    pixel = max(FIELD_MM, 1.02 * float((high - low)[:2].max())) / size
    if own_planes:
        depth, between = t1.GetSize()[2], t1.GetSpacing()[2]
        ends = [
            np.asarray(t1.TransformIndexToPhysicalPoint((0, 0, index))) @ normal for index in (0, depth - 1)
        ]
        first = float(min(ends))
    else:
        low[2] = max(low[2], high[2] - HEAD_HEIGHT_MM)
        between = REFORMAT_MM
        depth = int(np.ceil((high[2] - low[2]) / between)) + 1
        first = float(low[2])
    corner = np.array([*(middle[:2] - pixel * (size - 1) / 2), first])
    grid = sitk.Image([size, size, depth], sitk.sitkFloat32)
    grid.SetSpacing([pixel, pixel, between])
    grid.SetDirection(frame.ravel().tolist())
    grid.SetOrigin((frame @ corner).tolist())
    return grid


def _below_mm(head: sitk.Image, grid: sitk.Image) -> float:
    axes = _axes(grid)
    lowest = _extent(head, axes)[0][2]
    return max(0.0, float(np.asarray(grid.GetOrigin()) @ axes[:, 2] - lowest))


def _axes(image: sitk.Image) -> Vector:
    return np.asarray(image.GetDirection(), dtype=np.float64).reshape(3, 3)


def _pitch_along(grid: sitk.Image, direction: Vector) -> float:
    """Return the sampling distance of `grid` along the one of its axes that `direction` follows most."""
    nearest = int(np.argmax(np.abs(_axes(grid).T @ direction)))
    return float(grid.GetSpacing()[nearest])


def _coarse(image: sitk.Image) -> sitk.Image:
    """Return the image averaged to voxels of about `COARSE_MM`, never coarser than it is."""
    factors = [
        max(1, min(int(COARSE_MM / spacing + 0.1), count // 2))
        for spacing, count in zip(image.GetSpacing(), image.GetSize(), strict=True)
    ]
    return sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factors)


def _filled(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the mask (D, H, W) closed and with its holes filled, plane by plane."""
    planes = []
    for plane in mask:
        closed = sitk.BinaryMorphologicalClosing(sitk.GetImageFromArray(plane), [2, 2])
        opened = sitk.BinaryMorphologicalOpening(sitk.BinaryFillhole(closed), [1, 1])
        planes.append(sitk.GetArrayFromImage(opened))
    return np.asarray(planes, dtype=np.uint8)


def _inner(image: sitk.Image, head: sitk.Image) -> tuple[BoolArray, bool]:
    """Return the voxels (D, H, W) that are brain, and whether scalp and skull were taken off before.

    Of a head they are those deep enough in it, of a stripped brain all.
    """
    distance = sitk.SignedMaurerDistanceMap(
        head, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
    )
    depth = sitk.GetArrayFromImage(distance)
    if _is_stripped(sitk.GetArrayViewFromImage(image), depth):
        return np.asarray(sitk.GetArrayFromImage(head) > 0), True
    return np.asarray(depth > min(BRAIN_DEPTH_MM, 0.5 * float(depth.max()))), False


def _is_stripped(values: npt.NDArray[np.floating], depth: FloatArray) -> bool:
    """Return whether these values show brain alone, on black; `depth` is mm inside the head."""
    outside, shell = values[depth < -COARSE_MM], values[(depth >= 0) & (depth < SCALP_MM)]
    level = float(np.median(values[depth >= 0]))
    black = outside.size > 0 and float((outside == 0).mean()) > BLACK
    return black and float((shell > FAT_VALUE * level).mean()) < LEAST_SCALP


def _extent(head: sitk.Image, frame: Vector) -> tuple[Vector, Vector]:
    """Return the lowest and highest coordinates of the head along the columns of `frame`, in mm."""
    index = np.argwhere(sitk.GetArrayViewFromImage(head) > 0)[:, ::-1]  # (N, 3) as x, y, z
    points = np.asarray(head.GetOrigin()) + (index * np.asarray(head.GetSpacing())) @ _axes(head).T
    along = points @ frame
    return along.min(axis=0), along.max(axis=0)
