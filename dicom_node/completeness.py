"""Is a series whole? Evidence first, a timer only where evidence is weak. Pure functions.

A C-STORE never says "that was the last". What we have: the association was released by its sender; one
association brought the whole series; its planes are equally far apart; its instance numbers have no hole;
as many images are here as the sender holds (C-FIND) or the scanner counted (Images in Acquisition, frames).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from dicom_node.choose.candidates import Growth
from dicom_node.choose.pair import FEWEST_SLICES, Choice, Decision
from dicom_node.choose.series import Series
from dicom_node.headers import MULTIFRAME_MR
from dicom_node.ledger import Arrival, AssociationRow, Ending, Held, Inquiry, StudyArrival

#: A stack that covers less than this share of its longest companion may still be growing.
_SHORT_STACK = 0.7
#: A sender that is itself still receiving holds at any moment what it has passed on: its count says something
#: about a series that has been silent for this long. Scanners send more than ten images a second.
SETTLED_S = 1.0
#: At most this many instance numbers are named in a sentence.
_MOST_NAMED = 6


@dataclass(frozen=True)
class Transfer:
    """How a series came."""

    #: Whether an association that brought new instances of it still stands.
    is_open: bool
    #: Whether one association brought all of it and its sender released it.
    came_at_once: bool
    #: When the last new instance came.
    last_arrival: float
    #: What each released association brought, as SOP Instance UIDs.
    released: tuple[frozenset[str], ...] = field(default=(), compare=False)


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
        released = tuple(
            frozenset(instances)
            for number, instances in by_association.items()
            if associations[number].ending == Ending.RELEASED
        )
        found[uid] = Transfer(
            is_open=any(associations[one.association_id].closed is None for one in new[uid]),
            came_at_once=everything in released,
            last_arrival=max(one.at for one in new[uid]),
            released=released,
        )
    return found


def growth_of(
    series: Series,
    transfer: Transfer,
    longest_mm: float,
    now: float,
    quiet_s: float,
    inquiry: Inquiry | None = None,
) -> Growth:
    """Return whether a series is whole.

    Parameters
    ----------
    series, transfer
        What is here, and how it came.
    longest_mm : float
        Extent of the longest stack of the same plane in the study, mm.
    now, quiet_s : float
        The time, and how long nothing must arrive where evidence is weak, s.
    inquiry
        What the sender says that it holds; None where it said nothing.
    """
    quiet = now - transfer.last_arrival >= quiet_s
    held = inquiry.held.get(series.uid) if inquiry else None
    if held and _missing(series, held):
        return Growth.GAP if quiet or (transfer.came_at_once and not transfer.is_open) else Growth.GROWING
    if quiet:
        return Growth.GAP if series.gaps else Growth.WHOLE
    if transfer.is_open:
        return Growth.GROWING
    all_held = held is not None and inquiry is not None and inquiry.asked - transfer.last_arrival >= SETTLED_S
    settled = now - transfer.last_arrival >= SETTLED_S
    came = transfer.came_at_once or _both_ends_at_once(series, transfer)
    if not (came or all_held or (settled and _all_counted(series))):
        return Growth.GROWING
    if series.gaps:
        return Growth.GAP
    if all_held or series.pixel_problems():
        return Growth.WHOLE  # nothing is won by waiting
    if series.first.sop_class_uid in MULTIFRAME_MR:
        return Growth.WHOLE if _all_parts(series) else Growth.GROWING
    evident = (
        series.is_regular
        and series.numbers_are_contiguous
        and series.slices >= FEWEST_SLICES
        and series.extent_mm >= _SHORT_STACK * longest_mm
        and not fewer_than_counted(series)
    )
    return Growth.WHOLE if evident else Growth.GROWING


def _both_ends_at_once(series: Series, transfer: Transfer) -> bool:
    """Whether one released association brought the first and the last slice: others only filled its holes."""
    if series.normal is None or not series.has_positions:
        return False
    along = [(float(np.dot(h.positions_mm[0], series.normal)), h.sop_instance_uid) for h in series.headers]
    return any({min(along)[1], max(along)[1]} <= brought for brought in transfer.released)


def _all_counted(series: Series) -> bool:
    """Whether the images themselves say that there are no more of them."""
    if series.first.sop_class_uid in MULTIFRAME_MR:
        return _all_parts(series)
    return {header.images_in_acquisition for header in series.headers} == {len(series.headers)}


def _all_parts(series: Series) -> bool:
    """Whether each frame of Enhanced MR has its place, and no part of a concatenation is missing."""
    parts = max((header.parts or 1 for header in series.headers), default=1)
    places = sum(len(header.positions_mm) for header in series.headers)
    return len(series.headers) >= parts and places == series.slices


def fewer_than_counted(series: Series) -> bool:
    """Whether the scanner counted more images than are here.

    That is weak evidence: an acquisition may fill several series (echoes, magnitude and phase).
    """
    return any((header.images_in_acquisition or 0) > len(series.headers) for header in series.headers)


def _missing(series: Series, held: Held) -> int:
    """Return how many instances of a series its sender holds and we do not."""
    if held.numbers:
        return len(held.numbers.keys() - {header.sop_instance_uid for header in series.headers})
    return max(0, held.instances - len(series.headers))


def shortfall(all_series: Iterable[Series], chosen: Iterable[str], inquiry: Inquiry | None) -> str:
    """Return what is missing of the chosen series by their sender's count, as a sentence, or ""."""
    if inquiry is None:
        return ""
    by_uid = {series.uid: series for series in all_series}
    for uid in chosen:
        held = inquiry.held.get(uid)
        series = by_uid.get(uid)
        if held is None or series is None:
            continue
        missing = _missing(series, held)
        if missing:
            what = "1 image" if missing == 1 else f"{missing} images"
            return (
                f"Series {series.title}: {what} of the {held.instances} that the sender holds did not "
                f"arrive{_which(series, held)}."
            )
    return ""


