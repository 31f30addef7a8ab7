"""The phantom's examination as DICOM files: a study of classic MR images, as a scanner would send it."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import DSfloat

from synthesis.phantom.lesion import Lesion, bend, draw_lesion, grow
from synthesis.phantom.scan import Pixels, Scan, acquire
from synthesis.phantom.tissue import HeadMap

#: Root of all UIDs of phantoms.
NAMESPACE = uuid.UUID("3d6a3b06-5f0e-5a0c-9d0a-6f1b2f4f7c11")
PATIENT_NAME = "PHANTOM^HEAD"
START = datetime(2026, 1, 12, 9, 30)
MINUTES_PER_SERIES = 4

T1W = Scan("T1W SE tra", tr_ms=500, te_ms=12)
FLAIR = Scan(
    "FLAIR tra",
    tr_ms=9000,
    te_ms=110,
    ti_ms=2500,
    scanning_sequence="SE\\IR",
    sequence_variant="SK",
    echo_train=16,
    matrix=288,
    pixel_mm=0.8,
    slices=24,
    gap_mm=0.5,
    centre_mm=(0.0, 7.0, 15.0),
    moved_mm=(1.2, -0.8, 1.0),
    moved_deg=1.2,
)
T2W = Scan(
    "T2W TSE tra",
    tr_ms=4200,
    te_ms=100,
    sequence_variant="SK",
    echo_train=15,
    matrix=320,
    pixel_mm=0.72,
    moved_mm=(0.6, -0.4, 0.5),
    moved_deg=0.6,
)
T1_POST = replace(T1W, description="T1W SE tra +Gd", enhanced=True, moved_mm=(1.0, -1.0, 1.2), moved_deg=1.5)
T1W_SAGITTAL = replace(
    T1W, description="T1W SE sag", plane="sagittal", slices=24, tilt_deg=3.0, centre_mm=(0.0, 0.0, 5.0)
)
T1W_3D = Scan(
    "T1W 3D sag",
    tr_ms=2000,
    te_ms=3,
    ti_ms=900,
    scanning_sequence="GR\\IR",
    sequence_variant="SP\\MP",
    acquisition_type="3D",
    flip_deg=9,
    plane="sagittal",
    slices=160,
    thickness_mm=1.0,
    gap_mm=0.0,
    matrix=256,
    pixel_mm=1.0,
    tilt_deg=3.0,
    centre_mm=(0.0, 0.0, 5.0),
)
_SURVEY = Scan(
    "Survey",
    tr_ms=350,
    te_ms=6,
    slices=3,
    thickness_mm=6,
    gap_mm=14,
    matrix=128,
    pixel_mm=2.0,
    tilt_deg=0,
    turn_deg=0,
    localizer=True,
)
LOCALIZER = tuple(replace(_SURVEY, plane=plane) for plane in ("axial", "sagittal", "coronal"))

Order = Literal["ascending", "descending", "interleaved"]


@dataclass(frozen=True)
class PhantomSeries:
    """One series on disk; `paths` in the order of acquisition."""

    uid: str
    number: int
    description: str
    folder: Path
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class PhantomStudy:
    """A study on disk."""

    uid: str
    patient_id: str
    folder: Path
    #: By role: ``localizer``, ``t2``, ``flair``, ``t1``, ``t1_post``.
    series: Mapping[str, PhantomSeries]
    lesion: Lesion | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return every file of the study in the order of acquisition."""
        return tuple(path for series in self.series.values() for path in series.paths)


def phantom_uid(*parts: object) -> str:
    """Return the UID that belongs to these parts, always the same (PS3.5 B.2)."""
    return str(UID(f"2.25.{uuid.uuid5(NAMESPACE, '/'.join(map(str, parts))).int}"))


def write_study(
    folder: Path,
    *,
    seed: int = 1,
    lesion: bool = True,
    t1: Scan | None = T1W,
    flair: Scan | None = FLAIR,
    t2: Scan | None = T2W,
    localizer: bool = True,
    with_t1_post: bool = False,
    order: Order = "ascending",
) -> PhantomStudy:
    """Write one examination: survey, T2W, FLAIR, T1W and, if wanted, a T1W with contrast agent.

    Parameters
    ----------
    folder
        Where the study goes, a folder a series. A series that is there already is replaced.
    seed
        Another seed is another patient: another head, another tumour, other UIDs. The same arguments make the
        same files, so that sending them twice is sending the same study.
    lesion
        False: a head without a tumour.
    t1, flair, t2
        What is acquired; None leaves the series out.
    localizer, with_t1_post
        Whether these series are acquired.
    order
        How slices are numbered from the lowest to the highest along the normal.

    Returns
    -------
    PhantomStudy
        The UIDs and the files.
    """
    rng = np.random.default_rng(seed)
    head = HeadMap.load()
    person = bend(head, rng)
    tumour = draw_lesion(rng) if lesion else None
    if tumour is not None:
        head = grow(head, tumour, rng)
    patient = f"PHANTOM-{seed:04d}" + ("" if lesion else "-H")
    study_uid = phantom_uid(patient)

    protocol: dict[str, Sequence[Scan]] = {}
    if localizer:
        protocol["localizer"] = LOCALIZER
    for role, scan in (
        ("t2", t2),
        ("flair", flair),
        ("t1", t1),
        ("t1_post", T1_POST if with_t1_post else None),
    ):
        if scan is not None:
            protocol[role] = (scan,)

    series = {
        role: _write_series(
            folder / f"{number:02d}_{role}",
            scans,
            [
                acquire(head, person, scan, np.random.default_rng([seed, number, k]))
                for k, scan in enumerate(scans)
            ],
            patient,
            number,
            order,
        )
        for number, role in enumerate(("localizer", "t2", "flair", "t1", "t1_post"), start=1)
        if (scans := protocol.get(role))
    }
    return PhantomStudy(uid=study_uid, patient_id=patient, folder=folder, series=series, lesion=tumour)


