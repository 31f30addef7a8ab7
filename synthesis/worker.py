"""The Celery worker: one job or document at a time, the model loaded once.

Run as ``python -m synthesis.worker``; the environment says where (`SYNTHESIS_BROKER`, `SYNTHESIS_SPOOL`,
`SYNTHESIS_DEVICE`, `SYNTHESIS_MODEL`).

A message may come twice, and a worker may die at any line. Each start leaves a durable line in the job's
folder; the heartbeat under a short-lived Redis key is the lease; the result is renamed into place last. So
a second run of a job finds another worker's lease, or the result, and stops.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from celery import Celery

from synthesis import job as message
from synthesis.errors import RefusedInput, SynthesisError, UnusableModel
from synthesis.job import DerivedInstance, Document, Heartbeat, Job, Outcome, Result

if TYPE_CHECKING:
    from synthesis.models.load import LoadedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where this worker works."""

    broker: str
    spool: Path
    device: str
    model: str

    @classmethod
    def of_environment(cls) -> Place:
        """Return the place that the environment names."""
        return cls(
            broker=os.environ.get("SYNTHESIS_BROKER", "redis://localhost:6379/0"),
            spool=Path(os.environ["SYNTHESIS_SPOOL"]),
            device=os.environ.get("SYNTHESIS_DEVICE", "auto"),
            model=os.environ.get("SYNTHESIS_MODEL", "default"),
        )


class Cancelled(Exception):
    """A person cancelled the job while it ran."""


class Signs:
    """Signs of life in Redis: of this worker always, of its job while it has one.

    A thread renews both; when Redis is away it tries again until it is back.
    """

    def __init__(self, place: Place, name: str) -> None:
        self._redis = redis.Redis.from_url(place.broker, socket_connect_timeout=3, socket_timeout=5)
        self._name = name
        self._about = {"name": name, "device": "", "model": "", "job": ""}
        self._heartbeat: tuple[str, Heartbeat] | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        threading.Thread(target=self._renew, name="heartbeat", daemon=True).start()

    def describe(self, device: str, model: str) -> None:
        """Say what this worker works with."""
        self._about |= {"device": device, "model": model}
        self._show()

    def lease(self, job_id: str) -> bool:
        """Take the lease of a job; False when another worker holds it."""
        heartbeat = Heartbeat(self._name, "start", 0.0)
        key = message.heartbeat_key(job_id)
        if not self._redis.set(key, heartbeat.to_json(), nx=True, ex=message.HEARTBEAT_TTL_S):
            held = self._redis.get(key)
            if held and Heartbeat.from_json(held).worker != self._name:
                return False
        with self._lock:
            self._heartbeat = (job_id, heartbeat)
            self._about["job"] = job_id
        self._show()
        return True

    def step(self, step: str, progress: float) -> None:
        """Show the step that the job is in."""
        with self._lock:
            if self._heartbeat is None:
                return
            job_id, heartbeat = self._heartbeat
            self._heartbeat = (job_id, replace(heartbeat, step=step, progress=round(progress, 3)))
        self._show()

    def end(self) -> None:
        """Give the lease back."""
        with self._lock:
            held, self._heartbeat = self._heartbeat, None
            self._about["job"] = ""
        if held:
            try:
                self._redis.delete(message.heartbeat_key(held[0]))
            except redis.RedisError:
                log.warning("Redis does not answer; the lease ends by itself")
        self._show()

    def stop(self) -> None:
        """Stop showing signs."""
        self._stop.set()
        try:
            self._redis.delete(message.worker_key(self._name))
        except redis.RedisError:
            log.warning("Redis does not answer; the sign of life ends by itself")

    def _renew(self) -> None:
        while not self._stop.wait(message.HEARTBEAT_PERIOD_S):
            self._show()

    def _show(self) -> None:
        with self._lock:
            about, held = json.dumps(self._about), self._heartbeat
        if self._stop.is_set():
            return
        try:
            self._redis.set(message.worker_key(self._name), about, ex=message.HEARTBEAT_TTL_S)
            if held:
                self._redis.set(message.heartbeat_key(held[0]), held[1].to_json(), ex=message.HEARTBEAT_TTL_S)
        except redis.RedisError:
            log.debug("Redis does not answer")


