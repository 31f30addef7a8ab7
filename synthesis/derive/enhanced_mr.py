"""The synthetic T1C as one Enhanced MR object (PS3.3 A.36): all slices in one instance.

Acquisition macros (timing, echo, field of view …) are for ORIGINAL frames; a DERIVED one need not repeat what
the scanner did, and this one does not.
"""

from __future__ import annotations

from highdicom import SOPClass
from highdicom.content import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence
from highdicom.enum import CoordinateSystemNames
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian

from synthesis.derive.mr import Volume, derivation_of, no_unknown_keywords, put_pixels
from synthesis.derive.provenance import MANUFACTURER, SYNTHETIC, derivation_codes, stable_uid
from synthesis.derive.source import Source

STACK = "1"
#: Image Type and Frame Type (C.8.16.1): value 2 must be PRIMARY here; value 4 is a defined term of our own.
IMAGE_TYPE = ("DERIVED", "PRIMARY", "OTHER", SYNTHETIC)


class SyntheticEnhancedMR(SOPClass):
    """All slices: Enhanced MR Image Storage."""

    def __init__(self, source: Source, volume: Volume) -> None:
        """
        Parameters
        ----------
        source : Source
            What all objects share.
        volume : Volume
            What the object shows.
        """
        series_uid = source.series_uid(f"{volume.look.kind} enhanced", volume.parameters)
        super().__init__(
            study_instance_uid=source.study.patient_and_study.StudyInstanceUID,
            series_instance_uid=series_uid,
            series_number=source.series_number(volume.look.number_step),
            sop_instance_uid=stable_uid(series_uid),
            sop_class_uid=EnhancedMRImageStorage,
            instance_number=1,
            modality="MR",
            manufacturer=MANUFACTURER,
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        self.ImageType = list(IMAGE_TYPE)
        self.FrameOfReferenceUID = source.frame_of_reference_uid
        self.PositionReferenceIndicator = source.slices[0].PositionReferenceIndicator
        self.PatientPosition = source.slices[0]["PatientPosition"].value
        self.ImageComments = source.comments(volume.look.comment)
        self.BurnedInAnnotation = "NO"
        self.PresentationLUTShape = "IDENTITY"
        self.add_new("AcquisitionContextSequence", "SQ", [])
        self._put_pixel_characteristics(self)
        put_pixels(self, volume, volume.pixels)
        self.NumberOfFrames = len(volume.pixels)
        self._put_dimensions()
        source.refer(self, source.all_images)
        # The frames name their own sources; all of them together are evidence here (C.8.13.2).
        del self.SourceImageSequence
        self.SourceImageEvidenceSequence = [source.evidence_of(source.all_images)]
        # No field was switched on for it; dciodvfy of 2022 wants it of derived images, too.
        self.ApplicableSafetyStandardAgency = "NOT APPLICABLE"
        self.SharedFunctionalGroupsSequence = [self._shared(source, volume)]
        self.PerFrameFunctionalGroupsSequence = [
            self._frame(source, volume, index) for index in range(len(volume.pixels))
        ]
        source.dress(self, volume.look.description)

    @staticmethod
    def _put_pixel_characteristics(item: Dataset) -> None:
        """Write the Common CT/MR Image Description (C.8.16.2) and the MR Image Description (C.8.13.3.1.1)."""
        item.PixelPresentation = "MONOCHROME"
        item.VolumetricProperties = "VOLUME"
        item.VolumeBasedCalculationTechnique = "NONE"
        item.ComplexImageComponent = "MAGNITUDE"
        item.AcquisitionContrast = "T1"

    def _put_dimensions(self) -> None:
        organization = Dataset()
        organization.DimensionOrganizationUID = stable_uid(self.SOPInstanceUID, "dimensions")
        self.DimensionOrganizationSequence = [organization]
        self.DimensionOrganizationType = "3D"
        self.DimensionIndexSequence = []
        for keyword in ("StackID", "InStackPositionNumber"):
            index = Dataset()
            index.DimensionOrganizationUID = organization.DimensionOrganizationUID
            index.DimensionIndexPointer = Tag(keyword)
            index.FunctionalGroupPointer = Tag("FrameContentSequence")
            index.DimensionDescriptionLabel = keyword
            self.DimensionIndexSequence.append(index)

    def _shared(self, source: Source, volume: Volume) -> Dataset:
        t1 = source.slices[0]
        shared = Dataset()
        shared.PixelMeasuresSequence = PixelMeasuresSequence(
            pixel_spacing=list(map(float, t1.PixelSpacing)),
            slice_thickness=float(t1.get("SliceThickness") or source.t1.spacing_mm),
            spacing_between_slices=source.t1.spacing_mm,
        )
        shared.PixelMeasuresSequence[0].PixelSpacing = t1.PixelSpacing  # as the scanner wrote it
        shared.PlaneOrientationSequence = PlaneOrientationSequence(
            CoordinateSystemNames.PATIENT, list(map(float, t1.ImageOrientationPatient))
        )
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = t1.ImageOrientationPatient
        anatomy, kind, values, window = Dataset(), Dataset(), Dataset(), Dataset()
        anatomy.FrameLaterality = "U"
        anatomy.AnatomicRegionSequence = [CodedConcept.from_code(codes.SCT.Brain)]
        shared.FrameAnatomySequence = [anatomy]
        kind.FrameType = list(IMAGE_TYPE)
        self._put_pixel_characteristics(kind)
        shared.MRImageFrameTypeSequence = [kind]
        values.RescaleIntercept, values.RescaleSlope, values.RescaleType = "0", "1", "US"
        shared.PixelValueTransformationSequence = [values]
        window.WindowCenter, window.WindowWidth = (f"{value:.6g}" for value in volume.window)
        shared.FrameVOILUTSequence = [window]
        return shared

    def _frame(self, source: Source, volume: Volume, index: int) -> Dataset:
        t1 = source.slices[index]
        frame, content, derivation = Dataset(), Dataset(), Dataset()
        content.FrameAcquisitionNumber = 1
        content.StackID = STACK
        content.InStackPositionNumber = index + 1
        content.DimensionIndexValues = [1, index + 1]
        frame.FrameContentSequence = [content]
        frame.PlanePositionSequence = PlanePositionSequence(
            CoordinateSystemNames.PATIENT, list(map(float, t1.ImagePositionPatient))
        )
        frame.PlanePositionSequence[0].ImagePositionPatient = t1.ImagePositionPatient
        derivation.DerivationDescription = derivation_of(source, volume.look)
        derivation.DerivationCodeSequence = derivation_codes(resampled=source.resampled)
        derivation.SourceImageSequence = list(source.images[index])
        frame.DerivationImageSequence = [derivation]
        return frame


def derive_enhanced(source: Source, volume: Volume) -> SyntheticEnhancedMR:
    """Return the volume as one Enhanced MR object."""
    with no_unknown_keywords():
        return SyntheticEnhancedMR(source, volume)
