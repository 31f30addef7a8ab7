"""What the node reads of an instance: enough to judge completeness and to choose, and no patient's name.

Everything behind this module works on `Header`, never on files.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID, RLELossless

from dicom_node.elements import integer, number, numbers, text, texts, value
from dicom_node.errors import NodeError
from dicom_node.functional_groups import functional_groups, with_unassigned
from synthesis.job import MANUFACTURER

CLASSIC_MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
LEGACY_ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.4"
MULTIFRAME_MR = {ENHANCED_MR, LEGACY_ENHANCED_MR}

#: At most this many pixels are looked at to count distinct values (a mask has two).
_PIXELS_SAMPLED = 65536
_MOST_DISTINCT = 256
#: Compressed without loss, a mask takes 0.02 to 0.5 bits a pixel, a slice through a head from 1.8 on (lgg).
_MASK_BITS = 1.0


class Unreadable(NodeError):
    """These bytes are not a DICOM data set that can be attributed to a study."""

    code = "UNREADABLE"


@dataclass(frozen=True)
class Header:
    """One SOP instance, as far as choosing needs it. Lengths in mm, times in ms, LPS coordinates."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    modality: str = ""
    image_type: tuple[str, ...] = ()
    study_description: str = ""
    series_description: str = ""
    protocol_name: str = ""
    sequence_name: str = ""
    series_number: int | None = None
    instance_number: int | None = None
    acquisition_number: int | None = None
    #: As the scanner counts; some write 1 whatever the number (GE), so a smaller number says nothing.
    images_in_acquisition: int | None = None
    #: Of how many instances an Enhanced MR object was made, where it was cut up (PS3.3 C.7.6.16.2.2.4).
    parts: int | None = None
    body_part: str = ""
    institution: str = ""
    station: str = ""
    manufacturer: str = ""
    device_uid: str = ""
    #: Made by a network: it says so, or it is our own work.
    synthetic: bool = False
    scanning_sequence: tuple[str, ...] = ()
    sequence_variant: tuple[str, ...] = ()
    acquisition_type: str = ""
    acquisition_contrast: str = ""
    complex_component: str = ""
    tr_ms: float | None = None
    te_ms: float | None = None
    ti_ms: float | None = None
    flip_deg: float | None = None
    echo_train: int | None = None
    b_value: float | None = None
    angio: bool = False
    contrast_agent: str = ""
    contrast_given: bool = False
    #: ``YYYYMMDDHHMMSS.ffffff`` of the acquisition, as far as known.
    acquired: str = ""
    frame_of_reference: str = ""
    rows: int | None = None
    columns: int | None = None
    spacing_mm: tuple[float, ...] = ()
    #: Direction cosines of rows and columns (six numbers); empty when absent.
    orientation: tuple[float, ...] = ()
    #: Positions of all frames (one of a classic image), and all orientations that occur.
    positions_mm: tuple[tuple[float, float, float], ...] = ()
    orientations: int = 1
    frames: int = 1
    #: Of an Enhanced MR object that holds several volumes: the frames (from 1) of the one that is read, which
    #: this header is about, and the sentence that says so; a code and no frames where none can be chosen.
    chosen_frames: tuple[int, ...] = ()
    several_volumes: str = ""
    several_code: str = ""
    #: Sentence: why its pixels cannot be used; empty when they can, as far as the header tells.
    pixel_problem: str = ""
    #: Distinct pixel values (at most 256), None where the pixels are compressed and too many for a mask.
    distinct_values: int | None = None

    def rule_facts(self) -> dict[str, str]:
        """Return what rules ask of a study, beside who sent it to whom."""
        return {
            "study_description": self.study_description,
            "body_part": self.body_part,
            "institution": self.institution,
            "station": self.station,
            "modality": self.modality,
        }

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the defaults, as JSON-compatible values."""
        values = asdict(self)
        return {f.name: values[f.name] for f in fields(self) if values[f.name] != f.default}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Header:
        """Return the header of a ledger row."""
        made: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        if "positions_mm" in made:
            made["positions_mm"] = tuple(tuple(position) for position in made["positions_mm"])
        return cls(**made)


def read(path: Path) -> Header:
    """Return the header of a file; raises `Unreadable`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a faulty header is normal here, and judged below
            dataset = dcmread(path, force=True, defer_size="1 KB")
            if "StudyInstanceUID" in dataset:
                return of_dataset(dataset)
            # pydicom gives up all of a data set whose compressed pixels have no end
            header = of_dataset(dcmread(path, force=True, stop_before_pixels=True))
            return replace(header, pixel_problem="its pixel data is cut short")
    except Unreadable:
        raise
    except Exception as error:  # whatever a damaged file makes pydicom raise
        raise Unreadable(f"An instance cannot be read as DICOM ({type(error).__name__}).") from error


