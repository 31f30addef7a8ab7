"""Answer: a document in the study of a declined job that says why, and the retraction of a result.

Each is asked for once (its id follows from job and reason), written by a worker, and sent to every
destination until that has it. Files and rows say what is next: a killed node goes on where it was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from dicom_node import send
from dicom_node.broker import Broker
from dicom_node.errors import BrokerUnreachable, NoSuchThing, PeerRefuses, PeerUnreachable
from dicom_node.lanes import Lanes
from dicom_node.ledger import (
    AT_PEER,
    NOT_AT_PEER,
    DeliveryState,
    DocumentRow,
    DocumentState,
    JobRow,
    Ledger,
    PostingRow,
    State,
    document_id,
)
from dicom_node.parcels import Answer, parcel
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from synthesis import job as message
from synthesis.job import Form

log = logging.getLogger(__name__)

#: A document without message and without heartbeat for this long is asked for again.
_MESSAGE_LOST_AFTER_S = 5.0
_PAUSE_S = 10.0
_LONGEST_PAUSE_S = 600.0
#: With these pauses: two days of an unreachable peer.
_MOST_ATTEMPTS = 340
#: Associations with one destination.
_AT_ONCE = 2
_EVERY_S = 0.5
#: `queue retract` is another process: nobody wakes us.
_IDLE_S = 2.0


class Answerer:
    """The step beside the way of a result."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        spool: Spool,
        broker: Broker,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._spool = spool
        self._broker = broker
        self._changed = changed
        self._under_way = Lanes("answer", _AT_ONCE)
        #: When each document in the workers' hands was last seen, by the monotonic clock.
        self._seen: dict[str, float] = {}

    def stop(self) -> None:
        """Let associations under way end; start no new one."""
        self._under_way.stop()

    def work(self) -> float:
        """Do what there is to do; return the seconds until there may be more."""
        for job in self._ledger.jobs_to_answer():
            self._decide(job)
        self._under_way.sweep()
        documents = [one for one in self._ledger.documents_under_way() if not self._is_dropped(one)]
        to_write = [one for one in documents if one.state == DocumentState.ASKED]
        try:
            waiting = self._broker.waiting() if to_write else set()
            for document in to_write:
                self._have_written(document, waiting)
        except BrokerUnreachable:
            log.debug("documents wait for Redis")  # enqueue says so, once
        for document in documents:
            if document.state == DocumentState.WRITTEN:
                self._send(document)
        return _EVERY_S if documents else _IDLE_S

    def _decide(self, job: JobRow) -> None:
        """Ask for the answer to a declined job, if its rule wants one that the study does not have yet."""
        rule = self._settings.rule_named(job.rule)
        destinations = self._settings.destinations(rule, job.peer)
        if rule is None or rule.answer == "none" or not destinations:
            self._ledger.set_answered(job)
            return
        identity = document_id(job.id, "answer", job.code, job.reason)
        if self._ledger.open_document(job, identity, Form(rule.answer), job.code, job.reason, destinations):
            log.info("job %s: answer %s asked for", job.id, job.code)

    # --- a worker writes it ------------------------------------------------------------------------

    def _have_written(self, document: DocumentRow, waiting: set[str]) -> None:
        job = self._ledger.job(document.job_id)
        result = message.Result.read(self._spool.document(job.id, document.id))
        if result is not None:
            self._take_over(document, result)
            return
        last = self._seen.get(document.id)
        if document.id in waiting or self._broker.heartbeat(document.id) is not None:
            self._seen[document.id] = time.monotonic()
        elif last is None or time.monotonic() - last > _MESSAGE_LOST_AFTER_S:
            self._broker.send(self._message(document, job), 0)
            self._seen[document.id] = time.monotonic()

    def _message(self, document: DocumentRow, job: JobRow) -> message.Document:
        retracts = document.form == Form.KO
        rows = self._ledger.deliveries(job.id) if retracts else []
        # What was sent without an answer may be there too: only what is refused is not.
        sent = {row.sop_instance_uid: row for row in rows if row.state not in NOT_AT_PEER}
        folder = self._spool.document(job.id, document.id)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return message.Document(
            id=document.id,
            form=document.form,
            folder=self._spool.relative(folder),
            code=document.code,
            reason=document.reason,
            study=tuple(self._study(job, [row.path for row in rows])),
            details=() if retracts else details(job),
            rejected=tuple(
                message.Reference(row.sop_class_uid, row.sop_instance_uid, row.series_instance_uid)
                for row in sent.values()
            ),
            model=self._settings.worker.model,
            made_by=(job.model or {}) if retracts else {},
        )

    def _study(self, job: JobRow, results: list[str]) -> list[str]:
        """Return the files that say whose study it is; a retraction may do with what we made."""
        found: dict[bool, list[str]] = {False: [], True: []}
        for path, values in self._ledger.study_headers(job.study_uid):
            found[bool(values.get("synthetic"))].append(path)
        paths = [*found[False], *results, *(found[True] if results else [])]
        return [path for path in paths if (self._spool.root / path).exists()]

    def _take_over(self, document: DocumentRow, result: message.Result) -> None:
        """Read what the worker wrote."""
        self._seen.pop(document.id, None)
        folder = self._spool.document(document.job_id, document.id)
        if result.outcome == message.Outcome.SYNTHESISED:
            path = self._spool.relative(folder / result.instances[0].path)
            self._ledger.move_document(document, DocumentState.WRITTEN, path=path)
            self._changed()
            return
        sentence = f"The {noun(document)} could not be written: {result.reason}"
        self._ledger.move_document(document, DocumentState.FAILED, sentence, "NOT_WRITTEN")
        self._spool.forget_document(document.job_id, document.id)
        log.error("job %s: the %s could not be written (%s)", document.job_id, noun(document), result.code)

    def _is_dropped(self, document: DocumentRow) -> bool:
        """Drop an answer that is true no more before anybody has it; return whether it is dropped."""
        job = self._ledger.job(document.job_id)
        stands = job.state == State.DECLINED and (job.code, job.reason) == (document.code, document.reason)
        if document.form == Form.KO or stands:
            return False
        if any(one.state in AT_PEER for one in self._ledger.postings(document.id)):
            return False  # all destinations shall say the same
        if any(identity == document.id for identity, _ in self._under_way):
            return False
        self._ledger.move_document(
            document, DocumentState.DROPPED, "The answer was not sent: it is true no more.", "ANSWER_DROPPED"
        )
        return True

    # --- on its way --------------------------------------------------------------------------------

    def _send(self, document: DocumentRow) -> None:
        postings = self._ledger.postings(document.id)
        pending = [one for one in postings if one.state == DeliveryState.PENDING]
        for posting in pending:
            key = (document.id, posting.destination)
            if key not in self._under_way and time.time() >= posting.next_at:
                self._under_way.begin(key, self._post, document, posting)
        if pending:
            return
        there = [one.destination for one in postings if one.state in AT_PEER]
        sentences = [
            f"{one.sentence} It goes without the {noun(document)}." for one in postings if one.sentence
        ]
        if there:
            sentences.insert(0, f"The {noun(document)} is in {', '.join(there)}.")
        code = "RETRACTION_SENT" if document.form == Form.KO else "ANSWERED"
        self._ledger.move_document(document, DocumentState.SENT, " ".join(sentences), code)
        log.info("job %s: %s in %d of %d", document.job_id, noun(document), len(there), len(postings))

    def _post(self, document: DocumentRow, posting: PostingRow) -> None:
        """Send a document to one destination; runs in a thread of its own."""
        try:
            values = self._attempt(document, posting)
        except Exception:  # border: a bug here must not end the other deliveries
            log.exception("job %s: the %s could not be sent", document.job_id, noun(document))
            values = _later(posting, "The node failed; the reason is in its log.")
        self._ledger.set_posting(posting, **values)
        self._changed()

    def _attempt(self, document: DocumentRow, posting: PostingRow) -> dict[str, Any]:
        """Return what an attempt changes in the posting."""
        answers: list[Answer] = []
        try:
            peer = self._settings.peer_named(posting.destination)
            posted = parcel(self._spool.root / document.path)
            send.hand_over(self._settings.node.ae_title, peer, [posted], answers.append)
        except PeerUnreachable as error:
            return _later(posting, error.sentence)
        except (NoSuchThing, PeerRefuses) as error:
            return {"state": DeliveryState.REFUSED, "sentence": error.sentence}
        if not answers:
            return _later(posting, f"{peer.name} said nothing.")
        status, said = answers[0].status, f"{peer.name} answered status 0x{answers[0].status:04X}."
        if answers[0].stored:
            return {"state": DeliveryState.STORED, "status": status, "sentence": ""}
        if answers[0].transient:
            return _later(posting, said) | {"status": status}
        return {"state": DeliveryState.REFUSED, "status": status, "sentence": said}


def _later(posting: PostingRow, sentence: str) -> dict[str, Any]:
    """Return what changes when a destination may take it later: pauses grow, and end."""
    count = posting.attempts + 1
    if count >= _MOST_ATTEMPTS:
        said = f"{sentence} Given up after {count} attempts."
        return {"state": DeliveryState.REFUSED, "attempts": count, "sentence": said}
    pause = min(_PAUSE_S * count, _LONGEST_PAUSE_S)
    return {"attempts": count, "next_at": time.time() + pause, "sentence": sentence}


def noun(document: DocumentRow) -> str:
    """Return what people call it."""
    return "retraction" if document.form == Form.KO else "answer"


def details(job: JobRow) -> tuple[str, ...]:
    """Return what an answer says beside the reason: what was looked at, and what may be done."""
    series = (job.explanation or {}).get("series", [])
    seen = ", ".join(f"“{one['description']}” ({one['role']})" for one in series)
    return (
        *((f"Series that were looked at: {seen}.",) if seen else ()),
        f"Series that are sent later open the question again. Job {job.id}, revision {job.revision}.",
    )
