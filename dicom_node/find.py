"""The C-FIND SCU: how many instances a peer holds of each series of a study (PS3.4 C.6.2, Study Root).

Number of Series Related Instances (0020,1209) is optional (PS3.4 C.3.4): where a peer leaves it out, the
images are counted one by one. Every wait ends: a peer that is slow here is treated as one that is silent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from dicom_node.errors import PeerRefuses, PeerUnreachable
from dicom_node.ledger import Held
from dicom_node.settings import Peer
from dicom_node.sockets import SERVICE_SYNTAXES, PromptAE

#: How long we wait for the connection, for each answer, and for all answers together, s.
_CONNECT_S = 3.0
_ANSWER_S = 5.0
_WHOLE_S = 10.0

# PS3.4 C.4.1.1.4
_SUCCESS = 0x0000
_PENDING = (0xFF00, 0xFF01)


def held(
    calling_aet: str, peer: Peer, study_uid: str, here: dict[str, int], *, name_missing: bool
) -> dict[str, Held]:
    """Return what a peer holds of the series that we have, by Series Instance UID.

    Parameters
    ----------
    here : dict
        How many instances of each series we have.
    name_missing : bool
        Of a series of which the peer counts more, ask for the instances too: which are they?

    Raises
    ------
    PeerUnreachable
        No association, or no answer in time.
    PeerRefuses
        The peer answers no C-FIND on series.
    """
    question = _Question(calling_aet, peer)
    try:
        counts = dict(question.counts(study_uid))
        found = {}
        for uid in counts.keys() & here.keys():
            count = counts[uid]
            one_by_one = count is None or (name_missing and count > here[uid])
            images = question.images(study_uid, uid) if one_by_one else {}
            found[uid] = Held(max(count or 0, len(images)), images if len(images) >= (count or 0) else {})
        return found
    finally:
        question.close()


class _Question:
    """One association on which all is asked."""

    def __init__(self, calling_aet: str, peer: Peer) -> None:
        self._peer = peer
        self._until = time.monotonic() + _WHOLE_S
        ae = PromptAE(calling_aet)
        ae.connection_timeout = _CONNECT_S
        ae.acse_timeout = ae.dimse_timeout = _ANSWER_S
        ae.network_timeout = _WHOLE_S
        ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind, SERVICE_SYNTAXES)
        try:
            self._association = ae.associate(peer.host, peer.port, ae_title=peer.ae_title)
        except OSError as error:
            raise PeerUnreachable(f"{peer.name}: the host {peer.host} cannot be found.") from error
        if not self._association.is_established:
            raise PeerUnreachable(f"{peer.name} accepts no association for C-FIND.")

    def close(self) -> None:
        """Release the association; break it where answers are still under way."""
        if self._association.is_established:
            if time.monotonic() < self._until:
                self._association.release()
            else:
                self._association.abort()

    def counts(self, study_uid: str) -> Iterator[tuple[str, int | None]]:
        """Return (Series Instance UID, Number of Series Related Instances or None) of a study."""
        query = _query("SERIES", StudyInstanceUID=study_uid, SeriesInstanceUID="")
        query.NumberOfSeriesRelatedInstances = None
        for answer in self._answers(query):
            uid = str(answer.get("SeriesInstanceUID") or "")
            if uid:
                yield uid, _integer(answer, "NumberOfSeriesRelatedInstances")

    def images(self, study_uid: str, series_uid: str) -> dict[str, int | None]:
        """Return the Instance Number of each SOP Instance UID of a series."""
        query = _query("IMAGE", StudyInstanceUID=study_uid, SeriesInstanceUID=series_uid, SOPInstanceUID="")
        query.InstanceNumber = None
        answers = {str(one.get("SOPInstanceUID") or ""): one for one in self._answers(query)}
        return {uid: _integer(one, "InstanceNumber") for uid, one in answers.items() if uid}

    def _answers(self, query: Dataset) -> Iterator[Dataset]:
        name = self._peer.name
        model = StudyRootQueryRetrieveInformationModelFind
        try:
            for status, identifier in self._association.send_c_find(query, model):
                if time.monotonic() > self._until:
                    raise PeerUnreachable(f"{name} did not answer a C-FIND within {_WHOLE_S:.0f} s.")
                if "Status" not in status:
                    raise PeerUnreachable(f"{name} broke the association or did not answer a C-FIND in time.")
                if status.Status in _PENDING:
                    if identifier is not None:
                        yield identifier
                elif status.Status != _SUCCESS:
                    raise PeerRefuses(f"{name} answered a C-FIND with status 0x{status.Status:04X}.")
        except (RuntimeError, ValueError) as error:  # pynetdicom: association gone, context not accepted
            raise PeerRefuses(f"{name} takes no C-FIND on series.") from error


def _query(level: str, **keys: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


def _integer(answer: Dataset, keyword: str) -> int | None:
    try:
        value: Any = answer.get(keyword)
        return int(value)
    except (TypeError, ValueError):
        return None
