"""What the ledger hands out: one frozen row each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dicom_node.ledger.states import Arrival, DeliveryState, DocumentState, How, State
from synthesis.job import Form


def job_id(study_uid: str, rule: str, revision: int) -> str:
    """Return the short id of a job: stable, and says nothing about the patient."""
    return hashlib.sha256(f"{study_uid}\n{rule}\n{revision}".encode()).hexdigest()[:10]


@dataclass(frozen=True)
class JobRow:
    """One job, as the ledger has it."""

    id: str
    study_uid: str
    rule: str
    revision: int
    peer: str | None
    state: State
    code: str
    reason: str
    created: float
    updated: float
    last_arrival: float
    look_again: float | None
    by_hand: bool
    to_send: bool
    explanation: dict[str, Any] | None
    inputs: dict[str, list[str]] | None
    starts: int
    step: str
    progress: float
    worker: str
    model: dict[str, str] | None
    remarks: list[str] | None
    seconds: dict[str, float] | None
    settled: bool
    answered: bool


@dataclass(frozen=True)
class EventRow:
    """One line of a job's timeline."""

    at: float
    before: str | None
    after: str
    code: str
    sentence: str


@dataclass(frozen=True)
class AssociationRow:
    """One association, as the ledger has it."""

    id: int
    calling_aet: str
    called_aet: str
    address: str
    peer: str | None
    opened: float
    closed: float | None
    ending: str | None


@dataclass(frozen=True)
class UnseenArrival:
    """One C-STORE that collect has not looked at."""

    id: int
    association_id: int
    sop_instance_uid: str
    at: float
    kind: Arrival
    path: str
    indexed: bool


@dataclass(frozen=True)
class StudyArrival:
    """One C-STORE of a study."""

    series_uid: str
    sop_instance_uid: str
    association_id: int
    at: float
    kind: Arrival


@dataclass(frozen=True)
class Batch:
    """What one association brought of one study and was not told to its jobs yet."""

    study_uid: str
    association: AssociationRow
    last: float
    arrival_ids: tuple[int, ...]
    #: Instances by kind, those of synthetic series left out; and the latter.
    new: int
    same: int
    other: int
    synthetic: int


@dataclass(frozen=True)
class Held:
    """What a peer holds of one series."""

    instances: int
    #: Instance Number of each SOP Instance UID; empty unless the peer was asked for them.
    numbers: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Inquiry:
    """The answer of a peer to what it holds of a study."""

    peer: str
    #: When it was asked: what it holds may have grown since.
    asked: float
    #: By Series Instance UID.
    held: Mapping[str, Held]


@dataclass(frozen=True)
class DeliveryRow:
    """One instance on its way to one destination."""

    job_id: str
    destination: str
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    path: str
    state: DeliveryState
    status: int | None
    at: float | None


@dataclass(frozen=True)
class ConfirmationRow:
    """One question to a destination whether it has what it stored."""

    transaction_uid: str
    job_id: str
    destination: str
    how: How
    asked: float
    ended: float | None
    confirmed: int
    lost: int


@dataclass(frozen=True)
class DocumentRow:
    """The answer to a declined study, or the retraction of a result (form KO)."""

    id: str
    job_id: str
    form: Form
    code: str
    reason: str
    state: DocumentState
    created: float
    path: str


@dataclass(frozen=True)
class PostingRow:
    """A document on its way to one destination."""

    document_id: str
    destination: str
    state: DeliveryState
    status: int | None
    attempts: int
    next_at: float
    sentence: str
    at: float | None


def document_id(job_id: str, *parts: str) -> str:
    """Return the id of a document about a job: the same for the same answer, or retraction."""
    return f"{job_id}-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:8]}"
