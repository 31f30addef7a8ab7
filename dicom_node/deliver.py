"""Deliver: from SYNTHESISED to every destination, each instance until the peer has it.

What is transient is tried again after linearly growing pauses (10, 20, 30 … s); what is permanent is not.
Only what a destination does not have yet is sent.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from pydicom.uid import UID, EnhancedMRImageStorage, MRImageStorage

from dicom_node import send
from dicom_node.errors import IllegalTransition, NoSuchThing, PeerRefuses, PeerUnreachable
from dicom_node.lanes import Lanes
from dicom_node.ledger import (
    AT_PEER,
    DeliveryRow,
    DeliveryState,
    JobRow,
    Ledger,
    State,
)
from dicom_node.parcels import Answer, parcel
from dicom_node.settings import NO_DESTINATION, Peer, Settings
from dicom_node.spool import Spool
from synthesis import job as message

log = logging.getLogger(__name__)

_PAUSE_S = 10.0
_LONGEST_PAUSE_S = 600.0
#: With these pauses: two days of an unreachable peer.
_MOST_ATTEMPTS = 340
#: Associations with one destination.
_AT_ONCE = 4
_EVERY_S = 0.5
#: `queue retry` is another process: nobody wakes us.
_IDLE_S = 2.0
#: Answers are written together, so that a disk that is slow to sync does not slow the association down.
_WRITE_EVERY_S = 0.25
#: What a result is there for. A destination that takes these and refuses other objects has the result.
_IMAGES = frozenset({MRImageStorage, EnhancedMRImageStorage})


def goes_without(rows: Sequence[DeliveryRow]) -> bool:
    """Return whether all that destinations refuse can be missing: no image, and not all that one was sent."""
    for destination in {row.destination for row in rows}:
        here = [row for row in rows if row.destination == destination]
        refused = [row for row in here if row.state == DeliveryState.REFUSED]
        if len(refused) == len(here) or any(row.sop_class_uid in _IMAGES for row in refused):
            return False
    return True


class Deliverer:
    """The last step."""

    def __init__(
        self, settings: Settings, ledger: Ledger, spool: Spool, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._spool = spool
        self._changed = changed
        self._under_way = Lanes("deliver", _AT_ONCE)

    def stop(self) -> None:
        """Let associations under way end; start no new one."""
        self._under_way.stop()

    def work(self) -> float:
        """Do what there is to do; return the seconds until there may be more."""
        self._under_way.sweep()
        jobs = self._ledger.jobs_in(State.SYNTHESISED)
        for job in jobs:
            try:
                self._advance(job)
            except IllegalTransition:
                log.info("job %s: changed by hand meanwhile", job.id)
        return _EVERY_S if jobs else _IDLE_S

    def _advance(self, job: JobRow) -> None:
        rows = self._ledger.deliveries(job.id)
        if not rows:
            rows = self._open(job)
            if not rows:
                return
        pending = sorted({row.destination for row in rows if row.state == DeliveryState.PENDING})
        for destination in pending:
            _, next_at, _ = self._ledger.attempt(job.id, destination)
            if (job.id, destination) not in self._under_way and time.time() >= next_at:
                self._under_way.begin((job.id, destination), self._deliver, job, destination)
        if pending:
            return
        refused = [row for row in rows if row.state == DeliveryState.REFUSED]
        if refused and not goes_without(rows):
            self._give_up(job, rows)
            return
        if any(row.state == DeliveryState.LOST for row in rows):
            return  # confirm will say what becomes of it
        if refused:
            self._ledger.set_deliveries([(row, DeliveryState.NOT_TAKEN, row.status) for row in refused])
            rows = self._ledger.deliveries(job.id)
        last = max((row.at or 0.0 for row in rows if row.state in AT_PEER), default=time.time())
        seconds = {**(job.seconds or {}), "deliver": round(max(0.0, last - job.updated), 3)}
        seconds["total"] = round(max(0.0, last - job.last_arrival), 3)
        self._ledger.move(job, State.DELIVERED, self._where(job, rows), "DELIVERED", seconds=seconds)
        there = {row.sop_instance_uid for row in rows if row.state in AT_PEER}
        log.info("job %s: DELIVERED %d instances", job.id, len(there))
        self._changed()

    def _where(self, job: JobRow, rows: list[DeliveryRow]) -> str:
        """Say which destinations have how much of a result, and what they do not take."""
        names: dict[int, list[str]] = {}
        missing = []
        for destination in sorted({row.destination for row in rows}):
            here = [row for row in rows if row.destination == destination]
            left = Counter(
                UID(row.sop_class_uid).name for row in here if row.state == DeliveryState.NOT_TAKEN
            )
            names.setdefault(len(here) - left.total(), []).append(destination)
            if left:
                kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(left.items()))
                why = self._ledger.attempt(job.id, destination)[2]
                missing.append(f"{destination} has the result without {kinds}{f': {why}' if why else '.'}")
        there = [
            f"{count} instances are in {', '.join(names[count])}." for count in sorted(names, reverse=True)
        ]
        answers = [self._ledger.postings(one.id) for one in self._ledger.documents(job.id)]
        if any(one.state in AT_PEER for postings in answers for one in postings):
            missing.append("The answer of before, that none could be made, stays in the study.")
        return " ".join([*there, *missing])

    def _give_up(self, job: JobRow, rows: list[DeliveryRow]) -> None:
        """A destination refuses for good; say which, why, and what the destinations have."""
        refused = [row for row in rows if row.state == DeliveryState.REFUSED]
        names = sorted({row.destination for row in refused})
        why = " ".join(sorted({self._ledger.attempt(job.id, name)[2] for name in names}))
        there = len(rows) - len(refused)
        sentence = f"{', '.join(names)} does not take the result: {why}"
        if there:
            sentence += f" {there} of {len(rows)} instances are delivered."
        self._ledger.move(job, State.FAILED, sentence, "DELIVERY_REFUSED")
        log.error("job %s: FAILED DELIVERY_REFUSED", job.id)

    def _open(self, job: JobRow) -> list[DeliveryRow]:
        """Make the rows of a job that came from its worker."""
        result = message.Result.read(self._spool.job(job.id))
        if result is None:
            self._ledger.move(job, State.FAILED, "The result is no longer in the spool.", "RESULT_LOST")
            return []
        destinations = self._settings.destinations(self._settings.rule_named(job.rule), job.peer)
        if not destinations:
            self._ledger.move(job, State.FAILED, NO_DESTINATION, "NO_DESTINATION")
            return []
        folder = self._spool.job(job.id)
        objects = [
            (
                self._spool.relative(folder / made.path),
                made.sop_class_uid,
                made.sop_instance_uid,
                made.series_instance_uid,
            )
            for made in result.instances
        ]
        self._ledger.open_deliveries(job, destinations, objects)
        return self._ledger.deliveries(job.id)

    def _deliver(self, job: JobRow, destination: str) -> None:
        """Send to one destination what it does not have; runs in a thread of its own."""
        try:
            self._attempt(job, destination)
        except Exception:  # border: a bug here must not end the other deliveries
            log.exception("job %s: delivery to %s failed", job.id, destination)
            self._postpone(job, destination, "The node failed; the reason is in its log.")
        self._changed()

    def _attempt(self, job: JobRow, destination: str) -> None:
        rows = {
            row.sop_instance_uid: row
            for row in self._ledger.deliveries(job.id)
            if row.destination == destination and row.state == DeliveryState.PENDING
        }
        try:
            peer = self._settings.peer_named(destination)
        except NoSuchThing as error:
            self._refuse(job, rows.values(), error.sentence)
            return
        answers = _Answers(self._ledger, rows)
        away = unwilling = ""
        try:
            parcels = [parcel(self._spool.root / row.path) for row in rows.values()]
            send.hand_over(self._settings.node.ae_title, peer, parcels, answers.add)
        except PeerUnreachable as error:
            away = error.sentence
        except PeerRefuses as error:
            unwilling = error.sentence
        finally:
            answers.write()
        for status in sorted(set(answers.refused.values())):
            refused = [rows[uid] for uid, said in answers.refused.items() if said == status]
            self._refuse(job, refused, f"{_said(peer, status)} It will not take it later either.", status)
        if unwilling:
            self._refuse(job, answers.unheard(), unwilling)
        if answers.later and not away:
            away = _said(peer, next(iter(answers.later.values())))
        if away:
            self._postpone(job, destination, away)
        elif not unwilling and not answers.refused:
            self._ledger.set_attempt(job.id, destination, 0, 0.0, "")

    def _refuse(
        self, job: JobRow, rows: Iterable[DeliveryRow], sentence: str, status: int | None = None
    ) -> None:
        rows = list(rows)
        if rows:  # first why, then that: who sees the one must find the other
            count, _, _ = self._ledger.attempt(job.id, rows[0].destination)
            self._ledger.set_attempt(job.id, rows[0].destination, count + 1, 0.0, sentence)
        self._ledger.set_deliveries([(row, DeliveryState.REFUSED, status) for row in rows])

    def _postpone(self, job: JobRow, destination: str, sentence: str) -> None:
        count = self._ledger.attempt(job.id, destination)[0] + 1
        if count >= _MOST_ATTEMPTS:
            rows = [row for row in self._ledger.deliveries(job.id) if row.destination == destination]
            pending = [row for row in rows if row.state == DeliveryState.PENDING]
            self._refuse(job, pending, f"{sentence} Given up after {count} attempts.")
            return
        pause = min(_PAUSE_S * count, _LONGEST_PAUSE_S)
        self._ledger.set_attempt(job.id, destination, count, time.time() + pause, sentence)
        current = self._ledger.job(job.id)
        self._ledger.note(
            current, f"{sentence} Attempt {count}; the next in {pause:.0f} s.", "DELIVERY_POSTPONED"
        )
        log.warning("job %s: delivery to %s postponed by %.0f s", job.id, destination, pause)


class _Answers:
    """What a destination answered in one attempt, on its way into the ledger."""

    def __init__(self, ledger: Ledger, rows: Mapping[str, DeliveryRow]) -> None:
        self._ledger = ledger
        self._rows = rows
        self._unwritten: list[tuple[DeliveryRow, DeliveryState, int | None]] = []
        self._written_at = time.monotonic()
        self._heard: set[str] = set()
        #: Statuses by SOP Instance UID.
        self.refused: dict[str, int] = {}
        self.later: dict[str, int] = {}

    def add(self, answer: Answer) -> None:
        """Take one answer; write those that have gathered now and then."""
        uid = answer.parcel.sop_instance_uid
        self._heard.add(uid)
        if not answer.stored:
            (self.later if answer.transient else self.refused)[uid] = answer.status
        state = DeliveryState.STORED if answer.stored else DeliveryState.PENDING
        self._unwritten.append((self._rows[uid], state, answer.status))
        if time.monotonic() - self._written_at > _WRITE_EVERY_S:
            self.write()

    def write(self) -> None:
        """Write what has gathered."""
        if self._unwritten:
            self._ledger.set_deliveries(self._unwritten)
            self._unwritten = []
        self._written_at = time.monotonic()

    def unheard(self) -> list[DeliveryRow]:
        """Return what the destination said nothing about."""
        return [row for uid, row in self._rows.items() if uid not in self._heard]


def _said(peer: Peer, status: int) -> str:
    return f"{peer.name} answered status 0x{status:04X}."
