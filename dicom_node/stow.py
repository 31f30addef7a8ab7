"""STOW-RS and QIDO-RS (PS3.18 10.5, 10.6): `send` and C-FIND for a peer that is a DICOMweb service.

Credentials come from the environment: ``DICOM_NODE_PEER_<NAME>_TOKEN``, or ``…_USER`` and ``…_PASSWORD``,
the name in capitals with ``_`` for all that is no letter or digit. ``REQUESTS_CA_BUNDLE`` names a file of
certificates to trust.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import requests
from dicomweb_client.web import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.errors import PeerRefuses, PeerUnreachable
from dicom_node.parcels import COERCED, PROCESSING_FAILURE, SUCCESS, Answer, Parcel
from dicom_node.settings import Peer

_CONNECT_TIMEOUT_S = 10
_ANSWER_TIMEOUT_S = 60
#: Servers and proxies limit a request; most allow more than this.
_REQUEST_BYTES = 16_000_000
#: The body goes in one piece with its length: not every server takes chunks, and 413 comes before the body.
_NO_CHUNKS = 1 << 40
_PAGE = 1000

#: A request is refused for what is in it: smaller ones show which instance it is.
_CONTENT = frozenset({400, 409, 413, 415, 422})
#: Worth another try later: time-outs, too many requests, and what proxies say of a service that is away.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_REASONS = {
    400: "it cannot read an instance",
    401: "it does not accept our credentials",
    403: "our credentials do not allow it",
    404: "there is no DICOMweb service at its URL",
    409: "it stores none of it",
    413: "an instance is larger than it accepts",
    415: "it does not take this kind of object",
}


def store(peer: Peer, parcels: Sequence[Parcel], answered: Callable[[Answer], None]) -> None:
    """Send files by STOW-RS and report an answer for each, as a DIMSE status.

    Raises
    ------
    PeerUnreachable
        The service does not answer, or cannot now: what was not reported is to be sent again later.
    PeerRefuses
        The service refuses a request, and would again.
    """
    client, last = _client(peer)
    refused: list[PeerRefuses] = []
    for batch in _batches(parcels, _REQUEST_BYTES):
        refused += _store(client, last, peer, batch, answered)
    if refused:
        raise refused[0]


def find(peer: Peer, study_uid: str, series_uid: str) -> set[str]:
    """Return the SOP Instance UIDs that the service has in a series; raises as `store` does."""
    client, _ = _client(peer)
    found: set[str] = set()
    while True:
        try:
            page = client.search_for_instances(study_uid, series_uid, limit=_PAGE, offset=len(found))
        except requests.HTTPError as error:
            raise _complaint(peer, _status_of(error)) from None
        except requests.RequestException:
            raise _away(peer) from None
        new = {str(one["00080018"]["Value"][0]) for one in page} - found
        if not new:
            return found
        found |= new


def ping(peer: Peer) -> float:
    """Return the seconds that the service takes to list one study; raises as `store` does."""
    began = time.monotonic()
    client, _ = _client(peer)
    try:
        client.search_for_studies(limit=1)
    except requests.HTTPError as error:
        raise _complaint(peer, _status_of(error)) from None
    except requests.RequestException:
        raise _away(peer) from None
    return time.monotonic() - began


def _store(
    client: DICOMwebClient,
    last: list[requests.Response],
    peer: Peer,
    batch: Sequence[Parcel],
    answered: Callable[[Answer], None],
) -> list[PeerRefuses]:
    """Send one request, halved until it is taken; return the complaints about single instances."""
    last.clear()
    try:
        body = client.store_instances([dcmread(parcel.path) for parcel in batch])
    except requests.HTTPError as error:
        status = _status_of(error)
        told = read_response(_body(last)) if status == 409 else {}
        if not told and status not in _CONTENT:
            raise _complaint(peer, status) from None
        if not told and len(batch) == 1:
            return [PeerRefuses(_refusal(peer, status))]
        if not told:
            middle = len(batch) // 2
            return [
                complaint
                for half in (batch[:middle], batch[middle:])
                for complaint in _store(client, last, peer, half, answered)
            ]
    except requests.RequestException:
        raise _away(peer) from None
    else:
        told = read_response(body) or read_response(_body(last))
    whole = bool(last) and last[-1].status_code == 200
    for parcel in batch:
        unsaid = SUCCESS if whole else PROCESSING_FAILURE
        answered(Answer(parcel, told.get(parcel.sop_instance_uid, unsaid)))
    return []


def read_response(body: Dataset) -> dict[str, int]:
    """Return a DIMSE status for each instance that a STOW-RS response names (PS3.18 I.2)."""
    told = {
        str(item.ReferencedSOPInstanceUID): COERCED if item.get("WarningReason") else SUCCESS
        for item in body.get("ReferencedSOPSequence") or ()
    }
    for item in body.get("FailedSOPSequence") or ():
        if "ReferencedSOPInstanceUID" in item:
            told[str(item.ReferencedSOPInstanceUID)] = int(item.get("FailureReason") or PROCESSING_FAILURE)
    return told


def session(name: str, environment: Mapping[str, str]) -> requests.Session:
    """Return an HTTP session with the credentials that the environment has for a peer."""
    prefix = f"DICOM_NODE_PEER_{re.sub('[^A-Z0-9]', '_', name.upper())}_"
    made = requests.Session()
    made.headers["Accept"] = "application/dicom+json"
    if token := environment.get(f"{prefix}TOKEN"):
        made.headers["Authorization"] = f"Bearer {token}"
    elif user := environment.get(f"{prefix}USER"):
        made.auth = (user, environment.get(f"{prefix}PASSWORD", ""))
    return made


def _client(peer: Peer) -> tuple[DICOMwebClient, list[requests.Response]]:
    """Return a client, and the list in which it leaves its last response."""
    last: list[requests.Response] = []

    def keep(response: requests.Response, *_: Any, **__: Any) -> None:
        last[:] = [response]

    client = DICOMwebClient(
        peer.dicomweb.rstrip("/"),
        session=session(peer.name, os.environ),
        callback=keep,
        chunk_size=_NO_CHUNKS,
        timeout=(_CONNECT_TIMEOUT_S, _ANSWER_TIMEOUT_S),
    )
    client.set_http_retry_params(retry=False)
    return client, last


def _batches(parcels: Sequence[Parcel], most_bytes: int) -> Iterator[list[Parcel]]:
    batch: list[Parcel] = []
    size = 0
    for parcel in parcels:
        here = parcel.path.stat().st_size
        if batch and size + here > most_bytes:
            yield batch
            batch, size = [], 0
        batch.append(parcel)
        size += here
    if batch:
        yield batch


def _body(last: list[requests.Response]) -> Dataset:
    """Return the data set of a response, empty where it holds none that we read."""
    try:
        return Dataset.from_json(last[-1].json())
    except (IndexError, ValueError, TypeError, KeyError, AttributeError):
        return Dataset()


def _status_of(error: requests.HTTPError) -> int:
    return error.response.status_code if error.response is not None else 0


def _complaint(peer: Peer, status: int) -> PeerRefuses | PeerUnreachable:
    if status in _TRANSIENT:
        return PeerUnreachable(f"{peer.name} cannot take it now (HTTP {status}).")
    return PeerRefuses(_refusal(peer, status))


def _refusal(peer: Peer, status: int) -> str:
    return f"{peer.name} answered HTTP {status}: {_REASONS.get(status, 'it refuses the request')}."


def _away(peer: Peer) -> PeerUnreachable:
    return PeerUnreachable(f"{peer.name} does not answer at its DICOMweb URL.")
