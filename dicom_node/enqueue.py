"""Enqueue: from COMPLETE to the worker and back.

Puts complete jobs into the queue, follows the workers' heartbeats, takes over results, and sends again what
the broker or a worker lost. A second run of the same job is harmless: it finds the result and stops.
"""

from __future__ import annotations

import logging
import time

from dicom_node.broker import Broker
from dicom_node.errors import BrokerUnreachable, IllegalTransition
from dicom_node.ledger import JobRow, Ledger, State
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from synthesis import job as message

log = logging.getLogger(__name__)

#: A QUEUED job without message and without heartbeat for this long is sent again.
_MESSAGE_LOST_AFTER_S = 5.0
#: A RUNNING job without heartbeat for this long (while Redis answers) has lost its worker.
_WORKER_LOST_AFTER_S = message.HEARTBEAT_TTL_S + 5.0
_EVERY_S = 0.3
#: `queue retry` is another process: nobody wakes us.
_IDLE_S = 2.0


class Enqueuer:
    """The step between collect and deliver."""

    def __init__(self, settings: Settings, ledger: Ledger, spool: Spool, broker: Broker) -> None:
        self._settings = settings
        self._ledger = ledger
        self._spool = spool
        self._broker = broker
        #: When each job in the workers' hands was last seen, by the monotonic clock.
        self._seen: dict[str, float] = {}
        self._broker_down = False

    def work(self) -> float:
        """Do what there is to do; return the seconds until there may be more, 0 if another step can go on."""
        jobs = self._ledger.jobs_in(State.COMPLETE, State.QUEUED, State.RUNNING)
        if not jobs:
            self._seen.clear()
            return _IDLE_S
        handed_on = False
        for job in jobs:
            try:
                handed_on |= self._advance(job)
            except IllegalTransition:
                log.info("job %s: changed by hand meanwhile", job.id)
            except BrokerUnreachable as error:
                if not self._broker_down:
                    log.warning("%s Jobs wait in the ledger.", error.sentence)
                self._broker_down = True
                self._seen = dict.fromkeys(self._seen, time.monotonic())
                return 1.0
        if self._broker_down:
            log.info("Redis answers again")
            self._broker_down = False
        return 0.0 if handed_on else _EVERY_S

    def _advance(self, job: JobRow) -> bool:
        """Take a job one step further; return whether its result is there for the next step."""
        if job.state == State.COMPLETE:
            self._enqueue(job)
            return False
        if job.to_send:
            self._send(job)
            self._ledger.set(job, to_send=False)
            self._seen[job.id] = time.monotonic()
            return False
        result = message.Result.read(self._spool.job(job.id))
        if result is not None:
            self._take_over(job, result)
            return True
        heartbeat = self._broker.heartbeat(job.id)
        if heartbeat is not None:
            self._follow(job, heartbeat)
        elif job.state == State.QUEUED:
            self._find_message(job)
        else:
            self._find_worker(job)
        return False

    def _enqueue(self, job: JobRow) -> None:
        """Send the message, then say so: killed in between, the job is sent twice, which does no harm."""
        self._send(job)
        moved = self._ledger.move(job, State.QUEUED, "Handed to the workers.")
        self._seen[moved.id] = time.monotonic()

    def _send(self, job: JobRow) -> None:
        folder = self._spool.open_job(job.id)
        inputs = job.inputs or {}
        rule = self._settings.rule_named(job.rule)
        self._broker.send(
            message.Job(
                id=job.id,
                t1w=tuple(inputs["T1W"]),
                flair=tuple(inputs["FLAIR"]),
                folder=self._spool.relative(folder),
                model=self._settings.worker.model,
                wanted=rule.wanted if rule else message.ONLY_T1C,
                remarks=tuple((job.explanation or {}).get("flags", ())),
            ),
            rule.priority if rule else 0,
        )

    def _follow(self, job: JobRow, heartbeat: message.Heartbeat) -> None:
        self._seen[job.id] = time.monotonic()
        if job.state == State.QUEUED:
            job = self._begin(job, heartbeat.worker)
        self._ledger.set(job, step=heartbeat.step, progress=heartbeat.progress, worker=heartbeat.worker)

    def _begin(self, job: JobRow, worker: str) -> JobRow:
        waited = round(time.time() - job.updated, 3)
        return self._ledger.move(
            job,
            State.RUNNING,
            f"Worker {worker} began." if worker else "A worker began.",
            starts=self._spool.starts(job.id),
            worker=worker,
            seconds={**(job.seconds or {}), "queue": waited},
        )

    def _find_message(self, job: JobRow) -> None:
        """A QUEUED job: while its message is in the queue, all is well."""
        last = self._seen.setdefault(job.id, time.monotonic())
        if job.id in self._broker.waiting():
            self._seen[job.id] = time.monotonic()
        elif time.monotonic() - last > _MESSAGE_LOST_AFTER_S:
            if self._spool.starts(job.id) > job.starts:  # a worker began and died before it was seen
                self._lost(self._begin(job, ""))
                return
            self._send(job)
            self._seen[job.id] = time.monotonic()
            self._ledger.note(job, "The broker had lost the job; it was sent again.", "SENT_AGAIN")
            log.warning("job %s: lost by the broker, sent again", job.id)

    def _find_worker(self, job: JobRow) -> None:
        """A RUNNING job without heartbeat: its worker is gone, or slow to say so."""
        last = self._seen.setdefault(job.id, time.monotonic())
        if time.monotonic() - last > _WORKER_LOST_AFTER_S:
            self._lost(job)

    def _lost(self, job: JobRow) -> None:
        starts = self._spool.starts(job.id)
        if starts >= message.MOST_STARTS:
            self._ledger.move(
                job,
                State.FAILED,
                f"The job ended its worker {starts} times. It will not be tried again by itself.",
                "POISON",
                starts=starts,
            )
            log.error("job %s: FAILED POISON after %d starts", job.id, starts)
            return
        log.warning("job %s: its worker is gone after step %r; sent again", job.id, job.step)
        moved = self._ledger.move(
            job,
            State.QUEUED,
            f"The worker was lost in step “{job.step or 'start'}”; handed to the workers again.",
            "WORKER_LOST",
            starts=starts,
            step="",
            progress=0.0,
        )
        self._send(moved)
        self._seen[job.id] = time.monotonic()

    def _take_over(self, job: JobRow, result: message.Result) -> None:
        """Move a job by what its worker wrote."""
        if job.state == State.QUEUED:
            job = self._begin(job, result.worker)
        to = {
            message.Outcome.SYNTHESISED: State.SYNTHESISED,
            message.Outcome.DECLINED: State.DECLINED,
            message.Outcome.FAILED: State.FAILED,
        }[result.outcome]
        self._ledger.move(
            job,
            to,
            result.reason,
            result.code,
            step="",
            progress=1.0,
            starts=self._spool.starts(job.id),
            worker=result.worker,
            model=result.model,
            remarks=list(result.remarks),
            seconds={**(job.seconds or {}), **result.seconds},
        )
        self._seen.pop(job.id, None)
        log.info("job %s: %s %s", job.id, to, result.code)
