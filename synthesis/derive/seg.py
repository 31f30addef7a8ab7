"""The predicted tumour as a Segmentation over the T1W (PS3.3 A.51), on the T1W's own grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import highdicom
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from highdicom.content import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence
from highdicom.enum import CoordinateSystemNames
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from synthesis.confidence import TUMOUR
from synthesis.derive.mr import no_unknown_keywords
from synthesis.derive.provenance import MANUFACTURER, MODEL_NAME, Maker, stable_uid
from synthesis.derive.source import Source

SERIES_DESCRIPTION = "SYNTH SEG (AI, predicted tumour)"
NUMBER_STEP = 39000
SEGMENT_LABEL = "Predicted tumour"
#: Steps of a probability: 255 is certainty.
MOST_FRACTIONAL = 255
#: What a stand-in has from its slice.
PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "PositionReferenceIndicator")
#: Recommended Display CIELab Value: a red that reads on grey.
COLOUR = highdicom.color.CIELabColor(57.0, 64.0, 44.0)


def derive_seg(source: Source, tumour: sitk.Image, *, fractional: bool = False) -> Segmentation | None:
    """Return the predicted tumour as a Segmentation, or None where there is none.

    Parameters
    ----------
    source : Source
        What it was predicted from.
    tumour : sitk.Image
        Probability of tumour, 0–1, on the T1W's grid.
    fractional : bool
        Whether the probability itself is stored, instead of where it is above one half.
    """
    probability = sitk.GetArrayFromImage(tumour)
    if probability.shape != sitk.GetArrayViewFromImage(source.t1.image).shape:
        raise ValueError("The probability does not lie on the T1W's grid.")
    marked = probability > TUMOUR
    if not marked.any():
        return None
    slices = _in_the_order_of_frames(source, _without_a_gap(probability if fractional else marked))
    kind = SegmentationTypeValues.FRACTIONAL if fractional else SegmentationTypeValues.BINARY
    series_uid = source.series_uid("seg fractional" if fractional else "seg")
    with no_unknown_keywords():
        made = Segmentation(
            source_images=_source_images(source, slices),
            pixel_array=(probability if fractional else marked.astype(np.uint8))[slices],
            segmentation_type=kind,
            segment_descriptions=[_segment(source.maker, series_uid)],
            series_instance_uid=series_uid,
            series_number=source.series_number(NUMBER_STEP),
            sop_instance_uid=stable_uid(series_uid),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=source.maker.software_versions[0],
            device_serial_number=source.maker.digest[:16],
            max_fractional_value=MOST_FRACTIONAL,
            content_label="PREDICTED_TUMOUR",
            content_description="Tumour predicted by neural network; research only",
            transfer_syntax_uid=ExplicitVRLittleEndian,
            omit_empty_frames=False,  # SimpleITK and dcm2niix know no gaps
        )
        source.dress(made, SERIES_DESCRIPTION)
        source.refer(made, source.all_images)
    dimensions = stable_uid(made.SOPInstanceUID, "dimensions")
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    _name_frames(made, [source.t1.frames[index] for index in slices])
    return made


def _name_frames(made: Dataset, used: Sequence[int | None]) -> None:
    """Refer to the frames of the T1W's object by their own numbers: not all of them may be in use."""
    for frame in made.PerFrameFunctionalGroupsSequence:
        for derivation in frame.get("DerivationImageSequence", ()):
            for image in derivation.SourceImageSequence:
                if "ReferencedFrameNumber" in image:
                    image.ReferencedFrameNumber = used[image.ReferencedFrameNumber - 1]


def _segment(maker: Maker, series_uid: str) -> SegmentDescription:
    return SegmentDescription(
        segment_number=1,
        segment_label=SEGMENT_LABEL,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=maker.algorithm("Probability of FLAIR abnormality by MPR-ViT"),
        tracking_uid=stable_uid(series_uid, "tumour"),
        tracking_id=SEGMENT_LABEL,
        anatomic_regions=[codes.SCT.Brain],
        display_color=COLOUR,
    )


def _source_images(source: Source, slices: Sequence[int]) -> list[Dataset]:
    """Return stand-ins for the T1W's instances, free of faults, for highdicom to refer to."""
    stands = [_with_place(source, index, source.study.evidence(source.t1.headers[index])) for index in slices]
    return [_multi_frame(source, stands)] if source.t1.frames[0] is not None else stands


def _with_place(source: Source, index: int, stand: Dataset) -> Dataset:
    for keyword in PLACE:
        stand[keyword] = source.slices[index][keyword]
    stand.FrameOfReferenceUID = source.frame_of_reference_uid
    stand.SpacingBetweenSlices = round(source.t1.spacing_mm, 6)
    stand.SliceThickness = source.slices[index].get("SliceThickness") or stand.SpacingBetweenSlices
    stand.ImageType = ["ORIGINAL", "PRIMARY"]
    return stand


def _multi_frame(source: Source, stands: list[Dataset]) -> Dataset:
    """Return a stand-in for the one Enhanced MR object, its frames in their own order."""
    first = stands[0]
    shared = Dataset()
    shared.PixelMeasuresSequence = PixelMeasuresSequence(
        list(map(float, first.PixelSpacing)), float(first.SliceThickness), source.t1.spacing_mm
    )
    shared.PlaneOrientationSequence = PlaneOrientationSequence(
        CoordinateSystemNames.PATIENT, list(map(float, first.ImageOrientationPatient))
    )
    frames = []
    for stand in stands:
        frame = Dataset()
        frame.PlanePositionSequence = PlanePositionSequence(
            CoordinateSystemNames.PATIENT, list(map(float, stand.ImagePositionPatient))
        )
        frames.append(frame)
    first.NumberOfFrames = len(stands)
    first.SharedFunctionalGroupsSequence = [shared]
    first.PerFrameFunctionalGroupsSequence = frames
    return first


def _without_a_gap(values: npt.NDArray[Any]) -> range:
    """Return the slices from the first that is not empty as it is stored to the last."""
    shown = np.flatnonzero((values >= 0.5 / MOST_FRACTIONAL).any(axis=(1, 2)))
    return range(shown[0], shown[-1] + 1)


def _in_the_order_of_frames(source: Source, slices: Iterable[int]) -> list[int]:
    """Return slices in the order in which frames of the T1W's object show them, if it is one."""
    return sorted(slices, key=lambda index: source.t1.frames[index] or index)
