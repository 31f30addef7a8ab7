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
from dicom_node.ledger import Arrival, AssociationRow, Ending, StudyArrival

#: A stack that covers less than this share of its longest companion may still be growing.
_SHORT_STACK = 0.7


@dataclass(frozen=True)
class Transfer:
    """How a series came."""

    #: Whether an association that brought new instances of it still stands.
    is_open: bool
    #: Whether one association brought all of it and its sender released it.
    came_at_once: bool
    #: When the last new instance came.
    last_arrival: float


def transfers(
    arrivals: Iterable[StudyArrival], associations: Mapping[int, AssociationRow]
) -> dict[str, Transfer]:
    """Return how each series of a study came, from its C-STOREs.

    Equal bytes that come again change nothing,
    except that an association that repeats a whole series proves it to be whole.
    """
    brought: dict[str, dict[int, set[str]]] = {}
    new: dict[str, list[StudyArrival]] = {}
    for arrival in arrivals:
        by_association = brought.setdefault(arrival.series_uid, {})
        by_association.setdefault(arrival.association_id, set()).add(arrival.sop_instance_uid)
        if arrival.kind == Arrival.NEW:
            new.setdefault(arrival.series_uid, []).append(arrival)
    found = {}
    for uid, by_association in brought.items():
        everything = set().union(*by_association.values())
        found[uid] = Transfer(
            is_open=any(associations[one.association_id].closed is None for one in new[uid]),
            came_at_once=any(
                associations[number].ending == Ending.RELEASED and instances == everything
                for number, instances in by_association.items()
            ),
            last_arrival=max(one.at for one in new[uid]),
        )
    return found


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
