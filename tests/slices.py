"""Writes MR series from arrays: the smallest valid headers, any geometry, any order, any fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

AXIAL = np.eye(3)
#: Row direction, column direction, normal as columns: rows run to the back, columns to the feet.
SAGITTAL = np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
STUDY = "2.25.1"
FRAME = "2.25.3"

Edit = Callable[[Dataset, int], None]


def rotation(x_deg: float, y_deg: float, z_deg: float) -> npt.NDArray[np.float64]:
    """Return a rotation matrix about the three axes, one after the other."""
    (a, b, c), result = np.radians([x_deg, y_deg, z_deg]), np.eye(3)
    for angle, (i, j) in zip((a, b, c), ((1, 2), (2, 0), (0, 1)), strict=True):
        step = np.eye(3)
        step[i, i] = step[j, j] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        result = step @ result
    return result


def decimals(values: npt.ArrayLike) -> list[str]:
    """Return numbers as a scanner writes them."""
    return [f"{value:.8f}".rstrip("0").rstrip(".")[:16] for value in np.ravel(values)]


def write_series(
    folder: Path,
    values: npt.NDArray[np.generic],
    *,
    axes: npt.NDArray[np.float64] = AXIAL,
    origin_mm: Sequence[float] = (0.0, 0.0, 0.0),
    spacing_mm: Sequence[float] = (1.0, 1.0, 5.0),
    order: Sequence[int] | None = None,
    series: str = "1",
    bits: int = 12,
    edit: Edit | None = None,
    syntax: UID | None = None,
) -> list[Path]:
    """Write a classic series; return its files in the order of their instance numbers.

    Parameters
    ----------
    values
        (slices, rows, columns), slices along +normal.
    spacing_mm
        Between columns, between rows, between slices.
    order
        Index of the slice that each instance number shows.
    edit
        Changes a header before it is written; is told the index of the slice.
    syntax
        Compress with this transfer syntax.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, index in enumerate(order if order is not None else range(len(values)), start=1):
        dataset = _header(values.dtype, bits, series, f"{series}.{number}")
        dataset.InstanceNumber = number
        dataset.Rows, dataset.Columns = values.shape[1:]
        position = np.array(origin_mm) + axes[:, 2] * spacing_mm[2] * index
        dataset.ImagePositionPatient = decimals(position)
        dataset.ImageOrientationPatient = decimals(axes[:, :2].T)
        dataset.PixelSpacing = decimals((spacing_mm[1], spacing_mm[0]))
        dataset.SliceThickness = decimals([spacing_mm[2]])[0]
        dataset.PixelData = np.ascontiguousarray(values[index]).tobytes()
        if edit is not None:
            edit(dataset, index)
        if syntax is not None:
            dataset.compress(syntax, generate_instance_uid=False)
        paths.append(folder / f"{series}-{number:03d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_enhanced(
    path: Path,
    values: npt.NDArray[np.uint16],
    *,
    axes: npt.NDArray[np.float64] = AXIAL,
    origin_mm: Sequence[float] = (0.0, 0.0, 0.0),
    spacing_mm: Sequence[float] = (1.0, 1.0, 5.0),
    order: Sequence[int] | None = None,
    edit: Edit | None = None,
) -> Path:
    """Write one Enhanced MR object; `edit` is given the functional groups of each frame."""
    indices = list(order if order is not None else range(len(values)))
    dataset = _header(values.dtype, 12, "9", "9.1")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    dataset.NumberOfFrames = len(indices)
    dataset.Rows, dataset.Columns = values.shape[1:]
    dataset.EchoPulseSequence = "GRADIENT"
    dataset.MRAcquisitionType = "3D"
    shared = Dataset()
    measures = Dataset()
    measures.PixelSpacing = decimals((spacing_mm[1], spacing_mm[0]))
    measures.SliceThickness = decimals([spacing_mm[2]])[0]
    shared.PixelMeasuresSequence = [measures]
    timing = Dataset()
    timing.RepetitionTime, timing.FlipAngle, timing.EchoTrainLength = "2000", "9", 1
    shared.MRTimingAndRelatedParametersSequence = [timing]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for index in indices:
        groups, plane, orientation, content = Dataset(), Dataset(), Dataset(), Dataset()
        plane.ImagePositionPatient = decimals(np.array(origin_mm) + axes[:, 2] * spacing_mm[2] * index)
        orientation.ImageOrientationPatient = decimals(axes[:, :2].T)
        content.StackID, content.InStackPositionNumber = "1", index + 1
        groups.PlanePositionSequence = [plane]
        groups.PlaneOrientationSequence = [orientation]
        groups.FrameContentSequence = [content]
        echo = Dataset()
        echo.EffectiveEchoTime = 2.5
        groups.MREchoSequence = [echo]
        if edit is not None:
            edit(groups, index)
        frames.append(groups)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.PixelData = np.ascontiguousarray(values[indices]).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _header(dtype: np.dtype[np.generic], bits: int, series: str, instance: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = f"2.25.4.{instance}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, f"2.25.2.{series}"
    dataset.FrameOfReferenceUID = FRAME
    dataset.Modality, dataset.Manufacturer = "MR", "Maker of Scanners"
    dataset.PatientName, dataset.PatientID = "Nobody^Known", "N-1"
    dataset.StudyDate, dataset.StudyTime = "20260101", "120000"
    dataset.SeriesNumber = 3
    dataset.ScanningSequence, dataset.SequenceVariant = "SE", "NONE"
    dataset.RepetitionTime, dataset.EchoTime = "450", "10"
    dataset.PatientPosition = "HFS"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = int(dtype.kind == "i")
    return dataset
