"""From the series of a study to the pair, or to the sentence that says why there is none (yet)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from dicom_node.choose import contrast
from dicom_node.choose.candidates import Candidate, Growth, best
from dicom_node.choose.enhancement import LOOKS_SO_FROM, Glance
from dicom_node.choose.pixels import Look
from dicom_node.choose.roles import LATE, UNTOLD, Role, classify
from dicom_node.choose.series import SHEARED_FROM_MM, Series

#: Fewer planes than this do not cover a brain.
FEWEST_SLICES = 10
INPUT_ROLES = (Role.T1W, Role.FLAIR)


class Decision(StrEnum):
    """What becomes of the study now; named like the job's states."""

    RECEIVING = "RECEIVING"
    WAITING = "WAITING"
    COMPLETE = "COMPLETE"
    DECLINED = "DECLINED"


@dataclass(frozen=True)
class Situation:
    """What is known beside the headers."""

    #: Growth of each series by its UID; absent means whole.
    growth: Mapping[str, Growth] = field(default_factory=dict)
    #: Instances of the study are arriving.
    arriving: bool = False
    #: Nothing arrived for `quiet_seconds`; nothing will: `wait_minutes` are over.
    quiet: bool = True
    expired: bool = True
    #: Unreadable instances that came with the study.
    unreadable: int = 0
    if_contrast_given: Literal["do", "decline"] = "do"
    #: Compares the pixels of two series by their UIDs; None where there are only headers.
    look: Look | None = None
    #: Looks at the pixels of one T1W; None where there are only headers.
    glance: Glance | None = None
    #: {"T1W": series UID, "FLAIR": series UID} that a person chose.
    by_hand: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SeriesLine:
    """One line of the table of evidence."""

    uid: str
    description: str
    role: Role
    why: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """The decision about a study, with the evidence."""

    decision: Decision
    code: str
    reason: str
    chosen: dict[str, str] = field(default_factory=dict)
    series: tuple[SeriesLine, ...] = ()
    #: What whoever sees the result should know of the choice, as sentences.
    flags: tuple[str, ...] = ()

    def to_json(self, rule: str) -> dict[str, Any]:
        """Return what `queue explain --json` and `rules try --json` print."""
        return {
            "rule": rule,
            "decision": str(self.decision),
            "code": self.code,
            "reason": self.reason,
            "chosen": self.chosen,
            "series": [
                {
                    "uid": line.uid,
                    "description": line.description,
                    "role": str(line.role),
                    "why": list(line.why),
                }
                for line in self.series
            ],
            **({"flags": list(self.flags)} if self.flags else {}),
        }


def choose_pair(all_series: list[Series], situation: Situation) -> Choice:
    """Return what becomes of a study.

    Parameters
    ----------
    all_series : list of Series
        Everything of the study that is here and readable.
    situation : Situation
        How it arrived, and what rule and person want.
    """
    growth = {series.uid: situation.growth.get(series.uid, Growth.WHOLE) for series in all_series}
    flaws = {series.uid: _flaw(series, growth[series.uid]) for series in all_series}
    verdicts = {series.uid: classify(series) for series in all_series}
    verdicts = contrast.by_time(contrast.by_label(verdicts, all_series), all_series)
    seen = contrast.Seen(verdicts)
    if situation.look and not situation.by_hand:
        whole = [s for s in all_series if not flaws[s.uid] and growth[s.uid] == Growth.WHOLE]
        seen = contrast.by_pixels(verdicts, whole, situation.look)
        verdicts = contrast.by_time(seen.verdicts, all_series)
    candidates = [
        Candidate(series, verdicts[series.uid], growth[series.uid], flaws[series.uid])
        for series in all_series
    ]
    decision, code, reason, chosen, remarks = _decide(candidates, situation, seen)
    flags: tuple[str, ...] = ()
    if code == "PAIR":
        if situation.glance and chosen["T1W"] not in remarks:  # not compared with another one
            flags = _flags(candidates, chosen["T1W"], situation.glance)
        if any(c.series.uid == chosen["FLAIR"] and c.is_late for c in candidates):
            flags = (*flags, f"The FLAIR was {LATE}.")
        reason = " ".join((reason, *flags))
    if situation.unreadable and decision != Decision.COMPLETE:
        count = situation.unreadable
        what = "1 instance" if count == 1 else f"{count} instances"
        reason += f" {what} that came with this study could not be read."
    return Choice(decision, code, reason, chosen, _table(candidates, chosen, remarks), flags)


_Answer = tuple[Decision, str, str, dict[str, str], dict[str, str]]


