"""What the node and the worker say to each other.

The node puts a `Job` into the queue; the worker answers with a `Result` that it renames into place as
``result.json``, so that a result exists whole or not at all. While it runs, a worker shows a `Heartbeat`
under a short-lived Redis key. No pixel and no patient's name is in any of them. Imports nothing heavy.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

#: Manufacturer of all that a worker makes: the node knows its own work by it, also where an archive has
#: dropped Synthetic Data, which is an attribute of 2024.
MANUFACTURER = "dicom-node"
TASK = "synthesis.run"
DOCUMENT_TASK = "synthesis.document"
QUEUE = "synthesis"
#: Redis priorities of Celery's transport: 0 is served first.
PRIORITY_STEPS = tuple(range(10))
#: Seconds until Redis hands an unacknowledged message to another worker. Longer than the longest job.
VISIBILITY_TIMEOUT_S = 6 * 3600
#: A heartbeat that is older than this is gone; workers renew it every `HEARTBEAT_PERIOD_S`.
HEARTBEAT_TTL_S = 15
HEARTBEAT_PERIOD_S = 2.0
#: A job that killed its worker this many times is not started again.
MOST_STARTS = 3

RESULT_NAME = "result.json"
RESULT_FOLDER = "result"
STARTS_NAME = "starts"
#: The node puts this file into the folder of a job that was cancelled; the worker stops at its next step.
CANCELLED_NAME = "cancelled"


def heartbeat_key(job_id: str) -> str:
    """Return the Redis key under which a worker shows that it is at work on this job."""
    return f"synthesis:heartbeat:{job_id}"


def worker_key(worker: str) -> str:
    """Return the Redis key under which a worker shows that it is alive."""
    return f"synthesis:worker:{worker}"


WORKER_KEY_PATTERN = worker_key("*")


def fsync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk, as a rename is not by itself."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def broker_options() -> dict[str, Any]:
    """Return Celery's transport options; node and worker must agree on them."""
    return {
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "priority_steps": list(PRIORITY_STEPS),
        "queue_order_strategy": "priority",
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }


class Kind(StrEnum):
    """What a job can make."""

    T1C = "t1c"
    SEG = "seg"
    DIFFERENCE = "difference"
    UNCERTAINTY = "uncertainty"
    REPORT = "report"


#: Form of the T1C and of the segmentation; the first is the default.
T1C_FORMS = ("classic", "enhanced")
SEG_FORMS = ("binary", "fractional")


@dataclass(frozen=True)
class Wanted:
    """Which objects a job makes, and in which form."""

    objects: tuple[str, ...] = (Kind.T1C.value,)
    t1c: str = T1C_FORMS[0]
    seg: str = SEG_FORMS[0]
    #: Whether "synthetic" is burned into a corner of the T1C.
    corner_text: bool = False

    def __post_init__(self) -> None:
        # Burned In Annotation (0028,0301) of Enhanced MR can only be NO (PS3.3 C.8.13.1).
        if self.corner_text and self.t1c == "enhanced":
            raise ValueError('corner_text needs t1c = "classic": an Enhanced MR may hold no burned-in text')

    def to_text(self) -> str:
        """Return the choice as words, as derived objects record it."""
        corner = "yes" if self.corner_text else "no"
        return f"objects={','.join(self.objects)} t1c={self.t1c} seg={self.seg} corner_text={corner}"

    @classmethod
    def of_text(cls, text: str) -> Wanted:
        """Return the choice of these words; raises `ValueError` when they are none of ours."""
        words = dict(word.split("=", 1) for word in text.split())
        if set(words) != {"objects", "t1c", "seg", "corner_text"}:
            raise ValueError("These are not the settings of a job.")
        kinds = tuple(Kind(name).value for name in words["objects"].split(","))
        if words["t1c"] not in T1C_FORMS or words["seg"] not in SEG_FORMS:
            raise ValueError("There is no such form.")
        return cls(kinds, words["t1c"], words["seg"], words["corner_text"] == "yes")


ONLY_T1C = Wanted()


