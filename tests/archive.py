"""An archive for tests: a peer that commits to keep what it stored, says it late or never, or loses it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

from node_bench import HOST, UNCOMPRESSED, Peer
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
)

_NO_SUCH_INSTANCE = 0x0112


class Archive(Peer):
    """A `Peer` with storage commitment and C-FIND.

    Parameters
    ----------
    reports
        By which association it reports: that of the question, a new one, or none at all.
    finds
        Whether it answers C-FIND.
    loses
        So many instances are gone when it is first asked; with `always`, each time.
    failure
        The reason that it gives for what is gone.
    """

    def __init__(
        self,
        *,
        reports: Literal["same", "new", "never"] | None = "new",
        finds: bool = False,
        loses: int = 0,
        always: bool = False,
        failure: int = _NO_SUCH_INSTANCE,
        **habits: Any,
    ) -> None:
        super().__init__(**habits)
        self.stores: Counter[str] = Counter()
        self.requests: list[Dataset] = []
        self.queries = 0
        self.report_statuses: list[int] = []
        #: Where the node listens; for reports on an association of their own.
        self.node_port = 0
        self._reports, self._finds = reports, finds
        self._loses, self._always, self._failure = loses, always, failure

    def start(self) -> None:
        """Begin to listen."""
        ae = AE("PACS")
        for sop_class in self._sop_classes:
            ae.add_supported_context(sop_class, list(UNCOMPRESSED))
        if self._reports:
            ae.add_supported_context(StorageCommitmentPushModel)
        if self._finds:
            ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        handlers = [
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_N_ACTION, self._on_request),
            (evt.EVT_C_FIND, self._on_find),
        ]
        self._listen(ae, handlers)

    def _on_store(self, event: evt.Event) -> int:
        self.stores[str(event.request.AffectedSOPInstanceUID)] += 1
        return super()._on_store(event)

    def _lose(self) -> None:
        if self._loses:
            del self.received[-self._loses :]
            if not self._always:
                self._loses = 0

    def _on_request(self, event: evt.Event) -> tuple[int, None]:
        self._lose()
        asked = event.action_information
        self.requests.append(asked)
        report = self._report(asked)
        kind = 2 if "FailedSOPSequence" in report else 1
        if self._reports == "same":
            threading.Timer(0.2, self._send, (event.assoc, report, kind)).start()
        elif self._reports == "new":
            threading.Timer(0.2, self._call, (report, kind)).start()
        return 0x0000, None

    def _report(self, asked: Dataset) -> Dataset:
        here = {ds.SOPInstanceUID for ds in self.received}
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        report.ReferencedSOPSequence, gone = [], []
        for item in asked.ReferencedSOPSequence:
            if item.ReferencedSOPInstanceUID in here:
                report.ReferencedSOPSequence.append(item)
            else:
                item.FailureReason = self._failure
                gone.append(item)
        if gone:
            report.FailedSOPSequence = gone
        return report

    def _call(self, report: Dataset, kind: int) -> None:
        association = AE("PACS").associate(
            HOST,
            self.node_port,
            contexts=[build_context(StorageCommitmentPushModel)],
            ae_title="TAVIT",
            ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
        )
        if association.is_established:
            self._send(association, report, kind)
            association.release()

    def _send(self, association: Any, report: Dataset, kind: int) -> None:
        status, _ = association.send_n_event_report(
            report, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        self.report_statuses.append(int(status.get("Status", 0xFFFF)))

    def _on_find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        if event.identifier.QueryRetrieveLevel != "IMAGE":  # while a study arrives: nothing is known of it
            return
        if not self._reports:
            self._lose()
        self.queries += 1
        for ds in list(self.received):
            if ds.SeriesInstanceUID == event.identifier.SeriesInstanceUID:
                match = Dataset()
                match.QueryRetrieveLevel = "IMAGE"
                match.SOPInstanceUID = ds.SOPInstanceUID
                yield 0xFF00, match
