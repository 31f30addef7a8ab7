"""Page, health and metrics, asked over HTTP."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_bench import HOST, RedisProcess, free_port

from dicom_node.broker import Broker
from dicom_node.ledger import Ending, Ledger, State
from dicom_node.monitor import Monitor, job_as_json
from dicom_node.settings import Settings
from dicom_node.spool import Spool

STUDY = "2.25.123456789012345678"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield opened
    opened.close()


@pytest.fixture
def redis_process(tmp_path: Path) -> Iterator[RedisProcess]:
    server = RedisProcess(tmp_path)
    server.start()
    yield server
    server.stop()


def monitor(tmp_path: Path, ledger: Ledger, url: str) -> Monitor:
    values = {"node": {"spool": tmp_path}, "monitor": {"bind": HOST, "port": free_port()}}
    return Monitor(Settings.model_validate(values), ledger, Spool(tmp_path), Broker(url))


AWAY = f"redis://{HOST}:1/0"


def test_it_answers_over_http(tmp_path: Path, ledger: Ledger) -> None:
    port = free_port()
    settings = Settings.model_validate({"monitor": {"bind": HOST, "port": port}})
    served = Monitor(settings, ledger, Spool(tmp_path), Broker(AWAY))
    served.start()
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/health/live") as answer:
            assert answer.status == 200 and json.load(answer) == {"live": True}
        with pytest.raises(urllib.error.HTTPError) as missing:
            urllib.request.urlopen(f"http://{HOST}:{port}/nothing")
        assert missing.value.code == 404
        missing.value.close()
    finally:
        served.stop()


def test_a_port_that_is_taken_does_not_stop_the_node(tmp_path: Path, ledger: Ledger) -> None:
    settings = Settings.model_validate({"monitor": {"bind": HOST, "port": free_port()}})
    first, second = (Monitor(settings, ledger, Spool(tmp_path), Broker(AWAY)) for _ in range(2))
    first.start()

    second.start()

    second.stop()
    first.stop()


def test_port_zero_means_off(tmp_path: Path, ledger: Ledger) -> None:
    off = Monitor(Settings.model_validate({"monitor": {"port": 0}}), ledger, Spool(tmp_path), Broker(AWAY))

    off.start()
    off.stop()


def test_ready_needs_redis(tmp_path: Path, ledger: Ledger) -> None:
    status, _, body = monitor(tmp_path, ledger, AWAY).answer("/health/ready")

    checks = {check["name"]: check["ok"] for check in json.loads(body)["checks"]}
    assert status == 503 and checks == {"ledger": True, "disk": True, "broker": False, "workers": False}


def test_ready_needs_no_worker(tmp_path: Path, ledger: Ledger, redis_process: RedisProcess) -> None:
    status, _, body = monitor(tmp_path, ledger, redis_process.url).answer("/health/ready")

    assert status == 200 and json.loads(body)["ready"] is True


def test_the_metrics_are_those_that_dashboards_hold_on_to(tmp_path: Path, ledger: Ledger) -> None:
    ledger.open_job(STUDY, "every study", 1, "pacs", time.time(), "Arriving.")
    number = ledger.open_association("PACS", "TAVIT", HOST, "pacs")
    ledger.close_association(number, Ending.RELEASED)

    status, kind, body = monitor(tmp_path, ledger, AWAY).answer("/metrics")

    lines = body.decode().splitlines()
    assert status == 200 and kind.startswith("text/plain")
    assert 'dicom_node_jobs{state="RECEIVING"} 1.0' in lines
    assert 'dicom_node_associations_total{ending="released"} 1.0' in lines
    assert 'dicom_node_check_ok{check="ledger"} 1.0' in lines
    assert 'dicom_node_check_ok{check="broker"} 0.0' in lines
    names = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
    assert {
        "dicom_node_unreadable_instances_total",
        "dicom_node_oldest_pending_seconds",
        "dicom_node_disk_free_bytes",
    } <= names


def test_the_page_shows_the_queue_and_tells_nothing_of_the_study(tmp_path: Path, ledger: Ledger) -> None:
    job = ledger.open_job(STUDY, "a <b> rule", 1, "pacs", time.time(), "Arriving.")
    ledger.move(job, State.WAITING, "No <FLAIR> & no T1W.", "NO_FLAIR")

    status, kind, body = monitor(tmp_path, ledger, AWAY).answer("/?refresh=1")

    page = body.decode()
    assert status == 200 and kind.startswith("text/html")
    assert job.id in page and "No &lt;FLAIR&gt; &amp; no T1W." in page and "a &lt;b&gt; rule" in page
    assert STUDY not in page and "not for diagnosis" in page


def test_an_empty_queue_has_a_page(tmp_path: Path, ledger: Ledger) -> None:
    assert b"Nothing was received yet." in monitor(tmp_path, ledger, AWAY).answer("/")[2]


def test_a_job_for_scripts_has_its_keys(ledger: Ledger) -> None:
    job = ledger.open_job(STUDY, "r", 1, "pacs", time.time(), "Arriving.")

    wanted = {"job", "state", "code", "reason", "rule", "study_uid", "created", "updated", "seconds"}
    assert wanted <= set(job_as_json(job))