def _acquired(slices: int, order: Order) -> list[int]:
    """Return the indices of the slices in the order in which they are numbered."""
    indices = list(range(slices))
    if order == "descending":
        return indices[::-1]
    return indices[::2] + indices[1::2] if order == "interleaved" else indices


def _write_series(
    folder: Path, scans: Sequence[Scan], volumes: Sequence[Pixels], patient: str, number: int, order: Order
) -> PhantomSeries:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    uid = phantom_uid(patient, *scans, order)
    paths: list[Path] = []
    for scan, volume in zip(scans, volumes, strict=True):
        brightest = int(np.percentile(volume, 99.5))
        for index in _acquired(scan.slices, order):
            instance = len(paths) + 1
            dataset = _patient_and_study(patient)
            _series(dataset, scan, uid, number)
            _geometry(dataset, scan, index)
            _pixels(dataset, volume[index], brightest)
            dataset.InstanceNumber = instance
            dataset.SOPInstanceUID = phantom_uid(uid, instance)
            paths.append(folder / f"IM{instance:04d}.dcm")
            _save(dataset, paths[-1])
    return PhantomSeries(uid, number, scans[0].description, folder, tuple(paths))


def _patient_and_study(patient: str) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = MRImageStorage
    ds.PatientName = PATIENT_NAME
    ds.PatientID = patient
    ds.PatientBirthDate = "19700101"
    ds.PatientSex = "O"
    ds.PatientComments = "Numerical phantom, not a person"
    ds.StudyInstanceUID = phantom_uid(patient)
    ds.StudyID = patient[8:]
    ds.AccessionNumber = f"A{patient[8:]}"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = f"{START:%Y%m%d}"
    ds.StudyTime = f"{START:%H%M%S}"
    ds.StudyDescription = "MR brain"
    ds.ReferringPhysicianName = ""
    return ds


def _series(ds: Dataset, scan: Scan, uid: str, number: int) -> None:
    began = START + timedelta(minutes=MINUTES_PER_SERIES * number)
    ds.Modality = "MR"
    ds.SeriesInstanceUID = uid
    ds.SeriesNumber = number
    ds.AcquisitionNumber = number
    ds.SeriesDescription = ds.ProtocolName = scan.description
    ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = f"{began:%H%M%S}"
    ds.Manufacturer = "Numerical phantom"
    ds.ManufacturerModelName = "ICBM152 head"
    ds.DeviceSerialNumber = "0"
    ds.SoftwareVersions = "1"
    ds.BodyPartExamined = "BRAIN"
    ds.PatientPosition = "HFS"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER" if scan.localizer else "OTHER"]
    ds.ScanningSequence = scan.scanning_sequence.split("\\")
    ds.SequenceVariant = scan.sequence_variant.split("\\")
    ds.ScanOptions = None
    ds.MRAcquisitionType = scan.acquisition_type
    ds.RepetitionTime = DSfloat(scan.tr_ms)
    ds.EchoTime = DSfloat(scan.te_ms)
    if scan.ti_ms is not None:
        ds.InversionTime = DSfloat(scan.ti_ms)
    ds.EchoTrainLength = scan.echo_train
    ds.FlipAngle = DSfloat(scan.flip_deg)
    ds.NumberOfAverages = DSfloat(1)
    ds.MagneticFieldStrength = DSfloat(1.5)
    ds.ImagingFrequency = DSfloat(63.87)
    ds.ImagedNucleus = "1H"
    if scan.enhanced:
        ds.ContrastBolusAgent = "GADOTERATE MEGLUMINE"
        ds.ContrastBolusRoute = "INTRAVENOUS"
        ds.ContrastBolusVolume = DSfloat(15)


def _geometry(ds: Dataset, scan: Scan, index: int) -> None:
    axes = scan.axes()
    ds.FrameOfReferenceUID = phantom_uid(ds.PatientID, "frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.ImagePositionPatient = _decimals(scan.position_mm(index))
    ds.ImageOrientationPatient = _decimals([*axes[:, 0], *axes[:, 1]])
    ds.SliceLocation = _decimals([index * scan.spacing_mm])[0]
    ds.PixelSpacing = _decimals([scan.pixel_mm, scan.pixel_mm])
    ds.SliceThickness = DSfloat(scan.thickness_mm)
    ds.SpacingBetweenSlices = DSfloat(scan.spacing_mm)


def _decimals(values: Sequence[float] | np.typing.NDArray[np.float64]) -> list[DSfloat]:
    return [DSfloat(float(value), auto_format=True) for value in values]


def _pixels(ds: Dataset, pixels: Pixels, brightest: int) -> None:
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.SmallestImagePixelValue, ds.LargestImagePixelValue = int(pixels.min()), int(pixels.max())
    ds.WindowCenter, ds.WindowWidth = DSfloat(brightest // 2), DSfloat(brightest)
    ds.PixelData = pixels.astype("<u2").tobytes()


def _save(ds: Dataset, path: Path) -> None:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
