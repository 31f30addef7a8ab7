"""Inquire: what the sending peer itself holds of the studies that are arriving.

A step beside the way of a study: nothing waits for it. It asks as soon as a study begins to arrive, so that
the answer is there when the association is released, and again once the study has been silent for a moment.
A peer that does not answer is left alone for a while.
"""

from __future__ import annotations

import logging
import time

from dicom_node import find
from dicom_node.choose import group
from dicom_node.completeness import SETTLED_S, shortfall
from dicom_node.errors import PeerRefuses, PeerUnreachable
from dicom_node.headers import Header
from dicom_node.ledger import COLLECTING, Inquiry, JobRow, Ledger
from dicom_node.settings import Peer, Settings

log = logging.getLogger(__name__)

#: While a study keeps arriving, its sender is asked at most this often.
_AGAIN_S = 5.0
#: A peer that did not answer is asked again after this.
_SILENT_FOR_S = 900.0
_IDLE_S = 60.0


def due_at(last_arrival: float, asked: float | None) -> float | None:
    """Return when to ask about a study that arrived so far, None when nothing came since the last answer."""
    if asked is None:
        return 0.0
    settled = last_arrival + SETTLED_S
    return min(settled, asked + _AGAIN_S) if asked < settled else None


class Inquirer:
    """The step that asks the senders."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._silent_until: dict[str, float] = {}

    def work(self) -> float:
        """Ask about the study that is due first; return the seconds until there may be more."""
        now = time.time()
        due = sorted(
            (at, job.id, job, peer)
            for job, asked in self._ledger.jobs_to_inquire()
            if (peer := self._answering(job.peer, now)) is not None
            and (at := due_at(job.last_arrival, asked)) is not None
        )
        if not due:
            return _IDLE_S
        at, _, job, peer = due[0]
        if at > now:
            return max(0.05, at - now)
        self._ask(job, peer)
        return 0.0

    def _answering(self, name: str | None, now: float) -> Peer | None:
        """Return the peer of this name, None when it is unknown or was silent lately."""
        if name is None or self._silent_until.get(name, 0.0) > now:
            return None
        return next((peer for peer in self._settings.peer if peer.name == name), None)

    def _ask(self, job: JobRow, peer: Peer) -> None:
        asked = time.time()
        here = self._ledger.series_counts(job.study_uid)
        silent = asked - job.last_arrival >= SETTLED_S
        try:
            held = find.held(self._settings.node.ae_title, peer, job.study_uid, here, name_missing=silent)
        except (PeerRefuses, PeerUnreachable) as error:
            self._silent_until[peer.name] = time.time() + _SILENT_FOR_S
            log.info(
                "%s Series are judged without its counts; it is asked again in %.0f min.",
                error.sentence,
                _SILENT_FOR_S / 60,
            )
            return
        self._ledger.record_inquiry(job.study_uid, Inquiry(peer.name, asked, held))
        self._tell_the_late(job)

    def _tell_the_late(self, asked_for: JobRow) -> None:
        """Say what is missing in a job that was decided before its sender answered."""
        job = self._ledger.job(asked_for.id)
        if job.state in COLLECTING or not job.inputs:
            return
        rows = self._ledger.study_headers(job.study_uid)
        sentence = shortfall(
            group(Header.from_json(values) for _, values in rows),
            (job.explanation or {}).get("chosen", {}).values(),
            self._ledger.inquiry(job.study_uid, job.peer),
        )
        if sentence:
            self._ledger.note(job, f"{sentence} The job goes on with what is here.", "SLICE_MISSING")
