"""What a person does to a job: try again, overrule the choice, cancel."""

from __future__ import annotations

from typing import Any

from dicom_node.choose import choose_pair, group
from dicom_node.choose.pair import Decision, Situation
from dicom_node.errors import IllegalTransition, NoSuchThing
from dicom_node.headers import Header
from dicom_node.ledger import RETRYABLE, TRANSITIONS, JobRow, Ledger, State
from dicom_node.spool import Spool

#: Failures after which the result is still good: only the delivery is tried again.
_DELIVERY_CODES = {"DELIVERY_REFUSED", "NO_DESTINATION"}


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


def _names(states: frozenset[State]) -> str:
    return ", ".join(sorted(states))
