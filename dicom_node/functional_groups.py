"""What Enhanced MR keeps in functional groups, in the terms of a classic header (PS3.3 C.7.6.16, C.8.13)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

from pydicom.dataset import Dataset

from dicom_node.elements import integer, number, numbers, text, texts, value
from synthesis.stacks import Choice, chosen_frames

#: Direction cosines of one orientation lie this near to each other.
_SAME_COSINES = 1e-3
#: Siemens XA says in a private Image Type of each frame how it was corrected: group, creator, elements.
_SIEMENS_GROUP, _SIEMENS_CREATOR, _SIEMENS_FRAME, _SIEMENS_IMAGE_TYPE = (
    0x0021,
    "SIEMENS MR SDI 02",
    0xFE,
    0x75,
)


def with_unassigned(dataset: Dataset) -> Dataset:
    """Return a Legacy Converted Enhanced MR object with what its conversion found no functional group for.

    That is most of what a classic header says: TR, TE, TI, agent (PS3.3 C.7.6.16.2.25, C.7.6.16.2.26).
    """
    whole = copy(dataset)
    for groups, keyword in (
        ("SharedFunctionalGroupsSequence", "UnassignedSharedConvertedAttributesSequence"),
        ("PerFrameFunctionalGroupsSequence", "UnassignedPerFrameConvertedAttributesSequence"),
    ):
        for group in (value(dataset, groups) or ())[:1]:
            for element in (value(group, keyword) or [Dataset()])[0]:
                if element.tag not in dataset:
                    whole.add(element)
    return whole


def functional_groups(dataset: Dataset) -> dict[str, Any]:
    """Return what Enhanced MR keeps in its functional groups (PS3.3 C.8.13.5): timing, plane, position."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    per_frame = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    choice = chosen_frames(dataset)
    if choice.frames:
        per_frame = [per_frame[number - 1] for number in choice.frames]
    first = [*shared, *per_frame[:1]]

    def item(groups: Iterable[Dataset], keyword: str) -> Dataset:
        for group in groups:
            sequence = group.get(keyword)
            if sequence:
                return sequence[0]  # type: ignore[no-any-return]
        return Dataset()

    timing = item(first, "MRTimingAndRelatedParametersSequence")
    modifier = item(first, "MRModifierSequence")
    measures = item(first, "PixelMeasuresSequence")
    inversion = numbers(modifier, "InversionTimes")
    found: dict[str, Any] = {
        "tr_ms": number(timing, "RepetitionTime"),
        "flip_deg": number(timing, "FlipAngle"),
        "echo_train": integer(timing, "EchoTrainLength"),
        "te_ms": number(item(first, "MREchoSequence"), "EffectiveEchoTime"),
        "ti_ms": inversion[0] if inversion else None,
        "b_value": number(item(first, "MRDiffusionSequence"), "DiffusionBValue"),
        "spacing_mm": numbers(measures, "PixelSpacing"),
        "body_part": text(dataset, "BodyPartExamined").upper()
        or _anatomy(item(first, "FrameAnatomySequence")),
    }
    if "EchoPulseSequence" in dataset or "ScanningSequence" not in dataset:
        found["scanning_sequence"] = _pulse_sequence(dataset, modifier)
    if "AcquisitionDateTime" not in dataset:
        content = (item([frame], "FrameContentSequence") for frame in per_frame)
        times = (text(one, "FrameAcquisitionDateTime") for one in content)
        found["acquired"] = min(filter(None, times), default="")[:21]
    kind = item(first, "MRImageFrameTypeSequence")
    for name, keyword in (
        ("acquisition_contrast", "AcquisitionContrast"),
        ("complex_component", "ComplexImageComponent"),
    ):
        if keyword not in dataset:
            found[name] = text(kind, keyword).upper()
    positions, orientations = [], []
    for frame in per_frame:
        groups = [frame, *shared]
        position = numbers(item(groups, "PlanePositionSequence"), "ImagePositionPatient")
        orientation = numbers(item(groups, "PlaneOrientationSequence"), "ImageOrientationPatient")
        if len(position) == 3:
            positions.append((position[0], position[1], position[2]))
        if len(orientation) == 6:
            orientations.append(orientation)
    found["positions_mm"] = tuple(positions)
    if orientations:
        exact = numbers(item([*shared, *per_frame], "PlaneOrientationSequence"), "ImageOrientationPatient")
        found |= {"orientation": exact, "orientations": _different(orientations)}
    kinds = texts(dataset, "ImageType")
    found["image_type"] = (*kinds, *(kind for kind in _siemens_image_type(per_frame) if kind not in kinds))
    if choice.sentence:
        found |= _of_one_volume(choice, item([*per_frame[:1], *shared], "MRImageFrameTypeSequence"))
    agents = dataset.get("ContrastBolusAgentSequence") or []
    usage = item(first, "ContrastBolusUsageSequence")
    found["contrast_given"] = bool(agents) and text(usage, "ContrastBolusAgentAdministered").upper() != "NO"
    return {key: value for key, value in found.items() if value not in (None, (), "")}


def _pulse_sequence(dataset: Dataset, modifier: Dataset) -> tuple[str, ...]:
    """Return the classic Scanning Sequence for Enhanced MR's pulse sequence attributes (PS3.3 C.8.13.4)."""
    echo = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}
    inverted = "YES" in {text(one, "InversionRecovery").upper() for one in (dataset, modifier)}
    planar = text(dataset, "EchoPlanarPulseSequence").upper() == "YES"
    kind = echo.get(text(dataset, "EchoPulseSequence").upper(), ())
    return kind + (("IR",) if inverted else ()) + (("EP",) if planar else ())


def _different(orientations: Sequence[tuple[float, ...]]) -> int:
    """Return how many orientations there are; scanners round each by itself."""
    known: list[tuple[float, ...]] = []
    for one in orientations:
        if not any(math.dist(one, other) < _SAME_COSINES for other in known):
            known.append(one)
    return len(known)


def _of_one_volume(choice: Choice, kind: Dataset) -> dict[str, Any]:
    """Return what differs where an object holds several volumes: its own Image Type speaks of all of them."""
    found: dict[str, Any] = {"several_volumes": choice.sentence, "several_code": choice.code}
    if choice.frames:
        found |= {
            "chosen_frames": choice.frames,
            "frames": len(choice.frames),
            "image_type": texts(kind, "FrameType"),
            "complex_component": text(kind, "ComplexImageComponent").upper(),
            "acquisition_contrast": text(kind, "AcquisitionContrast").upper(),
        }
    return found


def _siemens_image_type(per_frame: Sequence[Dataset]) -> tuple[str, ...]:
    try:
        frame = per_frame[0].private_block(_SIEMENS_GROUP, _SIEMENS_CREATOR)[_SIEMENS_FRAME].value[0]
        return tuple(frame.private_block(_SIEMENS_GROUP, _SIEMENS_CREATOR)[_SIEMENS_IMAGE_TYPE].value)
    except (KeyError, IndexError, TypeError):
        return ()


def _anatomy(item: Dataset) -> str:
    regions = item.get("AnatomicRegionSequence")
    return text(regions[0], "CodeMeaning").upper() if regions else ""
