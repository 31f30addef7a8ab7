"""The node as a process of its own: its start, its size, its end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from node_bench import HOST, RedisProcess, associate, free_port, store, wait_for
from small_studies import pair

from dicom_node.ledger import Ledger, State

Serve = Callable[..., subprocess.Popen[str]]
#: Of the processor's time: what else a machine does is not the node's. It takes 0.6; twice the second asked.
READY_S = 2.0
RESIDENT_BYTES = 120_000_000


def settings_file(folder: Path, port: int, broker: str = "redis://127.0.0.1:1/0") -> Path:
    path = folder / "node.toml"
    path.write_text(
        f'[node]\nport = {port}\nbind = "{HOST}"\nspool = "{folder / "spool"}"\n'
        f'[broker]\nurl = "{broker}"\n[collect]\nquiet_seconds = 1\n[monitor]\nport = 0\n'
        f'[[peer]]\nname = "pacs"\nae_title = "PACS"\nhost = "{HOST}"\nport = {free_port()}\n'
    )
    return path


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start `dicom-node serve`; ends what was started."""
    started: list[subprocess.Popen[str]] = []

    def start(settings: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "dicom_node", "--settings", str(settings), "serve"]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def test_it_is_ready_soon_small_and_ends_cleanly(serve: Serve, tmp_path: Path) -> None:
    port = free_port()

    node = serve(settings_file(tmp_path, port))
    wait_for("the node to listen", lambda: listens(port))
    spent = psutil.Process(node.pid).cpu_times()
    resident = psutil.Process(node.pid).memory_info().rss
    node.send_signal(signal.SIGTERM)
    _, log = node.communicate(timeout=20)

    assert node.returncode == 0 and "stopping" in log and "Traceback" not in log
    assert spent.user + spent.system < READY_S, spent
    assert resident < RESIDENT_BYTES


def test_a_port_that_is_taken_is_said_and_exits_with_one(serve: Serve, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()

        node = serve(settings_file(tmp_path, taken.getsockname()[1]))
        _, log = node.communicate(timeout=30)

    assert node.returncode == 1 and "cannot listen on" in log and "Traceback" not in log


def test_a_node_that_was_killed_goes_on_when_it_is_started_again(
    serve: Serve, tmp_path: Path, broker: RedisProcess
) -> None:
    port = free_port()
    settings = settings_file(tmp_path, port, broker.url)
    node = serve(settings)
    wait_for("the node to listen", lambda: listens(port))
    images = pair()
    association = associate(port, images)
    assert set(store(association, images[:20])) == {0}
    node.kill()
    node.wait()
    association.abort()

    second = serve(settings)
    wait_for("the node to listen", lambda: listens(port))
    again = associate(port, images)
    assert set(store(again, images)) == {0}
    again.release()

    ledger = Ledger(f"sqlite:///{tmp_path / 'spool' / 'ledger.sqlite'}")
    wait_for("the job", lambda: [job.state for job in ledger.jobs()] == [State.QUEUED])
    assert ledger.totals()["arrivals_new"] == 24
    ledger.close()
    second.terminate()
    assert second.wait(20) == 0


HEAVY = ("torch", "SimpleITK", "highdicom", "scipy", "matplotlib", "pandas", "celery")


@pytest.mark.parametrize(
    "module",
    [
        "cli",
        "serve",
        "receive",
        "collect",
        "enqueue",
        "deliver",
        "confirm",
        "retention",
        "monitor",
        "overview",
    ],
)
def test_the_node_loads_nothing_heavy(module: str) -> None:
    code = f"import dicom_node.{module}, sys; print([m for m in {HEAVY} if m in sys.modules])"

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert said.stdout == "[]\n"


def test_a_whole_node_never_loads_torch(tmp_path: Path) -> None:
    heavy = ("torch", "SimpleITK", "highdicom", "synthesis.pipeline", "synthesis.worker")
    code = f"""
import sys
from pathlib import Path
from dicom_node.serve import Node
from dicom_node.settings import load
node = Node(load(Path({str(settings_file(tmp_path, free_port()))!r}), {{}}))
node.start()
node.stop()
print([m for m in {heavy} if m in sys.modules])
"""

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert said.stdout == "[]\n"
