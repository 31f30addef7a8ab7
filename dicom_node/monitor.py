"""The page, health and metrics. No name, identifier or UID of a patient is on any of them.

Names of metrics are fixed here: ``dicom_node_<thing>_<unit>``, counters end in ``_total``.
"""

from __future__ import annotations

import html
import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dicom_node.broker import Broker
from dicom_node.errors import BrokerUnreachable
from dicom_node.ledger import JobRow, Ledger, State
from dicom_node.settings import Settings
from dicom_node.spool import Spool

log = logging.getLogger(__name__)

#: Below so many times the least free space, the check says that it will soon be reached.
_SOON_FULL = 3
_PENDING = (State.COMPLETE, State.QUEUED, State.RUNNING, State.SYNTHESISED)


@dataclass(frozen=True)
class Check:
    """One thing that must be well."""

    name: str
    ok: bool
    sentence: str


def checks(settings: Settings, ledger: Ledger, spool: Spool, broker: Broker) -> list[Check]:
    """Return the state of what a node needs: ledger, disk, broker, a worker."""
    found = []
    try:
        ledger.counts()
        found.append(Check("ledger", True, "answers"))
    except Exception as error:  # border: the check must say so, whatever it is
        found.append(Check("ledger", False, f"does not answer ({type(error).__name__})"))
    found.append(_disk(spool.free_bytes(), settings.retention.least_free_bytes))
    try:
        broker.ping()
        found.append(Check("broker", True, "Redis answers"))
        workers = broker.workers()
        names = ", ".join(f"{worker.name} on {worker.device}, {worker.model}" for worker in workers)
        found.append(
            Check("workers", bool(workers), names or "none showed a sign of life in the last seconds")
        )
    except BrokerUnreachable as error:
        found.append(Check("broker", False, error.sentence))
        found.append(Check("workers", False, "unknown while Redis does not answer"))
    return found


def _disk(free: int, least: int) -> Check:
    """Return how the disk of the spool stands: below `least` bytes nothing new is taken."""
    sentence = f"{free / 1e9:.1f} GB free"
    if free < least:
        return Check("disk", False, f"{sentence}: C-STOREs are refused with A700")
    if free < _SOON_FULL * least:
        sentence += f"; below {least / 1e9:g} GB (retention.least_free_gb) nothing new is taken"
    return Check("disk", True, sentence)


def job_as_json(job: JobRow) -> dict[str, Any]:
    """Return a job as `queue list --json` prints it."""
    return {
        "job": job.id,
        "state": str(job.state),
        "code": job.code,
        "reason": job.reason,
        "rule": job.rule,
        "study_uid": job.study_uid,
        "created": job.created,
        "updated": job.updated,
        "seconds": job.seconds or {},
        "revision": job.revision,
        "step": job.step,
        "progress": job.progress,
    }