def _which(series: Series, held: Held) -> str:
    here = {header.sop_instance_uid for header in series.headers}
    numbers = sorted(number for uid, number in held.numbers.items() if uid not in here and number is not None)
    if not numbers:
        return ""
    if len(numbers) > 1 and numbers[-1] - numbers[0] + 1 == len(numbers):
        return f" (instance numbers {numbers[0]} to {numbers[-1]})"
    named = ", ".join(map(str, numbers[:_MOST_NAMED])) + (", …" if len(numbers) > _MOST_NAMED else "")
    return f" (instance number{'s' if len(numbers) > 1 else ''} {named})"


def counted_alike(all_series: Iterable[Series], chosen: Iterable[str], inquiry: Inquiry | None) -> bool:
    """Whether the sender counted each of the chosen series, and has no more of it than is here."""
    held = inquiry.held if inquiry else {}
    here = {series.uid: series for series in all_series}
    return all(uid in held and uid in here and not _missing(here[uid], held[uid]) for uid in chosen)


def growths(
    all_series: list[Series],
    how: Mapping[str, Transfer],
    now: float,
    quiet_s: float,
    inquiry: Inquiry | None = None,
) -> dict[str, Growth]:
    """Return the growth of each series of a study."""
    longest: dict[str, float] = {}
    for series in all_series:
        if series.first.modality == "MR":
            longest[series.plane] = max(series.extent_mm, longest.get(series.plane, 0.0))
    return {
        series.uid: growth_of(series, how[series.uid], longest.get(series.plane, 0.0), now, quiet_s, inquiry)
        for series in all_series
        if series.uid in how
    }


def by_the_count(
    choice: Choice, all_series: list[Series], inquiry: Inquiry | None, *, expired: bool
) -> Choice:
    """Return the choice of a pair as it stands once its images are counted."""
    chosen = choice.chosen.values()
    missing = shortfall(all_series, chosen, inquiry)
    if missing:
        decision = Decision.DECLINED if expired else Decision.WAITING
        return replace(choice, decision=decision, code="SLICE_MISSING", reason=missing)
    if counted_alike(all_series, chosen, inquiry):
        return replace(
            choice, reason=f"{choice.reason} The sender holds no more images of both than are here."
        )
    for series in all_series:
        if series.uid in chosen and fewer_than_counted(series):
            count = max(header.images_in_acquisition or 0 for header in series.headers)
            said = f"Series {series.title} has {len(series.headers)} images, its acquisition made {count}."
            return replace(choice, reason=f"{choice.reason} {said}")
    return choice