@dataclass(frozen=True)
class Job:
    """One synthesis to do. Paths are relative to the spool."""

    #: Short id, as `queue list` shows it.
    id: str
    #: Instances of the pre-contrast T1W and of the FLAIR.
    t1w: tuple[str, ...]
    flair: tuple[str, ...]
    #: Folder of the job; the result goes to ``<folder>/result`` and ``<folder>/result.json``.
    folder: str
    #: Name of the weights in `synthesis/weights`, or "default".
    model: str = "default"
    wanted: Wanted = ONLY_T1C
    #: What the node has to say of the choice of the two, as sentences; goes with the result.
    remarks: tuple[str, ...] = ()

    def to_message(self) -> dict[str, Any]:
        """Return the job as JSON-compatible values."""
        lists = {"t1w": list(self.t1w), "flair": list(self.flair), "remarks": list(self.remarks)}
        wanted = asdict(self.wanted) | {"objects": list(self.wanted.objects)}
        return asdict(self) | lists | {"wanted": wanted}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Job:
        """Return the job of a message; raises `KeyError` or `TypeError` when it is none."""
        values = {**message, "t1w": tuple(message["t1w"]), "flair": tuple(message["flair"])}
        values["remarks"] = tuple(message.get("remarks", ()))
        if "wanted" in message:
            wanted = message["wanted"]
            values["wanted"] = Wanted(**{**wanted, "objects": tuple(wanted["objects"])})
        return cls(**values)


class Form(StrEnum):
    """What a document about a job is."""

    SR = "sr"  # why nothing was made, as a Comprehensive SR
    SC = "sc"  # the same as a page, Secondary Capture
    KO = "ko"  # a result must not be used: Key Object Selection


@dataclass(frozen=True)
class Reference:
    """An instance that a retraction rejects."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True)
class Document:
    """A document to write about a job. Paths are relative to the spool."""

    #: Its own id, under which it waits and has its heartbeat.
    id: str
    form: Form
    #: The document goes to ``<folder>/result`` and ``<folder>/result.json``.
    folder: str
    #: Short code and sentence: why the study was declined, or why the result must not be used.
    code: str
    reason: str
    #: Instances of the study: they say whose it is, and are what an answer looked at.
    study: tuple[str, ...]
    #: More of an answer, as sentences.
    details: tuple[str, ...] = ()
    #: What a retraction rejects.
    rejected: tuple[Reference, ...] = ()
    #: Name of the weights that an answer speaks for, or "default".
    model: str = "default"
    #: Name, version and SHA-256 of the weights that made what is rejected.
    made_by: dict[str, str] = field(default_factory=dict)

    def to_message(self) -> dict[str, Any]:
        """Return the document as JSON-compatible values."""
        lists = {"study": list(self.study), "details": list(self.details)}
        return asdict(self) | lists | {"rejected": [asdict(one) for one in self.rejected]}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Document:
        """Return the document of a message; raises as `Job.from_message`, or `ValueError`."""
        values = {
            **message,
            "form": Form(message["form"]),
            "study": tuple(message["study"]),
            "details": tuple(message["details"]),
            "rejected": tuple(Reference(**one) for one in message["rejected"]),
        }
        return cls(**values)


class Outcome(StrEnum):
    """How a job, or a document about one, ended in the worker."""

    SYNTHESISED = "SYNTHESISED"
    DECLINED = "DECLINED"  # the input cannot be used; the sentence says why
    FAILED = "FAILED"  # our fault; the traceback is in the worker's log


@dataclass(frozen=True)
class DerivedInstance:
    """One object that the worker wrote. `path` is relative to the job's folder."""

    path: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True)
class Result:
    """What a worker made of a job."""

    outcome: Outcome
    #: Short code (``NOT_A_HEAD``) and the sentence that people read.
    code: str
    reason: str
    instances: tuple[DerivedInstance, ...] = ()
    #: Seconds of each step, in their order.
    seconds: dict[str, float] = field(default_factory=dict)
    #: Remarks on quality and on repaired headers, as sentences.
    remarks: tuple[str, ...] = ()
    #: Name, version and SHA-256 of the weights.
    model: dict[str, str] = field(default_factory=dict)
    worker: str = ""

    def write(self, job_folder: Path) -> None:
        """Write ``result.json``: durable, and whole or not at all."""
        text = json.dumps(asdict(self), indent=1)
        partial = job_folder / f".{RESULT_NAME}.{os.getpid()}"
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(job_folder / RESULT_NAME)
        fsync_folder(job_folder)

    @classmethod
    def read(cls, job_folder: Path) -> Result | None:
        """Return the result of this job, or None while there is none."""
        try:
            values = json.loads((job_folder / RESULT_NAME).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        values["outcome"] = Outcome(values["outcome"])
        values["instances"] = tuple(DerivedInstance(**instance) for instance in values["instances"])
        values["remarks"] = tuple(values["remarks"])
        return cls(**values)


@dataclass(frozen=True)
class Heartbeat:
    """A sign of life from the worker that has the job."""

    worker: str
    step: str
    #: Share of the whole job that is done, 0–1.
    progress: float

    def to_json(self) -> str:
        """Return the heartbeat as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Heartbeat:
        """Return the heartbeat of a text."""
        return cls(**json.loads(text))
