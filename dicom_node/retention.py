"""Retention: what is finished leaves the spool after `retention.hours`, input and output.

Finished is what every destination that can has confirmed, what a destination without storage commitment and
query has stored, and what was declined, cancelled or wanted by no rule. What failed stays a week, for a
person.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dicom_node.ledger import Ledger, Until
from dicom_node.settings import Settings
from dicom_node.spool import Spool

log = logging.getLogger(__name__)

_EVERY_S = 600.0
#: A failed job, and what was set aside as a conflict: over a weekend and a holiday.
_FOR_A_PERSON_S = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Purged:
    """What left the spool, or would."""

    instances: int
    conflicts: int
    jobs: tuple[str, ...]
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return what `purge --json` prints."""
        return asdict(self)

    @property
    def sentence(self) -> str:
        """What left, for people."""
        return (
            f"{self.instances} instances, {len(self.jobs)} results and {self.conflicts} files set aside, "
            f"{self.bytes / 1e9:.3f} GB"
        )


class Retention:
    """The step at the end."""

    def __init__(self, settings: Settings, ledger: Ledger, spool: Spool) -> None:
        self._settings = settings
        self._ledger = ledger
        self._spool = spool

    def work(self) -> float:
        """Do what there is to do; return the seconds until there may be more."""
        left = purge(self._settings, self._ledger, self._spool)
        if left.bytes:
            log.info("left the spool: %s", left.sentence)
        return _EVERY_S


def purge(settings: Settings, ledger: Ledger, spool: Spool, *, dry_run: bool = False) -> Purged:
    """Remove from the spool what it need not keep any longer; with `dry_run` only say what."""
    now = time.time()
    kept_s = settings.retention.hours * 3600
    long_ago = now - max(kept_s, _FOR_A_PERSON_S)
    until = Until(ended=now - kept_s, failed=long_ago)

    conflicts = spool.set_aside_before(long_ago)
    size = sum(path.stat().st_size for path in conflicts)
    jobs = ledger.jobs_to_purge(spool.jobs(), until)
    size += sum(_size(spool.job(identity)) for identity in jobs)
    instances = ledger.instances_to_purge(until)
    size += sum(size_bytes for _, size_bytes in instances)
    left = Purged(len(instances), len(conflicts), tuple(jobs), size)
    if dry_run:
        return left

    for path in conflicts:
        path.unlink(missing_ok=True)
    for identity in jobs:
        ledger.purge_job(identity, until, lambda one: shutil.rmtree(spool.job(one), ignore_errors=True))
    while ledger.purge_instances(until, lambda path: (spool.root / path).unlink(missing_ok=True)):
        pass
    return left


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
