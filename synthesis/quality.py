"""Is it a head, and is it worth reading? Size and structure, measured on a coarse copy; no network, no atlas.

The limits were set on BRAINIX, the 40 patients of lgg (T1W and FLAIR), FG-6692, BraTS (skull-stripped),
Siemens 3D and sagittal T1W and a GE series, against a scanner's phantom, noise, balls and cylinders; what was
found there stands beside the constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from synthesis.errors import RefusedInput
from synthesis.preprocess import HIGHEST_VALUE, head_mask, level_in

COARSE_MM = 3.0
#: Heads 1.45 (a stripped brain) to 4.5 litres (with neck).
LEAST_LITRES, MOST_LITRES = 0.7, 8.0
#: Shortest, middle and longest side of the head: heads from 124, 151 and 165 mm; a slab of the phantom 22 mm.
LEAST_EXTENTS_MM = (60.0, 95.0, 110.0)
MOST_EXTENT_MM = 330.0
#: Spread of the middle half of the values over their median: heads from 0.16, balls 0.01–0.03.
LEAST_SPREAD = 0.08
#: Median deviation of the slices from their own blurred copy: heads from 0.028, phantoms (with inserts, too)
#: to 0.008.
LEAST_STRUCTURE = 0.014
STRUCTURE_MM = 6.0
#: Correlation of neighbours: heads from 0.76, noise 0.
LEAST_SMOOTHNESS = 0.4
#: Median of the outermost pixels over the brain's: 0–0.17; above, background is raised or noisy.
MOST_BACKGROUND = 0.25
#: Share of the outermost rows and columns that the head may touch.
MOST_CUT = 0.25
#: The outermost slice shows more of the head than this share of its largest section.
MOST_SECTION_AT_TOP = 0.6
#: Share of a plane that lies deep in the head, from which on it is searched for ghosts.
LEAST_INSIDE = 0.1
#: They are looked for in the outermost share of rows and columns, in the middle half of the other axis; the
#: percentile that stands for it: above, a nose or an ear that reaches the edge would count.
EDGE, OF_EDGE = 0.05, 40
#: Signal at the edges along one axis of the planes over that along the other, in units of the brain: motion
#: and flow repeat the head along phase encoding, noise and a pedestal are alike along both. Above the limit,
#: of lgg: no T1W, 3 of 40 FLAIR (one on a grey pedestal). Phase errors in k-space, 16 series: a head that
#: sways by 4, 2, 1 mm is told in 12, 7, 3; one that jumps by about 4 mm in 3: no remark is no proof.
MOST_GHOSTS = 0.08

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Measured:
    """What a volume shows."""

    litres: float
    #: Sides of the head along the axes of the volume, mm, shortest first.
    extents_mm: tuple[float, float, float]
    spread: float
    structure: float
    smoothness: float
    #: Median of the outermost pixels, in units of the brain.
    background: float
    #: Share of the outermost rows and columns of the matrix that the head touches.
    cut: float
    #: Section of the head in the highest slice over its largest section; 0 where slices are not axial.
    section_at_top: float
    #: How much more signal there is at the edges of the planes along one axis than along the other.
    ghosts: float


def measure(image: sitk.Image) -> Measured:
    """Return what decides whether this volume (LPS) is a head.

    Raises
    ------
    RefusedInput
        ``BLANK_VOLUME`` or ``NOT_A_HEAD`` when there is nothing to measure.
    """
    coarse = _coarse(image)
    head = head_mask(coarse)
    mask = np.asarray(sitk.GetArrayFromImage(head) > 0)
    deep = _deep(head)
    values = sitk.GetArrayFromImage(coarse)
    values /= level_in(values, deep)
    values = np.clip(values, 0.0, HIGHEST_VALUE)
    index = np.argwhere(mask)
    sides = (np.ptp(index, axis=0) + 1) * np.array(coarse.GetSpacing())[::-1]
    extents = sorted(float(side) for side in sides)
    low, high = np.percentile(values[deep], (25, 75))
    return Measured(
        litres=float(mask.sum() * np.prod(coarse.GetSpacing())) / 1e6,
        extents_mm=(extents[0], extents[1], extents[2]),
        spread=float(high - low),
        structure=_structure(values, deep, coarse),
        smoothness=_smoothness(values, deep),
        background=float(np.median(_border(values, 2))),
        cut=float(_border(mask, 1).mean()),
        section_at_top=_section_at_top(mask, coarse),
        ghosts=_ghosts(values, deep),
    )


def check_head(image: sitk.Image) -> None:
    """Refuse what is no head.

    Raises
    ------
    RefusedInput
        ``NOT_A_HEAD`` or ``BLANK_VOLUME``, with what was seen instead.
    """
    reason = why_no_head(measure(image))
    if reason:
        raise RefusedInput("NOT_A_HEAD", reason)


def why_no_head(found: Measured) -> str | None:
    """Return why this is no head as a sentence, or None."""
    noise = found.smoothness < LEAST_SMOOTHNESS
    if noise and found.background > MOST_BACKGROUND:
        return "The images show noise, not a head."
    if found.spread < LEAST_SPREAD or found.structure < LEAST_STRUCTURE:
        return "The images show a homogeneous body, as a phantom is, not a head."
    if noise:
        return "The images show noise, not a head."
    if any(side < least for side, least in zip(found.extents_mm, LEAST_EXTENTS_MM, strict=True)):
        sides = " × ".join(f"{side:.0f}" for side in found.extents_mm)
        return f"What the images show is too small for a head ({sides} mm)."
    if found.extents_mm[-1] > MOST_EXTENT_MM or found.litres > MOST_LITRES:
        return f"What the images show is too large for a head ({found.litres:.1f} litres)."
    if found.litres < LEAST_LITRES:
        return f"What the images show is too small for a head ({found.litres:.1f} litres)."
    return None


def remarks(name: str, found: Measured) -> tuple[str, ...]:
    """Return what a reader should know about this series as sentences; `name` is FLAIR or T1W."""
    if found.background > MOST_BACKGROUND:
        return (f"Low signal in the {name}: its background is at {found.background:.0%} of the brain.",)
    said = []
    if found.cut > MOST_CUT:
        said.append(f"The field of view of the {name} cuts the head.")
    if found.section_at_top > MOST_SECTION_AT_TOP:
        said.append(f"The {name} does not reach the top of the head.")
    if found.ghosts > MOST_GHOSTS:
        said.append(
            f"Motion or flow repeats the head beside the head in the {name}, with {found.ghosts:.0%} of the "
            "brain's signal."
        )
    return tuple(said)


def _coarse(image: sitk.Image) -> sitk.Image:
    factors = [
        max(1, min(int(COARSE_MM / spacing + 0.1), count // 2))
        for spacing, count in zip(image.GetSpacing(), image.GetSize(), strict=True)
    ]
    return sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factors)


def _deep(head: sitk.Image) -> BoolArray:
    """Return the voxels (D, H, W) well inside the head: no scalp, no skull."""
    depth = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(head, True, False, True))
    return np.asarray(depth > min(15.0, 0.5 * float(depth.max())))


def _structure(values: FloatArray, deep: BoolArray, like: sitk.Image) -> float:
    """Return how much the slices deviate from their blurred copy, smallest details left out."""
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(like)
    fine, broad = (
        sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(image, [mm, mm, 0.01]))
        for mm in (0.7 * COARSE_MM, STRUCTURE_MM)
    )
    return float(np.median(np.abs(fine - broad)[deep]))


def _smoothness(values: FloatArray, deep: BoolArray) -> float:
    """Return the correlation of each pixel with the one below it."""
    both = deep[:, 1:] & deep[:, :-1]
    upper, lower = values[:, 1:][both], values[:, :-1][both]
    if upper.size < 10 or upper.std() == 0 or lower.std() == 0:
        return 0.0
    return float(np.corrcoef(upper, lower)[0, 1])


def _ghosts(values: FloatArray, deep: BoolArray) -> float:
    """Return how much more signal lies at the edges along one axis of the planes than along the other."""
    planes = values[deep.mean(axis=(1, 2)) > LEAST_INSIDE]
    if not len(planes):
        return 0.0
    _, height, width = planes.shape
    rows, columns = (max(2, round(EDGE * count)) for count in (height, width))
    across, along = (slice(count // 4, count - count // 4) for count in (width, height))
    # the outermost pixels are left out: filters of the reconstruction end there
    top, bottom = planes[:, 1 : 1 + rows, across], planes[:, -1 - rows : -1, across]
    left, right = planes[:, along, 1 : 1 + columns], planes[:, along, -1 - columns : -1]
    levels = [np.percentile(edge, OF_EDGE, axis=(1, 2)) for edge in (top, bottom, left, right)]
    # the lower of two opposite edges: a head may be cut at one, ghosts reach both
    difference = np.minimum(*levels[:2]) - np.minimum(*levels[2:])
    return float(abs(np.median(difference)))


def _border(values: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """Return the outermost rows and columns of all slices, flat."""
    sides = (values[:, :width], values[:, -width:], values[:, :, :width], values[:, :, -width:])
    return np.concatenate([side.ravel() for side in sides])


def _section_at_top(mask: BoolArray, image: sitk.Image) -> float:
    upwards = image.GetDirection()[8]
    if abs(upwards) < np.sqrt(0.5):
        return 0.0
    sections = mask.sum(axis=(1, 2))
    return float(sections[-1 if upwards > 0 else 0] / max(1, sections.max()))
