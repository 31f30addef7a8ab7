"""The ledger: what happened and what is next. All SQL of the node is in this package."""

from dicom_node.ledger.ledger import (
    AssociationRow,
    Batch,
    DeliveryRow,
    EventRow,
    JobRow,
    Ledger,
    StudyArrival,
    UnseenArrival,
    job_id,
)
from dicom_node.ledger.states import COLLECTING, RETRYABLE, TRANSITIONS, Arrival, DeliveryState, Ending, State

__all__ = [
    "COLLECTING",
    "RETRYABLE",
    "TRANSITIONS",
    "Arrival",
    "AssociationRow",
    "Batch",
    "DeliveryRow",
    "DeliveryState",
    "Ending",
    "EventRow",
    "JobRow",
    "Ledger",
    "State",
    "StudyArrival",
    "UnseenArrival",
    "job_id",
]