class Monitor:
    """The HTTP server beside the SCP.

    ========================  ==========================================
    ``/``                     the queue as a page
    ``/health/live``          200 while the process runs
    ``/health/ready``         200 when ledger, disk and broker are well, else 503; each check as JSON
    ``/metrics``              Prometheus
    ========================  ==========================================
    """

    def __init__(self, settings: Settings, ledger: Ledger, spool: Spool, broker: Broker) -> None:
        self._settings = settings
        self._ledger = ledger
        self._spool = spool
        self._broker = broker
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Begin to answer, unless the port is 0; a port that is taken is said and does not stop the node."""
        where = self._settings.monitor
        if where.port == 0:
            return
        monitor = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    status, kind, body = monitor.answer(self.path)
                except Exception:  # border: the traceback stays in the log
                    log.exception("monitor failed")
                    status, kind, body = 500, "text/plain", b"The node failed; the reason is in its log.\n"
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                return

        try:
            self._server = ThreadingHTTPServer((where.bind, where.port), Handler)
        except OSError as error:
            log.warning("no monitor on %s:%d: %s", where.bind, where.port, error.strerror or error)
            return
        threading.Thread(target=self._server.serve_forever, name="monitor", daemon=True).start()

    def stop(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Return status, content type and body for a path."""
        path = path.partition("?")[0]
        if path == "/health/live":
            return 200, "application/json", b'{"live": true}\n'
        if path == "/health/ready":
            found = checks(self._settings, self._ledger, self._spool, self._broker)
            ready = all(check.ok for check in found if check.name != "workers")
            body = {"ready": ready, "checks": [asdict(check) for check in found]}
            return (200 if ready else 503), "application/json", json.dumps(body).encode() + b"\n"
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", self._metrics()
        if path == "/":
            return 200, "text/html; charset=utf-8", self._page().encode()
        return 404, "text/plain", b"Not found.\n"

    def _metrics(self) -> bytes:
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Any]:
        """Yield the metrics (the interface of prometheus_client's collectors)."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        jobs = GaugeMetricFamily("dicom_node_jobs", "Jobs by state", labels=["state"])
        for state, count in self._ledger.counts().items():
            jobs.add_metric([state], count)
        yield jobs
        totals = self._ledger.totals()
        for thing, label in (("arrivals", "kind"), ("associations", "ending")):
            counter = CounterMetricFamily(
                f"dicom_node_{thing}", f"{thing.capitalize()} so far", labels=[label]
            )
            for key, count in totals.items():
                if key.startswith(f"{thing}_"):
                    counter.add_metric([key.removeprefix(f"{thing}_")], count)
            yield counter
        yield CounterMetricFamily(
            "dicom_node_unreadable_instances", "Instances that could not be read", totals["unreadable"]
        )
        oldest = self._ledger.oldest(*_PENDING)
        age = 0.0 if oldest is None else max(0.0, time.time() - oldest)
        yield GaugeMetricFamily("dicom_node_oldest_pending_seconds", "Age of the oldest unfinished job", age)
        yield GaugeMetricFamily(
            "dicom_node_disk_free_bytes", "Free on the spool's disk", self._spool.free_bytes()
        )
        up = GaugeMetricFamily("dicom_node_check_ok", "1 where a check is well", labels=["check"])
        for check in checks(self._settings, self._ledger, self._spool, self._broker):
            up.add_metric([check.name], float(check.ok))
        yield up

    def _page(self) -> str:
        rows = "".join(
            f"<tr class={job.state}><td>{job.id}<td>{job.state}<td>{html.escape(job.rule)}"
            f"<td>{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(job.updated))}"
            f"<td>{(job.seconds or {}).get('total', '')}<td>{html.escape(job.reason)}</tr>"
            for job in self._ledger.jobs(limit=100)
        )
        well = "".join(
            f"<li class={'ok' if check.ok else 'bad'}>{check.name}: {html.escape(check.sentence)}</li>"
            for check in checks(self._settings, self._ledger, self._spool, self._broker)
        )
        return _PAGE.format(
            ae_title=html.escape(self._settings.node.ae_title),
            well=well,
            rows=rows or "<tr><td colspan=6>Nothing was received yet.</tr>",
        )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5">
<meta name="viewport" content="width=device-width"><title>{ae_title}</title><style>
:root {{ color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif }}
body {{ margin: 2rem auto; max-width: 72rem; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .35rem .6rem; vertical-align: top }}
tr {{ border-bottom: 1px solid #8883 }} td:first-child {{ font-family: ui-monospace, monospace }}
.DELIVERED td:nth-child(2), .COMMITTED td:nth-child(2) {{ color: #2a8a4a }}
.FAILED td:nth-child(2) {{ color: #c33 }}
.DECLINED td:nth-child(2), .WAITING td:nth-child(2) {{ color: #b57614 }}
li.bad {{ color: #c33 }} ul {{ padding-left: 1.2rem }}
</style></head><body><h1>{ae_title}</h1>
<p>Synthetic contrast-enhanced T1 series. For research, not for diagnosis.</p>
<ul>{well}</ul>
<table><thead><tr><th>Job<th>State<th>Rule<th>Changed (UTC)<th>Seconds<th>Reason</tr></thead>
<tbody>{rows}</tbody></table>
</body></html>
"""
