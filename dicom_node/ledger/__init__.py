"""The ledger: what happened and what is next. All SQL of the node is in this package."""

from dicom_node.ledger.arrivals import Arrivals
from dicom_node.ledger.confirmations import Confirmations
from dicom_node.ledger.deliveries import Deliveries
from dicom_node.ledger.inquiries import Inquiries
from dicom_node.ledger.jobs import Jobs
from dicom_node.ledger.keeping import Keeping, Until
from dicom_node.ledger.rows import (
    AssociationRow,
    Batch,
    ConfirmationRow,
    DeliveryRow,
    EventRow,
    Held,
    Inquiry,
    JobRow,
    StudyArrival,
    UnseenArrival,
    job_id,
)
from dicom_node.ledger.states import (
    AT_PEER,
    COLLECTING,
    RETRYABLE,
    TRANSITIONS,
    Arrival,
    DeliveryState,
    Ending,
    How,
    State,
)


class Ledger(Arrivals, Inquiries, Jobs, Deliveries, Confirmations, Keeping):
    """All queries of one installation's ledger."""


__all__ = [
    "AT_PEER",
    "COLLECTING",
    "RETRYABLE",
    "TRANSITIONS",
    "Arrival",
    "AssociationRow",
    "Batch",
    "ConfirmationRow",
    "DeliveryRow",
    "DeliveryState",
    "Ending",
    "EventRow",
    "Held",
    "How",
    "Inquiry",
    "JobRow",
    "Ledger",
    "State",
    "StudyArrival",
    "UnseenArrival",
    "Until",
    "job_id",
]
