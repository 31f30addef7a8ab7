"""Is a series whole? Evidence first, a timer only where evidence is weak. Pure functions.

A C-STORE never says "that was the last". What we have: the association was released by its sender; one
association brought the whole series; its planes are equally far apart; its instance numbers have no hole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dicom_node.choose.pair import FEWEST_SLICES, Growth
from dicom_node.choose.series import Series
from dicom_node.headers import MULTIFRAME_MR
from dicom_node.ledger import AssociationRow, Ending

#: A stack that covers less than this share of its longest companion may still be growing.
_SHORT_STACK = 0.7


@dataclass(frozen=True)
class Transfer:
    """How a series came."""

    associations: tuple[AssociationRow, ...]
    last_arrival: float

    @property
    def is_open(self) -> bool:
        """Whether an association that brought instances of it still stands."""
        return any(association.closed is None for association in self.associations)

    @property
    def came_at_once(self) -> bool:
        """Whether one association brought it all and its sender released it."""
        return len(self.associations) == 1 and self.associations[0].ending == Ending.RELEASED


def transfers(
    arrivals: Iterable[tuple[str, int, float]], associations: Mapping[int, AssociationRow]
) -> dict[str, Transfer]:
    """Return how each series came, from (series UID, association, time) of its C-STOREs."""
    carriers: dict[str, set[int]] = {}
    last: dict[str, float] = {}
    for series_uid, association_id, at in arrivals:
        carriers.setdefault(series_uid, set()).add(association_id)
        last[series_uid] = max(at, last.get(series_uid, at))
    return {
        uid: Transfer(tuple(associations[number] for number in sorted(numbers)), last[uid])
        for uid, numbers in carriers.items()
    }


def growth_of(series: Series, transfer: Transfer, longest_mm: float, now: float, quiet_s: float) -> Growth:
    """Return whether a series is whole.

    Parameters
    ----------
    series, transfer
        What is here, and how it came.
    longest_mm : float
        Extent of the longest stack of the same plane in the study, mm.
    now, quiet_s : float
        The time, and how long nothing must arrive where evidence is weak, s.
    """
    if now - transfer.last_arrival >= quiet_s:
        return Growth.GAP if series.gaps else Growth.WHOLE
    if transfer.is_open or not transfer.came_at_once:
        return Growth.GROWING
    if series.gaps:
        return Growth.GAP
    if series.pixel_problems():
        return Growth.WHOLE  # its flaw is known, nothing is won by waiting
    if series.first.sop_class_uid in MULTIFRAME_MR:
        return Growth.WHOLE
    evident = (
        series.is_regular
        and series.numbers_are_contiguous
        and series.slices >= FEWEST_SLICES
        and series.extent_mm >= _SHORT_STACK * longest_mm
    )
    return Growth.WHOLE if evident else Growth.GROWING


def growths(
    all_series: list[Series], how: Mapping[str, Transfer], now: float, quiet_s: float
) -> dict[str, Growth]:
    """Return the growth of each series of a study."""
    longest: dict[str, float] = {}
    for series in all_series:
        if series.first.modality == "MR":
            longest[series.plane] = max(series.extent_mm, longest.get(series.plane, 0.0))
    return {
        series.uid: growth_of(series, how[series.uid], longest.get(series.plane, 0.0), now, quiet_s)
        for series in all_series
        if series.uid in how
    }
