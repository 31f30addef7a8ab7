"""What a person does to a job: try again, overrule the choice, cancel, retract its result."""

from __future__ import annotations

from typing import Any

from dicom_node.choose import choose_pair, group
from dicom_node.choose.pair import Decision, Situation
from dicom_node.errors import IllegalTransition, NoSuchThing
from dicom_node.headers import Header
from dicom_node.ledger import (
    AT_PEER,
    RETRYABLE,
    TRANSITIONS,
    DocumentState,
    JobRow,
    Ledger,
    State,
    document_id,
)
from dicom_node.spool import Spool
from synthesis.job import Form

#: Failures after which the result is still good: only the delivery is tried again.
_DELIVERY_CODES = {"DELIVERY_REFUSED", "NO_DESTINATION"}
#: States in which a result rests, wholly or in part, in destinations.
_RETRACTABLE = frozenset({State.DELIVERED, State.COMMITTED, State.FAILED, State.CANCELLED})


def retry(
    ledger: Ledger, spool: Spool, job: JobRow, t1w: str | None = None, flair: str | None = None
) -> JobRow:
    """Put a job into the queue again, with the series that were chosen, or with these.

    Raises
    ------
    IllegalTransition
        The job is not in a state from which it can be tried again.
    NoSuchThing
        There is no pair to try with: the study has no such series, or none was chosen yet.
    """
    if job.state not in RETRYABLE:
        raise IllegalTransition(f"Job {job.id} is {job.state}; only {_names(RETRYABLE)} can be tried again.")
    if is_retracted(ledger, job):
        raise IllegalTransition(
            f"Job {job.id} is retracted. Made again, its images would have the identifiers that destinations "
            "were told to reject."
        )
    values: dict[str, Any] = {}
    if t1w or flair:
        values = _chosen_by_hand(ledger, job, t1w, flair)
    elif job.inputs is None:
        raise NoSuchThing(
            f"No pair was chosen for job {job.id}. Name both: "
            f"dicom-node queue retry {job.id} --t1 SERIES --flair SERIES "
            f"(the series are listed by: dicom-node queue explain {job.id})."
        )
    inputs: dict[str, list[str]] = values.get("inputs") or job.inputs or {}
    missing = [path for paths in inputs.values() for path in paths if not (spool.root / path).exists()]
    if ledger.has_purged(missing):
        raise NoSuchThing(
            f"The series of job {job.id} have left the spool (retention.hours): send the study again first."
        )
    if job.code in _DELIVERY_CODES and not values:
        ledger.reopen_deliveries(job)
    else:
        spool.reset_job(job.id)
        ledger.forget_deliveries(job)
    return ledger.move(
        job,
        State.QUEUED,
        "Put into the queue again by hand.",
        "BY_HAND",
        to_send=True,
        settled=False,
        look_again=None,
        starts=0,
        step="",
        progress=0.0,
        **values,
    )


def _chosen_by_hand(ledger: Ledger, job: JobRow, t1w: str | None, flair: str | None) -> dict[str, Any]:
    before = (job.explanation or {}).get("chosen", {})
    by_hand = {"T1W": t1w or before.get("T1W"), "FLAIR": flair or before.get("FLAIR")}
    missing = [role for role, uid in by_hand.items() if not uid]
    if missing:
        raise NoSuchThing(f"Name both series: {missing[0]} was not chosen before.")
    rows = ledger.study_headers(job.study_uid)
    choice = choose_pair(group(Header.from_json(values) for _, values in rows), Situation(by_hand=by_hand))
    if choice.decision != Decision.COMPLETE:
        raise NoSuchThing(choice.reason)
    inputs = ledger.series_paths(job.study_uid, choice.chosen)
    return {"by_hand": True, "inputs": inputs, "explanation": choice.to_json(job.rule)}


def cancel(ledger: Ledger, spool: Spool, job: JobRow) -> JobRow:
    """Cancel a job (its worker stops at the next step); raises `IllegalTransition` once delivered."""
    if State.CANCELLED not in TRANSITIONS[job.state]:
        raise IllegalTransition(f"Job {job.id} is {job.state}; it cannot be cancelled any more.")
    cancelled = ledger.move(job, State.CANCELLED, "Cancelled by hand.", "BY_HAND")
    spool.cancel_job(job.id)
    return cancelled


def retract(ledger: Ledger, spool: Spool, job: JobRow, reason: str) -> bool:
    """Have destinations told to reject the result of a job; False when they were told before.

    Raises
    ------
    IllegalTransition
        The job is still under way, or nothing of its result is in any destination.
    NoSuchThing
        No file of the study is left that says whose it is.
    """
    if is_retracted(ledger, job):
        return False
    if job.state not in _RETRACTABLE:
        raise IllegalTransition(
            f"Job {job.id} is {job.state}; only {_names(_RETRACTABLE)} can be retracted. "
            "One that is under way can be cancelled first."
        )
    rows = ledger.deliveries(job.id)
    holders = sorted({row.destination for row in rows if row.state in AT_PEER})
    if not holders:
        raise IllegalTransition(f"Nothing of job {job.id} was delivered: there is nothing to retract.")
    files = [*(row.path for row in rows), *(path for path, _ in ledger.study_headers(job.study_uid))]
    if not any((spool.root / path).exists() for path in files):
        raise NoSuchThing(
            f"The files of job {job.id} have left the spool (retention.hours); a retraction must name the "
            "patient: send the study, or one image of it, to the node again, then retract."
        )
    return ledger.open_document(job, document_id(job.id, "retraction"), Form.KO, "RETRACTED", reason, holders)


def is_retracted(ledger: Ledger, job: JobRow) -> bool:
    """Return whether the result of a job is retracted, or about to be."""
    return any(one.form == Form.KO and one.state != DocumentState.FAILED for one in ledger.documents(job.id))


def _names(states: frozenset[State]) -> str:
    return ", ".join(sorted(states))