def of_dataset(dataset: Dataset) -> Header:
    """Return the header of a data set; raises `Unreadable` when it has no study, series or instance UID."""
    uids = {
        keyword: text(dataset, keyword)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    }
    missing = [keyword for keyword, value in uids.items() if not value]
    if missing:
        raise Unreadable(f"An instance has no {missing[0]}.")
    if text(dataset, "SOPClassUID") == LEGACY_ENHANCED_MR:
        dataset = with_unassigned(dataset)
    values: dict[str, Any] = {
        "study_uid": uids["StudyInstanceUID"],
        "series_uid": uids["SeriesInstanceUID"],
        "sop_instance_uid": uids["SOPInstanceUID"],
        "sop_class_uid": text(dataset, "SOPClassUID"),
        "modality": text(dataset, "Modality"),
        "image_type": _image_type(dataset),
        "study_description": text(dataset, "StudyDescription"),
        "series_description": text(dataset, "SeriesDescription"),
        "protocol_name": text(dataset, "ProtocolName"),
        "sequence_name": text(dataset, "SequenceName") or text(dataset, "PulseSequenceName"),
        "series_number": integer(dataset, "SeriesNumber"),
        "instance_number": integer(dataset, "InstanceNumber"),
        "acquisition_number": integer(dataset, "AcquisitionNumber"),
        "images_in_acquisition": integer(dataset, "ImagesInAcquisition"),
        "parts": integer(dataset, "InConcatenationTotalNumber"),
        "body_part": text(dataset, "BodyPartExamined").upper(),
        "institution": text(dataset, "InstitutionName"),
        "station": text(dataset, "StationName"),
        "manufacturer": text(dataset, "Manufacturer"),
        "device_uid": text(dataset, "DeviceUID"),
        "synthetic": text(dataset, "SyntheticData").upper() == "YES"
        or text(dataset, "Manufacturer") == MANUFACTURER,
        "scanning_sequence": texts(dataset, "ScanningSequence"),
        "sequence_variant": texts(dataset, "SequenceVariant"),
        "acquisition_type": text(dataset, "MRAcquisitionType"),
        "acquisition_contrast": text(dataset, "AcquisitionContrast").upper(),
        "complex_component": text(dataset, "ComplexImageComponent").upper(),
        "tr_ms": number(dataset, "RepetitionTime"),
        "te_ms": number(dataset, "EchoTime"),
        "ti_ms": number(dataset, "InversionTime"),
        "flip_deg": number(dataset, "FlipAngle"),
        "echo_train": integer(dataset, "EchoTrainLength"),
        "b_value": number(dataset, "DiffusionBValue"),
        "angio": text(dataset, "AngioFlag").upper() == "Y",
        "contrast_agent": text(dataset, "ContrastBolusAgent"),
        "acquired": _acquired(dataset),
        "frame_of_reference": text(dataset, "FrameOfReferenceUID"),
        "rows": integer(dataset, "Rows"),
        "columns": integer(dataset, "Columns"),
        "spacing_mm": numbers(dataset, "PixelSpacing"),
        "orientation": numbers(dataset, "ImageOrientationPatient"),
        "frames": max(1, integer(dataset, "NumberOfFrames") or 1),
    }
    position = numbers(dataset, "ImagePositionPatient")
    if len(position) == 3:
        values["positions_mm"] = ((position[0], position[1], position[2]),)
    if values["sop_class_uid"] in MULTIFRAME_MR:
        values.update(functional_groups(dataset))
    values["contrast_given"] = bool(values.get("contrast_given")) or _contrast_given(dataset)
    if values["modality"] == "MR":
        values["pixel_problem"] = pixel_problem(dataset)
        if not values["pixel_problem"]:
            values["distinct_values"] = _distinct_values(dataset)
    return Header(**values)


#: Derivation Code of an image that differs from its source by lossy compression alone (PS3.16 CID 7203).
_LOSSY_COMPRESSION = "113040"
_SAYS_COMPRESSION = ("compress", "jpeg")


def _image_type(dataset: Dataset) -> tuple[str, ...]:
    """Return Image Type, as it was before a lossy compression that made the image a derived one.

    Whoever compresses an image with loss may call it DERIVED (PS3.3 C.7.6.1.1.2); it still shows the same.
    """
    kinds = texts(dataset, "ImageType")
    if kinds[:2] != ("DERIVED", "PRIMARY") or text(dataset, "LossyImageCompression") != "01":
        return kinds
    codes = {text(item, "CodeValue") for item in value(dataset, "DerivationCodeSequence") or ()}
    said = text(dataset, "DerivationDescription").lower()
    other_reason = said and not codes and not any(word in said for word in _SAYS_COMPRESSION)
    if codes - {_LOSSY_COMPRESSION} or other_reason:
        return kinds
    return ("ORIGINAL", *kinds[1:])


