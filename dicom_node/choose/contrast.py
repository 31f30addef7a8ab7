"""Before or after contrast agent, where neither header nor words say it: by time, and by the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import combinations

from dicom_node.choose import words
from dicom_node.choose.pixels import Difference, Look
from dicom_node.choose.roles import AGENT, Role, Verdict, timing_of
from dicom_node.choose.series import Series, begun, equal_geometry, same_acquisition

#: A T1W that begins this much after the first may be post-contrast even if nothing says so: an injection fits
#: in between. Of two with the same geometry a person is asked, unless so much lies between them that the
#: second is hardly a repetition.
LATER_THAN = timedelta(minutes=3)
LATER_TWIN_THAN = timedelta(minutes=10)
#: Timings of one protocol agree to this share, before and after contrast.
SAME_TIMING_WITHIN = 0.05


@dataclass(frozen=True)
class Seen:
    """The verdicts after a look at the pixels, and what was seen."""

    verdicts: dict[str, Verdict]
    #: What the comparison said of a series, by its UID.
    remarks: dict[str, str] = field(default_factory=dict)
    #: UIDs of two series of which time says the one and the pixels the other.
    contradiction: tuple[str, ...] = ()


def by_time(verdicts: Mapping[str, Verdict], all_series: list[Series]) -> dict[str, Verdict]:
    """Turn T1W that were acquired after an injection into T1C, whatever the header forgot: the agent stays.

    An injection shows in a post-contrast T1, in any other series that names an agent, and in a perfusion.
    """
    times = {series.uid: begun(series) for series in all_series}
    injected: dict[datetime, str] = {}
    for series in all_series:
        what = _of_injection(series, verdicts[series.uid])
        if what and (time := times[series.uid]) is not None:
            injected.setdefault(time, what)
    if not injected:
        return dict(verdicts)
    first = min(injected)
    changed = dict(verdicts)
    for uid, verdict in verdicts.items():
        time = times[uid]
        if verdict.role == Role.T1W and time is not None and time > first:
            why = f"acquired after {injected[first]}: contrast is still there"
            changed[uid] = Verdict(Role.T1C, (*verdict.why, why))
    return changed


def _of_injection(series: Series, verdict: Verdict) -> str:
    """Return which series this is, if it was acquired during or after an injection; else ""."""
    if verdict.role == Role.T1C:
        return "another post-contrast T1"
    if verdict.role not in {Role.FLAIR, Role.T2W, Role.OTHER}:
        return ""
    if any(header.contrast_given for header in series.headers):
        return f"series {series.title}, which names a contrast agent"
    if words.mentions(words.tokens(series.first.series_description), words.WITH_BOLUS):
        return f"series {series.title}, a perfusion with contrast agent"
    return ""


def by_pixels(verdicts: Mapping[str, Verdict], whole: list[Series], look: Look) -> Seen:
    """Compare T1 series of equal physics, geometry and words; the brighter one was acquired after contrast.

    Where all of them name an agent, as some scanners do from the moment it was typed in, the darker one may
    be native after all: then a person is asked, because two series after contrast differ as well.
    """
    seen = Seen(dict(verdicts))
    silent = [series for series in whole if words.contrast_of(words.tokens(series.title)) is None]
    t1w = [series for series in silent if verdicts[series.uid].role == Role.T1W]
    for one, other in combinations(t1w, 2):
        if _comparable(one, other):
            seen = _told_apart(seen, one, other, look(one.uid, other.uid))
    if any(verdict.role == Role.T1W for verdict in verdicts.values()):
        return seen
    labelled = [series for series in silent if AGENT in verdicts[series.uid].why]
    for one, other in combinations(labelled, 2):
        if _comparable(one, other):
            seen = _doubted(seen, one, other, look(one.uid, other.uid))
    return seen


def early(t1w: list[Series], given: list[Series], seen: Seen) -> tuple[list[Series], dict[str, str], bool]:
    """Return the T1W surely acquired before contrast, remarks on the others, and whether that is unsure.

    One T1W alone is taken at its word. Of several, those count whose description says native; or all, where
    a post-contrast T1 (`given`) tells by its time when contrast was given; or the first. Without times it is
    unsure, and where the pixels contradict the times.
    """
    native = [series for series in t1w if _says_native(series)]
    if len(t1w) < 2 or native:
        return native or t1w, {}, False
    if seen.contradiction:
        return [series for series in t1w if series.uid in seen.contradiction], {}, True
    times = {series.uid: begun(series) for series in t1w}
    if None in times.values() or None in [begun(series) for series in given]:
        return t1w, {}, True
    if given:
        return t1w, {}, False
    known = {uid: time for uid, time in times.items() if time is not None}
    first = min(t1w, key=lambda series: known[series.uid])
    found, remarks = [], {}
    for series in t1w:
        later = known[series.uid] - known[first.uid]
        if later < (LATER_TWIN_THAN if equal_geometry(first, series) else LATER_THAN):
            found.append(series)
        else:
            remarks[series.uid] = (
                f"began {later.total_seconds() / 60:.0f} min after another T1W: "
                "whether contrast was given between is not known"
            )
    return found, remarks, False


def is_taken_at_its_word(t1w: Series, given: list[Series]) -> bool:
    """Whether a T1W is native only because nothing says otherwise, not its description, nor the time.

    A post-contrast T1 of the study (`given`) that began later shows when contrast was given.
    """
    at = begun(t1w)
    later = [time for series in given if (time := begun(series)) is not None and at is not None and time > at]
    return not _says_native(t1w) and not later


def _says_native(series: Series) -> bool:
    return words.contrast_of(words.tokens(series.first.series_description)) is False


def _comparable(one: Series, other: Series) -> bool:
    """Whether only contrast agent can make a difference between two series."""
    if not equal_geometry(one, other) or same_acquisition(one, other):
        return False
    first, second = timing_of(one), timing_of(other)
    return all(
        (a or 0) == (b or 0) or (a and b and abs(a - b) <= SAME_TIMING_WITHIN * max(a, b))
        for a, b in (
            (first.tr_ms, second.tr_ms),
            (first.te_ms, second.te_ms),
            (first.ti_ms, second.ti_ms),
            (first.flip_deg, second.flip_deg),
        )
    )


def _told_apart(seen: Seen, one: Series, other: Series, found: Difference) -> Seen:
    native, bright = (one, other) if found.score > 0 else (other, one)
    remarks = dict(seen.remarks)
    if not found.tells:
        for series, twin in ((one, other), (other, one)):
            remarks.setdefault(series.uid, f"like series {twin.title}: {found.sentence()}")
        return Seen(seen.verdicts, remarks, seen.contradiction)
    at = begun(native), begun(bright)
    if at[0] is not None and at[1] is not None and at[1] < at[0]:
        remarks[bright.uid] = (
            f"brighter than series {native.title} as after contrast, but acquired before it: "
            f"{found.sentence()}"
        )
        return Seen(seen.verdicts, remarks, (native.uid, bright.uid))
    remarks[native.uid] = f"darker than series {bright.title} as before contrast: {found.sentence()}"
    why = f"brighter than series {native.title} as after contrast: {found.sentence()}"
    verdict = Verdict(Role.T1C, (*seen.verdicts[bright.uid].why, why))
    return Seen({**seen.verdicts, bright.uid: verdict}, remarks, seen.contradiction)


def _doubted(seen: Seen, one: Series, other: Series, found: Difference) -> Seen:
    native, bright = (one, other) if found.score > 0 else (other, one)
    at = begun(native), begun(bright)
    if not found.tells or (at[0] is not None and at[1] is not None and at[1] < at[0]):
        return seen
    why = (
        f"the header names a contrast agent, but series {bright.title} of equal physics is brighter as after "
        f"contrast: {found.sentence()}"
    )
    verdict = Verdict(Role.UNKNOWN, (*seen.verdicts[native.uid].why, why))
    return Seen({**seen.verdicts, native.uid: verdict}, seen.remarks, seen.contradiction)