def _decide(candidates: list[Candidate], situation: Situation, seen: contrast.Seen) -> _Answer:
    if situation.by_hand:
        return _by_hand(candidates, situation.by_hand)
    usable = {role: [c for c in candidates if c.verdict.role == role and not c.flaw] for role in INPUT_ROLES}
    growing = [c for c in candidates if c.verdict.role in INPUT_ROLES and c.growth == Growth.GROWING]
    if growing:
        return (
            Decision.RECEIVING,
            "ARRIVING",
            f"Series {growing[0].series.title} may not be whole yet.",
            {},
            {},
        )

    missing = [role for role in INPUT_ROLES if not usable[role]]
    if missing:
        if situation.arriving:
            return Decision.RECEIVING, "ARRIVING", "The study is arriving.", {}, {}
        code, reason, patience = _what_is_missing(candidates, missing)
        over = situation.expired or (patience == "quiet" and situation.quiet)
        return (Decision.DECLINED if over else Decision.WAITING), code, reason, {}, {}

    surely, remarks, unsure = contrast.early(
        [c.series for c in usable[Role.T1W]],
        [c.series for c in candidates if c.verdict.role == Role.T1C],
        [c.series for c in usable[Role.FLAIR]],
        seen,
    )
    remarks = {**seen.remarks, **remarks}
    early = [c for c in usable[Role.T1W] if c.series in surely]
    flair, rivals = best(usable[Role.FLAIR], None)
    if unsure:
        rivals = early[:2]
    if not rivals:
        t1w, rivals = best(early, flair.series)
        flair, flair_rivals = best(usable[Role.FLAIR], t1w.series)
        rivals = rivals or flair_rivals
    if rivals:
        decision = Decision.DECLINED if situation.expired else Decision.WAITING
        return decision, *_two(rivals, unsure, remarks), {}, remarks

    chosen = {"T1W": t1w.series.uid, "FLAIR": flair.series.uid}
    reason = f"T1W is series {t1w.series.title}, FLAIR is series {flair.series.title}."
    if any(c.verdict.role == Role.T1C for c in candidates):
        if situation.if_contrast_given == "decline":
            return (
                Decision.DECLINED,
                "CONTRAST_GIVEN",
                "The study holds a real post-contrast T1; the rule asks for no synthetic one then.",
                {},
                remarks,
            )
        reason += " The study holds a real post-contrast T1 as well; it is not used."
    return Decision.COMPLETE, "PAIR", reason, chosen, remarks


def _flags(candidates: list[Candidate], uid: str, glance: Glance) -> tuple[str, ...]:
    """Return what to say of a T1W that looks as after contrast agent, though nothing says so."""
    t1w = next(c.series for c in candidates if c.series.uid == uid)
    given = [c.series for c in candidates if c.verdict.role == Role.T1C]
    if not contrast.is_taken_at_its_word(t1w, given) or (margin := glance(uid)) < LOOKS_SO_FROM:
        return ()
    return (
        "The T1W may have been acquired after contrast agent: its header says nothing of one, but bright "
        f"vessels and mucosa look so (margin {margin:.1f}, suspicious from {LOOKS_SO_FROM:g}).",
    )


_SAY_WHICH = "Say which one with: dicom-node queue retry JOB --t1 SERIES --flair SERIES."


def _two(rivals: list[Candidate], unsure: bool, remarks: Mapping[str, str]) -> tuple[str, str]:
    """Return code and sentence that ask a person which of two series to take."""
    role = rivals[0].verdict.role
    what = "equally fit"
    if unsure and role == Role.T1W:
        what = "there, and which is before or after contrast is not known"
    titles = " and ".join(c.series.title for c in rivals)
    seen = [
        f"Series {c.series.title} is {remarks[c.series.uid]}. " for c in rivals if c.series.uid in remarks
    ]
    return f"TWO_{role}", (f"Two {role} series are {what}: {titles}. {''.join(seen[:1])}{_SAY_WHICH}")


def _by_hand(candidates: list[Candidate], by_hand: Mapping[str, str]) -> _Answer:
    known = {c.series.uid: c for c in candidates}
    titles = {}
    if len(set(by_hand.values())) < len(by_hand):
        return Decision.DECLINED, "SAME_SERIES", "One series cannot be both T1W and FLAIR.", {}, {}
    for role, uid in by_hand.items():
        if uid not in known:
            return (
                Decision.DECLINED,
                "NO_SUCH_SERIES",
                f"The study has no series {uid} to use as {role}.",
                {},
                {},
            )
        flaw = known[uid].flaw
        if known[uid].verdict.role in {Role.SYNTHETIC, Role.NOT_MR}:
            flaw = "NO_ACQUIRED_MR", f"Series {known[uid].series.title}: {known[uid].verdict.why[0]}."
        if flaw:
            return Decision.DECLINED, flaw[0], flaw[1], {}, {}
        titles[role] = known[uid].series.title
    reason = f"Chosen by hand: T1W is series {titles['T1W']}, FLAIR is series {titles['FLAIR']}."
    return Decision.COMPLETE, "BY_HAND", reason, dict(by_hand), {}


# --- what is missing -----------------------------------------------------------------------------

_NAMES = {Role.T1W: "pre-contrast T1W", Role.FLAIR: "FLAIR"}
#: At most this many series are named in a sentence.
_MOST_NAMED = 8


