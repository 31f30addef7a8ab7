"""The synthetic T1C as a classic MR series on the grid of the T1W (PS3.3 A.4, C.8.3.1).

One instance per T1W slice: same Frame of Reference, positions, orientation and spacing to the letter. What is
written, and why, attribute by attribute: deploy/CONFORMANCE.md.
"""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from highdicom import SOPClass
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from synthesis.derive.provenance import (
    MANUFACTURER,
    MODEL_NAME,
    SYNTHETIC,
    Maker,
    contributing_equipment,
    derivation_codes,
    series_uid,
    source_image,
    stable_uid,
)
from synthesis.derive.sanitise import (
    ACQUISITION,
    PATIENT_AND_STUDY,
    SCANNER,
    character_set,
    sanitise,
    sanitised_sequences,
    without_partial_modules,
)
from synthesis.derive.scaling import Pixels, Scaling, scaling_of
from synthesis.errors import RefusedInput
from synthesis.series import LossyCompression, Series

SERIES_DESCRIPTION = "SYNTH T1C (AI, no Gd)"
#: Added to the T1W's Series Number.
SERIES_NUMBER_STEP = 9000
LARGEST_SERIES_NUMBER = 2**31 - 1
IMAGE_COMMENTS = "Synthetic image for research only. Made by a neural network; no contrast agent was given."
#: Window over the brain's level: fluid dark, brain below the middle, fat and enhancement bright.
WINDOW_CENTER, WINDOW_WIDTH = 1.1, 2.0
#: Scan Options (0018,0022) for gated acquisitions.
GATING = ("PER", "RG", "CG", "PPG")
BODY_PARTS = ("BRAIN", "HEAD")


