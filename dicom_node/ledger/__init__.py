"""The ledger: what happened and what is next. All SQL of the node is in this package."""

from dicom_node.ledger.arrivals import Arrivals
from dicom_node.ledger.confirmations import Confirmations
from dicom_node.ledger.deliveries import Deliveries
from dicom_node.ledger.documents import Documents
from dicom_node.ledger.inquiries import Inquiries
from dicom_node.ledger.jobs import Jobs
from dicom_node.ledger.keeping import Keeping, Until
from dicom_node.ledger.rows import (
    AssociationRow,
    Batch,
    ConfirmationRow,
    DeliveryRow,
    DocumentRow,
    EventRow,
    Held,
    Inquiry,
    JobRow,
    PostingRow,
    StudyArrival,
    UnseenArrival,
    document_id,
    job_id,
)
from dicom_node.ledger.states import (
    AT_PEER,
    COLLECTING,
    NOT_AT_PEER,
    RETRYABLE,
    TRANSITIONS,
    Arrival,
    DeliveryState,
    DocumentState,
    Ending,
    How,
    State,
)


class Ledger(Arrivals, Inquiries, Documents, Jobs, Deliveries, Confirmations, Keeping):
    """All queries of one installation's ledger."""


__all__ = [
    "AT_PEER",
    "COLLECTING",
    "NOT_AT_PEER",
    "RETRYABLE",
    "TRANSITIONS",
    "Arrival",
    "AssociationRow",
    "Batch",
    "ConfirmationRow",
    "DeliveryRow",
    "DeliveryState",
    "DocumentRow",
    "DocumentState",
    "Ending",
    "EventRow",
    "Held",
    "How",
    "Inquiry",
    "JobRow",
    "Ledger",
    "PostingRow",
    "State",
    "StudyArrival",
    "UnseenArrival",
    "Until",
    "document_id",
    "job_id",
]
