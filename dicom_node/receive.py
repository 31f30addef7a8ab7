"""The SCP: what a peer sends lies on the disk and in the ledger before it hears Success.

Statuses that we answer (PS3.4 B.2.3, PS3.7 C):

| status | when |
|---|---|
| 0x0000 | file and ledger row are durable (so also for bytes that came before, or are set aside) |
| 0xA700 | no space is left on the disk, or less than `retention.least_free_gb` |
| 0x0110 | we failed; the reason is in our log |

Headers are read later, by collect: a data set that cannot be understood is kept all the same.

Peers report by N-EVENT-REPORT what they commit to keep; those that only receive may send nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

from pydicom.uid import (
    JPEG2000,
    MPEG2MPHL,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AllStoragePresentationContexts, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import encode_file_meta
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from dicom_node.commitment import Report, answer_report
from dicom_node.errors import SpoolFull
from dicom_node.ledger import Arrival, Ending, Ledger
from dicom_node.settings import Peer, Settings
from dicom_node.sockets import SERVICE_SYNTAXES, PromptAE, PromptServer
from dicom_node.spool import Spool

log = logging.getLogger(__name__)

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
PROCESSING_FAILURE = 0x0110

# A-ASSOCIATE-RJ: permanent, by the service user (PS3.8 9.3.4)
_REJECT = (0x01, 0x01)
_CALLING_AE_UNKNOWN = 0x03
_CALLED_AE_UNKNOWN = 0x07

#: In the order in which we choose, where a context offers several: what keeps private VRs and is cheap first.
PREFERRED_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    RLELossless,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000,
)
TRANSFER_SYNTAXES = [
    *PREFERRED_SYNTAXES,
    *(uid for uid in AllTransferSyntaxes if uid not in PREFERRED_SYNTAXES and uid != MPEG2MPHL),
    MPEG2MPHL,
]

#: What a peer that does not send may use.
_SERVICES = (Verification, StorageCommitmentPushModel)

_ADDRESSES_VALID_S = 60.0
#: After the end of a connection, the release that preceded it has been heard.
_RELEASE_WITHIN_S = 1.0


class Receiver:
    """The SCP of the node: C-ECHO, C-STORE and the reports of storage commitment.

    Parameters
    ----------
    settings, ledger, spool
        What to accept, and where to keep it.
    changed : callable
        Called when collect has something to look at.
    reported : callable
        Called when a peer has reported what it keeps.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        spool: Spool,
        changed: Callable[[], None] = lambda: None,
        reported: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._spool = spool
        self._changed = changed
        self._reported = reported
        self._refusing = False
        self._associations: WeakKeyDictionary[Association, int] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._addresses: dict[str, tuple[float, set[str]]] = {}
        self._server: PromptServer | None = None

    def start(self) -> None:
        """Begin to listen; raises OSError when the port is taken."""
        node = self._settings.node
        ae = PromptAE(node.ae_title)
        ae.maximum_pdu_size = node.max_pdu
        ae.maximum_associations = node.max_associations
        for service in _SERVICES:
            ae.add_supported_context(service, SERVICE_SYNTAXES)
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, TRANSFER_SYNTAXES)
        self._server = ae.make_server(
            (node.bind, node.port),
            evt_handlers=[
                (evt.EVT_REQUESTED, self._on_requested),
                (evt.EVT_C_ECHO, lambda event: SUCCESS),
                (evt.EVT_C_STORE, self._on_store),
                (evt.EVT_N_EVENT_REPORT, lambda event: answer_report(event, self._on_report)),
                (evt.EVT_RELEASED, self._on_released),
                (evt.EVT_ABORTED, self._on_aborted),
                (evt.EVT_CONN_CLOSE, self._on_closed),
            ],
            server_class=PromptServer,
        )
        ae._servers.append(self._server)
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="receive", daemon=True
        ).start()

    def stop(self) -> None:
        """End all associations and stop listening."""
        if self._server is None:
            return
        for association in self._server.active_associations:
            association.abort()
        self._server.shutdown()
        self._server = None

    # --- who may ---------------------------------------------------------------------------------

    def _on_requested(self, event: evt.Event) -> None:
        request = event.assoc.requestor.primitive
        calling, called = request.calling_ae_title.strip(), request.called_ae_title.strip()
        address = event.assoc.requestor.address
        if not self._settings.answers_to(called):
            log.warning("refused association from %s: nobody here is called %r", address, called)
            self._reject(event.assoc, _CALLED_AE_UNKNOWN)
        elif not self._settings.node.accept_unknown_peers:
            peer = self._peer(calling, address)
            if peer is None:
                log.warning("refused association from %s: no [[peer]] %r has that address", address, calling)
                self._reject(event.assoc, _CALLING_AE_UNKNOWN)
            elif not peer.sends:
                self._limit(event.assoc, address)

    def _limit(self, association: Association, address: str) -> None:
        """Let a peer that does not send use the services, if it wants one of them."""
        proposed = association.requestor.primitive.presentation_context_definition_list
        if not any(context.abstract_syntax in _SERVICES for context in proposed):
            log.warning("refused association from %s: its [[peer]] has sends = false", address)
            self._reject(association, _CALLING_AE_UNKNOWN)
            return
        acceptor = association.acceptor
        acceptor.supported_contexts = [
            context for context in acceptor.supported_contexts if context.abstract_syntax in _SERVICES
        ]

    def _reject(self, association: Association, diagnostic: int) -> None:
        association.acse.send_reject(*_REJECT, diagnostic)
        association.kill()  # returns when the answer is on its way

    def _peer(self, calling: str, address: str) -> Peer | None:
        """Return the peer that calls itself so and has this address (any, where unknown callers may send).

        Of several, one that sends.
        """
        anyone = self._settings.node.accept_unknown_peers
        for peer in sorted(self._settings.peer, key=lambda peer: not peer.sends):
            if peer.ae_title.strip() == calling and (anyone or address in self._addresses_of(peer.host)):
                return peer
        return None

    def _addresses_of(self, host: str) -> set[str]:
        until, known = self._addresses.get(host, (0.0, set()))
        if time.monotonic() >= until:
            try:
                known = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
            except OSError:
                log.warning("the address of a [[peer]] cannot be resolved: %s", host)
                known = set()
            self._addresses[host] = (time.monotonic() + _ADDRESSES_VALID_S, known)
        return known

    # --- what they send --------------------------------------------------------------------------

    def _on_store(self, event: evt.Event) -> int:
        try:
            self._store(event)
        except SpoolFull as error:
            if not self._refusing:  # once, not for every instance of every sender
                log.error("C-STOREs are refused with A700: %s", error.sentence)
            self._refusing = True
            return OUT_OF_RESOURCES
        except Exception:  # border: the peer hears a status, the log has the traceback
            log.exception("C-STORE failed")
            return PROCESSING_FAILURE
        if self._refusing:
            log.info("C-STOREs are accepted again")
            self._refusing = False
        self._changed()
        return SUCCESS

    def _on_report(self, report: Report) -> bool:
        known = self._ledger.end_confirmation(report.transaction_uid, report.found)
        self._reported()
        return known

    def _store(self, event: evt.Event) -> None:
        association_id = self._association_id(event.assoc)
        uid = str(event.request.AffectedSOPInstanceUID)
        syntax = str(event.context.transfer_syntax)
        dataset = event.request.DataSet.getbuffer()
        digest = hashlib.sha256(syntax.encode())
        digest.update(dataset)
        content = digest.hexdigest()
        part10 = (b"\0" * 128 + b"DICM", encode_file_meta(event.file_meta), dataset)
        self._spool.check_space(self._settings.retention.least_free_bytes)

        with self._lock_for(uid):
            known = self._ledger.digest_of(uid)
            if known is None:
                path = self._spool.incoming(uid)
                self._spool.write(path, part10)
                self._ledger.store_instance(
                    association_id,
                    sop_instance_uid=uid,
                    sop_class_uid=str(event.request.AffectedSOPClassUID),
                    transfer_syntax_uid=syntax,
                    path=self._spool.relative(path),
                    size_bytes=len(dataset),
                    sha256=content,
                )
            elif known == content:
                self._ledger.store_repeat(association_id, uid, Arrival.SAME)
            else:
                self._spool.write(self._spool.conflict(uid, content), part10)
                self._ledger.store_repeat(association_id, uid, Arrival.OTHER)
                log.warning(
                    "association %d: other bytes under a known SOP Instance UID, set aside", association_id
                )

    def _lock_for(self, uid: str) -> threading.Lock:
        """Return the lock for this UID: of two associations that bring it at once, one is the first."""
        return _STORE_LOCKS[hash(uid) % len(_STORE_LOCKS)]

    def _association_id(self, association: Association) -> int:
        """Return the association's number, given with its first C-STORE: C-ECHOs leave no rows."""
        with self._lock:
            if association not in self._associations:
                request = association.requestor.primitive
                calling, address = request.calling_ae_title.strip(), association.requestor.address
                peer = self._peer(calling, address)
                self._associations[association] = self._ledger.open_association(
                    calling, request.called_ae_title.strip(), address, peer.name if peer else None
                )
            return self._associations[association]

    def _on_released(self, event: evt.Event) -> None:
        self._end(event.assoc, Ending.RELEASED)

    def _on_aborted(self, event: evt.Event) -> None:
        self._end(event.assoc, Ending.ABORTED)

    def _on_closed(self, event: evt.Event) -> None:
        """The connection is gone; the release before it may still be on its way from another thread."""
        timer = threading.Timer(_RELEASE_WITHIN_S, self._end, (event.assoc, Ending.ABORTED))
        timer.daemon = True
        timer.start()

    def _end(self, association: Association, ending: Ending) -> None:
        with self._lock:
            association_id = self._associations.pop(association, None)
        if association_id is not None:
            self._ledger.close_association(association_id, ending)
            self._changed()


_STORE_LOCKS = tuple(threading.Lock() for _ in range(64))
