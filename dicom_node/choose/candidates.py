"""The series that may become an input, and the best of several."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dicom_node.choose.roles import LATE, Verdict
from dicom_node.choose.series import BRAIN_FROM_MM, Series, equal_geometry, same_acquisition

#: Planes at most this far apart make a volume that can be looked at from any side, mm.
ISOTROPIC_WITHIN_MM = 2.0


class Growth(StrEnum):
    """Whether a series is all there."""

    WHOLE = "WHOLE"
    GROWING = "GROWING"  # more may come at any moment
    GAP = "GAP"  # a slice is missing


@dataclass(frozen=True)
class Candidate:
    """A series, with all that is known of its fitness."""

    series: Series
    verdict: Verdict
    growth: Growth
    #: (code, sentence) why it cannot be used; None when it can.
    flaw: tuple[str, str] | None

    @property
    def is_late(self) -> bool:
        """Whether a FLAIR was acquired after contrast agent."""
        return LATE in self.verdict.why


def best(candidates: list[Candidate], partner: Series | None) -> tuple[Candidate, list[Candidate]]:
    """Return the best candidate, and those that are equally fit (empty when the best is alone)."""
    ranked = sorted(candidates, key=lambda c: _rank(c, partner))
    first = ranked[0]
    for other in ranked[1:]:
        if first.is_late != other.is_late or not equal_geometry(first.series, other.series):
            continue
        if same_acquisition(first.series, other.series):
            first = max(first, other, key=lambda c: _corrections(c.series))
            continue
        return first, [first, other]
    return first, []


def _rank(candidate: Candidate, partner: Series | None) -> tuple[bool, bool, bool, float, float]:
    series = candidate.series
    covers = series.extent_mm >= BRAIN_FROM_MM
    spacing = series.spacing_mm or 99.0
    fits = partner is None or series.plane == partner.plane or spacing <= ISOTROPIC_WITHIN_MM
    return (not covers, candidate.is_late, not fits, round(spacing, 1), series.voxel_mm3 or 99.0)


#: Corrections after reconstruction, in Image Type, that make the better twin (Siemens); of a Dixon, the image
#: in phase looks like one without.
_CORRECTIONS = {"DIS3D": 2, "DIS2D": 2, "NORM": 1, "ND": -1, "IN_PHASE": 1, "IP": 1, "IN": 1}


def _corrections(series: Series) -> int:
    return sum(_CORRECTIONS.get(value, 0) for value in series.first.image_type)
