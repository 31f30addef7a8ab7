"""A series as choosing and collecting see it: its headers together, and the geometry of its stack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np

from dicom_node.headers import Header

#: Two slices closer than this are at the same position; scanners print positions to 1e-3 at worst.
SAME_POSITION_MM = 0.05
#: Distances between neighbours may differ by this share of the usual one (rounded headers, oblique stacks).
REGULAR_WITHIN = 0.12
#: A distance of at least this many usual ones means that a slice is missing.
GAP_FROM = 1.6
#: Direction cosines of one stack agree to this.
SAME_COSINES = 1e-3
#: Slices that drift sideways by more than this make no rectangular volume, mm.
SHEARED_FROM_MM = 1.0
#: A stack that is shorter than this shows a part of the head: sella, orbits, inner ears, hippocampi, mm.
BRAIN_FROM_MM = 90.0
#: A segmentation has no more values than this; a slice of a head, at 8 bit, from 150 on (lgg).
MOST_LABELS = 32
#: A scan that is stored several times has series numbers this near: a Dixon makes four.
SAME_SCAN_WITHIN = 3
#: Two stacks are equal when spacing and extent differ by less than this share.
EQUAL_WITHIN = 0.02


@dataclass(frozen=True)
class Gap:
    """A place in the stack where slices are missing."""

    #: Position along the normal of the slices beside the gap, mm, and how many slices are missing.
    after_mm: float
    before_mm: float
    missing: int
    #: Instance numbers of the slices beside the gap, where known.
    after_number: int | None
    before_number: int | None

    def sentence(self) -> str:
        """Return the gap in words."""
        what = "one slice is" if self.missing == 1 else f"{self.missing} slices are"
        if self.after_number is not None and self.before_number is not None:
            low, high = sorted((self.after_number, self.before_number))
            between = f"between instance numbers {low} and {high}"
            if self.missing == 1 and high - low == 2:
                between = f"instance number {low + 1}"
            return f"{what} missing ({between}, at {(self.after_mm + self.before_mm) / 2:.1f} mm)"
        return f"{what} missing (between {self.after_mm:.1f} and {self.before_mm:.1f} mm)"


@dataclass(frozen=True)
class Series:
    """All instances of one series that are here, in the order of their arrival."""

    uid: str
    headers: tuple[Header, ...]

    @property
    def first(self) -> Header:
        """The instance that stands for the series where all agree."""
        return self.headers[0]

    @property
    def title(self) -> str:
        """What people call the series: number and description."""
        description = self.first.series_description or self.first.protocol_name or "no description"
        number = self.first.series_number
        return f"{number} “{description}”" if number is not None else f"“{description}”"

    @cached_property
    def slices(self) -> int:
        """Number of image planes: instances of classic MR, frames of Enhanced MR."""
        return sum(header.frames for header in self.headers)

    @cached_property
    def normal(self) -> np.ndarray | None:
        """Unit normal of the planes (LPS), None without orientation."""
        cosines = next((header.orientation for header in self.headers if len(header.orientation) == 6), None)
        if cosines is None:
            return None
        normal = np.cross(cosines[:3], cosines[3:])
        length = float(np.linalg.norm(normal))
        return normal / length if length > 0.5 else None

    @cached_property
    def offsets_mm(self) -> list[tuple[float, int | None]]:
        """Position of each plane along the normal (mm) and its instance number, sorted by position."""
        if self.normal is None:
            return []
        found = [
            (float(np.dot(position, self.normal)), header.instance_number if header.frames == 1 else None)
            for header in self.headers
            for position in header.positions_mm
        ]
        return sorted(found, key=lambda pair: pair[0])

    @cached_property
    def spacing_mm(self) -> float | None:
        """Usual distance between neighbouring planes, mm."""
        offsets = np.array([offset for offset, _ in self.offsets_mm])
        steps = np.diff(offsets)
        steps = steps[steps > SAME_POSITION_MM]
        return float(np.median(steps)) if steps.size else None

    @cached_property
    def gaps(self) -> tuple[Gap, ...]:
        """Places where slices are missing."""
        usual = self.spacing_mm
        if usual is None:
            return ()
        found = []
        for (before, n1), (after, n2) in zip(self.offsets_mm, self.offsets_mm[1:], strict=False):
            missing = round((after - before) / usual) - 1
            if after - before > GAP_FROM * usual and missing >= 1:
                found.append(Gap(before, after, missing, n1, n2))
        return tuple(found)

    @cached_property
    def is_regular(self) -> bool:
        """Whether the planes are parallel, of one matrix, and equally far apart."""
        usual = self.spacing_mm
        if usual is None or self.gaps or not self.is_uniform:
            return False
        steps = np.diff([offset for offset, _ in self.offsets_mm])
        return bool(np.all(np.abs(steps - usual) <= REGULAR_WITHIN * usual))

    @property
    def has_positions(self) -> bool:
        """Whether each plane says where it lies."""
        return all(len(header.positions_mm) == header.frames for header in self.headers)

    @cached_property
    def drift_mm(self) -> float:
        """How far the planes are shifted sideways against each other, as under a tilted gantry, mm."""
        positions = np.array([position for header in self.headers for position in header.positions_mm])
        if self.normal is None or not len(positions):
            return 0.0
        away = positions - positions[0]
        return float(np.linalg.norm(away - np.outer(away @ self.normal, self.normal), axis=1).max())

    @cached_property
    def is_uniform(self) -> bool:
        """Whether all planes share orientation, matrix and pixel spacing."""
        shapes = {(header.rows, header.columns) for header in self.headers}
        if len(shapes) != 1 or any(header.orientations != 1 for header in self.headers):
            return False
        cosines = np.array([header.orientation for header in self.headers if len(header.orientation) == 6])
        if len(cosines) != len(self.headers):
            return False
        return bool(np.all(np.abs(cosines - cosines[0]) <= SAME_COSINES))

    @cached_property
    def numbers_are_contiguous(self) -> bool:
        """Whether the instance numbers have no hole (a multi-frame instance counts as whole)."""
        if any(header.frames > 1 for header in self.headers):
            return True
        numbers = [header.instance_number for header in self.headers]
        if any(number is None for number in numbers):
            return False
        known = sorted({number for number in numbers if number is not None})
        return len(known) == len(numbers) and known[-1] - known[0] + 1 == len(known)

    @property
    def extent_mm(self) -> float:
        """Length of the stack along its normal, mm."""
        return self.offsets_mm[-1][0] - self.offsets_mm[0][0] if self.offsets_mm else 0.0

    @property
    def plane(self) -> str:
        """Nearest anatomical plane of the slices: AXIAL, SAGITTAL, CORONAL, or "" when unknown."""
        if self.normal is None:
            return ""
        return ("SAGITTAL", "CORONAL", "AXIAL")[int(np.argmax(np.abs(self.normal)))]

    @property
    def voxel_mm3(self) -> float | None:
        """Volume of a voxel, mm³, from pixel spacing and distance of the planes."""
        spacing = self.first.spacing_mm
        if len(spacing) != 2 or self.spacing_mm is None:
            return None
        return spacing[0] * spacing[1] * self.spacing_mm

    def pixel_problems(self) -> list[tuple[int | None, str]]:
        """Return (instance number, why) of the instances whose pixels cannot be used."""
        return [(h.instance_number, h.pixel_problem) for h in self.headers if h.pixel_problem]

    @property
    def looks_like_a_mask(self) -> bool:
        """Whether no instance has more distinct values than a mask (where the pixels were looked at)."""
        counts = [header.distinct_values for header in self.headers]
        known = [count for count in counts if count is not None]
        return bool(known) and len(known) == len(counts) and max(known) <= MOST_LABELS

    def all_image_types(self) -> set[str]:
        """Return every value of Image Type that occurs."""
        return {value for header in self.headers for value in header.image_type}


def group(headers: Iterable[Header]) -> list[Series]:
    """Return the series of these instances, ordered by series number."""
    by_uid: dict[str, list[Header]] = {}
    for header in headers:
        by_uid.setdefault(header.series_uid, []).append(header)
    series = [Series(uid, tuple(members)) for uid, members in by_uid.items()]
    return sorted(series, key=lambda one: (one.first.series_number or 0, one.uid))


def most_common(values: Iterable[float | None]) -> float | None:
    """Return the value that most headers agree on."""
    counts = Counter(value for value in values if value is not None)
    return counts.most_common(1)[0][0] if counts else None


def begun(series: Series) -> datetime | None:
    """Return when the acquisition of a series began, None where its headers do not say."""
    times = sorted(header.acquired for header in series.headers if len(header.acquired) >= 14)
    if not times:
        return None
    try:
        return datetime.strptime(times[0][:14], "%Y%m%d%H%M%S")
    except ValueError:
        return None


def equal_geometry(one: Series, other: Series) -> bool:
    """Return whether geometry gives no reason to prefer one of two stacks."""
    if one.plane != other.plane:
        return False
    pairs = [
        (one.spacing_mm, other.spacing_mm),
        (one.voxel_mm3, other.voxel_mm3),
        (one.extent_mm, other.extent_mm),
    ]
    return all(a and b and abs(a - b) <= EQUAL_WITHIN * max(a, b) for a, b in pairs)


def same_acquisition(one: Series, other: Series) -> bool:
    """Return whether two series are the same scan stored twice (as acquired, and corrected; Dixon)."""
    at, numbers = begun(one), (one.first.series_number, other.first.series_number)
    if at is None or at != begun(other) or one.first.image_type == other.first.image_type:
        return False
    return numbers[0] is None or numbers[1] is None or abs(numbers[0] - numbers[1]) <= SAME_SCAN_WITHIN