#: First words of Contrast/Bolus Agent that say that none was given.
_NO_AGENT = {
    *("", "NONE", "NO", "NON", "NOT", "NOCONTRAST", "0", "-", "N", "N/A", "NA", "NIL", "KEIN"),
    *("KEINE", "AUCUN", "AUCUNE", "NESSUNO", "WITHOUT", "W/O", "WO", "OHNE", "SANS", "SIN", "SENZA"),
    *("NATIVE", "NATIV", "NATIF", "UNENHANCED", "PRE"),
}


def says_contrast(agent: str) -> bool:
    """Return whether a value of Contrast/Bolus Agent names an agent."""
    return bool(agent.strip()) and agent.upper().split()[0].strip(".,;:()") not in _NO_AGENT


def _contrast_given(dataset: Dataset) -> bool:
    """Return whether the Contrast/Bolus module says that an image was acquired after contrast agent.

    Its start time tells, where it is there: some scanners name the agent in images before it, too.
    """
    started, acquired = text(dataset, "ContrastBolusStartTime"), text(dataset, "AcquisitionTime")
    if len(started) >= 6 and len(acquired) >= 6:
        return acquired >= started
    return says_contrast(text(dataset, "ContrastBolusAgent")) or any(
        (number(dataset, keyword) or 0) > 0 for keyword in ("ContrastBolusVolume", "ContrastBolusTotalDose")
    )


def pixel_problem(dataset: Dataset) -> str:
    """Return why the pixels cannot be used, or "" when header and length agree (PS3.3 C.7.6.3)."""
    if "PixelData" not in dataset:
        return "it holds no pixel data"
    missing = [
        keyword
        for keyword in ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel")
        if not integer(dataset, keyword)
    ]
    if missing:
        return f"its header has no valid {missing[0]}"
    syntax = UID(str(getattr(dataset.file_meta, "TransferSyntaxUID", "")))
    if syntax.is_transfer_syntax and syntax.is_compressed and not syntax.is_deflated:
        return ""
    expected = (
        int(dataset.Rows)
        * int(dataset.Columns)
        * int(dataset.SamplesPerPixel)
        * max(1, integer(dataset, "NumberOfFrames") or 1)
        * int(dataset.BitsAllocated)
        // 8
    )
    found = len(dataset.get_item("PixelData").value or b"")
    if found == 0:
        found = len(dataset.PixelData or b"")
    return "its pixel data is cut short" if found < expected else ""


def _distinct_values(dataset: Dataset) -> int | None:
    """Return how many different values the pixels have, None where they would have to be decoded for it.

    Those compressed without loss are, where they are as small as a mask.
    """
    syntax = UID(str(getattr(dataset.file_meta, "TransferSyntaxUID", "")))
    if not syntax.is_transfer_syntax:
        return None
    if syntax.is_compressed and not syntax.is_deflated:
        frames = max(1, integer(dataset, "NumberOfFrames") or 1)
        small = 8 * len(dataset.PixelData) <= _MASK_BITS * frames * int(dataset.Rows) * int(dataset.Columns)
        if not small or text(dataset, "LossyImageCompression") == "01":
            return None
        try:
            return max(map(_count, decoded(dataset, range(frames))))
        except Exception:  # whatever damaged pixels make a decoder raise: the worker refuses them by name
            return None
    width = {8: np.uint8, 16: np.uint16, 32: np.uint32}.get(int(dataset.BitsAllocated))
    if width is None:
        return None
    raw = dataset.PixelData
    return _count(np.frombuffer(raw, dtype=width, count=len(raw) // np.dtype(width).itemsize))


def decoded(dataset: Dataset, frames: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield these frames (from 0); raises what a decoder raises, but never what only a process could catch.

    On a damaged RLE segment pylibjpeg, next in pydicom's order, panics.
    """
    strict = "pydicom" if dataset.file_meta.get("TransferSyntaxUID") == RLELossless else ""
    yield from iter_pixels(dataset, indices=list(frames), decoding_plugin=strict)


def _count(values: np.ndarray) -> int:
    flat = values.reshape(-1)
    return min(_MOST_DISTINCT, int(np.unique(flat[:: max(1, flat.size // _PIXELS_SAMPLED)]).size))


def _acquired(dataset: Dataset) -> str:
    whole = text(dataset, "AcquisitionDateTime")
    if whole:
        return whole[:21]
    time = text(dataset, "AcquisitionTime") or text(dataset, "SeriesTime")
    date = text(dataset, "AcquisitionDate") or text(dataset, "SeriesDate") or text(dataset, "StudyDate")
    return f"{date}{time}" if time else ""
