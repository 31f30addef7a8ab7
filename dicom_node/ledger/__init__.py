"""The ledger: what happened and what is next. All SQL of the node is in this package."""

from dicom_node.ledger.arrivals import Arrivals
from dicom_node.ledger.deliveries import Deliveries
from dicom_node.ledger.inquiries import Inquiries
from dicom_node.ledger.rows import (
    AssociationRow,
    Batch,
    DeliveryRow,
    EventRow,
    Held,
    Inquiry,
    JobRow,
    StudyArrival,
    UnseenArrival,
    job_id,
)
from dicom_node.ledger.states import COLLECTING, RETRYABLE, TRANSITIONS, Arrival, DeliveryState, Ending, State


class Ledger(Arrivals, Inquiries, Deliveries):
    """All queries of one installation's ledger."""


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
    "Held",
    "Inquiry",
    "JobRow",
    "Ledger",
    "State",
    "StudyArrival",
    "UnseenArrival",
    "job_id",
]
