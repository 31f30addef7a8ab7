"""A file to send, and what a peer said to it: by C-STORE or by STOW-RS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

SUCCESS = 0x0000
#: The peer stored it with changes.
COERCED = 0xB000
#: Refused for now, as is out of resources (A7xx).
PROCESSING_FAILURE = 0x0110
#: The peer has it already: our identifiers say that it is the same (PS3.7 C.5). Its answer was lost before.
DUPLICATE = 0x0111
#: Statuses that mean stored: Success, the warnings of C-STORE (PS3.4 B.2.3), and what is known there.
STORED = frozenset({SUCCESS, COERCED, 0xB006, 0xB007, DUPLICATE})


@dataclass(frozen=True)
class Parcel:
    """One file to send."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True)
class Answer:
    """What the peer said to one instance."""

    parcel: Parcel
    status: int

    @property
    def stored(self) -> bool:
        """Whether the peer has it now."""
        return self.status in STORED

    @property
    def transient(self) -> bool:
        """Whether the peer may take it later."""
        return self.status == PROCESSING_FAILURE or 0xA700 <= self.status <= 0xA7FF


def parcel(path: Path) -> Parcel:
    """Return what the meta information of a Part 10 file says; raises InvalidDicomError or OSError."""
    meta = read_file_meta_info(path)
    values = [
        meta.get(keyword)
        for keyword in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
    ]
    if not all(values):
        raise InvalidDicomError("the file meta information is incomplete")
    return Parcel(path, *(str(value) for value in values))
