"""Frames of an Enhanced MR object as the headers of a classic MR series (PS3.3 C.7.6.16, C.8.13)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
)

from synthesis.errors import RefusedInput

ENHANCED_CLASSES: tuple[UID, ...] = (EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)

#: Functional groups whose attributes a classic MR header has under the same tag.
COPIED_GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "MRTimingAndRelatedParametersSequence",
    "MRAveragesSequence",
    "MRImagingModifierSequence",
    "FrameContentSequence",
)
#: What a conversion of classic images found no functional group for, under the tags of classic MR.
UNASSIGNED_GROUPS = (
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
)
#: A frame's type goes into the classic Image Type.
FRAME_TYPE_GROUP = "MRImageFrameTypeSequence"


def is_enhanced(header: Dataset) -> bool:
    """Return whether this object keeps its slices as frames with functional groups."""
    return header.get("SOPClassUID") in ENHANCED_CLASSES


def frame_count(header: Dataset) -> int:
    """Return Number of Frames; 1 where it is absent or no number."""
    try:
        return int(header.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        return 1


def frame_headers(header: Dataset) -> list[Dataset]:
    """Return one classic header per frame, in the order of the frames.

    Elements are shared with `header`, not copied: do not write into them. Decimal strings of position,
    orientation and spacing stay as the scanner wrote them.

    Raises
    ------
    RefusedInput
        ``BROKEN_FRAMES`` when the functional groups are missing or fewer than the frames.
    """
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    count = frame_count(header)
    if len(per_frame) != count:
        raise RefusedInput(
            "BROKEN_FRAMES",
            f"The Enhanced MR object says {count} frames but describes {len(per_frame)}; "
            "please send it again from the scanner.",
        )
    shared_groups = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    common = Dataset()
    for element in header:
        if element.keyword not in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
            common[element.tag] = element
    return [_frame_header(common, shared_groups[0], groups) for groups in per_frame]


def _frame_header(common: Dataset, shared: Dataset, own: Dataset) -> Dataset:
    flat = Dataset()
    for group in _groups(shared, own, UNASSIGNED_GROUPS):
        flat.update(group)
    flat.update(common)
    for group in _groups(shared, own, COPIED_GROUPS):
        for element in group:
            flat[element.tag] = element
    for group in _groups(shared, own, (FRAME_TYPE_GROUP,)):
        if "FrameType" in group:
            _put(flat, "ImageType", group.FrameType)
    for group in _groups(shared, own, ("MREchoSequence",)):
        _put_number(flat, "EchoTime", group.get("EffectiveEchoTime"))
    for group in _groups(shared, own, ("MRModifierSequence",)):
        times = group.get("InversionTimes")
        if group.get("InversionRecovery") == "YES" and times is not None:
            _put_number(flat, "InversionTime", times if isinstance(times, float) else times[0])
        for keyword in ("InversionRecovery", "FlowCompensation", "Spoiling", "ParallelAcquisition"):
            if keyword in group:
                _put(flat, keyword, group[keyword].value)
    _put_acquisition_time(flat)
    if "EchoPulseSequence" in flat or "ScanningSequence" not in flat:
        _put(flat, "ScanningSequence", scanning_sequence(flat))
        _put(flat, "SequenceVariant", sequence_variant(flat))
    return flat


def _groups(shared: Dataset, own: Dataset, names: tuple[str, ...]) -> Iterator[Dataset]:
    for name in names:
        for groups in (shared, own):
            sequence = groups.get(name)
            if sequence:
                yield sequence[0]


def scanning_sequence(header: Dataset) -> list[str]:
    """Return the classic Scanning Sequence (0018,0020) for Enhanced MR's pulse sequence attributes."""
    terms = {"SPIN": ["SE"], "GRADIENT": ["GR"], "BOTH": ["SE", "GR"]}
    sequence = list(terms.get(str(header.get("EchoPulseSequence", "")), []))
    if header.get("InversionRecovery") == "YES":
        sequence.append("IR")
    if header.get("EchoPlanarPulseSequence") == "YES":
        sequence.append("EP")
    return sequence or ["RM"]


def sequence_variant(header: Dataset) -> list[str]:
    """Return the classic Sequence Variant (0018,0021) for Enhanced MR's pulse sequence attributes."""
    variant = []
    if header.get("SegmentedKSpaceTraversal") not in (None, "", "SINGLE"):
        variant.append("SK")
    if header.get("MagnetizationTransfer") not in (None, "", "NONE"):
        variant.append("MTC")
    if header.get("SteadyStatePulseSequence") not in (None, "", "NONE"):
        variant.append("SS")
    if header.get("Spoiling") not in (None, "", "NONE"):
        variant.append("SP")
    return variant or ["NONE"]


def _put_acquisition_time(flat: Dataset) -> None:
    moment = str(flat.get("FrameAcquisitionDateTime") or flat.get("AcquisitionDateTime") or "")
    if len(moment) >= 14 and moment[:14].isdigit():
        _put(flat, "AcquisitionDate", moment[:8])
        _put(flat, "AcquisitionTime", moment[8:].split("+")[0].split("-")[0])


def _put_number(flat: Dataset, keyword: str, value: float | None) -> None:
    if value is not None:
        _put(flat, keyword, f"{float(value):.10g}")


def _put(flat: Dataset, keyword: str, value: object) -> None:
    """Set an element of its own: assigning by attribute would write into the shared one."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    flat[tag] = DataElement(tag, dictionary_VR(tag), value)
