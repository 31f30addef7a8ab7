"""What the flow tests share: Redis, a peer, a whole node. No log line of a test may tell of the patient."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "deploy")]

from node_bench import Behaviour, Bench, Peer, RedisProcess, StandInWorker, settings_for, synthesise  # noqa: E402
from small_studies import PATIENT_ID, PATIENT_NAME  # noqa: E402

from dicom_node import answer, confirm, deliver, enqueue  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    """Let pynetdicom's own sockets be: it does not close one whose other end has gone. Ours are prompt."""
    config.addinivalue_line("filterwarnings", "ignore:unclosed <socket.socket:ResourceWarning")


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """Redis for the whole run."""
    server = RedisProcess(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def broker(redis_process: RedisProcess) -> RedisProcess:
    """Redis, empty."""
    redis_process.client.flushall()
    return redis_process


@pytest.fixture
def peer() -> Iterator[Peer]:
    """The peer ``pacs``: it listens and takes everything."""
    made = Peer()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses after which the node takes something for lost, and tries again."""
    monkeypatch.setattr(enqueue, "_MESSAGE_LOST_AFTER_S", 1.0)
    monkeypatch.setattr(enqueue, "_WORKER_LOST_AFTER_S", 0.8)
    monkeypatch.setattr(enqueue, "_IDLE_S", 0.3)
    monkeypatch.setattr(deliver, "_PAUSE_S", 0.4)
    monkeypatch.setattr(answer, "_MESSAGE_LOST_AFTER_S", 1.0)
    monkeypatch.setattr(answer, "_PAUSE_S", 0.4)
    monkeypatch.setattr(answer, "_IDLE_S", 0.3)
    monkeypatch.setattr(confirm, "_PAUSE_S", 0.4)
    monkeypatch.setattr(confirm, "_INDEXED_WITHIN_S", 0.0)
    monkeypatch.setattr(confirm, "_IDLE_S", 0.3)


@pytest.fixture
def bench(
    tmp_path: Path, broker: RedisProcess, peer: Peer, impatient: None
) -> Iterator[Callable[..., Bench]]:
    """Start a node: `bench(do=behaviour of the worker, **sections of the settings)`."""
    made: list[Bench] = []

    def start(do: Behaviour = synthesise, peer_port: int | None = None, **sections: Any) -> Bench:
        spool = tmp_path / "spool"
        settings = settings_for(spool, broker.url, peer.port if peer_port is None else peer_port, **sections)
        made.append(Bench(settings, StandInWorker(broker.url, spool, do)))
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.stop()


@pytest.fixture(autouse=True)
def nothing_of_the_patient_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Look through all that the node logged in a test."""
    caplog.set_level("DEBUG", logger="dicom_node")
    yield
    logged = [record for when in ("setup", "call") for record in caplog.get_records(when)]  # type: ignore[arg-type]
    ours = [record for record in logged if record.name.startswith("dicom_node")]
    text = "\n".join(record.getMessage() for record in ours)
    assert not [part for part in (*PATIENT_NAME.split("^"), PATIENT_ID) if part in text]
    assert not re.search(r"2\.25\.\d{12,}", text), "a UID of the study is in the log"
    assert not [record.exc_text for record in ours if record.exc_info], "a step failed"
