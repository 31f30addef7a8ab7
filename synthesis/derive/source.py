"""What every derived object takes from its sources: patient, study, scanner, geometry, and who made it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.uid import UID

from synthesis.derive.provenance import (
    MANUFACTURER,
    MODEL_NAME,
    SYNTHETIC,
    Maker,
    contributing_equipment,
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
from synthesis.errors import RefusedInput
from synthesis.series import LossyCompression, Series

LARGEST_SERIES_NUMBER = 2**31 - 1
BODY_PARTS = ("BRAIN", "HEAD")
#: What highdicom asks every source for.
UNNAMED = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)


@dataclass(frozen=True)
class Study:
    """Patient, study and scanner of a header, free of what breaks the standard."""

    #: As it came, for its character set.
    header: Dataset
    patient_and_study: Dataset
    scanner: Dataset
    #: What had to be done to values, as sentences.
    remarks: tuple[str, ...]

    @classmethod
    def of(cls, header: Dataset) -> Study:
        """Return what this header says of patient, study and scanner."""
        patient_and_study, said = sanitise(header, PATIENT_AND_STUDY)
        sequences, more = sanitised_sequences(header)
        patient_and_study.update(sequences)
        without_partial_modules(patient_and_study)
        scanner, third = sanitise(header, SCANNER)
        scanner.SOPClassUID = header.SOPClassUID
        return cls(header, patient_and_study, scanner, (*said, *more, *third))

    def evidence(self, header: Dataset) -> Dataset:
        """Return a stand-in for an instance of this study, for highdicom to refer to.

        It names no patient: `dress` does, and highdicom would warn of names that break the standard.
        """
        found = Dataset()
        found.StudyInstanceUID = self.patient_and_study.StudyInstanceUID
        for keyword in UNNAMED:
            setattr(found, keyword, None)
        for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"):
            setattr(found, keyword, header[keyword].value)
        for keyword in ("Rows", "Columns"):  # by which highdicom knows an image
            if keyword in header:
                setattr(found, keyword, header[keyword].value)
        return found

    def dress(self, derived: Dataset, maker: Maker, made: datetime.datetime, description: str) -> None:
        """Write into a derived object what all of them have in common, whatever highdicom wrote there.

        Comes after every text of its own: the character set must hold them all.
        """
        derived.update(self.patient_and_study)
        derived.SyntheticData = "YES"
        derived.ContentQualification = "RESEARCH"
        derived.SeriesDescription = description
        derived.Manufacturer, derived.ManufacturerModelName = MANUFACTURER, MODEL_NAME
        derived.DeviceSerialNumber = maker.digest[:16]
        derived.add_new("SoftwareVersions", "LO", list(maker.software_versions))
        derived.DeviceUID = maker.device_uid
        if self.scanner.get("InstitutionName"):
            derived.InstitutionName = self.scanner.InstitutionName
        derived.ContributingEquipmentSequence = contributing_equipment(self.scanner, maker, made)
        day, moment = made.strftime("%Y%m%d"), made.strftime("%H%M%S.%f")
        for part in ("InstanceCreation", "Content", "Series"):
            setattr(derived, f"{part}Date", day)
            setattr(derived, f"{part}Time", moment)
        derived.SpecificCharacterSet = character_set(self.header, derived)


@dataclass(frozen=True)
class Source:
    """A T1W and a FLAIR, and all that objects derived from them share."""

    t1: Series
    flair: Series
    study: Study
    #: The brain's level on the T1W, in its values.
    level: float
    maker: Maker
    made: datetime.datetime
    #: The FLAIR was resampled.
    resampled: bool
    #: What a reader must know of this result, as sentences; goes into every image.
    notes: tuple[str, ...]
    frame_of_reference_uid: str
    body_part: str
    #: Sanitised acquisition attributes of each T1W slice.
    slices: tuple[Dataset, ...]
    #: Items of the Source Image Sequence of each slice: the T1W's, and the FLAIR's that lie there.
    images: tuple[tuple[Dataset, ...], ...]
    remarks: tuple[str, ...]

    @classmethod
    def of(
        cls,
        t1: Series,
        flair: Series,
        transform: sitk.Transform,
        level: float,
        maker: Maker,
        *,
        made: datetime.datetime,
        resampled: bool = True,
        notes: Iterable[str] = (),
    ) -> Source:
        """Return what objects derived from these series have in common.

        Parameters
        ----------
        t1, flair : Series
            What the volumes were made from.
        transform : sitk.Transform
            Points of the T1W to points of the FLAIR (LPS, mm).
        level : float
            The brain's level on the T1W.
        maker : Maker
            Model and code.
        made : datetime
            Series, content and creation time.
        resampled : bool
            The FLAIR was resampled.
        notes
            What a reader must know of this result, as sentences.
        """
        study = Study.of(t1.headers[0])
        said = list(study.remarks)
        frame_of_reference = t1.frame_of_reference_uid
        if not frame_of_reference:
            frame_of_reference = str(stable_uid("frame of reference", t1.series_instance_uid))
            said.append(
                "Frame of Reference UID is missing in the source: one was made for the T1W's coordinates."
            )
        slices = [sanitise(header, ACQUISITION) for header in t1.headers]
        body_part = str(t1.headers[0].get("BodyPartExamined"))
        return cls(
            t1=t1,
            flair=flair,
            study=study,
            level=level,
            maker=replace(
                maker,
                parameters=f"{maker.parameters} t1w={t1.series_instance_uid} "
                f"flair={flair.series_instance_uid}".lstrip(),
            ),
            made=made,
            resampled=resampled,
            notes=tuple(text for text in (maker.caveat, *notes) if text),
            frame_of_reference_uid=frame_of_reference,
            body_part=body_part if body_part in BODY_PARTS else BODY_PARTS[0],
            slices=tuple(clean for clean, _ in slices),
            images=tuple(_source_images(t1, flair, transform)),
            remarks=tuple(dict.fromkeys([*said, *(one for _, more in slices for one in more)])),
        )

    @property
    def lossy(self) -> LossyCompression | None:
        """Return what the pixels lost by compression before they came here."""
        return self.t1.lossy or self.flair.lossy

    def series_uid(self, kind: str, parameters: Iterable[str] = ()) -> UID:
        """Return the Series Instance UID of this kind of object; `parameters` change what is written."""
        inputs = [str(one.SOPInstanceUID) for one in (*self.t1.headers, *self.flair.headers)]
        return series_uid(kind, dict.fromkeys(inputs), self.maker, parameters)

    def series_number(self, step: int) -> int:
        """Return the T1W's Series Number plus `step`, or `step` where the T1W has none that can be used."""
        try:
            number = int(self.t1.headers[0].get("SeriesNumber"))
        except (TypeError, ValueError):
            number = 0
        return number + step if 0 <= number <= LARGEST_SERIES_NUMBER - step else step

    def comments(self, first: str) -> str:
        """Return the Image Comments: what it is, and what a reader must know of it."""
        return " ".join((first, *self.notes))

    def dress(self, derived: Dataset, description: str) -> None:
        """Write into a derived object what all of them have in common."""
        self.study.dress(derived, self.maker, self.made, description)
        if derived.get("ImageType"):
            derived.BodyPartExamined = self.body_part
            derived.LossyImageCompression = "00" if self.lossy is None else "01"
            if self.lossy is not None:
                steps = (*self.lossy.before, self.lossy)
                derived.LossyImageCompressionRatio = [f"{step.ratio:.4g}" for step in steps]
                derived.LossyImageCompressionMethod = [step.method for step in steps]

    @property
    def all_images(self) -> list[Dataset]:
        """Return the items of the Source Image Sequence of all slices, each once."""
        items = [item for images in self.images for item in images]
        keys = [(str(item.ReferencedSOPInstanceUID), item.get("ReferencedFrameNumber")) for item in items]
        return list(dict(zip(keys, items, strict=True)).values())

    def refer(self, derived: Dataset, images: Sequence[Dataset]) -> None:
        """Name the source images, and under which series a reader finds them (PS3.3 C.12.2)."""
        derived.SourceImageSequence = list(images)
        derived.ReferencedSeriesSequence = self._series_of(images, "ReferencedInstanceSequence")

    def evidence_of(self, images: Sequence[Dataset]) -> Dataset:
        """Return these images as an item of an evidence sequence (PS3.3 C.17.2.1)."""
        study = Dataset()
        study.StudyInstanceUID = self.study.patient_and_study.StudyInstanceUID
        study.ReferencedSeriesSequence = self._series_of(images, "ReferencedSOPSequence")
        return study

    def _series_of(self, images: Sequence[Dataset], instances: str) -> list[Dataset]:
        """Return these images by series; `instances` is the keyword under which a series lists them."""
        wanted = {str(item.ReferencedSOPInstanceUID) for item in images}
        found = []
        for series in (self.t1, self.flair):
            classes = {str(one.SOPInstanceUID): one.SOPClassUID for one in series.headers}
            items = []
            for uid in (one for one in classes if one in wanted):
                items.append(Dataset())
                items[-1].ReferencedSOPClassUID, items[-1].ReferencedSOPInstanceUID = classes[uid], uid
            if items:
                found.append(Dataset())
                found[-1].SeriesInstanceUID = series.series_instance_uid
                setattr(found[-1], instances, items)
        return found


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


def _source_images(t1: Series, flair: Series, transform: sitk.Transform) -> Iterable[tuple[Dataset, ...]]:
    used = flair_slices(t1.image, flair.image, transform)
    for header, frame, overlapping in zip(t1.headers, t1.frames, used, strict=True):
        yield (
            source_image(header, frame, locations_preserved=True),
            *(
                source_image(flair.headers[z], flair.frames[z], locations_preserved=False)
                for z in overlapping
            ),
        )
