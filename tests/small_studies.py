"""Small studies as files: 12 slices of 16×16 pixels, enough for everything but the synthesis itself."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

#: What must be in no log, no error, no page and no file name.
PATIENT_NAME = "Musterfrau^Erika"
PATIENT_ID = "PID-4711-0815"

_numbers = itertools.count(1)

TIMES: dict[str, dict[str, Any]] = {
    "T1": {"RepetitionTime": 500, "EchoTime": 10, "ScanningSequence": "SE"},
    "FLAIR": {
        "RepetitionTime": 9000,
        "EchoTime": 100,
        "InversionTime": 2500,
        "ScanningSequence": ["SE", "IR"],
    },
    "T2": {"RepetitionTime": 4500, "EchoTime": 100, "ScanningSequence": "SE"},
}


def new_uid() -> str:
    """Return a UID that no other study of this run has."""
    return f"2.25.{20260112093000000000 + next(_numbers)}"


def image(study_uid: str, series_uid: str, kind: str, number: int, **attributes: Any) -> Dataset:
    """Return one MR image of a stack; `kind` is a key of `TIMES`, `number` counts from 1."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = f"{series_uid}.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uid, series_uid
    ds.PatientName, ds.PatientID = PATIENT_NAME, PATIENT_ID
    ds.PatientBirthDate, ds.PatientSex = "19700101", "F"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = "20260112"
    ds.StudyTime, ds.SeriesTime = "093000", "093500"
    ds.AcquisitionTime = {"T1": "093500", "FLAIR": "094000", "T2": "094500"}[kind]
    ds.StudyDescription, ds.SeriesDescription = "MR Kopf", f"{kind} tra"
    ds.Modality, ds.BodyPartExamined = "MR", "BRAIN"
    ds.Manufacturer = "Test"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.SeriesNumber = {"T1": 2, "FLAIR": 3, "T2": 4}[kind]
    ds.InstanceNumber = number
    ds.MRAcquisitionType = "2D"
    for keyword, value in TIMES[kind].items():
        setattr(ds, keyword, value)
    ds.FrameOfReferenceUID = f"{study_uid}.0"
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [-120, -120, -60 + 10 * number]
    ds.PixelSpacing, ds.SliceThickness = [15, 15], 9
    ds.Rows = ds.Columns = 16
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = (np.arange(256, dtype="<u2") + number).tobytes()
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


def stack(study_uid: str, kind: str, slices: int = 12, **attributes: Any) -> list[Dataset]:
    """Return one series; `attributes` are set on every image, None removes one."""
    series_uid = attributes.pop("SeriesInstanceUID", None) or new_uid()
    return [image(study_uid, series_uid, kind, number, **attributes) for number in range(1, slices + 1)]


def pair(study_uid: str | None = None) -> list[Dataset]:
    """Return a T1W and a FLAIR of one study."""
    study_uid = study_uid or new_uid()
    return [*stack(study_uid, "T1"), *stack(study_uid, "FLAIR")]


def write(images: Sequence[Dataset], folder: Path) -> list[Path]:
    """Write images as Part 10 files and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, ds in enumerate(images):
        paths.append(folder / f"{number:04d}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths
