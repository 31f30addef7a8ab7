"""Kill -9 in the middle, start again: the study still comes back, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from bench import DONE, Bench, Server, wait_for
from stand_in_pacs import send
from studies import copy_study

from synthesis.phantom import PhantomStudy, write_study

pytestmark = [pytest.mark.pacs, pytest.mark.slow]

#: Seconds: the lease of a lost worker must run out before the job is given to the next.
PATIENCE_S = 200


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PhantomStudy:
    return write_study(tmp_path_factory.mktemp("killed"), seed=400, t2=None, localizer=False)


@pytest.fixture
def mended(bench: Bench) -> Iterator[Bench]:
    """The bench; whatever a test has killed and not started again is started for the next."""
    yield bench
    for server in (bench.redis, bench.node, bench.worker):
        if server.process is None or server.process.poll() is not None:
            server.start()


def comes_back_once(bench: Bench, study_uid: str, slices: int) -> None:
    job = bench.node.job(study_uid, seconds=PATIENCE_S)
    assert job["state"] in DONE, job
    series = list(bench.orthanc.series(study_uid).values())
    assert len(series) == 1
    assert len(series[0]["Instances"]) == slices
    time.sleep(3)
    assert len(bench.orthanc.series(study_uid)) == 1
    assert len(bench.node.jobs(study_uid)) == 1


@pytest.mark.parametrize("victim", ["node", "worker", "redis"])
def test_killed_while_the_worker_is_at_work(
    mended: Bench, source: PhantomStudy, tmp_path: Path, victim: str
) -> None:
    study_uid = copy_study(source.paths, tmp_path, f"killed {victim}")
    send(tmp_path, mended.node.port, mended.node.ae_title, mended.orthanc.ae_title)
    mended.node.job(study_uid, ("RUNNING",))
    server: Server = getattr(mended, victim)
    server.kill()
    time.sleep(1)
    server.start()
    comes_back_once(mended, study_uid, len(source.series["t1"].paths))


def test_redis_is_away_when_the_study_arrives(mended: Bench, source: PhantomStudy, tmp_path: Path) -> None:
    mended.redis.kill()
    study_uid = copy_study(source.paths, tmp_path, "no redis")
    send(tmp_path, mended.node.port, mended.node.ae_title, mended.orthanc.ae_title)
    time.sleep(6)
    mended.redis.start()
    comes_back_once(mended, study_uid, len(source.series["t1"].paths))


def test_the_node_is_killed_while_it_receives_and_the_pacs_sends_again(
    mended: Bench, source: PhantomStudy, tmp_path: Path
) -> None:
    study_uid = copy_study(source.paths, tmp_path, "killed receiving")
    incoming = mended.node.spool / "incoming"

    def kept() -> int:
        return sum(1 for _ in incoming.rglob("*.dcm"))

    def send_once() -> None:
        with suppress(ConnectionError, RuntimeError):
            send(tmp_path, mended.node.port, mended.node.ae_title, mended.orthanc.ae_title)

    before = kept()
    sender = threading.Thread(target=send_once)
    sender.start()
    wait_for("the first instances", lambda: kept() >= before + 5, 20, every=0.005)
    mended.node.kill()
    sender.join(60)
    assert kept() < before + len(source.paths), "it was over before the kill"
    mended.node.start()
    send(tmp_path, mended.node.port, mended.node.ae_title, mended.orthanc.ae_title)
    comes_back_once(mended, study_uid, len(source.series["t1"].paths))


def test_the_node_is_killed_while_it_delivers(mended: Bench, source: PhantomStudy, tmp_path: Path) -> None:
    study_uid = copy_study(source.paths, tmp_path, "killed delivering")
    send(tmp_path, mended.node.port, mended.node.ae_title, mended.orthanc.ae_title)
    mended.node.job(study_uid, ("RUNNING",))
    results = mended.node.spool / "jobs"
    known = set(results.rglob("result.json"))
    wait_for("the result", lambda: set(results.rglob("result.json")) - known, PATIENCE_S, every=0.01)
    mended.node.kill()
    time.sleep(1)
    mended.node.start()
    comes_back_once(mended, study_uid, len(source.series["t1"].paths))
