"""The C-STORE and C-ECHO SCU: one association, contexts only for what is sent, each status kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import _config, build_context, evt
from pynetdicom.sop_class import Verification

from dicom_node.errors import NoSuchThing, PeerRefuses, PeerUnreachable
from dicom_node.parcels import SUCCESS, Answer, Parcel, parcel
from dicom_node.settings import Peer
from dicom_node.sockets import SERVICE_SYNTAXES, PromptAE

# The file is sent in pieces as it lies on the disk, not decoded and encoded again.
_config.STORE_SEND_CHUNKED_DATASET = True

#: At most this many contexts fit into one association (PS3.8 9.3.2: odd ids up to 255).
_MOST_CONTEXTS = 128
#: What a peer with `compress` is offered; the first that it accepts is used. On T1W slices of BRAINIX JPEG-LS
#: leaves a fifth at 90 MB/s, JPEG 2000 a fifth at 28 MB/s, RLE two fifths at 72 MB/s (one core).
LOSSLESS = (JPEGLSLossless, JPEG2000Lossless, RLELossless)
#: What may be compressed. A segmentation has one bit a pixel, a document has no pixels.
COMPRESSIBLE = frozenset({MRImageStorage, EnhancedMRImageStorage})
_CONNECT_TIMEOUT_S = 10
_ANSWER_TIMEOUT_S = 60


def echo(calling_aet: str, peer: Peer) -> float:
    """Return the seconds of a C-ECHO; raises `PeerUnreachable`."""
    began = time.monotonic()
    association = associate(calling_aet, peer, [build_context(Verification, SERVICE_SYNTAXES)])
    try:
        status = association.send_c_echo()
    finally:
        association.release()
    if status.get("Status") != SUCCESS:
        raise PeerUnreachable(f"{peer.name} accepted the association but did not answer the C-ECHO.")
    return time.monotonic() - began


def store(
    calling_aet: str, peer: Peer, parcels: Sequence[Parcel], answered: Callable[[Answer], None]
) -> None:
    """Send files over one association and report each answer as it comes.

    Raises
    ------
    PeerUnreachable
        No association, or it broke: what was not reported is to be sent again later.
    PeerRefuses
        The peer accepts no presentation context for an object: it never will.
    """
    kinds = sorted({(p.sop_class_uid, p.transfer_syntax_uid) for p in parcels})
    ways = {kind: forms(*kind, compress=peer.compress) for kind in kinds}
    # As it lies first: should there be too many for one association, the rest is only convenience.
    offers = dict.fromkeys([*kinds, *((kind[0], syntax) for kind in kinds for syntax in ways[kind])])
    association = associate(calling_aet, peer, [build_context(*offer) for offer in offers][:_MOST_CONTEXTS])
    accepted = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
    refused = []
    try:
        for one in parcels:
            taken = [
                syntax
                for syntax in ways[one.sop_class_uid, one.transfer_syntax_uid]
                if (one.sop_class_uid, syntax) in accepted
            ]
            encoded = (_encoded(one, syntax) for syntax in taken)
            source = next((found for found in encoded if found is not None), None)
            if source is None:
                refused.append(one)
                continue
            status = association.send_c_store(source)
            if "Status" not in status:
                raise PeerUnreachable(f"{peer.name} broke the association or did not answer in time.")
            answered(Answer(one, int(status.Status)))
    except RuntimeError as error:  # pynetdicom: the association is gone
        raise PeerUnreachable(f"{peer.name} ended the association.") from error
    finally:
        if association.is_established:
            association.release()
    if refused:
        kinds_refused = ", ".join(
            sorted({f"{UID(p.sop_class_uid).name} in {UID(p.transfer_syntax_uid).name}" for p in refused})
        )
        raise PeerRefuses(
            f"{peer.name} accepts no presentation context for {len(refused)} of {len(parcels)} objects "
            f"({kinds_refused})."
        )


def forms(sop_class_uid: str, transfer_syntax_uid: str, *, compress: bool) -> tuple[str, ...]:
    """Return the transfer syntaxes in which an object may be sent, the best first."""
    if transfer_syntax_uid != ExplicitVRLittleEndian:
        return (transfer_syntax_uid,)
    smaller = LOSSLESS if compress and sop_class_uid in COMPRESSIBLE else ()
    return (*smaller, ExplicitVRLittleEndian, ImplicitVRLittleEndian)


def _encoded(one: Parcel, syntax: str) -> Any:
    """Return what to hand to pynetdicom to send an object in this form; None where it cannot have it."""
    if syntax == one.transfer_syntax_uid:
        return one.path
    if syntax == ImplicitVRLittleEndian:
        return _as_implicit(one.path)
    return _compressed(one.path, syntax)


def _compressed(path: Path, syntax: str) -> Any:
    """Return the data set of a file with its pixels compressed; None unless they come out again the same.

    The SOP Instance UID stays: without loss it is the same image in another transfer syntax (PS3.5 10).
    """
    dataset = dcmread(path)
    try:
        before = dataset.pixel_array
        dataset.compress(syntax, generate_instance_uid=False)
        same = np.array_equal(before, dataset.pixel_array)
    except (RuntimeError, ValueError, AttributeError, NotImplementedError):
        return None  # pixels that no coder takes, or that are damaged: they go as they lie
    return dataset if same else None


def hand_over(
    calling_aet: str, peer: Peer, parcels: Sequence[Parcel], answered: Callable[[Answer], None]
) -> None:
    """Send files as the peer takes them, by C-STORE or by STOW-RS; raises as `store` does."""
    if peer.dicomweb:
        from dicom_node import stow  # the client brings much that a node without DICOMweb never needs

        stow.store(peer, parcels, answered)
    else:
        store(calling_aet, peer, parcels, answered)


def _as_implicit(path: Path) -> Any:
    """Return the data set of a file, encoded anew: pynetdicom sends only what was read as what it says."""
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    encoded = BytesIO()
    dataset.save_as(encoded, enforce_file_format=True)
    encoded.seek(0)
    return dcmread(encoded)


def associate(
    calling_aet: str, peer: Peer, contexts: Iterable[Any], handlers: Sequence[tuple[Any, Any]] = ()
) -> Any:
    """Return an association; raises `PeerUnreachable`, or `PeerRefuses` if the peer takes no context."""
    ae = PromptAE(calling_aet)
    ae.connection_timeout = _CONNECT_TIMEOUT_S
    ae.acse_timeout = _ANSWER_TIMEOUT_S
    ae.dimse_timeout = _ANSWER_TIMEOUT_S
    ae.network_timeout = _ANSWER_TIMEOUT_S
    opened: list[bool] = []
    began = time.monotonic()
    try:
        association = ae.associate(
            peer.host,
            peer.port,
            contexts=list(contexts),
            ae_title=peer.ae_title,
            evt_handlers=[(evt.EVT_CONN_OPEN, lambda _: opened.append(True)), *handlers],
        )
    except OSError as error:
        raise PeerUnreachable(f"{peer.name}: the host {peer.host} cannot be found.") from error
    if association.is_established:
        return association
    place = f"{peer.name} ({peer.ae_title} at {peer.host}:{peer.port})"
    if association.is_rejected:
        answer = association.acceptor.primitive
        why = answer.reason_str if answer is not None else "no reason given"
        raise PeerUnreachable(f"{place} rejects our association as {calling_aet}: {why}.")
    if association.rejected_contexts:
        objects = ", ".join(
            sorted({UID(str(context.abstract_syntax)).name for context in association.rejected_contexts})
        )
        raise PeerRefuses(f"{place} accepts no presentation context for any object ({objects}).")
    if opened and time.monotonic() - began >= _ANSWER_TIMEOUT_S:
        raise PeerUnreachable(f"{place} takes the connection but does not answer.")
    if opened:
        raise PeerUnreachable(f"{place} aborted the association.")
    raise PeerUnreachable(f"{place} does not answer: nothing listens there, or a firewall is between.")


def send_folder(
    calling_aet: str, peer: Peer, folder: Path, progress: Callable[[int, int], None]
) -> tuple[int, list[str]]:
    """Send every DICOM file below a folder; return how many are stored, and sentences about the others."""
    if not folder.exists():
        raise NoSuchThing(f"There is no folder {folder}.")
    parcels, complaints = [], []
    for path in sorted([folder] if folder.is_file() else (p for p in folder.rglob("*") if p.is_file())):
        try:
            parcels.append(parcel(path))
        except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, NotImplementedError):
            complaints.append(f"{path.name}: not a DICOM file, left out")
    if not parcels:
        raise NoSuchThing(f"There is no DICOM file in {folder}.")
    stored = 0
    done = 0

    def answered(answer: Answer) -> None:
        nonlocal stored, done
        done += 1
        stored += answer.stored
        if not answer.stored:
            complaints.append(f"{answer.parcel.path.name}: refused with status 0x{answer.status:04X}")
        progress(done, len(parcels))

    try:
        hand_over(calling_aet, peer, parcels, answered)
    except PeerRefuses as error:
        complaints.append(error.sentence)
    return stored, complaints
