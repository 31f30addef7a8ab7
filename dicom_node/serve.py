"""Composition: opens ledger and spool, starts the steps, stops them in order.

Each step looks in the ledger for what is its turn, so nothing has to be handed over when a process starts
or ends.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec

from dicom_node.answer import Answerer
from dicom_node.broker import Broker, broker_url_in_use
from dicom_node.collect import Collector
from dicom_node.confirm import Confirmer
from dicom_node.deliver import Deliverer
from dicom_node.enqueue import Enqueuer
from dicom_node.errors import SpoolFull
from dicom_node.inquire import Inquirer
from dicom_node.ledger import Ledger
from dicom_node.monitor import Monitor
from dicom_node.receive import Receiver
from dicom_node.retention import Retention
from dicom_node.settings import Settings
from dicom_node.spool import Spool

log = logging.getLogger(__name__)

#: A step that failed is tried again after this many seconds.
_AFTER_FAILURE_S = 2.0
#: What wakes a step seldom comes alone (a series is many instances): this long it waits for the rest.
_SETTLE_S = 0.05


class _Loop:
    """A thread that calls a step whenever something changed or the step's time has come."""

    def __init__(self, name: str, work: Callable[[], float], changed: Callable[[], None]) -> None:
        self._name = name
        self._work = work
        self._changed = changed
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                pause = self._work()
            except SpoolFull as error:
                log.error("%s waits: %s", self._name, error.sentence)
                pause = _AFTER_FAILURE_S
            except Exception:  # border: a step that fails must not end the node
                log.exception("%s failed; it goes on in %.0f s", self._name, _AFTER_FAILURE_S)
                pause = _AFTER_FAILURE_S
            if pause == 0.0:
                self._changed()
                continue
            if self._wake.wait(pause):
                self._stop.wait(_SETTLE_S)
            self._wake.clear()


class Node:
    """All steps of one node in one process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.spool = Spool(settings.node.spool, fsync=settings.node.fsync)
        self.ledger = Ledger(settings.node.ledger_url)
        self.broker = Broker(settings.broker.url)
        self._deliverer = Deliverer(settings, self.ledger, self.spool, self._changed)
        self._confirmer = Confirmer(settings, self.ledger, self._changed)
        self._answerer = Answerer(settings, self.ledger, self.spool, self.broker, self._changed)
        inquire = _Loop("inquire", Inquirer(settings, self.ledger).work, self._changed)
        collector = Collector(settings, self.ledger, self.spool, inquire.wake)
        enqueuer = Enqueuer(settings, self.ledger, self.spool, self.broker)
        retention = Retention(settings, self.ledger, self.spool)
        collect = _Loop("collect", collector.work, self._changed)
        confirm = _Loop("confirm", self._confirmer.work, self._changed)
        self._loops = [
            collect,
            inquire,
            _Loop("enqueue", enqueuer.work, self._changed),
            _Loop("deliver", self._deliverer.work, self._changed),
            confirm,
            _Loop("answer", self._answerer.work, self._changed),
        ]
        self._retention = _Loop("retention", retention.work, self._changed)
        self._receiver = Receiver(settings, self.ledger, self.spool, collect.wake, confirm.wake)
        self._monitor = Monitor(settings, self.ledger, self.spool, self.broker)

    def _changed(self) -> None:
        for loop in self._loops:
            loop.wake()

    def start(self) -> None:
        """Listen, then start the steps; raises OSError when a port is taken."""
        lost = self.ledger.close_lost_associations()
        if lost:
            log.warning("%d associations were open when the node ended; they count as aborted", lost)
        self._receiver.start()
        node = self._settings.node
        log.info("listening as %s on %s:%d", node.ae_title, node.bind, node.port)
        for loop in (*self._loops, self._retention):
            loop.start()
        self._monitor.start()

    def stop(self) -> None:
        """Stop in the order of the data's way, so that nothing new comes while the rest ends."""
        self._receiver.stop()
        for loop in (*self._loops, self._retention):
            loop.stop()
        self._deliverer.stop()
        self._confirmer.stop()
        self._answerer.stop()
        self._monitor.stop()
        self.ledger.close()


def serve(settings: Settings) -> int:
    """Run a node until SIGINT or SIGTERM; return the exit code."""
    node = Node(settings)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        node.start()
    except OSError as error:
        log.error(
            "cannot listen on %s:%d: %s", settings.node.bind, settings.node.port, error.strerror or error
        )
        return 1
    ended.wait()
    log.info("stopping")
    node.stop()
    return 0


def worker_environment(settings: Settings, broker_url: str) -> dict[str, str]:
    """Return the environment of a worker: all that it needs to know of our settings."""
    return {
        **os.environ,
        "SYNTHESIS_BROKER": broker_url,
        "SYNTHESIS_SPOOL": str(settings.node.spool.absolute()),
        "SYNTHESIS_DEVICE": settings.worker.device,
        "SYNTHESIS_MODEL": settings.worker.model,
    }


def worker_command() -> list[str]:
    """Return the command of a worker: a process of its own, so that the node never imports torch."""
    return [sys.executable, "-m", "synthesis.worker"]


def work(settings: Settings) -> int:
    """Become a worker."""
    os.execve(sys.executable, worker_command(), worker_environment(settings, broker_url_in_use(settings)))  # noqa: S606


def worker_is_installed() -> bool:
    """Return whether this Python has what a worker needs, without loading it."""
    return all(find_spec(name) for name in ("torch", "SimpleITK", "highdicom", "celery"))
