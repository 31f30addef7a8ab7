"""The summary of a result: a Comprehensive 3D SR by TID 1500 (PS3.16), volumes, model and quality flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes

from synthesis.derive.mr import no_unknown_keywords
from synthesis.derive.provenance import MANUFACTURER, MODEL_NAME, Maker, stable_uid
from synthesis.derive.source import Source

SERIES_DESCRIPTION = "SYNTH REPORT (AI)"
NUMBER_STEP = 49000
#: TID 1500 row 11 and below: evaluations in words.
EVALUATIONS = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
MILLILITRE = CodedConcept("mL", "UCUM", "milliliter")


@dataclass(frozen=True)
class Summary:
    """What the report says."""

    #: Volume of the predicted tumour, and of what is predicted to enhance in it.
    tumour_ml: float
    enhancing_ml: float
    #: What a reader must know: caveat, unusual input, confidence, quality, as sentences.
    sentences: tuple[str, ...]


def derive_report(
    source: Source, summary: Summary, images: Sequence[Dataset], seg: Dataset | None
) -> Comprehensive3DSR:
    """Return the summary of a result.

    Parameters
    ----------
    source : Source
        What it was made from.
    summary : Summary
        What to say.
    images
        Derived images of the same job, which the report names as evidence.
    seg : Dataset or None
        The Segmentation of the tumour, when one was made.
    """
    about = {str(one.SeriesInstanceUID) for one in (*images, *([seg] if seg is not None else []))}
    series_uid = source.series_uid("report", about)
    inputs = {str(header.SOPInstanceUID): header for header in (*source.t1.headers, *source.flair.headers)}
    evidence = [source.study.evidence(header) for header in (*inputs.values(), *images)]
    if seg is not None:
        evidence.append(source.study.evidence(seg))
    with no_unknown_keywords():
        content = MeasurementReport(
            observation_context=ObservationContext(observer_device_context=observer(source.maker)),
            procedure_reported=codes.LN.MRIHeadReport,
            imaging_measurements=[
                _tumour(source, summary, series_uid, seg),
                _enhancing(source, summary, series_uid),
            ],
            title=codes.DCM.ImagingMeasurementReport,
        )
        content[0].ContentSequence.append(_said(summary.sentences))
        made = Comprehensive3DSR(
            evidence=evidence,
            content=content[0],
            series_instance_uid=series_uid,
            series_number=source.series_number(NUMBER_STEP),
            sop_instance_uid=stable_uid(series_uid),
            instance_number=1,
            manufacturer=MANUFACTURER,
            is_complete=True,
        )
        source.dress(made, SERIES_DESCRIPTION)
    return made


def observer(maker: Maker) -> ObserverContext:
    """Return who observed: this device, no person (TID 1002, 1004)."""
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=maker.device_uid,
            name=MANUFACTURER,
            manufacturer_name=MANUFACTURER,
            model_name=MODEL_NAME,
            serial_number=maker.digest[:16],
        ),
    )


def _tumour(
    source: Source, summary: Summary, series_uid: str, seg: Dataset | None
) -> MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations:
    tracking = TrackingIdentifier(uid=stable_uid(series_uid, "tumour"), identifier="Predicted tumour")
    volume = [_volume(source.maker, summary.tumour_ml)]
    sites = [FindingSite(codes.SCT.Brain)]
    if seg is None:
        return MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            finding_type=codes.SCT.Neoplasm,
            finding_category=codes.SCT.MorphologicallyAbnormalStructure,
            finding_sites=sites,
            measurements=volume,
            source_images=_source_images(source),
        )
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        referenced_segment=ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=1,
            source_series=SourceSeriesForSegmentation(source.t1.series_instance_uid),
        ),
        finding_type=codes.SCT.Neoplasm,
        finding_category=codes.SCT.MorphologicallyAbnormalStructure,
        finding_sites=sites,
        measurements=volume,
    )


def _enhancing(source: Source, summary: Summary, series_uid: str) -> MeasurementsAndQualitativeEvaluations:
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=stable_uid(series_uid, "enhancing"), identifier="Predicted enhancement in the tumour"
        ),
        finding_type=codes.NCIt.EnhancingLesion,
        finding_category=codes.SCT.MorphologicallyAbnormalStructure,
        finding_sites=[FindingSite(codes.SCT.Brain)],
        measurements=[_volume(source.maker, summary.enhancing_ml)],
        source_images=_source_images(source),
    )


def _source_images(source: Source) -> list[SourceImageForMeasurementGroup]:
    """Return each T1W instance, once; frames of an Enhanced MR object together."""
    instances = {str(header.SOPInstanceUID): header.SOPClassUID for header in source.t1.headers}
    return [SourceImageForMeasurementGroup(sop_class, uid) for uid, sop_class in instances.items()]


def _volume(maker: Maker, millilitres: float) -> Measurement:
    return Measurement(
        name=codes.SCT.Volume,
        value=round(millilitres, 1),
        unit=MILLILITRE,
        algorithm_id=AlgorithmIdentification(
            name=maker.model,
            version=maker.version,
            parameters=[f"weights SHA-256 {maker.digest}"],
            family=codes.DCM.ArtificialIntelligence,
            manufacturer=MANUFACTURER,
        ),
    )


def _said(sentences: Sequence[str]) -> ContainerContentItem:
    container = ContainerContentItem(name=EVALUATIONS, relationship_type=RelationshipTypeValues.CONTAINS)
    container.ContentSequence = ContentSequence(
        [
            TextContentItem(
                name=codes.DCM.Comment, value=one, relationship_type=RelationshipTypeValues.CONTAINS
            )
            for one in sentences
        ]
    )
    return container
