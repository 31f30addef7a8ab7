"""Before or after contrast agent, where neither header nor words say it: by time, and by the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import combinations

from dicom_node.choose import words
from dicom_node.choose.pixels import Difference, Look
from dicom_node.choose.roles import AGENT, LATE, Role, Verdict, timing_of
from dicom_node.choose.series import Series, begun, equal_geometry, same_acquisition

#: A T1W that begins this much after the first may be post-contrast even if nothing says so: an injection fits
#: in between. Of two with the same geometry a person is asked, unless so much lies between them that the
#: second is hardly a repetition.
LATER_THAN = timedelta(minutes=3)
LATER_TWIN_THAN = timedelta(minutes=10)
#: Echo time from which an echo-planar perfusion follows a bolus (25 to 50); spin labelling has 10 to 15.
BOLUS_ECHO_FROM_MS = 20.0
#: Timings of one protocol agree to this share, before and after contrast.
SAME_TIMING_WITHIN = 0.05


@dataclass(frozen=True)
class Seen:
    """The verdicts after a look at the pixels, and what was seen."""

    verdicts: dict[str, Verdict]
    #: What the comparison said of a series, by its UID.
    remarks: dict[str, str] = field(default_factory=dict)
    #: UIDs of the series that another one outshines as after contrast.
    native: frozenset[str] = frozenset()
    #: UIDs of two series of which time says the one and the pixels the other.
    contradiction: tuple[str, ...] = ()


def by_label(verdicts: Mapping[str, Verdict], all_series: list[Series]) -> dict[str, Verdict]:
    """Doubt the agent of a header where it was evidently typed in before it was given, as scanners allow.

    So it is where the localizer at the beginning names it, too, or where of two T1 of equal physics only the
    later one is called post-contrast.
    """
    first = min(all_series, key=lambda one: (_begun(one), one.first.series_number or 0), default=None)
    changed = dict(verdicts)
    for series in all_series:
        verdict = verdicts[series.uid]
        if AGENT not in verdict.why or _says(series) is not None:
            continue
        others = [
            one
            for one in all_series
            if _names_agent(one)
            and (
                (one is first and verdicts[one.uid].role == Role.LOCALIZER)
                or (_says(one) and _comparable(one, series) and _begun(series) <= _begun(one))
            )
        ]
        if others:
            why = f"{AGENT}, as that of series {others[0].title} does: it may have been typed in before"
            changed[series.uid] = Verdict(Role.UNKNOWN, (*verdict.why, why))
    return changed


def by_time(verdicts: Mapping[str, Verdict], all_series: list[Series]) -> dict[str, Verdict]:
    """Turn T1W that were acquired after an injection into T1C, whatever the header forgot: the agent stays.

    An injection shows in a post-contrast T1, in any other series that names an agent, and in a perfusion. A
    FLAIR after it remains one, and says so.
    """
    injected = {s.uid: what for s in all_series if (what := _of_injection(s, verdicts[s.uid]))}
    times = {series.uid: begun(series) for series in all_series}
    first = min(((time, what) for uid, what in injected.items() if (time := times[uid])), default=None)
    changed = dict(verdicts)
    for series in all_series:
        verdict, began = verdicts[series.uid], times[series.uid]
        after = first[1] if first and began is not None and began > first[0] else ""
        if verdict.role == Role.T1W and after and _says_native(series):
            why = f"it was acquired after {after}, though called native: contrast agent is still there"
            changed[series.uid] = Verdict(Role.UNKNOWN, (*verdict.why, why))
        elif verdict.role == Role.T1W and after:
            why = f"acquired after {after}: contrast is still there"
            changed[series.uid] = Verdict(Role.T1C, (*verdict.why, why))
        is_late = verdict.role == Role.FLAIR and bool(after or series.uid in injected)
        if is_late and LATE not in verdict.why:
            changed[series.uid] = Verdict(Role.FLAIR, (*verdict.why, LATE))
    return changed


def _of_injection(series: Series, verdict: Verdict) -> str:
    """Return which series this is, if it was acquired during or after an injection; else ""."""
    if verdict.role == Role.T1C:
        return "another post-contrast T1"
    if verdict.role not in {Role.FLAIR, Role.T2W, Role.OTHER}:
        return ""
    if _names_agent(series):
        return f"series {series.title}, which names a contrast agent"
    said = words.tokens(series.first.series_description)
    if words.mentions(said, words.WITH_BOLUS) or _is_bolus_tracking(series, said):
        return f"series {series.title}, a perfusion with contrast agent"
    # after a task, not after an injection: "bold post"
    if words.contrast_of(said) and "EP" not in series.first.scanning_sequence:
        return f"series {series.title}, whose description says that contrast was given"
    return ""


def _is_bolus_tracking(series: Series, said: list[str]) -> bool:
    """Whether a perfusion waits for the agent (ep2d_perf): spin labelling keeps its echo short."""
    timing = timing_of(series)
    return (
        bool(words.mentions(said, words.PERFUSION))
        and "EP" in timing.scanning_sequence
        and (timing.te_ms or 0) >= BOLUS_ECHO_FROM_MS
    )


def by_pixels(verdicts: Mapping[str, Verdict], whole: list[Series], look: Look) -> Seen:
    """Compare T1 series of equal physics, geometry and words; the brighter one was acquired after contrast.

    Where all of them name an agent, as some scanners do from the moment it was typed in, the darker one may
    be native after all: then a person is asked, because two series after contrast differ as well.
    """
    seen = Seen(dict(verdicts))
    silent = [series for series in whole if _says(series) is None]
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


def early(
    t1w: list[Series], given: list[Series], flair: list[Series], seen: Seen
) -> tuple[list[Series], dict[str, str], bool]:
    """Return the T1W surely acquired before contrast, remarks on the others, and whether that is unsure.

    One T1W alone is taken at its word. Of several, those count whose description says native; or those before
    a post-contrast T1 (`given`), which tells when contrast was given; or the first. Where the clock says
    nothing, those that the pixels show to be native, or numbered before all post-contrast T1. Otherwise it is
    unsure, and where the pixels contradict the times.
    """
    native = [series for series in t1w if _says_native(series)]
    if len(t1w) < 2 or native:
        return native or t1w, {}, False
    if seen.contradiction:
        return [series for series in t1w if series.uid in seen.contradiction], {}, True
    if not _clock_tells([*t1w, *given], flair):
        surely = [series for series in t1w if series.uid in seen.native] or _numbered_before(t1w, given)
        return surely or t1w, {}, not surely
    first = min(t1w, key=_begun)
    found, remarks = [], {}
    for series in t1w:
        twin = min((one for one in t1w if equal_geometry(one, series)), key=_begun)
        later = _begun(series) - _begun(twin if given else first)
        is_late = later >= (LATER_TWIN_THAN if given or equal_geometry(first, series) else LATER_THAN)
        if is_late:
            remarks[series.uid] = (
                f"began {later.total_seconds() / 60:.0f} min after another T1W: "
                "whether contrast was given between is not known"
            )
        else:
            found.append(series)
    return found, remarks, False


def _clock_tells(t1: list[Series], flair: list[Series]) -> bool:
    """Whether the times of acquisition are there and can be true: no two scans run at once.

    Whoever removes a patient's name may set all times to the same.
    """
    others = {begun(series) for series in flair}
    return not any(begun(series) is None or begun(series) in others for series in t1) and not any(
        begun(one) == begun(other) and not (same_acquisition(one, other) or _same_timing(one, other))
        for one, other in combinations(t1, 2)
    )


def _begun(series: Series) -> datetime:
    return begun(series) or datetime.max


def _numbered_before(t1w: list[Series], given: list[Series]) -> list[Series]:
    """Return the T1W whose series numbers lie before those of all post-contrast T1."""
    numbers = [series.first.series_number for series in given]
    known = [number for number in numbers if number is not None]
    if not known or len(known) < len(numbers):
        return []
    return [one for one in t1w if (number := one.first.series_number) is not None and number < min(known)]


def is_taken_at_its_word(t1w: Series, given: list[Series]) -> bool:
    """Whether a T1W is native only because nothing says otherwise, not its description, nor the time.

    A post-contrast T1 of the study (`given`) that began later shows when contrast was given.
    """
    at = begun(t1w)
    later = [time for series in given if (time := begun(series)) is not None and at is not None and time > at]
    return not _says_native(t1w) and not later


def _says(series: Series) -> bool | None:
    """Return whether the description says that contrast was given, None where it says nothing."""
    return words.contrast_of(words.tokens(series.first.series_description or series.first.protocol_name))


def _says_native(series: Series) -> bool:
    return _says(series) is False


def _names_agent(series: Series) -> bool:
    return any(header.contrast_given for header in series.headers)


def _comparable(one: Series, other: Series) -> bool:
    """Whether only contrast agent can make a difference between two series."""
    return equal_geometry(one, other) and not same_acquisition(one, other) and _same_timing(one, other)


def _same_timing(one: Series, other: Series) -> bool:
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
        return replace(seen, remarks=remarks)
    at = begun(native), begun(bright)
    if at[0] is not None and at[1] is not None and at[1] < at[0]:
        remarks[bright.uid] = (
            f"brighter than series {native.title} as after contrast, but acquired before it: "
            f"{found.sentence()}"
        )
        return replace(seen, remarks=remarks, contradiction=(native.uid, bright.uid))
    remarks[native.uid] = f"darker than series {bright.title} as before contrast: {found.sentence()}"
    why = f"brighter than series {native.title} as after contrast: {found.sentence()}"
    verdict = Verdict(Role.T1C, (*seen.verdicts[bright.uid].why, why))
    return replace(
        seen,
        verdicts={**seen.verdicts, bright.uid: verdict},
        remarks=remarks,
        native=seen.native | {native.uid},
    )


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
    return replace(seen, verdicts={**seen.verdicts, native.uid: verdict})
