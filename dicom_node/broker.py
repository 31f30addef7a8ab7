"""The node's side of Redis: put a job into the queue, see heartbeats, find out what the queue holds.

Redis carries work and may lose everything; nothing here is remembered.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.errors import BrokerUnreachable
from dicom_node.settings import Settings
from synthesis import job as message


@dataclass(frozen=True)
class WorkerSign:
    """A worker that showed a sign of life within the last seconds."""

    name: str
    device: str
    model: str
    job: str


class Broker:
    """The broker of one installation; raises `BrokerUnreachable` from every method.

    Parameters
    ----------
    url : str
        ``redis://HOST:PORT/DB``.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._celery: Any = None
        self._redis: Any = None

    def _client(self) -> Any:
        if self._redis is None:
            import redis  # late: the node listens before it needs the broker

            self._redis = redis.Redis.from_url(self._url, socket_connect_timeout=3, socket_timeout=10)
        return self._redis

    def _call(self, name: str, *arguments: Any) -> Any:
        import redis

        try:
            return getattr(self._client(), name)(*arguments)
        except redis.RedisError as error:
            raise BrokerUnreachable(f"Redis does not answer ({type(error).__name__}).") from error

    def ping(self) -> None:
        """Return when Redis answers."""
        self._call("ping")

    def send(self, job: message.Job | message.Document, priority: int) -> None:
        """Put a job, or a document about one, into the queue; `priority` 0 is served first."""
        if self._celery is None:
            from celery import Celery  # late, as above

            self._celery = Celery("dicom_node", broker=self._url, set_as_current=False)
            self._celery.conf.update(
                broker_transport_options=message.broker_options(),
                task_serializer="json",
                task_ignore_result=True,
                broker_connection_timeout=3,
            )
        try:
            self._celery.send_task(
                message.TASK if isinstance(job, message.Job) else message.DOCUMENT_TASK,
                args=[job.to_message()],
                task_id=job.id,
                queue=message.QUEUE,
                priority=priority,
                retry=False,
                ignore_result=True,
            )
        except Exception as error:  # kombu raises its own and redis-py's errors
            raise BrokerUnreachable(f"Redis does not take the job ({type(error).__name__}).") from error

    def waiting(self) -> set[str]:
        """Return the jobs whose message is in the queue."""
        keys = [
            message.QUEUE if step == 0 else f"{message.QUEUE}\x06\x16{step}"
            for step in message.PRIORITY_STEPS
        ]
        found = set()
        for key in keys:
            for raw in self._call("lrange", key, 0, -1):
                found.add(str(json.loads(raw)["headers"]["id"]))
        return found

    def heartbeat(self, job_id: str) -> message.Heartbeat | None:
        """Return the last sign of life of the worker that has this job."""
        raw = self._call("get", message.heartbeat_key(job_id))
        return message.Heartbeat.from_json(raw) if raw else None

    def workers(self) -> list[WorkerSign]:
        """Return the workers that are alive."""
        found = []
        for key in self._call("keys", message.WORKER_KEY_PATTERN):
            raw = self._call("get", key)
            if raw:
                found.append(WorkerSign(**json.loads(raw)))
        return sorted(found, key=lambda worker: worker.name)


def own_redis_file(settings: Settings) -> Path:
    """Return the file in which ``dicom-node up`` says where its own Redis listens."""
    return settings.node.spool / "redis.url"


def broker_url_in_use(settings: Settings) -> str:
    """Return where the broker of the settings is, or the one of a running ``dicom-node up``."""
    own = own_redis_file(settings)
    if not settings.broker_is_set and own.is_file():
        return own.read_text(encoding="utf-8").strip()
    return settings.broker.url
