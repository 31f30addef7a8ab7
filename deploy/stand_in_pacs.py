"""A receiving PACS for trying things: C-ECHO, C-STORE of anything, and sending a folder.

    python deploy/stand_in_pacs.py FOLDER [--port 11113] [--ae-title PACS]

keeps what it is sent as ``FOLDER/<study>/<series>/<instance>.dcm`` and prints a line for each series that an
association brought. No access control: it listens on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt

VERIFICATION = "1.2.840.10008.1.1"
SUCCESS = 0x0000
CANNOT_UNDERSTAND = 0xC000
#: A requestor may propose this many presentation contexts (PS3.8 9.3.2).
MOST_CONTEXTS = 128
HOST = "127.0.0.1"


class StandInPACS:
    """Keeps whatever it is sent, byte for byte.

    Parameters
    ----------
    folder
        Where the files go.
    ae_title, port
        Who it is. Port 0 takes a free one; `port` tells which after `start`.
    say
        Called with a sentence for each series that an association brought.
    """

    def __init__(
        self, folder: Path, ae_title: str = "PACS", port: int = 0, say: Callable[[str], None] = print
    ) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.port = port
        self._say = say
        self._ae = AE(ae_title)
        self._ae.maximum_associations = 50
        self._ae.add_supported_context(VERIFICATION)
        for context in AllStoragePresentationContexts:
            self._ae.add_supported_context(str(context.abstract_syntax), AllTransferSyntaxes)
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str], dict[str, Path]] = defaultdict(dict)
        self._brought: dict[object, dict[tuple[str, str, str], int]] = {}

    def __enter__(self) -> StandInPACS:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to listen; raises OSError when the port is taken."""
        server = self._ae.start_server(
            (HOST, self.port),
            block=False,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, _send_at_once),
                (evt.EVT_C_ECHO, lambda event: SUCCESS),
                (evt.EVT_C_STORE, self._on_store),
                (evt.EVT_CONN_CLOSE, self._on_close),
            ],
        )
        assert server is not None
        self.port = int(server.server_address[1])

    def stop(self) -> None:
        """Stop listening and end what is under way."""
        self._ae.shutdown()

    def series(self, study_uid: str | None = None) -> dict[str, tuple[Path, ...]]:
        """Return the files that it holds, by Series Instance UID: of one study, or of all."""
        with self._lock:
            return {
                series: tuple(files.values())
                for (study, series), files in self._held.items()
                if study_uid in (None, study)
            }

    def _on_store(self, event: evt.Event) -> int:
        dataset = event.dataset
        uids = [
            str(dataset.get(key, "")) for key in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        ]
        if not all(uid and UID(uid).is_valid for uid in uids):
            return CANNOT_UNDERSTAND
        study, series, instance = uids
        path = self.folder / study / series / f"{instance}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(event.encoded_dataset())
        key = (study, series, str(dataset.get("SeriesDescription", "") or "without description"))
        with self._lock:
            self._held[study, series][instance] = path
            counts = self._brought.setdefault(event.assoc, defaultdict(int))
            counts[key] += 1
        return SUCCESS

    def _on_close(self, event: evt.Event) -> None:
        with self._lock:
            counts = self._brought.pop(event.assoc, {})
        for (_, _, description), count in counts.items():
            self._say(f"{self.ae_title} received {count} instances of {description!r}")


def _send_at_once(event: evt.Event) -> None:
    """Turn Nagle's algorithm off: it holds small messages back for 40 ms."""
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def dicom_files(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield path, SOP class and transfer syntax of every DICOM file under a folder, in the order of names."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            meta = pydicom.dcmread(path, specific_tags=["SOPClassUID"], stop_before_pixels=True)
        except InvalidDicomError:
            continue
        syntax = meta.file_meta.get("TransferSyntaxUID")
        if "SOPClassUID" in meta and syntax:
            yield path, str(meta.SOPClassUID), str(syntax)


def send(folder: Path, port: int, called_aet: str, calling_aet: str = "PACS", host: str = HOST) -> int:
    """Send every DICOM file under a folder by C-STORE in one association, as a PACS does; return how many.

    Raises
    ------
    ConnectionError
        When the association is refused, or an instance is not accepted.
    """
    files = list(dicom_files(folder))
    if not files:
        raise FileNotFoundError(f"There is no DICOM file under {folder}.")
    kinds = sorted({(sop_class, syntax) for _, sop_class, syntax in files})
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in kinds][:MOST_CONTEXTS]
    association = AE(calling_aet).associate(
        host,
        port,
        contexts=contexts,
        ae_title=called_aet,
        evt_handlers=[(evt.EVT_CONN_OPEN, _send_at_once)],
    )
    if not association.is_established:
        raise ConnectionError(f"{called_aet} at {host}:{port} refused the association or does not answer.")
    try:
        for path, _, _ in files:
            status = association.send_c_store(path)
            if "Status" not in status or status.Status != SUCCESS:
                answer = f"{status.Status:04X}" if "Status" in status else "no answer"
                raise ConnectionError(f"{called_aet} did not take {path.name}: {answer}.")
    finally:
        if association.is_established:
            association.release()
    return len(files)


def main() -> int:
    """Run until interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=11113)
    parser.add_argument("--ae-title", default="PACS")
    arguments = parser.parse_args()
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    with StandInPACS(arguments.folder, arguments.ae_title, arguments.port) as pacs:
        print(f"{pacs.ae_title} listens on {HOST}:{pacs.port} and keeps files in {pacs.folder}", flush=True)
        done.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