def _what_is_missing(candidates: list[Candidate], missing: list[Role]) -> tuple[str, str, str]:
    """Return code, sentence, and how long to hope: "quiet" (it cannot come any more) or "wait"."""
    for role in missing:
        flawed = [c for c in candidates if c.verdict.role == role and c.flaw]
        if flawed and flawed[0].flaw:
            code, sentence = flawed[0].flaw
            return code, sentence, "wait"
    roles = {c.verdict.role for c in candidates}
    if roles and roles <= {Role.NOT_MR, Role.SYNTHETIC, Role.DERIVED}:
        return "NO_ACQUIRED_MR", "The study holds no acquired MR images.", "quiet"
    if Role.T1W in missing:
        unclear = [
            c
            for c in candidates
            if c.verdict.role == Role.UNKNOWN and any("contrast agent" in why for why in c.verdict.why)
        ]
        if unclear:
            title = unclear[0].series.title
            return (
                "CONTRAST_UNCLEAR",
                f"Series {title} may be the pre-contrast T1W, but {unclear[0].verdict.why[-1]}.",
                "wait",
            )
        if Role.T1C in roles:
            return (
                "ONLY_POST_CONTRAST",
                "The only T1-weighted series were acquired after contrast; a pre-contrast T1W is needed.",
                "quiet",
            )
    untold = [c.series.title for c in candidates if UNTOLD in c.verdict.why and not c.flaw]
    if len(untold) >= len(missing):
        what = " or ".join(_NAMES[role] for role in missing)
        return (
            "CONTRAST_UNKNOWN",
            f"Neither TR, TE, TI nor a description tells what series {', '.join(untold[:_MOST_NAMED])} "
            f"show{'s' if len(untold) == 1 else ''}: {what} is not guessed. {_SAY_WHICH}",
            "wait",
        )
    names = " and no ".join(_NAMES[role] for role in missing)
    present = [
        f"{c.series.title} ({c.verdict.role})" for c in candidates if c.verdict.role not in {Role.NOT_MR}
    ]
    seen = f"; seen: {', '.join(present[:_MOST_NAMED])}" if present else ""
    code = "NO_T1W_NO_FLAIR" if len(missing) == 2 else f"NO_{missing[0]}"
    return code, f"The study holds no {names}{seen}.", "wait"


def _flaw(series: Series, growth: Growth) -> tuple[str, str] | None:
    """Return (code, sentence) why a series of the right contrast cannot be used, or None."""
    problems = series.pixel_problems()
    if problems:
        number, why = problems[0]
        which = f"instance number {number}" if number is not None else "an instance"
        more = f" ({len(problems)} such instances)" if len(problems) > 1 else ""
        code = "NO_PIXEL_DATA" if "no pixel data" in why else "UNREADABLE_PIXELS"
        return code, f"Series {series.title}: {which} cannot be used, {why}{more}."
    if growth == Growth.GROWING:
        return None
    several = next((header for header in series.headers if header.several_code), None)
    if several:
        return several.several_code, f"Series {series.title}: {several.several_volumes}"
    frames_of_reference = {header.frame_of_reference for header in series.headers}
    if len(frames_of_reference) > 1:
        count = len(frames_of_reference)
        return "MIXED_SERIES", f"Series {series.title}: its images lie in {count} frames of reference."
    if not series.has_positions:
        return "NO_POSITION", f"Series {series.title}: its images do not say where they lie in the patient."
    if series.gaps:
        return "SLICE_MISSING", f"Series {series.title}: {series.gaps[0].sentence()}."
    if not series.is_uniform:
        return (
            "MIXED_GEOMETRY",
            f"Series {series.title}: its images differ in orientation or matrix, or say neither.",
        )
    if series.drift_mm > SHEARED_FROM_MM:
        return (
            "SHEARED_STACK",
            f"Series {series.title}: its slices are shifted sideways against each other by up to "
            f"{series.drift_mm:.1f} mm (like a tilted gantry).",
        )
    if series.slices < FEWEST_SLICES:
        return (
            "TOO_FEW_SLICES",
            f"Series {series.title} has {series.slices} slices; a brain needs {FEWEST_SLICES}.",
        )
    if not series.is_regular:
        return (
            "IRREGULAR",
            f"Series {series.title}: its slices are not equally far apart, or several lie at one place.",
        )
    return None


def _table(
    candidates: list[Candidate], chosen: Mapping[str, str], remarks: Mapping[str, str]
) -> tuple[SeriesLine, ...]:
    lines = []
    for c in candidates:
        line = SeriesLine(c.series.uid, c.series.first.series_description, c.verdict.role, c.verdict.why)
        if c.verdict.role in INPUT_ROLES:
            extra = [f"{c.series.slices} slices, {c.series.plane.lower() or 'unknown orientation'}"]
            if c.series.spacing_mm:
                extra[0] += f", {c.series.spacing_mm:.2f} mm apart"
            if c.flaw:
                extra.append(c.flaw[1])
            else:
                extra += dict.fromkeys(h.several_volumes for h in c.series.headers if h.several_volumes)
            if c.series.uid in remarks:
                extra.append(remarks[c.series.uid])
            if chosen:
                extra.append("chosen" if c.series.uid in chosen.values() else "another series fits better")
            line = replace(line, why=(*line.why, *extra))
        lines.append(line)
    return tuple(lines)
