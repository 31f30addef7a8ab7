"""A DICOM series as one volume in patient space: geometry, pixels, headers.

Classic MR (one file a slice, in whatever order) and Enhanced MR (frames in whatever order) end as the same
value. What cannot become a regular volume is refused with a sentence for the person at the scanner.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from synthesis.enhanced import ENHANCED_CLASSES, frame_count, frame_headers, is_enhanced
from synthesis.errors import RefusedInput
from synthesis.geometry import Plane, Stack, plane_of, stack_of
from synthesis.stacks import chosen_frames

FEWEST_SLICES = 5
#: Terms for the transfer syntaxes that lose information, or may (JPEG 2000: then the header says so).
LOSSY_METHODS: dict[UID, str] = {
    pydicom.uid.JPEGBaseline8Bit: "ISO_10918_1",
    pydicom.uid.JPEGExtended12Bit: "ISO_10918_1",
    pydicom.uid.JPEGLSNearLossless: "ISO_14495_1",
    pydicom.uid.JPEG2000: "ISO_15444_1",
    pydicom.uid.HTJ2K: "ISO_15444_15",
}
ALWAYS_LOSSY = (pydicom.uid.JPEGBaseline8Bit, pydicom.uid.JPEGExtended12Bit, pydicom.uid.JPEGLSNearLossless)
#: Decoders that notice damage. pylibjpeg's, next in pydicom's order, return an image of whatever is left of a
#: JPEG-LS stream, and end the process on a damaged RLE segment.
STRICT_DECODERS: dict[UID, str] = {
    pydicom.uid.JPEGLSLossless: "pyjpegls",
    pydicom.uid.JPEGLSNearLossless: "pyjpegls",
    pydicom.uid.RLELossless: "pydicom",
}
#: Streams that a decoder completes with invented rows where they are cut (measured: 40 of 40, JPEG Lossless).
#: Those of JPEG-LS, JPEG 2000 and RLE notice it.
ENDED_BY_EOI = (*pydicom.uid.JPEGTransferSyntaxes,)
END_OF_IMAGE = b"\xff\xd9"
#: pydicom's warning of an RLE segment with bytes too many: some inside it were lost or changed.
RLE_TOO_LONG = "The decoded RLE segment contains"
#: Without these nothing can refer to an instance.
IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
#: Positive in every image (PS3.3 C.7.6.3).
PIXEL_NUMBERS = {
    "Rows": "rows",
    "Columns": "columns",
    "BitsAllocated": "bits a pixel takes",
    "BitsStored": "bits of a pixel are used",
}
#: Of MR images; with a palette, stored values are no brightness (PS3.3 C.7.6.3.1.2).
GREY = ("MONOCHROME1", "MONOCHROME2")
#: What decoders and damaged headers raise; each plugin has its own taste.
DECODING_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    OSError,
    struct.error,
)
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LossyCompression:
    """How pixels lost information (PS3.3 C.7.6.1.1.5)."""

    #: Size before over size after.
    ratio: float
    #: Defined term of Lossy Image Compression Method (0028,2114).
    method: str
    #: What came before, the first one first, where pixels were compressed several times.
    before: tuple[LossyCompression, ...] = ()


@dataclass(frozen=True)
class Series:
    """One MR series as a volume. Slices run along +normal = row direction × column direction (LPS)."""

    #: float32, modality values (rescaled where the header says how); index (column, row, slice), LPS mm.
    image: sitk.Image
    #: One classic header per slice, without pixels, in the order of the slices; Enhanced frames flattened.
    headers: tuple[Dataset, ...]
    #: Frame number (from 1) of each slice in its Enhanced MR object; None for classic slices.
    frames: tuple[int | None, ...]
    #: Distance between slice centres, mm, measured from the positions.
    spacing_mm: float
    #: Bits that the scanner stored.
    bits_stored: int
    #: What an instance lost by compression; None when nothing was.
    lossy: LossyCompression | None
    #: What a reader should know, as sentences.
    remarks: tuple[str, ...] = ()

    @property
    def frame_of_reference_uid(self) -> str:
        """Return the Frame of Reference UID, empty when the scanner wrote none."""
        return str(self.headers[0].get("FrameOfReferenceUID") or "")

    @property
    def series_instance_uid(self) -> str:
        """Return the Series Instance UID."""
        return str(self.headers[0].SeriesInstanceUID)


@dataclass(frozen=True)
class _Slice:
    header: Dataset
    frame: int | None
    plane: Plane
    values: FloatArray  # (rows, columns)


def read_series(paths: Sequence[Path]) -> Series:
    """Return the one MR series in these files.

    Parameters
    ----------
    paths
        Files of one series, in any order. An instance that is there twice counts once.

    Raises
    ------
    RefusedInput
        With one of the codes ``UNREADABLE_FILE``, ``NOT_MR``, ``MIXED_SERIES``, ``NO_PIXEL_DATA``,
        ``UNREADABLE_PIXELS``, ``NO_POSITION``, ``BROKEN_FRAMES``, ``SEVERAL_STACKS``, ``SEVERAL_ECHOES``,
        ``SEVERAL_VOLUMES``, ``MIXED_GEOMETRY``, ``TOO_FEW_SLICES``, ``DUPLICATE_POSITIONS``,
        ``SLICE_MISSING``, ``IRREGULAR_SPACING``, ``SHEARED_STACK``.
    """
    # Faulty values in foreign headers are no reason to stop or to warn: what is used is checked below.
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        objects = _distinct([_read_file(path) for path in paths])
        _refuse_mixed(objects)
        read = [_slices_of(dataset) for dataset in objects]
        slices = [piece for pieces, _ in read for piece in pieces]
    if len(slices) < FEWEST_SLICES:
        raise RefusedInput(
            "TOO_FEW_SLICES",
            f"The series has {len(slices)} {'slice' if len(slices) == 1 else 'slices'}; "
            f"at least {FEWEST_SLICES} are needed to make a volume.",
        )
    stack = stack_of([piece.plane for piece in slices])
    ordered = [slices[index] for index in stack.order]
    values, remarks = _upright_values(ordered)
    return Series(
        image=_volume(values, stack),
        headers=tuple(piece.header for piece in ordered),
        frames=tuple(piece.frame for piece in ordered),
        spacing_mm=stack.spacing_mm,
        bits_stored=max(int(piece.header.BitsStored) for piece in ordered),
        lossy=max(filter(None, map(_lossy, objects)), key=lambda lossy: lossy.ratio, default=None),
        remarks=(*dict.fromkeys(said for _, said in read if said), *remarks),
    )


def _read_file(path: Path) -> Dataset:
    try:
        dataset = pydicom.dcmread(path)
        dataset.decode()
    except (InvalidDicomError, BytesLengthException, EOFError, LookupError, *DECODING_ERRORS) as error:
        raise RefusedInput(
            "UNREADABLE_FILE",
            "A file of the series is damaged or no DICOM file; please send the series again.",
        ) from error
    if not all(dataset.get(keyword) for keyword in IDENTIFIERS):
        raise RefusedInput(
            "UNREADABLE_FILE",
            "A file of the series is cut short or holds no DICOM image; please send the series again.",
        )
    return dataset


def _distinct(datasets: list[Dataset]) -> list[Dataset]:
    """Return each SOP instance once: a PACS may send one twice."""
    return list({str(dataset.SOPInstanceUID): dataset for dataset in datasets}.values())


def _refuse_mixed(datasets: list[Dataset]) -> None:
    if not datasets:
        raise RefusedInput("TOO_FEW_SLICES", "The series holds no image.")
    for dataset in datasets:
        _refuse_no_image(dataset)
    for keyword, what in (("SeriesInstanceUID", "series"), ("FrameOfReferenceUID", "frames of reference")):
        found = {str(dataset.get(keyword) or "") for dataset in datasets}
        if len(found) > 1:
            raise RefusedInput("MIXED_SERIES", f"The files belong to {len(found)} {what}; one is expected.")


def _refuse_no_image(dataset: Dataset) -> None:
    if dataset.SOPClassUID not in (MRImageStorage, *ENHANCED_CLASSES):
        name = UID(str(dataset.SOPClassUID)).name
        raise RefusedInput("NOT_MR", f"{_instance(dataset)} is no MR image ({name}).")
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise RefusedInput("NOT_MR", f"{_instance(dataset)} holds computed numbers, not an MR slice.")
    if not dataset.get("PixelData"):
        raise RefusedInput(
            "NO_PIXEL_DATA", f"{_instance(dataset)} holds no pixels; please send the series again."
        )


def _slices_of(dataset: Dataset) -> tuple[list[_Slice], str]:
    """Return the slices of an object that are used, and what was left out, as a sentence."""
    headers = [_without_pixels(dataset)]
    frames: Sequence[int | None] = [None]
    said = ""
    if is_enhanced(dataset):
        every, chosen = frame_headers(headers[0]), chosen_frames(dataset)
        if chosen.code:
            raise RefusedInput(chosen.code, chosen.sentence)
        frames, said = chosen.frames, chosen.sentence
        headers = [every[number - 1] for number in chosen.frames]
    elif frame_count(dataset) > 1:
        raise RefusedInput(
            "BROKEN_FRAMES", f"{_instance(dataset)} holds several frames without their places."
        )
    pixels = _pixels(dataset)
    pixels = pixels.reshape(-1, *pixels.shape[-2:])[[(number or 1) - 1 for number in frames]]
    names = [_instance(header, frame) for header, frame in zip(headers, frames, strict=True)]
    return [
        _Slice(header, frame, plane_of(header, name), _rescaled(values, header, name))
        for header, frame, name, values in zip(headers, frames, names, pixels, strict=True)
    ], said


def _pixels(dataset: Dataset) -> npt.NDArray[np.generic]:
    if _number(dataset, "SamplesPerPixel", 1.0) != 1 or dataset.get("PhotometricInterpretation", "") not in (
        "",
        *GREY,
    ):
        raise RefusedInput("NOT_MR", f"{_instance(dataset)} is a colour image, not an MR slice.")
    for keyword, what in PIXEL_NUMBERS.items():
        if _number(dataset, keyword, 0.0) < 1:
            raise RefusedInput(
                "UNREADABLE_PIXELS",
                f"The header of {_instance(dataset, start=False)} does not say how many {what}; "
                "please send the series again.",
            )
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    frames = frame_count(dataset)
    syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
    dataset.pixel_array_options(decoding_plugin=STRICT_DECODERS.get(syntax, ""))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=RLE_TOO_LONG)
            pixels: npt.NDArray[np.generic] = dataset.pixel_array
        if syntax in ENDED_BY_EOI:
            _check_ends(dataset, frames)
    except (UserWarning, *DECODING_ERRORS) as error:
        raise RefusedInput(
            "UNREADABLE_PIXELS",
            f"The pixels of {_instance(dataset, start=False)} are cut short or damaged; "
            "please send the series again.",
        ) from error
    expected = (int(dataset.Rows), int(dataset.Columns))
    if pixels.shape[-2:] != expected or pixels.size != frames * expected[0] * expected[1]:
        raise RefusedInput(
            "UNREADABLE_PIXELS",
            f"{_instance(dataset)} holds fewer pixels than its header says; please send the series again.",
        )
    return pixels


def _check_ends(dataset: Dataset, frames: int) -> None:
    for stream in generate_frames(dataset.PixelData, number_of_frames=frames):
        if not stream.rstrip(b"\0").endswith(END_OF_IMAGE):
            raise ValueError("a JPEG stream without its end")


def _without_pixels(dataset: Dataset) -> Dataset:
    header = Dataset()
    header.update({element.tag: element for element in dataset if element.tag.group < 0x7FE0})
    header.file_meta = dataset.file_meta
    return header


def _rescaled(values: npt.NDArray[np.generic], header: Dataset, name: str) -> FloatArray:
    """Return modality values, float32 (rows, columns)."""
    slope = _number(header, "RescaleSlope", 1.0)
    intercept = _number(header, "RescaleIntercept", 0.0)
    if slope == 0.0 or not np.isfinite([slope, intercept]).all():
        raise RefusedInput(
            "UNREADABLE_PIXELS",
            f"{name} has the rescale slope {slope:g} and intercept {intercept:g}: "
            "its pixels stand for nothing.",
        )
    return (values.astype(np.float64) * slope + intercept).astype(np.float32)


def _number(header: Dataset, keyword: str, default: float) -> float:
    try:
        return float(header.get(keyword))
    except (TypeError, ValueError):
        return default


def _numbers(header: Dataset, keyword: str) -> list[float]:
    """Return the values of an attribute, none where one of them is no number."""
    value = header.get(keyword)
    try:
        return [float(one) for one in (value if isinstance(value, MultiValue) else [value])]
    except (TypeError, ValueError):
        return []


def _upright_values(slices: list[_Slice]) -> tuple[FloatArray, tuple[str, ...]]:
    """Return (slices, rows, columns) with high values bright, and what had to be done for that."""
    values = np.stack([piece.values for piece in slices])
    inverted = {str(piece.header.get("PhotometricInterpretation")) == "MONOCHROME1" for piece in slices}
    if inverted == {True}:
        return values.max() - values, ("The series is stored as MONOCHROME1: inverted.",)
    if len(inverted) > 1:
        raise RefusedInput("MIXED_GEOMETRY", "Some slices of the series are stored inverted and others not.")
    return values, ()


def _volume(values: FloatArray, stack: Stack) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    row_mm, column_mm = stack.pixel_spacing_mm
    image.SetSpacing((column_mm, row_mm, stack.spacing_mm))
    image.SetOrigin(stack.origin_mm)
    image.SetDirection(stack.direction)
    return image


def _lossy(dataset: Dataset) -> LossyCompression | None:
    syntax = UID(str(dataset.file_meta.get("TransferSyntaxUID", "")))
    if str(dataset.get("LossyImageCompression")) != "01" and syntax not in ALWAYS_LOSSY:
        return None
    stored = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) / 8
    stored *= frame_count(dataset)
    ratios = _numbers(dataset, "LossyImageCompressionRatio") or [stored / max(1, len(dataset.PixelData))]
    named = dataset.get("LossyImageCompressionMethod") or LOSSY_METHODS.get(syntax, "ISO_10918_1")
    methods = [named] if isinstance(named, str) else [str(one) for one in named]
    *before, last = map(LossyCompression, ratios, methods)
    return replace(last, before=tuple(before))


def _instance(header: Dataset, frame: int | None = None, *, start: bool = True) -> str:
    """Return how people call this slice; never a UID."""
    if frame is not None:
        return f"{'Frame' if start else 'frame'} {frame}"
    number = header.get("InstanceNumber")
    return (
        f"{'Instance' if start else 'instance'} {number if number not in (None, '') else '(without number)'}"
    )