@dataclass(frozen=True)
class Derived:
    """The objects of one series, and what a reader should know of how they came about."""

    instances: tuple[SyntheticMR, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _Shared:
    """What all instances of the series have in common."""

    patient_and_study: Dataset
    scanner: Dataset
    charset: str
    frame_of_reference_uid: str
    series_uid: UID
    series_number: int
    body_part: str
    maker: Maker
    made: datetime.datetime
    resampled: bool
    lossy: LossyCompression | None
    scaling: Scaling
    window: tuple[float, float]
    comments: str


class SyntheticMR(SOPClass):
    """One slice of the synthetic T1C: MR Image Storage."""

    def __init__(
        self, shared: _Shared, source: Dataset, sources: list[Dataset], number: int, uid: UID, pixels: Pixels
    ) -> None:
        """
        Parameters
        ----------
        shared
            What the series has in common.
        source : Dataset
            Sanitised acquisition attributes of the T1W slice.
        sources
            Items of the Source Image Sequence.
        number : int
            Instance Number, from 1 along the normal.
        uid : UID
            SOP Instance UID.
        pixels : ndarray
            (rows, columns), uint16.
        """
        super().__init__(
            study_instance_uid=shared.patient_and_study.StudyInstanceUID,
            series_instance_uid=shared.series_uid,
            series_number=shared.series_number,
            sop_instance_uid=uid,
            sop_class_uid=MRImageStorage,
            instance_number=number,
            modality="MR",
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            device_serial_number=shared.maker.digest[:16],
            institution_name=shared.scanner.get("InstitutionName"),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_description=SERIES_DESCRIPTION,
            content_qualification="RESEARCH",
            content_date=shared.made.date(),
            content_time=shared.made.time(),
            series_date=shared.made.date(),
            series_time=shared.made.time(),
        )
        self.InstanceCreationDate, self.InstanceCreationTime = self.ContentDate, self.ContentTime
        self.SpecificCharacterSet = shared.charset
        self.add_new("SoftwareVersions", "LO", list(shared.maker.software_versions))
        self.DeviceUID = shared.maker.device_uid
        for part in (shared.patient_and_study, source):
            self.update(part)
        self._put_series(shared)
        self._put_provenance(shared, sources)
        self._put_sequence_type()
        self._put_pixels(shared, pixels)

    def _put_series(self, shared: _Shared) -> None:
        self.FrameOfReferenceUID = shared.frame_of_reference_uid
        self.BodyPartExamined = shared.body_part
        self.ImageComments = shared.comments

    def _put_provenance(self, shared: _Shared, sources: list[Dataset]) -> None:
        self.SyntheticData = "YES"
        self.ImageType = ["DERIVED", "SECONDARY", "OTHER", SYNTHETIC]
        self.BurnedInAnnotation = "NO"
        self.DerivationDescription = (
            f"Synthetic post-contrast T1 by neural network {shared.maker.model} {shared.maker.version}; "
            "no contrast agent given"
        )
        self.DerivationCodeSequence = derivation_codes(resampled=shared.resampled)
        self.SourceImageSequence = sources
        self.ContributingEquipmentSequence = contributing_equipment(shared.scanner, shared.maker, shared.made)
        self.LossyImageCompression = "00" if shared.lossy is None else "01"
        if shared.lossy is not None:
            self.LossyImageCompressionRatio = f"{shared.lossy.ratio:.4g}"
            self.LossyImageCompressionMethod = shared.lossy.method

    def _put_sequence_type(self) -> None:
        """Fill the type 1 attributes of the pulse sequence; an inversion time belongs to IR alone.

        Gating goes: it asks for trigger times, which are the scanner's to tell.
        """
        if not self.get("ScanningSequence"):
            self.ScanningSequence = "RM"
        if not self.get("SequenceVariant"):
            self.SequenceVariant = "NONE"
        options = self["ScanOptions"].value or []
        options = [options] if isinstance(options, str) else list(options)
        self.ScanOptions = [option for option in options if option not in GATING] or None
        inverted = "IR" in str(self.ScanningSequence)
        if inverted and "InversionTime" not in self:
            self.InversionTime = None
        if not inverted and "InversionTime" in self:
            del self.InversionTime

    def _put_pixels(self, shared: _Shared, pixels: Pixels) -> None:
        bits = shared.scaling.bits_stored
        self.SamplesPerPixel = 1
        self.PhotometricInterpretation = "MONOCHROME2"
        self.Rows, self.Columns = pixels.shape
        self.BitsAllocated, self.BitsStored, self.HighBit = 16, bits, bits - 1
        self.PixelRepresentation = 0
        self.SmallestImagePixelValue = int(pixels.min())
        self.LargestImagePixelValue = int(pixels.max())
        center, width = shared.window
        self.WindowCenter, self.WindowWidth = f"{center:.6g}", f"{width:.6g}"
        self.PixelData = pixels.astype("<u2").tobytes()


def refuse_synthetic(series: Series) -> None:
    """Refuse a series that a network made.

    Raises
    ------
    RefusedInput
        ``SYNTHETIC_INPUT`` when Synthetic Data is YES or the Image Type says so.
    """
    for header in series.headers:
        image_type = [str(value) for value in header.get("ImageType") or []]
        if header.get("SyntheticData") == "YES" or SYNTHETIC in image_type[3:]:
            raise RefusedInput(
                "SYNTHETIC_INPUT", "The series was made by a neural network; only acquired images are used."
            )


def derive_t1c(
    t1: Series,
    flair: Series,
    transform: sitk.Transform,
    t1c: sitk.Image,
    level: float,
    maker: Maker,
    *,
    made: datetime.datetime,
    resampled: bool = True,
    parameters: Iterable[str] = (),
    notes: Iterable[str] = (),
) -> Derived:
    """Return the synthetic T1C as DICOM objects, one per T1W slice.

    Parameters
    ----------
    t1, flair : Series
        What the volume was made from.
    transform : sitk.Transform
        Points of the T1W to points of the FLAIR (LPS, mm).
    t1c : sitk.Image
        On the T1W's grid, in the T1W's values.
    level : float
        The brain's level on the T1W, for window and scaling.
    maker : Maker
        Model and code.
    made : datetime
        Series, content and creation time.
    resampled : bool
        The FLAIR was resampled.
    parameters
        Settings that change the pixels: identifiers follow from them.
    notes
        What a reader must know of this result, as sentences; goes into every image.
    """
    values = sitk.GetArrayFromImage(t1c)
    if values.shape != sitk.GetArrayViewFromImage(t1.image).shape:
        raise ValueError("The synthetic volume does not lie on the T1W's grid.")
    scaling, remarks = scaling_of(values, level, t1.bits_stored)
    shared, said = _shared(t1, flair, maker, made, resampled, scaling, level, parameters, notes)
    remarks += said
    used = flair_slices(t1.image, flair.image, transform)
    instances = []
    for index, (header, frame) in enumerate(zip(t1.headers, t1.frames, strict=True)):
        source, said = sanitise(header, ACQUISITION)
        remarks += said
        sources = [source_image(header, frame, locations_preserved=True)]
        sources += [
            source_image(flair.headers[z], flair.frames[z], locations_preserved=False) for z in used[index]
        ]
        uid = stable_uid(shared.series_uid, str(header.SOPInstanceUID), str(frame))
        with warnings.catch_warnings():
            # A keyword that pydicom does not know would only warn and silently not be written.
            warnings.filterwarnings("error", message="Camel case attribute")
            instances.append(
                SyntheticMR(shared, source, sources, index + 1, uid, scaling.stored(values[index]))
            )
    return Derived(tuple(instances), tuple(dict.fromkeys(remarks)))


def flair_slices(t1: sitk.Image, flair: sitk.Image, transform: sitk.Transform) -> list[range]:
    """Return for each T1W slice the indices of the FLAIR slices that went into it by interpolation."""
    columns, rows, depth = t1.GetSize()
    axes = np.array(flair.GetDirection()).reshape(3, 3)
    origin, spacing = np.array(flair.GetOrigin()), flair.GetSpacing()[2]
    found = []
    for z in range(depth):
        corners = [(x, y, z) for x in (0, columns - 1) for y in (0, rows - 1)]
        points = [transform.TransformPoint(t1.TransformIndexToPhysicalPoint(corner)) for corner in corners]
        places = (np.array(points) - origin) @ axes[:, 2] / spacing
        first, last = int(np.floor(places.min() + 1e-3)), int(np.ceil(places.max() - 1e-3))
        found.append(range(max(0, first), min(flair.GetDepth(), last + 1)))
    return found


def _shared(
    t1: Series,
    flair: Series,
    maker: Maker,
    made: datetime.datetime,
    resampled: bool,
    scaling: Scaling,
    level: float,
    parameters: Iterable[str],
    notes: Iterable[str],
) -> tuple[_Shared, tuple[str, ...]]:
    header = t1.headers[0]
    patient_and_study, said = sanitise(header, PATIENT_AND_STUDY)
    sequences, more = sanitised_sequences(header)
    patient_and_study.update(sequences)
    without_partial_modules(patient_and_study)
    scanner, third = sanitise(header, SCANNER)
    scanner.SOPClassUID = header.SOPClassUID
    inputs = [str(one.SOPInstanceUID) for one in (*t1.headers, *flair.headers)]
    frame_of_reference = t1.frame_of_reference_uid
    fourth: tuple[str, ...] = ()
    if not frame_of_reference:
        frame_of_reference = str(stable_uid("frame of reference", t1.series_instance_uid))
        fourth = ("Frame of Reference UID is missing in the source: one was made for the T1W's coordinates.",)
    texts = Dataset()
    for part in (patient_and_study, scanner):
        texts.update(part)
    shared = _Shared(
        patient_and_study=patient_and_study,
        scanner=scanner,
        charset=character_set(header, texts),
        frame_of_reference_uid=frame_of_reference,
        series_uid=series_uid("t1c", dict.fromkeys(inputs), maker, parameters),
        series_number=_series_number(header),
        body_part=str(header.get("BodyPartExamined")) if _is_head(header) else BODY_PARTS[0],
        maker=maker,
        made=made,
        resampled=resampled,
        lossy=t1.lossy or flair.lossy,
        scaling=scaling,
        window=(
            (WINDOW_CENTER * level - scaling.offset) * scaling.factor,
            max(1.0, WINDOW_WIDTH * level * scaling.factor),
        ),
        comments=" ".join(text for text in (IMAGE_COMMENTS, maker.caveat, *notes) if text),
    )
    return shared, (*said, *more, *third, *fourth)


def _series_number(header: Dataset) -> int:
    try:
        number = int(header.get("SeriesNumber"))
    except (TypeError, ValueError):
        number = 0
    return number + SERIES_NUMBER_STEP if 0 <= number <= LARGEST_SERIES_NUMBER - SERIES_NUMBER_STEP else 9000


def _is_head(header: Dataset) -> bool:
    return str(header.get("BodyPartExamined")) in BODY_PARTS
