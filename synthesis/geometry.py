"""Where slices lie: planes in patient space, and whether they make one regular stack (PS3.3 C.7.6.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from synthesis.errors import RefusedInput

Vector = npt.NDArray[np.float64]

#: Scanners write positions with two to six decimals; these leave room for that and not for another slice.
COSINE_TOLERANCE = 2e-3
SPACING_TOLERANCE = 1e-3  # relative, pixel spacing
GAP_TOLERANCE = 0.1  # of the distance between slices
SHEAR_TOLERANCE_MM = 1.0
SAME_POSITION_MM = 0.01


@dataclass(frozen=True)
class Plane:
    """One slice in patient space (LPS, mm). `position_mm` is the centre of its first pixel."""

    name: str
    position_mm: tuple[float, float, float]
    #: Direction of a row (increasing column), then of a column (increasing row); unit vectors.
    orientation: tuple[float, ...]
    #: Between rows, between columns: as Pixel Spacing has it.
    pixel_spacing_mm: tuple[float, float]
    #: Rows, columns.
    matrix: tuple[int, int]


@dataclass(frozen=True)
class Stack:
    """Planes as one regular grid, slices along +normal."""

    #: Indices into the planes, from the first slice along the normal to the last.
    order: tuple[int, ...]
    origin_mm: tuple[float, float, float]
    #: Row-major 3×3; its columns are row direction, column direction, normal.
    direction: tuple[float, ...]
    pixel_spacing_mm: tuple[float, float]
    spacing_mm: float


def plane_of(header: Dataset, name: str) -> Plane:
    """Return the plane of a slice; `name` is how people call it (``Instance 7``).

    Raises
    ------
    RefusedInput
        ``NO_POSITION`` when position, orientation or pixel spacing is missing or no geometry.
    """
    position = _numbers(header.get("ImagePositionPatient"), 3)
    orientation = _numbers(header.get("ImageOrientationPatient"), 6)
    spacing = _numbers(header.get("PixelSpacing"), 2)
    if position is None or orientation is None:
        raise RefusedInput("NO_POSITION", f"{name} does not say where it lies in the patient.")
    if spacing is None or spacing.min() <= 0:
        raise RefusedInput("NO_POSITION", f"{name} does not say how large its pixels are.")
    row, column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm([row, column], axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(float(row @ column)) > 0.01:
        raise RefusedInput("NO_POSITION", f"The orientation of {name.lower()} is no orientation.")
    return Plane(
        name=name,
        position_mm=(float(position[0]), float(position[1]), float(position[2])),
        orientation=tuple(float(value) for value in orientation),
        pixel_spacing_mm=(float(spacing[0]), float(spacing[1])),
        matrix=(int(header.Rows), int(header.Columns)),
    )


def stack_of(planes: Sequence[Plane]) -> Stack:
    """Return the regular stack that these planes make, whatever their order.

    Raises
    ------
    RefusedInput
        ``MIXED_GEOMETRY``, ``DUPLICATE_POSITIONS``, ``SLICE_MISSING``, ``IRREGULAR_SPACING``,
        ``SHEARED_STACK``.
    """
    _refuse_mixed(planes)
    axes = _axes(planes)
    positions = np.array([plane.position_mm for plane in planes])
    along = positions @ axes[:, 2]
    order = np.argsort(along, kind="stable")
    ordered = [planes[index] for index in order]
    _refuse_irregular(ordered, along[order])
    _refuse_sheared(positions[order], axes)
    first, last = positions[order[0]], positions[order[-1]]
    return Stack(
        order=tuple(int(index) for index in order),
        origin_mm=(float(first[0]), float(first[1]), float(first[2])),
        direction=tuple(float(value) for value in axes.ravel()),
        pixel_spacing_mm=ordered[0].pixel_spacing_mm,
        spacing_mm=float((last - first) @ axes[:, 2] / (len(planes) - 1)),
    )


def _numbers(value: Any, count: int) -> Vector | None:
    try:
        numbers = np.array([float(item) for item in value], dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


def _axes(planes: Sequence[Plane]) -> Vector:
    """Return the orthonormal matrix with the columns row direction, column direction, normal."""
    orientation = np.array([plane.orientation for plane in planes]).mean(axis=0)
    row = orientation[:3] / np.linalg.norm(orientation[:3])
    column = orientation[3:] - (orientation[3:] @ row) * row
    column /= np.linalg.norm(column)
    return np.stack([row, column, np.cross(row, column)], axis=1)


def _refuse_mixed(planes: Sequence[Plane]) -> None:
    first = planes[0]
    for plane in planes[1:]:
        if plane.matrix != first.matrix:
            what = f"matrix ({_times(first.matrix)} and {_times(plane.matrix)})"
        elif not np.allclose(plane.pixel_spacing_mm, first.pixel_spacing_mm, rtol=SPACING_TOLERANCE):
            what = "pixel spacing"
        elif not np.allclose(plane.orientation, first.orientation, atol=COSINE_TOLERANCE):
            what = "orientation"
        else:
            continue
        raise RefusedInput(
            "MIXED_GEOMETRY", f"{first.name} and {plane.name.lower()} of the series differ in {what}."
        )


def _refuse_irregular(planes: Sequence[Plane], along_mm: Vector) -> None:
    gaps = np.diff(along_mm)
    same = np.flatnonzero(gaps < SAME_POSITION_MM)
    if len(same):
        names = f"{planes[same[0]].name} and {planes[same[0] + 1].name.lower()}"
        raise RefusedInput(
            "DUPLICATE_POSITIONS",
            f"{names} lie at the same place ({len(same)} such pairs): the series holds several volumes "
            "(echoes, time points or reconstructions) in one.",
        )
    usual = float(np.median(gaps))
    wide = np.flatnonzero(gaps > 1.5 * usual)
    if len(wide):
        missing = int(np.maximum(1, np.round(gaps[wide] / usual) - 1).sum())
        first = wide[0]
        raise RefusedInput(
            "SLICE_MISSING",
            f"{missing} {'slice is' if missing == 1 else 'slices are'} missing: between "
            f"{planes[first].name.lower()} and {planes[first + 1].name.lower()} lie {gaps[first]:.1f} mm "
            f"instead of {usual:.1f} mm (at {along_mm[first]:.1f} mm along the stack).",
        )
    worst = int(np.argmax(np.abs(gaps - usual)))
    if abs(gaps[worst] - usual) > GAP_TOLERANCE * usual:
        raise RefusedInput(
            "IRREGULAR_SPACING",
            f"The slices are not evenly spaced: {planes[worst].name.lower()} and "
            f"{planes[worst + 1].name.lower()} lie {gaps[worst]:.2f} mm apart, most others {usual:.2f} mm.",
        )


def _refuse_sheared(positions_mm: Vector, axes: Vector) -> None:
    in_plane = (positions_mm - positions_mm[0]) @ axes[:, :2]
    drift = float(np.linalg.norm(in_plane, axis=1).max())
    if drift > SHEAR_TOLERANCE_MM:
        raise RefusedInput(
            "SHEARED_STACK",
            f"The slices are shifted sideways against each other by up to {drift:.1f} mm "
            "(like a tilted gantry): they make no rectangular volume.",
        )


def _times(matrix: tuple[int, int]) -> str:
    return f"{matrix[0]}×{matrix[1]}"
