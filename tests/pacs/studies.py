"""Studies for tests: copies under other UIDs, changed as a test needs it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

_NAMESPACE = uuid.UUID("6d0d5c5e-3f0c-5b7e-8a58-1b7f3f0b9a55")
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


def other_uid(tag: str, uid: str) -> str:
    """Return the UID that stands for this one in the copy of that name, always the same."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, f'{tag}/{uid}').int}"


def copy_study(
    files: Sequence[Path], folder: Path, tag: str, change: Callable[[Dataset], object] = lambda dataset: None
) -> str:
    """Write the files under UIDs that no other test knows; return the Study Instance UID."""
    folder.mkdir(parents=True, exist_ok=True)
    study = ""
    for number, path in enumerate(files):
        dataset = pydicom.dcmread(path)
        for keyword in UIDS:
            if keyword in dataset:
                setattr(dataset, keyword, other_uid(tag, dataset[keyword].value))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        change(dataset)
        dataset.save_as(folder / f"{number:04d}.dcm")
        study = str(dataset.StudyInstanceUID)
    return study


def headers(paths: Sequence[Path]) -> list[Dataset]:
    """Return the headers of files."""
    return [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
