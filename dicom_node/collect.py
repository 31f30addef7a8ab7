"""Collect: from arrivals to a decision about each study.

Reads the header of what came, finds the job that it belongs to, and judges the study anew: is the pair
whole, is something missing, or are two candidates equal? What is decided, and why, goes to the ledger.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dicom_node import headers
from dicom_node.choose import Choice, choose_pair, group
from dicom_node.choose.enhancement import glance_into
from dicom_node.choose.pair import Decision, Situation
from dicom_node.choose.pixels import files_to_see, look_into
from dicom_node.completeness import by_the_count, growths, transfers
from dicom_node.errors import IllegalTransition
from dicom_node.headers import Header
from dicom_node.ledger import (
    COLLECTING,
    Arrival,
    AssociationRow,
    Batch,
    JobRow,
    Ledger,
    State,
    UnseenArrival,
)
from dicom_node.settings import NO_DESTINATION, Rule, Settings
from dicom_node.spool import Spool

log = logging.getLogger(__name__)

#: While instances arrive, a study is judged at most this often.
_LOOK_EVERY_S = 0.5
_IDLE_S = 60.0
#: A study that we failed to judge is judged again after this.
_AFTER_FAILURE_S = 60.0
#: States in which a job's input is fixed: what comes later can only open the next revision.
_PAST_COLLECTING = frozenset(
    {State.COMPLETE, State.QUEUED, State.RUNNING, State.SYNTHESISED, State.DELIVERED, State.COMMITTED}
)


class Collector:
    """The step between receive and enqueue.

    Parameters
    ----------
    settings, ledger, spool
        What to judge by, and where what came lies.
    opened : callable
        Called when a study begins to arrive, before the rest of it is looked at.
    """

    def __init__(
        self, settings: Settings, ledger: Ledger, spool: Spool, opened: Callable[[], None] = lambda: None
    ) -> None:
        self._opened = opened
        self._settings = settings
        self._ledger = ledger
        self._spool = spool

    def work(self) -> float:
        """Do what there is to do; return the seconds until there may be more."""
        busy = False
        while arrived := self._ledger.unseen_arrivals():
            self._take_in(arrived)
            busy = True
        for job in self._ledger.jobs_due(time.time()):
            try:
                self._judge(job)
            except Exception:  # border: one study that we cannot judge must not hold up the others
                log.exception("job %s: could not be judged", job.id)
                self._ledger.set(job, look_again=time.time() + _AFTER_FAILURE_S)
            busy = True
        if busy:
            return 0.0
        due = [at for at in (self._tell(), self._ledger.next_look()) if at is not None]
        return max(0.05, min(due) - time.time()) if due else _IDLE_S

    # --- what arrived ----------------------------------------------------------------------------

    def _take_in(self, arrived: list[UnseenArrival]) -> None:
        """Read the headers of what came, and let the jobs of each study know."""
        self._index(arrived)
        last: dict[tuple[str, int], float] = {}
        first: dict[tuple[str, int], Header] = {}
        grown: set[tuple[str, int]] = set()
        for arrival in arrived:
            stored = self._ledger.header_of(arrival.sop_instance_uid)
            if stored is None:
                continue
            header = Header.from_json(stored)
            if header.synthetic:
                continue  # no job is opened for what a network made
            key = (header.study_uid, arrival.association_id)
            first.setdefault(key, header)
            last[key] = arrival.at
            if arrival.kind == Arrival.NEW:
                grown.add(key)
        for key, header in first.items():
            self._attribute(header, key[1], last[key], grown=key in grown)
        self._ledger.mark_seen(arrival.id for arrival in arrived)

    def _index(self, arrived: list[UnseenArrival]) -> None:
        """Read the headers of new instances into the ledger."""
        found: dict[str, dict[str, Any]] = {}
        readable: dict[str, Header] = {}
        for arrival in arrived:
            uid = arrival.sop_instance_uid
            if arrival.indexed or uid in found or uid in readable:
                continue
            try:
                readable[uid] = headers.read(self._spool.root / arrival.path)
            except headers.Unreadable as error:
                found[uid] = {"problem": error.sentence}
                log.warning("association %d: %s", arrival.association_id, error.sentence)
        # An archive may drop every mark of what we made, but not its UID.
        ours = self._ledger.made_for({header.study_uid for header in readable.values()})
        for uid, header in readable.items():
            header = replace(header, synthetic=header.synthetic or uid in ours)
            found[uid] = {
                "study_uid": header.study_uid,
                "series_uid": header.series_uid,
                "header": header.to_json(),
            }
        self._ledger.index_instances(found)

    def _attribute(self, header: Header, association_id: int, last: float, *, grown: bool) -> None:
        """Make the job of this study and rule when there is none; else tell it that the study has grown."""
        study_uid = header.study_uid
        association = self._ledger.association(association_id)
        rule = self._rule(header, association)
        if rule is None:
            log.info("association %d: no [[rule]] matches what it brought; it is kept", association_id)
            return
        job = self._latest(study_uid, rule)
        if job is None:
            job = self._ledger.open_job(
                study_uid, rule.name, 1, association.peer, last, f"Arriving, rule “{rule.name}”."
            )
            self._opened()
            log.info("job %s: opened under rule %r (association %d)", job.id, rule.name, association_id)
        elif grown and job.state in COLLECTING:
            self._ledger.touch(job, last)
        elif grown and job.state == State.DECLINED:
            self._spool.reset_job(job.id)  # what a worker declined before is no answer to what is here now
            self._ledger.move(
                job,
                State.RECEIVING,
                "New instances arrived.",
                last_arrival=last,
                look_again=None,
                by_hand=False,
            )

    def _rule(self, header: Header, association: AssociationRow) -> Rule | None:
        return self._settings.rule_for(
            {
                "called_aet": association.called_aet,
                "calling_aet": association.calling_aet,
                "peer": association.peer or "",
                **header.rule_facts(),
            }
        )

    def _latest(self, study_uid: str, rule: Rule) -> JobRow | None:
        """Return the newest revision of the job of this study under this rule."""
        return next((job for job in reversed(self._ledger.jobs_of(study_uid)) if job.rule == rule.name), None)

    # --- what came after the decision --------------------------------------------------------------

    def _tell(self) -> float | None:
        """Sum up each association in the timelines of its studies' jobs, once it ended or fell silent.

        Returns the time of the next association that may fall silent, None when there is none.
        """
        due = None
        for batch in self._ledger.untold_batches():
            silent_at = batch.last + self._settings.collect.quiet_seconds
            if batch.association.closed is None and time.time() < silent_at:
                due = min(silent_at, due or silent_at)
                continue
            newest = {job.rule: job for job in self._ledger.jobs_of(batch.study_uid)}
            for job in newest.values():
                self._tell_job(job, batch)
            self._ledger.mark_told(batch.arrival_ids)
        return due

    def _tell_job(self, job: JobRow, batch: Batch) -> None:
        if batch.synthetic:
            self._ledger.note(
                job,
                f"{batch.synthetic} instances of a synthetic series came in: ignored, never an input.",
                "SYNTHETIC_IGNORED",
            )
        if batch.other:
            self._ledger.note(
                job,
                f"{batch.other} instances came again with other content: the first ones are kept, "
                "the others are in the spool's folder “conflicts”.",
                "CONFLICT",
            )
        if batch.same and job.state not in COLLECTING:
            self._ledger.note(
                job, f"{batch.same} instances came again, all known: nothing to do.", "SENT_AGAIN"
            )
        if batch.new and job.state in _PAST_COLLECTING and batch.last > job.created:
            self._revise(job, batch)

    # --- what it means ---------------------------------------------------------------------------

    def _judge(self, job: JobRow) -> None:
        """Decide about a collecting job and move it."""
        rule = self._settings.rule_named(job.rule)
        if rule is None:
            self._decline(job, "NO_RULE", f"The settings no longer have a rule “{job.rule}”.")
            return
        job = self._ledger.claim_look(job, time.time() + _LOOK_EVERY_S)
        if job.state not in COLLECTING:
            return  # moved by hand meanwhile
        found = self._choose(job, rule)
        if found is None:
            self._ledger.end_look(job, 0.0)
            return
        choice, look_again = found
        explanation = choice.to_json(job.rule)
        try:
            if choice.decision == Decision.COMPLETE:
                self._complete(job, choice, rule)
            elif choice.decision == Decision.DECLINED:
                self._decline(job, choice.code, choice.reason, explanation=explanation)
            elif choice.decision == Decision.WAITING and job.state == State.RECEIVING:
                waiting = self._ledger.move(
                    job, State.WAITING, choice.reason, choice.code, explanation=explanation
                )
                self._ledger.end_look(replace(waiting, look_again=job.look_again), look_again)
                log.info("job %s: WAITING %s", job.id, choice.code)
            else:
                if (choice.code, choice.reason) != (job.code, job.reason) and job.state == State.WAITING:
                    self._ledger.note(job, choice.reason, choice.code)
                self._ledger.end_look(
                    job, look_again, explanation=explanation, code=choice.code, reason=choice.reason
                )
        except IllegalTransition:
            log.info("job %s: changed by hand meanwhile", job.id)

    def _choose(self, job: JobRow, rule: Rule) -> tuple[Choice, float] | None:
        """Return the choice for a study as it stands, and when to look again.

        None when an association ended while we looked, and what it brought last is not read yet: its release
        must not vouch for instances that we do not see. The job stays due.
        """
        now = time.time()
        quiet_s = self._settings.collect.quiet_seconds
        wait_s = self._settings.collect.wait_minutes * 60
        instances = self._instances(self._ledger.study_headers(job.study_uid))
        all_series = group(header for _, header in instances)
        arrivals = self._ledger.study_arrivals(job.study_uid)
        associations = self._ledger.associations_of(job.study_uid)
        if self._ledger.has_unseen(one.id for one in associations.values() if one.closed is not None):
            return None
        inquiry = self._ledger.inquiry(job.study_uid, job.peer)
        how = transfers(arrivals, associations)
        quiet = now - job.last_arrival >= quiet_s
        expired = now - job.last_arrival >= wait_s
        files = files_to_see(instances)
        choice = choose_pair(
            all_series,
            Situation(
                growth=growths(all_series, how, now, quiet_s, inquiry),
                arriving=not quiet and any(transfer.is_open for transfer in how.values()),
                quiet=quiet,
                expired=expired,
                unreadable=self._ledger.unreadable_beside(job.study_uid),
                if_contrast_given=rule.if_contrast_given,
                look=look_into(files),
                glance=glance_into(files),
            ),
        )
        if choice.decision == Decision.COMPLETE:
            choice = by_the_count(choice, all_series, inquiry, expired=expired)
        look_again = now
        if choice.decision != Decision.RECEIVING:
            look_again = job.last_arrival + (quiet_s if not quiet else wait_s)
        return choice, max(look_again, now + _LOOK_EVERY_S)

    def _instances(self, rows: list[tuple[str, dict[str, Any]]]) -> list[tuple[Path, Header]]:
        """Return file and header of each instance of a study."""
        return [(self._spool.root / path, Header.from_json(values)) for path, values in rows]

    def _complete(self, job: JobRow, choice: Choice, rule: Rule) -> None:
        inputs = self._ledger.series_paths(job.study_uid, choice.chosen)
        now = time.time()
        seconds = {"receive": job.last_arrival - job.created, "decide": now - job.last_arrival}
        complete = self._ledger.move(
            job,
            State.COMPLETE,
            choice.reason,
            choice.code,
            at=now,
            explanation=choice.to_json(job.rule),
            inputs=inputs,
            look_again=None,
            seconds={step: round(max(0.0, s), 3) for step, s in seconds.items()},
        )
        log.info("job %s: COMPLETE %.1f s after the last instance", job.id, now - job.last_arrival)
        if not self._settings.destinations(rule, job.peer):
            self._decline(complete, "NO_DESTINATION", NO_DESTINATION)

    def _decline(self, job: JobRow, code: str, reason: str, **values: Any) -> None:
        if job.state == State.RECEIVING:
            job = self._ledger.move(job, State.WAITING, reason, code)
        self._ledger.move(job, State.DECLINED, reason, code, **values)
        log.info("job %s: DECLINED %s", job.id, code)

    def _revise(self, job: JobRow, batch: Batch) -> None:
        """Open the next revision if what came late changes the input of a job that is past collecting."""
        why = self._why_revise(job)
        if not why:
            return
        self._ledger.note(
            job, f"{batch.new} instances came late. {why} See the next revision of this job.", "REVISED"
        )
        revised = self._ledger.open_job(
            job.study_uid,
            job.rule,
            job.revision + 1,
            job.peer,
            batch.last,
            f"Instances came after revision {job.revision} was complete. {why}",
        )
        log.info("job %s: revision %d of job %s", revised.id, revised.revision, job.id)

    def _why_revise(self, job: JobRow) -> str:
        """Return why the job would be done with another input, with all that is here now, or ""."""
        rows = self._ledger.study_headers(job.study_uid)
        used = {path for paths in (job.inputs or {}).values() for path in paths}
        series_used = {values["series_uid"] for path, values in rows if path in used}
        if any(values["series_uid"] in series_used and path not in used for path, values in rows):
            return "A series that was used has grown."
        if job.by_hand:
            return ""
        instances = self._instances(rows)
        choice = choose_pair(
            group(header for _, header in instances),
            Situation(expired=False, look=look_into(files_to_see(instances))),
        )
        if choice.decision == Decision.COMPLETE and set(choice.chosen.values()) != series_used:
            return "Other series fit better than those that were used."
        if choice.code.startswith("TWO_"):
            return choice.reason
        return ""
