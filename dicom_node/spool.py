"""Every path and every atomic write of the node, in one place.

| place | what | owner |
|---|---|---|
| ``incoming/ab/abcd….dcm`` | a SOP instance as it came (Part 10 header added) | receive |
| ``conflicts/…`` | other bytes under a SOP Instance UID that we have: set aside | receive |
| ``jobs/JOB/starts`` | a line for each time that a worker began | worker |
| ``jobs/JOB/cancelled`` | a person cancelled the job | the commands |
| ``jobs/JOB/result/`` · ``result.json`` | what the worker made; the latter renamed into place last | worker |
| ``jobs/JOB/documents/DOCUMENT/`` | the same of an answer or a retraction | worker |
| ``ledger.sqlite`` | the ledger | the ledger |

File names are digests of UIDs: no name or identifier of a patient is in them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from dicom_node.errors import SettingsError, SpoolFull
from synthesis import job as message

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


class Spool:
    """The folder in which the node keeps its bytes.

    Parameters
    ----------
    root : Path
        Created when absent, readable by its owner only.
    fsync : bool
        Whether a write is on the disk before it counts.
    """

    def __init__(self, root: Path, *, fsync: bool = True) -> None:
        self.root = root
        self._fsync = fsync
        try:
            for name in ("incoming", "conflicts", "jobs"):
                (root / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SettingsError(f"The spool {root} cannot be made: {error.strerror}.") from error

    def incoming(self, sop_instance_uid: str) -> Path:
        """Return where the first instance of this UID lies."""
        digest = hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:32]
        return self.root / "incoming" / digest[:2] / f"{digest}.dcm"

    def conflict(self, sop_instance_uid: str, content_digest: str) -> Path:
        """Return where other bytes under this UID are set aside."""
        name = hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:32]
        return self.root / "conflicts" / f"{name}.{content_digest[:12]}.dcm"

    def job(self, job_id: str) -> Path:
        """Return the folder of a job."""
        return self.root / "jobs" / job_id

    def relative(self, path: Path) -> str:
        """Return a path as node and worker exchange it."""
        return str(path.relative_to(self.root))

    def write(self, path: Path, pieces: Iterable[bytes | memoryview]) -> None:
        """Write a file so that it exists whole or not at all; raises `SpoolFull` when no space is left."""
        partial = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with partial.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                if self._fsync:
                    os.fsync(file.fileno())
            partial.rename(path)
            if self._fsync:
                message.fsync_folder(path.parent)
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno in _NO_SPACE:
                raise SpoolFull("No space is left on the disk of the spool.") from error
            raise

    def open_job(self, job_id: str) -> Path:
        """Make the folder of a job and return it."""
        folder = self.job(job_id)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def starts(self, job_id: str) -> int:
        """Return how often a worker began with this job."""
        try:
            return len((self.job(job_id) / message.STARTS_NAME).read_text(encoding="utf-8").splitlines())
        except FileNotFoundError:
            return 0

    def reset_job(self, job_id: str) -> None:
        """Forget what workers made of a job, so that it can be run again."""
        folder = self.job(job_id)
        (folder / message.RESULT_NAME).unlink(missing_ok=True)
        (folder / message.STARTS_NAME).unlink(missing_ok=True)
        (folder / message.CANCELLED_NAME).unlink(missing_ok=True)
        shutil.rmtree(folder / message.RESULT_FOLDER, ignore_errors=True)

    def document(self, job_id: str, document_id: str) -> Path:
        """Return the folder of a document about a job."""
        return self.job(job_id) / "documents" / document_id

    def forget_document(self, job_id: str, document_id: str) -> None:
        """Forget what workers made of a document, so that it can be written again."""
        shutil.rmtree(self.document(job_id, document_id), ignore_errors=True)

    def cancel_job(self, job_id: str) -> None:
        """Ask a worker that has this job to stop at its next step."""
        (self.open_job(job_id) / message.CANCELLED_NAME).touch()

    def check_space(self, least_bytes: int) -> None:
        """Raise `SpoolFull` when less than this is free on the spool's disk."""
        free = self.free_bytes()
        if free < least_bytes:
            raise SpoolFull(
                f"{free / 1e9:.1f} GB are free on the disk of the spool, less than retention.least_free_gb = "
                f"{least_bytes / 1e9:g}."
            )

    def jobs(self) -> list[str]:
        """Return the ids of the jobs that have a folder."""
        return sorted(path.name for path in (self.root / "jobs").iterdir() if path.is_dir())

    def set_aside_before(self, before: float) -> list[Path]:
        """Return the files that were set aside as conflicts before this time."""
        return [
            path
            for path in (self.root / "conflicts").iterdir()
            if path.is_file() and path.stat().st_mtime < before
        ]

    def free_bytes(self) -> int:
        """Return the free space on the spool's disk, in bytes."""
        return shutil.disk_usage(self.root).free
