"""Confirm: from DELIVERED to COMMITTED. Asks each destination whether it keeps what it said that it stored.

Storage commitment first; where a peer does not offer it, or does not answer, C-FIND at image level; a
DICOMweb service is searched by QIDO-RS. What a destination has lost is sent again, and nothing else. A
destination that can be asked in none of these ways stays at its word.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from enum import StrEnum

from pydicom.uid import UID

from dicom_node import commitment
from dicom_node.errors import IllegalTransition, NoSuchThing, PeerRefuses, PeerUnreachable
from dicom_node.lanes import Lanes
from dicom_node.ledger import ConfirmationRow, DeliveryRow, DeliveryState, How, JobRow, Ledger, State
from dicom_node.settings import Peer, Settings

log = logging.getLogger(__name__)

#: A peer that has not reported by then is asked by C-FIND: archives may commit only what left their cache.
_REPORT_WITHIN_S = 2 * 3600.0
#: So often a destination may lose, or leave unanswered, what it was sent.
_MOST_ROUNDS = 3
#: Many archives list what they stored only when they have indexed it: until then a query proves nothing.
_INDEXED_WITHIN_S = 600.0
_PAUSE_S = 60.0
_LONGEST_PAUSE_S = 600.0
#: With these pauses: two days of an unreachable peer.
_MOST_ATTEMPTS = 340
#: Associations with one destination.
_AT_ONCE = 2
_EVERY_S = 0.5
#: What waits for a peer's report needs no hurry; the report itself wakes us.
_IDLE_S = 10.0

_NOT_THERE = frozenset({DeliveryState.PENDING, DeliveryState.REFUSED})
#: Nobody is to be asked about these any more.
_SETTLED = frozenset({DeliveryState.COMMITTED, DeliveryState.UNCONFIRMED, DeliveryState.NOT_TAKEN})


class Step(StrEnum):
    """What a destination is to be asked next."""

    WAIT = "WAIT"
    COMMIT = "COMMIT"
    FIND = "FIND"


def next_step(asked: Sequence[ConfirmationRow], now: float) -> Step:
    """Return what to ask a destination that has instances to be confirmed, by what it was asked before."""
    actions = [one for one in asked if one.how == How.N_ACTION]
    if any(one.ended is None and now - one.asked < _REPORT_WITHIN_S for one in actions):
        return Step.WAIT
    if asked and now - (asked[-1].ended or 0.0) < _PAUSE_S * len(asked):
        return Step.WAIT
    silent = any(one.ended is None for one in actions)
    return Step.FIND if silent or len(actions) >= _MOST_ROUNDS else Step.COMMIT


def is_lost(asked: Sequence[ConfirmationRow], now: float) -> bool:
    """Return whether what a query does not find is lost: it was there to be found for long enough.

    `asked` is all that the destination was asked, this query included. What was sent again has time again.
    """
    since = max((one.ended or one.asked for one in asked if one.lost), default=0.0)
    queries = [one.asked for one in asked if one.how != How.N_ACTION and one.asked > since]
    return now - min(queries, default=now) >= _INDEXED_WITHIN_S


class Confirmer:
    """The step after deliver."""

    def __init__(
        self, settings: Settings, ledger: Ledger, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._changed = changed
        self._under_way = Lanes("confirm", _AT_ONCE)

    def stop(self) -> None:
        """Let associations under way end; start no new one."""
        self._under_way.stop()

    def work(self) -> float:
        """Do what there is to do; return the seconds until there may be more."""
        self._under_way.sweep()
        for job in self._ledger.jobs_to_confirm():
            try:
                self._advance(job)
            except IllegalTransition:
                log.info("job %s: changed meanwhile", job.id)
        return _EVERY_S if self._under_way else _IDLE_S

    def _advance(self, job: JobRow) -> None:
        rows = self._ledger.deliveries(job.id)
        # Of a job that failed, nothing is sent until a person tries it again; that sends what was lost, too.
        if job.state != State.FAILED and self._give_back(job, rows):
            rows = self._ledger.deliveries(job.id)
        states = {row.state for row in rows}
        missing = {row.destination for row in rows if row.state in _NOT_THERE}
        if job.state == State.DELIVERED and missing:
            why = " ".join(self._ledger.attempt(job.id, name)[2] for name in sorted(missing))
            self._ledger.move(job, State.SYNTHESISED, why, "LOST_BY_PEER")
            self._changed()
            return
        for destination in sorted({row.destination for row in rows}):
            here = [row for row in rows if row.destination == destination]
            stored = [row for row in here if row.state == DeliveryState.STORED]
            if not stored or any(row.state == DeliveryState.PENDING for row in here):
                continue
            _, next_at, _ = self._ledger.attempt(job.id, destination)
            if (job.id, destination) in self._under_way or time.time() < next_at:
                continue
            step = next_step(self._ledger.confirmations(job.id, destination), time.time())
            if step != Step.WAIT:
                self._under_way.begin((job.id, destination), self._ask, job, destination, stored, step)
        if job.state == State.DELIVERED and states <= _SETTLED:
            self._settle(job, rows)
        if job.state == State.FAILED and DeliveryState.STORED not in states:
            self._ledger.set(job, settled=True)

    # --- what came of it ---------------------------------------------------------------------------

    def _give_back(self, job: JobRow, rows: list[DeliveryRow]) -> bool:
        """Have sent again what a destination has lost, unless it loses it every time."""
        losers = sorted({row.destination for row in rows if row.state == DeliveryState.LOST})
        for destination in losers:
            here = [row for row in rows if row.destination == destination]
            lost = [row for row in here if row.state == DeliveryState.LOST]
            times = sum(one.lost > 0 for one in self._ledger.confirmations(job.id, destination))
            again = times < _MOST_ROUNDS
            state = DeliveryState.PENDING if again else DeliveryState.REFUSED
            sentence = f"{destination} has lost {len(lost)} of {len(here)} instances that it had stored"
            sentence += "; they are sent again." if again else f", {times} times by now."
            self._ledger.set_attempt(job.id, destination, 0, 0.0, sentence)
            self._ledger.set_deliveries([(row, state, row.status) for row in lost])
            self._ledger.note(job, sentence, "LOST_BY_PEER")
            log.warning("job %s: %s", job.id, sentence)
        return bool(losers)

    def _settle(self, job: JobRow, rows: list[DeliveryRow]) -> None:
        """Nobody is left to be asked."""
        by_word = sorted({row.destination for row in rows if row.state == DeliveryState.UNCONFIRMED})
        sure = sorted({row.destination for row in rows} - set(by_word))
        if not sure:
            self._ledger.set(job, settled=True)
            return
        sentence = f"{', '.join(sure)} confirmed every instance."
        left = sorted({UID(row.sop_class_uid).name for row in rows if row.state == DeliveryState.NOT_TAKEN})
        if left:
            sentence = f"{', '.join(sure)} confirmed every instance, without what was not taken: "
            sentence += f"{', '.join(left)}."
        if by_word:
            sentence += f" {', '.join(by_word)} cannot be asked."
        last = max((row.at or 0.0 for row in rows), default=job.updated)
        seconds = {**(job.seconds or {}), "commit": round(max(0.0, last - job.updated), 3)}
        self._ledger.move(job, State.COMMITTED, sentence, "COMMITTED", seconds=seconds, settled=True)
        log.info("job %s: COMMITTED", job.id)

    # --- asking --------------------------------------------------------------------------------------

    def _ask(self, job: JobRow, destination: str, rows: list[DeliveryRow], step: Step) -> None:
        """Ask one destination about one job; runs in a thread of its own."""
        try:
            self._ask_peer(job, self._settings.peer_named(destination), rows, step)
        except NoSuchThing as error:
            self._take_its_word(job, destination, rows, error.sentence)
        except PeerRefuses:
            sentence = f"{destination} cannot be asked what it keeps: its Success must do."
            self._take_its_word(job, destination, rows, sentence)
        except PeerUnreachable as error:
            self._postpone(job, destination, rows, error.sentence)
        except Exception:  # border: a bug here must not end the other questions
            log.exception("job %s: %s could not be asked", job.id, destination)
            self._postpone(job, destination, rows, "The node failed; the reason is in its log.")
        self._changed()

    def _ask_peer(self, job: JobRow, peer: Peer, rows: list[DeliveryRow], step: Step) -> None:
        if peer.dicomweb:
            from dicom_node import stow  # the client brings much that a node without DICOMweb never needs

            self._compare(job, peer, rows, How.QIDO_RS, lambda series: stow.find(peer, job.study_uid, series))
            return
        with commitment.inquire(self._settings.node.ae_title, peer, self._reported) as inquiry:
            if inquiry.can_commit and step == Step.COMMIT:
                transaction_uid = commitment.new_transaction()
                self._ledger.open_confirmation(transaction_uid, job.id, peer.name, How.N_ACTION)
                try:
                    inquiry.request(transaction_uid, rows)
                except PeerUnreachable:
                    self._ledger.end_confirmation(transaction_uid, {})
                    raise
                return
            self._compare(job, peer, rows, How.C_FIND, lambda series: inquiry.find(job.study_uid, series))

    def _reported(self, report: commitment.Report) -> bool:
        return self._ledger.end_confirmation(report.transaction_uid, report.found)

    def _compare(
        self, job: JobRow, peer: Peer, rows: list[DeliveryRow], how: How, find: Callable[[str], set[str]]
    ) -> None:
        """Compare what the peer should have with what a query finds."""
        key = commitment.new_transaction()
        self._ledger.open_confirmation(key, job.id, peer.name, how)
        there: set[str] = set()
        try:
            for series in sorted({row.series_instance_uid for row in rows}):
                there |= find(series)
        except (PeerUnreachable, PeerRefuses):
            self._ledger.end_confirmation(key, {})
            raise
        lost = is_lost(self._ledger.confirmations(job.id, peer.name), time.time())
        missing = DeliveryState.LOST if lost else DeliveryState.STORED
        self._ledger.end_confirmation(
            key,
            {
                row.sop_instance_uid: (
                    DeliveryState.COMMITTED if row.sop_instance_uid in there else missing,
                    None,
                )
                for row in rows
            },
        )
        found = sum(row.sop_instance_uid in there for row in rows)
        self._ledger.note(
            self._ledger.job(job.id),
            f"{how} finds {found} of {len(rows)} instances in {peer.name}.",
            how.name,
        )

    def _take_its_word(self, job: JobRow, destination: str, rows: list[DeliveryRow], sentence: str) -> None:
        self._ledger.set_deliveries([(row, DeliveryState.UNCONFIRMED, row.status) for row in rows])
        self._ledger.note(self._ledger.job(job.id), sentence, "UNCONFIRMED")

    def _postpone(self, job: JobRow, destination: str, rows: list[DeliveryRow], sentence: str) -> None:
        count = self._ledger.attempt(job.id, destination)[0] + 1
        if count >= _MOST_ATTEMPTS:
            self._take_its_word(job, destination, rows, f"{sentence} Given up after {count} attempts.")
            return
        pause = min(_PAUSE_S * count, _LONGEST_PAUSE_S)
        self._ledger.set_attempt(job.id, destination, count, time.time() + pause, sentence)
        self._ledger.note(
            self._ledger.job(job.id),
            f"{sentence} Asked {count} times; again in {pause:.0f} s.",
            "CONFIRMATION_POSTPONED",
        )
        log.warning("job %s: asking %s postponed by %.0f s", job.id, destination, pause)
