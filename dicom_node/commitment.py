"""Storage commitment, and C-FIND for peers without it: does a peer keep what it said that it stored?

We are SCU of the Storage Commitment Push Model (PS3.4 J.3): N-ACTION asks, N-EVENT-REPORT answers, minutes or
hours later, on the association of the question or on one that the peer opens to us (`receive`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pynetdicom import build_context, evt
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
)

from dicom_node.errors import PeerRefuses, PeerUnreachable
from dicom_node.ledger import DeliveryRow, DeliveryState
from dicom_node.send import associate
from dicom_node.settings import Peer
from dicom_node.sockets import SERVICE_SYNTAXES

log = logging.getLogger(__name__)

#: Action type of N-ACTION, and event types of N-EVENT-REPORT (PS3.4 J.3.2.1, J.3.3.1).
_REQUEST = 1
_ALL_STORED, _SOME_FAILED = 1, 2
#: Failure Reasons (0008,1197) that another sending may cure: the peer has no such instance, or something went
#: wrong with the one that it has (PS3.3 C.14.1.1).
_TO_SEND_AGAIN = frozenset({0x0110, 0x0112})
#: A peer that answers on the association of the question does so at once; the others open one to us.
_LINGER_S = 3.0

#: Answers to an N-EVENT-REPORT (PS3.7 10.1.1.1.8).
SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT = 0x0115

#: By SOP Instance UID: where it stands at the peer, and the reason that the peer gave.
Found = dict[str, tuple[DeliveryState, int | None]]


@dataclass(frozen=True)
class Report:
    """What an N-EVENT-REPORT says."""

    transaction_uid: str
    found: Found


class UnusableReport(Exception):
    """An N-EVENT-REPORT that says nothing; `status` is our answer to it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"0x{status:04X}")
        self.status = status


def read_report(event_type: int, information: Dataset) -> Report:
    """Return what an N-EVENT-REPORT says (PS3.4 J.3.3.1.2); raises `UnusableReport`.

    An instance that failed for a reason that no sending cures stays STORED: it is asked for again.
    """
    if event_type not in (_ALL_STORED, _SOME_FAILED):
        raise UnusableReport(NO_SUCH_EVENT_TYPE)
    transaction_uid = information.get("TransactionUID")
    if not transaction_uid:
        raise UnusableReport(INVALID_ARGUMENT)
    found: Found = {
        str(item.ReferencedSOPInstanceUID): (DeliveryState.COMMITTED, None)
        for item in information.get("ReferencedSOPSequence") or ()
    }
    for item in information.get("FailedSOPSequence") or ():
        reason = int(item.get("FailureReason") or PROCESSING_FAILURE)
        state = DeliveryState.LOST if reason in _TO_SEND_AGAIN else DeliveryState.STORED
        found[str(item.ReferencedSOPInstanceUID)] = (state, reason)
    return Report(str(transaction_uid), found)


def new_transaction() -> str:
    """Return a Transaction UID that nobody can guess."""
    return str(generate_uid(prefix=None))


def answer_report(event: evt.Event, reported: Callable[[Report], bool]) -> tuple[int, None]:
    """Return the status of an N-EVENT-REPORT; `reported` says whether the transaction is one of ours."""
    try:
        report = read_report(int(event.event_type), event.event_information)
        if reported(report):
            return SUCCESS, None
        log.warning("an N-EVENT-REPORT names a transaction that is not ours")
        return INVALID_ARGUMENT, None
    except UnusableReport as error:
        log.warning("an N-EVENT-REPORT cannot be used: answered with %s", error)
        return error.status, None
    except Exception:  # border: the peer hears a status, the log has the traceback
        log.exception("N-EVENT-REPORT failed")
        return PROCESSING_FAILURE, None


class Inquiry:
    """An association on which a peer is asked."""

    def __init__(self, association: Any, peer: Peer, answered: threading.Event) -> None:
        self._association = association
        self._peer = peer
        self._answered = answered
        accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
        self.can_commit = StorageCommitmentPushModel in accepted
        self.can_find = StudyRootQueryRetrieveInformationModelFind in accepted

    def request(self, transaction_uid: str, rows: Iterable[DeliveryRow]) -> None:
        """Send the N-ACTION; linger for a report on this association.

        Raises
        ------
        PeerUnreachable
            The association broke, or the peer does not take the request now.
        """
        asked = Dataset()
        asked.TransactionUID = UID(transaction_uid)
        asked.ReferencedSOPSequence = [_reference(row) for row in rows]
        status, _ = self._association.send_n_action(
            asked, _REQUEST, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        if "Status" not in status:
            raise self._broken()
        if status.Status != SUCCESS:
            raise PeerUnreachable(f"{self._peer.name} answered N-ACTION with 0x{int(status.Status):04X}.")
        self._answered.wait(_LINGER_S)

    def find(self, study_uid: str, series_uid: str) -> set[str]:
        """Return the SOP Instance UIDs that the peer has in a series (C-FIND at image level, PS3.4 C.6.2).

        Raises
        ------
        PeerUnreachable
            The association broke, or the peer could not answer.
        PeerRefuses
            The peer offers no such query.
        """
        if not self.can_find:
            raise PeerRefuses(f"{self._peer.name} offers no C-FIND.")
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "IMAGE"
        identifier.StudyInstanceUID, identifier.SeriesInstanceUID = study_uid, series_uid
        identifier.SOPInstanceUID = ""
        found = set()
        for status, match in self._association.send_c_find(
            identifier, StudyRootQueryRetrieveInformationModelFind
        ):
            if "Status" not in status:
                raise self._broken()
            if status.Status in (0xFF00, 0xFF01):
                if match is not None:
                    found.add(str(match.SOPInstanceUID))
            elif status.Status != SUCCESS:
                raise PeerUnreachable(f"{self._peer.name} answered C-FIND with 0x{int(status.Status):04X}.")
        return found

    def _broken(self) -> PeerUnreachable:
        return PeerUnreachable(f"{self._peer.name} broke the association or did not answer in time.")


@contextmanager
def inquire(calling_aet: str, peer: Peer, reported: Callable[[Report], bool]) -> Iterator[Inquiry]:
    """Open an association to ask a peer what it keeps.

    Raises
    ------
    PeerUnreachable
        No association, or it broke.
    PeerRefuses
        The peer offers neither storage commitment nor C-FIND.
    """
    answered = threading.Event()

    def on_report(event: evt.Event) -> tuple[int, None]:
        try:
            return answer_report(event, reported)
        finally:
            answered.set()

    models: Sequence[str] = (
        *((StorageCommitmentPushModel,) if peer.commitment else ()),
        StudyRootQueryRetrieveInformationModelFind,
    )
    association = associate(
        calling_aet,
        peer,
        [build_context(model, SERVICE_SYNTAXES) for model in models],
        [(evt.EVT_N_EVENT_REPORT, on_report)],
    )
    try:
        yield Inquiry(association, peer, answered)
    except RuntimeError as error:  # pynetdicom: the association is gone
        raise PeerUnreachable(f"{peer.name} ended the association.") from error
    finally:
        if association.is_established:
            association.release()


def _reference(row: DeliveryRow) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = UID(row.sop_class_uid)
    item.ReferencedSOPInstanceUID = UID(row.sop_instance_uid)
    return item