class Worker:
    """What one worker process holds: its place, its signs of life, its models."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._models: dict[str, LoadedModel] = {}
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self.signs = Signs(place, self.name)
        model = self.model(place.model)  # before the first job, and refused here if it is not fit
        self.signs.describe(str(model.device), f"{model.name} {model.version}")

    def model(self, name: str) -> LoadedModel:
        """Return a model, loaded once; raises `UnusableModel`."""
        from synthesis.models.load import load_model

        if name not in self._models:
            self._models[name] = load_model(name, self._place.device)
        return self._models[name]

    def run(self, job: Job) -> None:
        """Do a job, unless it is done, cancelled, or in another worker's hands."""
        self._once(job.id, job.folder, lambda folder: self._synthesised(job, folder))

    def write(self, document: Document) -> None:
        """Write a document about a job, unless it is written, or in another worker's hands."""
        self._once(document.id, document.folder, lambda folder: self._written(document, folder))

    def _once(self, identity: str, place: str, make: Callable[[Path], Result]) -> None:
        folder = self._place.spool / place
        if Result.read(folder) is not None:
            log.info("job %s: its result is there already", identity)
            return
        if not self.signs.lease(identity):
            log.info("job %s: another worker has it", identity)
            return
        try:
            with _counted(folder) as starts:
                if starts > message.MOST_STARTS:
                    reason = f"The job ended its worker {message.MOST_STARTS} times."
                    Result(Outcome.FAILED, "POISON", reason, worker=self.name).write(folder)
                    return
                result = self._outcome(identity, folder, make)
                result.write(folder)
                log.info("job %s: %s %s", identity, result.outcome, result.code)
        except Cancelled:
            log.info("job %s: cancelled", identity)
        finally:
            self.signs.end()

    def _outcome(self, identity: str, folder: Path, make: Callable[[Path], Result]) -> Result:
        """Return what is made; whatever is raised becomes a result with a sentence."""
        try:
            return make(folder)
        except RefusedInput as error:
            return Result(Outcome.DECLINED, error.code, error.sentence, worker=self.name)
        except SynthesisError as error:
            log.error("job %s: %s", identity, error.sentence)
            return Result(Outcome.FAILED, error.code, error.sentence, worker=self.name)
        except Cancelled:
            raise
        except Exception as error:  # border: the traceback stays here, a sentence goes to the ledger
            log.exception("job %s: failed", identity)
            reason = f"The worker failed ({type(error).__name__}); the traceback is in its log."
            return Result(Outcome.FAILED, "WORKER_ERROR", reason, worker=self.name)

    def _synthesised(self, job: Job, folder: Path) -> Result:
        """Run the pipeline."""
        import SimpleITK as sitk

        from synthesis import pipeline

        def report(step: str, progress: float) -> None:
            if (folder / message.CANCELLED_NAME).exists():
                raise Cancelled
            self.signs.step(step, progress)

        model = self.model(job.model)
        made = pipeline.run(
            [self._place.spool / path for path in job.t1w],
            [self._place.spool / path for path in job.flair],
            folder / message.RESULT_FOLDER,
            model,
            report,
            job.wanted,
            job.remarks,
        )
        sitk.WriteImage(made.pictures.tumour, str(folder / message.RESULT_FOLDER / "tumour.nii.gz"))
        for remark in made.remarks:
            log.info("job %s: %s", job.id, remark)
        return Result(
            Outcome.SYNTHESISED,
            "SYNTHESISED",
            f"{len(made.instances)} synthetic instances ({', '.join(job.wanted.objects)}) "
            f"made with {model.name} {model.version}.",
            instances=_in_result(made.instances),
            seconds={step: round(s, 3) for step, s in made.seconds.items()},
            remarks=tuple(made.remarks),
            model={"name": model.name, "version": model.version, "sha256": model.digest},
            worker=self.name,
        )

    def _written(self, document: Document, folder: Path) -> Result:
        """Write a document."""
        from synthesis.derive.provenance import Maker
        from synthesis.document import write

        if document.made_by:
            by = document.made_by
            maker = Maker(by["name"], by["version"], by["sha256"])
        else:
            model = self.model(document.model)
            maker = Maker(model.name, model.version, model.digest)
        made = write(document, self._place.spool, folder / message.RESULT_FOLDER, maker)
        return Result(Outcome.SYNTHESISED, "WRITTEN", "Written.", _in_result(made), worker=self.name)


def _in_result(instances: Sequence[DerivedInstance]) -> tuple[DerivedInstance, ...]:
    """Return instances with paths relative to the job's folder, instead of to its result's."""
    return tuple(replace(one, path=f"{message.RESULT_FOLDER}/{one.path}") for one in instances)


@contextmanager
def _counted(folder: Path) -> Iterator[int]:
    """Leave a durable line for this start; yield how many there are. An orderly end takes none back."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / message.STARTS_NAME).open("a+", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        yield len(file.read().splitlines())


def make_app(place: Place, worker: Worker) -> Celery:
    """Return the Celery app with its two tasks."""
    app = Celery("synthesis", broker=place.broker)
    app.conf.update(
        broker_transport_options=message.broker_options(),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_default_queue=message.QUEUE,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )

    @app.task(name=message.TASK)  # type: ignore[untyped-decorator]
    def run(values: dict[str, Any]) -> None:
        worker.run(Job.from_message(values))

    @app.task(name=message.DOCUMENT_TASK)  # type: ignore[untyped-decorator]
    def write(values: dict[str, Any]) -> None:
        worker.write(Document.from_message(values))

    return app


def main() -> int:
    """Start a worker; return 1 with a sentence when its model is not fit."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("celery").setLevel(logging.WARNING)
    logging.getLogger("kombu").setLevel(logging.WARNING)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # both may quote a patient's values
    warnings.simplefilter("ignore")
    place = Place.of_environment()
    try:
        worker = Worker(place)
    except UnusableModel as error:
        log.error("%s", error.sentence)
        return 1
    app = make_app(place, worker)
    log.info("worker %s is ready", worker.name)
    arguments = [
        "--quiet",
        "worker",
        "--pool=solo",
        "--concurrency=1",
        "--without-gossip",
        "--without-mingle",
    ]
    arguments += [f"--queues={message.QUEUE}", f"--hostname={worker.name}", "--loglevel=WARNING"]
    try:
        app.worker_main(arguments)
    finally:
        worker.signs.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
