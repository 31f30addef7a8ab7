"""The node's side of Redis, against a real one."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_bench import HOST, RedisProcess, free_port

from dicom_node.broker import Broker, broker_url_in_use, own_redis_file
from dicom_node.errors import BrokerUnreachable
from dicom_node.settings import Settings
from synthesis.job import PRIORITY_STEPS, Heartbeat, Job, heartbeat_key, worker_key

JOB = Job("ab", ("incoming/1.dcm",), ("incoming/2.dcm",), "jobs/ab")


@pytest.fixture(scope="module")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    server = RedisProcess(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def broker(redis_process: RedisProcess) -> Broker:
    redis_process.client.flushall()
    return Broker(redis_process.url)


def test_a_job_that_was_sent_waits(broker: Broker) -> None:
    broker.send(JOB, 0)

    assert broker.waiting() == {"ab"}


@pytest.mark.parametrize("priority", PRIORITY_STEPS)
def test_a_job_of_any_priority_is_seen_to_wait(broker: Broker, priority: int) -> None:
    broker.send(JOB, priority)

    assert broker.waiting() == {"ab"}


def test_the_message_is_json_and_holds_the_job(broker: Broker, redis_process: RedisProcess) -> None:
    broker.send(JOB, 0)

    message = json.loads(redis_process.client.lindex("synthesis", 0))
    assert message["content-type"] == "application/json"
    assert Job.from_message(json.loads(base64.b64decode(message["body"]))[0][0]) == JOB


def test_a_heartbeat_is_read(broker: Broker, redis_process: RedisProcess) -> None:
    beat = Heartbeat("w", "read", 0.1)
    redis_process.client.set(heartbeat_key("ab"), beat.to_json())

    assert broker.heartbeat("ab") == beat and broker.heartbeat("cd") is None


def test_workers_that_show_a_sign_of_life_are_listed(broker: Broker, redis_process: RedisProcess) -> None:
    sign = {"name": "w", "device": "cpu", "model": "m 1", "job": ""}
    redis_process.client.set(worker_key("w"), json.dumps(sign))

    assert [(worker.name, worker.device) for worker in broker.workers()] == [("w", "cpu")]


@pytest.mark.parametrize("call", ["ping", "waiting", "workers"])
def test_a_redis_that_is_away_is_said(call: str) -> None:
    with pytest.raises(BrokerUnreachable, match="Redis does not answer"):
        getattr(Broker(f"redis://{HOST}:{free_port()}/0"), call)()


def test_the_redis_of_a_running_up_is_found(tmp_path: Path, redis_process: RedisProcess) -> None:
    settings = Settings.model_validate({"node": {"spool": tmp_path}})
    own_redis_file(settings).write_text(redis_process.url + "\n")

    Broker(broker_url_in_use(settings)).ping()


def test_a_redis_that_the_user_set_comes_first(tmp_path: Path, redis_process: RedisProcess) -> None:
    away = f"redis://{HOST}:{free_port()}/0"
    settings = Settings.model_validate({"node": {"spool": tmp_path}, "broker": {"url": away}})
    own_redis_file(settings).write_text(redis_process.url)

    with pytest.raises(BrokerUnreachable):
        Broker(broker_url_in_use(settings)).ping()
