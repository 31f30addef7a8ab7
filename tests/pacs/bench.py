"""Real servers for tests, each a process of its own on a free port of the loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from processes import HOST, answers, free_port
from pynetdicom import AE

T = TypeVar("T")

VERIFICATION = "1.2.840.10008.1.1"
#: Debian installs servers where PATH may not look; pynetdicom brings programs with the names of DCMTK's.
SEARCH = os.pathsep.join(
    [
        *(part for part in os.environ.get("PATH", "").split(os.pathsep) if not part.startswith(sys.prefix)),
        "/usr/sbin",
        "/usr/local/sbin",
    ]
)
#: What has ended well and what has ended badly; other states may still move.
DONE = ("DELIVERED", "COMMITTED")
ENDED = (*DONE, "DECLINED", "FAILED", "CANCELLED")


def tool(name: str) -> str:
    """Return the path of a program, or skip the test loudly; under ``CI=true`` its absence is a failure."""
    path = shutil.which(name, path=SEARCH)
    if path is None:
        sentence = f"{name} is not installed: this test needs the real one"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    return path


def echo(port: int, called_aet: str, calling_aet: str = "ORTHANC") -> bool:
    """Say whether a C-ECHO is answered with Success."""
    ae = AE(calling_aet)
    ae.add_requested_context(VERIFICATION)
    association = ae.associate(HOST, port, ae_title=called_aet)
    if not association.is_established:
        return False
    try:
        status = association.send_c_echo()
        return "Status" in status and int(status.Status) == 0
    finally:
        association.release()


def wait_for(what: str, look: Callable[[], T], seconds: float, every: float = 0.1) -> T:
    """Return what `look` returns as soon as it is true; raises `AssertionError` when it never is."""
    until = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        if time.monotonic() > until:
            raise AssertionError(f"waited {seconds:.0f} s for {what}")
        time.sleep(every)


class Server:
    """A process that is started, stopped, killed and started again."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def command(self) -> Sequence[str]:
        """Return the arguments of the process."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Say whether it can be used."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the variables of the process."""
        return dict(os.environ)

    @property
    def pid(self) -> int:
        """Return the process id; the server has been started."""
        assert self.process is not None
        return self.process.pid

    def start(self, seconds: float = 60) -> float:
        """Start it and return how many seconds it took until it was ready."""
        began = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment()
            )

        def up() -> bool:
            assert self.process is not None
            code = self.process.poll()
            assert code is None, f"{self.name} ended with {code}:\n{self.tail()}"
            return self.ready()

        try:
            wait_for(f"{self.name} to be ready", up, seconds, every=0.02)
        except AssertionError:
            self.stop()
            raise
        return time.monotonic() - began

    def tail(self, lines: int = 30) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self._end(signal.SIGKILL, 10)

    def stop(self, seconds: float = 20) -> None:
        """Ask it to end; insist after a while."""
        try:
            self._end(signal.SIGTERM, seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def _end(self, number: signal.Signals, seconds: float) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(number)
        self.process.wait(seconds)


class Redis(Server):
    """Debian's Redis; keeps nothing on the disk, so that a kill loses everything."""

    def __init__(self, folder: Path) -> None:
        super().__init__("redis", folder)
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"

    def command(self) -> Sequence[str]:
        options = {"port": self.port, "bind": HOST, "dir": self.folder, "save": "", "appendonly": "no"}
        return [
            tool("redis-server"),
            *(str(part) for key, value in options.items() for part in (f"--{key}", value)),
        ]

    def ready(self) -> bool:
        return answers(self.port)


class Orthanc(Server):
    """Debian's Orthanc as it is configured out of the box: it knows the node as ``node``.

    Without plugins, unless `more` names them; `more` are keys of its configuration.
    """

    def __init__(self, folder: Path, node_port: int, **more: object) -> None:
        super().__init__("orthanc", folder)
        self.ae_title = "ORTHANC"
        self.port = free_port()
        self.http_port = free_port()
        self._configuration = {
            "Name": "bench",
            "DicomAet": self.ae_title,
            "DicomPort": self.port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [],
            "StableAge": 2,
            "DicomModalities": {
                "node": {"AET": "TAVIT", "Host": HOST, "Port": node_port, "AllowStorageCommitment": True}
            },
        } | more

    def command(self) -> Sequence[str]:
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(self._configuration, indent=1))
        return [tool("Orthanc"), str(file)]

    def ready(self) -> bool:
        try:
            return bool(self.get("/system")) and answers(self.port)
        except urllib.error.HTTPError as error:
            return error.code == 401 and answers(self.port)  # it runs, and wants a password
        except (urllib.error.URLError, ConnectionError):
            return False

    # --- its REST interface ----------------------------------------------------------------------

    def call(self, method: str, path: str, body: object = None) -> bytes:
        """Return the answer to a request; `body` is bytes, or is sent as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{HOST}:{self.http_port}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return bytes(answer.read())

    def get(self, path: str) -> Any:
        """Return what is at a path, read as JSON."""
        return json.loads(self.call("GET", path))

    def post(self, path: str, body: object) -> Any:
        """Send something and return the answer, read as JSON."""
        return json.loads(self.call("POST", path, body))

    def upload(self, folder: Path) -> int:
        """Store every file of a folder; return how many."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in files:
            self.post("/instances", path.read_bytes())
        return len(files)

    def add_modality(self, name: str, ae_title: str, port: int) -> None:
        """Make another DICOM application known under a name."""
        self.call("PUT", f"/modalities/{name}", {"AET": ae_title, "Host": HOST, "Port": port})

    def send_study(self, study_uid: str, to: str = "node") -> float:
        """Send a whole study by C-STORE in one association; return when the last instance was there."""
        return self._send([self._id_of(study_uid)], to)

    def send_series(self, series_uids: Sequence[str], to: str = "node") -> float:
        """Send some series by C-STORE in one association; return when the last instance was there."""
        return self._send([self._id_of(uid) for uid in series_uids], to)

    def _send(self, resources: list[str], to: str) -> float:
        answer = self.post(f"/modalities/{to}/store", {"Resources": resources, "Synchronous": True})
        assert answer["FailedInstancesCount"] == 0, answer
        return time.monotonic()

    def _id_of(self, uid: str) -> str:
        found = self.post("/tools/lookup", uid.encode())
        assert found, f"Orthanc has nothing under {uid}"
        return str(found[0]["ID"])

    def series(self, study_uid: str) -> dict[str, dict[str, Any]]:
        """Return the series of a study by UID: tags, and the ids of the instances under ``Instances``."""
        study = self._id_of(study_uid)
        return {
            found["MainDicomTags"]["SeriesInstanceUID"]: found["MainDicomTags"]
            | {"Instances": found["Instances"]}
            for found in self.get(f"/studies/{study}/series")
        }

    def download(self, study_uid: str, series_uid: str, folder: Path) -> list[Path]:
        """Write the files of a series as Orthanc holds them."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for instance in self.series(study_uid)[series_uid]["Instances"]:
            paths.append(folder / f"{instance}.dcm")
            paths[-1].write_bytes(self.call("GET", f"/instances/{instance}/file"))
        return sorted(paths)


class Node(Server):
    """Our node with a spool and settings of its own."""

    def __init__(
        self, folder: Path, redis_url: str, port: int | None = None, spool: Path | None = None, more: str = ""
    ) -> None:
        super().__init__("node", folder)
        self.ae_title = "TAVIT"
        self.port = port or free_port()
        self.monitor_port = free_port()
        self.spool = spool or folder / "spool"
        self.settings = folder / "dicom-node.toml"
        self._redis_url = redis_url
        self._peers: list[tuple[str, str, int]] = []
        self._more = more
        self.write_settings()

    def add_peer(self, name: str, ae_title: str, port: int) -> None:
        """Name a peer that sends and receives; before `start`."""
        self._peers.append((name, ae_title, port))
        self.write_settings()

    def write_settings(self) -> None:
        """Write the settings file."""
        lines = [
            "[node]",
            f'ae_title = "{self.ae_title}"',
            f'bind = "{HOST}"',
            f"port = {self.port}",
            f'spool = "{self.spool}"',
            "[broker]",
            f'url = "{self._redis_url}"',
            "[collect]",
            "quiet_seconds = 2",
            "wait_minutes = 0.1",
            "[monitor]",
            f"port = {self.monitor_port}",
            "[worker]",
            'device = "cpu"',
        ]
        for name, ae_title, port in self._peers:
            lines += [
                "[[peer]]",
                f'name = "{name}"',
                f'ae_title = "{ae_title}"',
                f'host = "{HOST}"',
                f"port = {port}",
            ]
        self.settings.write_text("\n".join([*lines, self._more, ""]))

    def command(self) -> Sequence[str]:
        return [*self.program, "serve"]

    @property
    def program(self) -> list[str]:
        """Return the beginning of every ``dicom-node`` command."""
        return [sys.executable, "-m", "dicom_node", "--settings", str(self.settings)]

    def ready(self) -> bool:
        return answers(self.port)

    # --- its commands ----------------------------------------------------------------------------

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command with this node's settings."""
        return subprocess.run([*self.program, *arguments], capture_output=True, text=True, timeout=120)

    def json(self, *arguments: str) -> Any:
        """Return what a command prints with ``--json``."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, f"dicom-node {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def jobs(self, study_uid: str) -> list[dict[str, Any]]:
        """Return the jobs of a study as ``queue list`` tells them."""
        return [job for job in self.json("queue", "list") if job["study_uid"] == study_uid]

    def job(self, study_uid: str, states: Sequence[str] = ENDED, seconds: float = 120) -> dict[str, Any]:
        """Wait until the one job of a study is in one of these states; return it."""

        def look() -> dict[str, Any] | None:
            jobs = self.jobs(study_uid)
            assert len(jobs) <= 1, jobs
            return jobs[0] if jobs and jobs[0]["state"] in states else None

        try:
            job = wait_for(f"a job in {', '.join(states)}", look, seconds, every=0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}; it has {self.jobs(study_uid)}\n{self.tail()}") from None
        assert job is not None
        return job


class Worker(Server):
    """One worker of a node."""

    def __init__(self, node: Node, folder: Path) -> None:
        super().__init__("worker", folder)
        self._node = node

    def command(self) -> Sequence[str]:
        return [*self._node.program, "worker"]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "OMP_NUM_THREADS": "2"}

    def ready(self) -> bool:
        return b"ready" in self.log.read_bytes()


_TAKES_ONLY = """\
[[TransferSyntaxes]]
[Uncompressed]
TransferSyntax1 = LittleEndianExplicit
TransferSyntax2 = LittleEndianImplicit
[[PresentationContexts]]
[Few]
PresentationContext1 = VerificationSOPClass\\Uncompressed
PresentationContext2 = {kind}\\Uncompressed
[[Profiles]]
[Default]
PresentationContexts = Few
"""


class StoreSCP(Server):
    """DCMTK's storescp: keeps what it is sent, as it was sent; takes all, unless `options` say otherwise.

    `only` names the one kind that it takes.
    """

    def __init__(self, folder: Path, options: Sequence[str] = ("+xa",), only: str = "") -> None:
        super().__init__("storescp", folder)
        self.options, self._only = options, only
        self.port = free_port()
        self.received = folder / "received"
        self.received.mkdir(exist_ok=True)

    def command(self) -> Sequence[str]:
        takes: Sequence[str] = self.options
        if self._only:
            file = self.folder / "storescp.cfg"
            file.write_text(_TAKES_ONLY.format(kind=self._only))
            takes = ["--config-file", str(file), "Default"]
        return [tool("storescp"), "--fork", *takes, "-od", str(self.received), str(self.port)]

    def ready(self) -> bool:
        return answers(self.port)


@dataclass
class Bench:
    """What runs for most tests."""

    orthanc: Orthanc
    redis: Redis
    node: Node
    worker: Worker


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[StoreSCP]:
    """DCMTK's receiver, empty."""
    tool("storescp")
    server = StoreSCP(tmp_path / "storescp")
    server.start()
    yield server
    server.stop()
