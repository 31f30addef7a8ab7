"""Each way in which a file can be wrong has its sentence; what is only odd is read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import DataElement, Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    CTImageStorage,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from slices import write_enhanced, write_series

from dicom_node import headers
from synthesis.errors import RefusedInput
from synthesis.series import read_series

SLICES, ROWS, COLUMNS = 6, 36, 40
#: Index of the slice that is broken; its instance number is one more.
BROKEN = 2
Edit = Callable[[Dataset], None]


def volume() -> npt.NDArray[np.uint16]:
    z, y, x = np.meshgrid(range(SLICES), range(ROWS), range(COLUMNS), indexing="ij")
    return (z * 600 + y * 10 + x).astype("<u2")


@pytest.fixture(autouse=True)
def faults_are_written_as_they_are() -> Iterator[None]:
    with pydicom.config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def put(keyword: str, value: object) -> Edit:
    return lambda dataset: setattr(dataset, keyword, value)


def put_as(keyword: str, vr: str, value: object) -> Edit:
    """Write an element under a value representation that is not its own."""
    return lambda dataset: dataset.__setitem__(keyword, DataElement(keyword, vr, value))


def drop(keyword: str) -> Edit:
    return lambda dataset: dataset.__delitem__(keyword)


def more_pixels(times: int, **values: object) -> Edit:
    def edit(dataset: Dataset) -> None:
        dataset.PixelData = dataset.PixelData * times
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return edit


def palette(dataset: Dataset) -> None:
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    for colour in ("Red", "Green", "Blue"):
        put_as(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])(dataset)
        setattr(dataset, f"{colour}PaletteColorLookupTableData", bytes(512))


def floating(dataset: Dataset) -> None:
    dataset.FloatPixelData = np.ones((ROWS, COLUMNS), "<f4").tobytes()
    dataset.BitsAllocated = 32
    del dataset.PixelData


def encapsulated(frames: list[bytes], syntax: pydicom.uid.UID) -> Edit:
    def edit(dataset: Dataset) -> None:
        dataset.PixelData = encapsulate(frames)
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax

    return edit


def refusal(paths: list[Path]) -> RefusedInput:
    """Return how the worker refuses; the node reads the header as far as it goes, or says that it cannot."""
    for path in paths:
        try:
            headers.read(path)
        except headers.Unreadable as error:
            assert str(error).endswith(".")
    with pytest.raises(RefusedInput) as caught:
        read_series(paths)
    assert caught.value.sentence.endswith(".")
    return caught.value


#: What is wrong, how it is made, the code, and words of the sentence.
FAULTS: dict[str, tuple[Edit, str, str]] = {
    "no pixel data": (drop("PixelData"), "NO_PIXEL_DATA", "Instance 3 holds no pixels"),
    "empty pixel data": (put("PixelData", b""), "NO_PIXEL_DATA", "Instance 3 holds no pixels"),
    "pixel data cut": (put("PixelData", b"\0" * 100), "UNREADABLE_PIXELS", "cut short"),
    "no rows": (drop("Rows"), "UNREADABLE_PIXELS", "does not say how many rows"),
    "empty columns": (put("Columns", None), "UNREADABLE_PIXELS", "does not say how many columns"),
    "zero rows": (put("Rows", 0), "UNREADABLE_PIXELS", "does not say how many rows"),
    "more rows than pixels": (put("Rows", 60), "UNREADABLE_PIXELS", "cut short"),
    "rows in words": (put_as("Rows", "LO", "many"), "UNREADABLE_PIXELS", "how many rows"),
    "no bits allocated": (drop("BitsAllocated"), "UNREADABLE_PIXELS", "how many bits"),
    "12 bits allocated": (put("BitsAllocated", 12), "UNREADABLE_PIXELS", "damaged"),
    "no bits stored": (drop("BitsStored"), "UNREADABLE_PIXELS", "how many bits"),
    "zero bits stored": (put("BitsStored", 0), "UNREADABLE_PIXELS", "how many bits"),
    "more bits stored than allocated": (put("BitsStored", 20), "UNREADABLE_PIXELS", "damaged"),
    "no sign of pixels": (drop("PixelRepresentation"), "UNREADABLE_PIXELS", "damaged"),
    "no photometric interpretation": (drop("PhotometricInterpretation"), "UNREADABLE_PIXELS", "damaged"),
    "a wrong number of frames": (put("NumberOfFrames", 3), "BROKEN_FRAMES", "without their places"),
    "several frames": (more_pixels(2, NumberOfFrames=2), "BROKEN_FRAMES", "without their places"),
    "colour": (
        more_pixels(3, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0),
        "NOT_MR",
        "colour image",
    ),
    "palette": (palette, "NOT_MR", "colour image"),
    "floating point": (floating, "NOT_MR", "computed numbers"),
    "no position": (drop("ImagePositionPatient"), "NO_POSITION", "Instance 3 does not say where it lies"),
    "empty position": (put("ImagePositionPatient", None), "NO_POSITION", "where it lies"),
    "position of two numbers": (put("ImagePositionPatient", ["0", "1"]), "NO_POSITION", "where it lies"),
    "position in words": (put_as("ImagePositionPatient", "LO", ["a", "b", "c"]), "NO_POSITION", "where it"),
    "position not a number": (put_as("ImagePositionPatient", "FD", [0.0, np.nan, 0.0]), "NO_POSITION", ""),
    "no orientation": (drop("ImageOrientationPatient"), "NO_POSITION", "where it lies"),
    "orientation of zeros": (put("ImageOrientationPatient", ["0"] * 6), "NO_POSITION", "no orientation"),
    "orientation not a number": (
        put_as("ImageOrientationPatient", "FD", [np.nan] * 6),
        "NO_POSITION",
        "where it lies",
    ),
    "orientation of parallels": (
        put("ImageOrientationPatient", ["1", "0", "0", "1", "0", "0"]),
        "NO_POSITION",
        "no orientation",
    ),
    "orientation of three": (put("ImageOrientationPatient", ["1", "0", "0"]), "NO_POSITION", "where it lies"),
    "no pixel spacing": (drop("PixelSpacing"), "NO_POSITION", "how large its pixels are"),
    "zero pixel spacing": (put("PixelSpacing", ["0", "0"]), "NO_POSITION", "how large its pixels are"),
    "negative pixel spacing": (put("PixelSpacing", ["-1", "1"]), "NO_POSITION", "how large its pixels are"),
    "one pixel spacing": (put("PixelSpacing", ["1"]), "NO_POSITION", "how large its pixels are"),
    "another orientation": (
        put("ImageOrientationPatient", ["0", "1", "0", "-1", "0", "0"]),
        "MIXED_GEOMETRY",
        "differ in orientation",
    ),
    "another pixel spacing": (put("PixelSpacing", ["1.1", "1.1"]), "MIXED_GEOMETRY", "in pixel spacing"),
    "another matrix": (put("Rows", 9), "UNREADABLE_PIXELS", ""),
    "inverted alone": (put("PhotometricInterpretation", "MONOCHROME1"), "MIXED_GEOMETRY", "inverted"),
    "the place of another": (
        put("ImagePositionPatient", ["0", "0", "5"]),
        "DUPLICATE_POSITIONS",
        "same place",
    ),
    "uneven": (put("ImagePositionPatient", ["0", "0", "11"]), "IRREGULAR_SPACING", "not evenly spaced"),
    "shifted sideways": (put("ImagePositionPatient", ["4", "0", "10"]), "SHEARED_STACK", "shifted sideways"),
    "far away": (put("ImagePositionPatient", ["0", "0", "1e30"]), "SLICE_MISSING", "missing"),
    "another series": (put("SeriesInstanceUID", "2.25.77"), "MIXED_SERIES", "2 series"),
    "another frame of reference": (put("FrameOfReferenceUID", "2.25.77"), "MIXED_SERIES", "2 frames"),
    "another kind of object": (put("SOPClassUID", CTImageStorage), "NOT_MR", "CT Image Storage"),
    "unknown kind of object": (put("SOPClassUID", "1.2.3.4"), "NOT_MR", "no MR image (1.2.3.4)"),
    "no kind of object": (drop("SOPClassUID"), "UNREADABLE_FILE", "holds no DICOM image"),
    "no instance UID": (drop("SOPInstanceUID"), "UNREADABLE_FILE", "holds no DICOM image"),
    "no series UID": (drop("SeriesInstanceUID"), "UNREADABLE_FILE", "holds no DICOM image"),
    "empty study UID": (put("StudyInstanceUID", ""), "UNREADABLE_FILE", "holds no DICOM image"),
    "slope zero": (put("RescaleSlope", "0"), "UNREADABLE_PIXELS", "rescale slope 0"),
    "slope not a number": (put_as("RescaleSlope", "FD", np.nan), "UNREADABLE_PIXELS", "rescale slope nan"),
    "intercept endless": (put_as("RescaleIntercept", "FD", np.inf), "UNREADABLE_PIXELS", "intercept inf"),
    "garbage for RLE": (encapsulated([b"\x55" * 500], RLELossless), "UNREADABLE_PIXELS", "damaged"),
    "garbage for JPEG": (encapsulated([b"\x55" * 500], JPEGLosslessSV1), "UNREADABLE_PIXELS", "damaged"),
    "garbage for JPEG-LS": (encapsulated([b"\x55" * 500], JPEGLSLossless), "UNREADABLE_PIXELS", "damaged"),
    "garbage for JPEG 2000": (
        encapsulated([b"\x55" * 500], JPEG2000Lossless),
        "UNREADABLE_PIXELS",
        "damaged",
    ),
    "fragments without length": (
        put("PixelData", b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\xff\xff\0\0"),
        "UNREADABLE_PIXELS",
        "cut short",
    ),
    "one stream named another": (
        encapsulated([b"\xff\x4f\xff\x51" + bytes(400)], RLELossless),
        "UNREADABLE_PIXELS",
        "damaged",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_series_with_a_broken_slice_is_refused_by_name(fault: str, tmp_path: Path) -> None:
    edit, code, words = FAULTS[fault]
    paths = write_series(tmp_path, volume())
    dataset = pydicom.dcmread(paths[BROKEN])
    edit(dataset)
    dataset.save_as(paths[BROKEN], enforce_file_format=False)

    found = refusal(paths)

    assert found.code == code
    assert words in found.sentence


@pytest.mark.parametrize(
    ("syntax", "damage"),
    [
        (RLELossless, lambda stream: stream[:200] + stream[240:]),
        (RLELossless, lambda stream: stream[:200] + bytes(60) + stream[260:]),
        (RLELossless, lambda stream: stream[:-200]),
        (JPEG2000Lossless, lambda stream: stream[:-100]),
        (JPEG2000Lossless, lambda stream: stream[:200] + stream[240:]),
        (JPEGLSLossless, lambda stream: stream[:-100]),
        (JPEGLSLossless, lambda stream: stream[:200] + stream[240:]),
    ],
    ids=["RLE lost", "RLE blanked", "RLE cut", "J2K cut", "J2K lost", "JPEG-LS cut", "JPEG-LS lost"],
)
def test_a_compressed_stream_that_lost_bytes_is_refused(
    syntax: pydicom.uid.UID, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    noisy = volume() + np.random.default_rng(1).integers(0, 9, (SLICES, ROWS, COLUMNS), dtype="<u2")
    paths = write_series(tmp_path, noisy, syntax=syntax)
    dataset = pydicom.dcmread(paths[BROKEN])
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    encapsulated([damage(stream)], syntax)(dataset)
    dataset.save_as(paths[BROKEN])

    found = refusal(paths)

    assert found.code == "UNREADABLE_PIXELS"
    assert "The pixels of instance 3 are cut short or damaged" in found.sentence


#: What is wrong with the bytes of a file.
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing in it": lambda raw: b"",
    "text": lambda raw: b"The PACS could not find this image." * 20,
    "zeros": lambda raw: bytes(len(raw)),
    "without preamble and file meta": lambda raw: raw[132:],
    "cut in the preamble": lambda raw: raw[:90],
    "cut in the file meta": lambda raw: raw[:170],
    "cut in the header": lambda raw: raw[:600],
    "an element longer than the file": lambda raw: raw.replace(
        b"\x20\x00\x13\x00IS", b"\x20\x00\x13\x00UT\0\0\xf0\xf0"
    ),
    "a transfer syntax that is none": lambda raw: raw.replace(
        b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0"
    ),
    "big endian that says little": lambda raw: raw.replace(
        b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0"
    ),
    "deflated that is not": lambda raw: raw.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_series_with_a_damaged_file_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    paths = write_series(tmp_path, volume())
    raw = paths[BROKEN].read_bytes()
    assert DAMAGE[damage](raw) != raw
    paths[BROKEN].write_bytes(DAMAGE[damage](raw))

    found = refusal(paths)

    assert found.code in ("UNREADABLE_FILE", "NO_PIXEL_DATA", "UNREADABLE_PIXELS")
    assert "please send the series again" in found.sentence


#: Breaks the standard, and hides nothing that is needed.
ODD: dict[str, Edit] = {
    "no instance number": drop("InstanceNumber"),
    "instance number in words": put_as("InstanceNumber", "LO", "third"),
    "no image type": drop("ImageType"),
    "no modality": drop("Modality"),
    "no patient": drop("PatientID"),
    "sex of no kind": put("PatientSex", "0000"),
    "a date that is none": put("StudyDate", "31.12.2025"),
    "an unknown character set": put("SpecificCharacterSet", "ISO_IR 999"),
    "no echo time": drop("EchoTime"),
    "spaces in numbers": put("PixelSpacing", [" 1.0 ", "1.0  "]),
    "pixels with a tail": lambda dataset: setattr(dataset, "PixelData", dataset.PixelData + bytes(64)),
    "private data": put_as("0x00191001", "UN", b"\1\2\3\4"),
    "empty slope": put("RescaleSlope", None),
    "number of frames in a classic image": put("NumberOfFrames", 1),
    "a wrong length of the file meta": lambda dataset: setattr(
        dataset.file_meta, "FileMetaInformationGroupLength", 12
    ),
    "no other file meta than the syntax": lambda dataset: dataset.file_meta.__delitem__(
        "MediaStorageSOPClassUID"
    ),
}


@pytest.mark.parametrize("oddity", ODD)
def test_what_is_only_odd_is_read(oddity: str, tmp_path: Path) -> None:
    paths = write_series(tmp_path, volume())
    for path in paths:
        dataset = pydicom.dcmread(path)
        ODD[oddity](dataset)
        dataset.save_as(path, enforce_file_format=False)

    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_series(paths).image), volume())
    assert headers.read(paths[0]).pixel_problem == ""


#: Faults of an Enhanced MR object.
FRAMES: dict[str, tuple[Edit, str]] = {
    "fewer frames than said": (put("NumberOfFrames", 9), "BROKEN_FRAMES"),
    "more frames than said": (put("NumberOfFrames", 4), "BROKEN_FRAMES"),
    "no number of frames": (drop("NumberOfFrames"), "BROKEN_FRAMES"),
    "frames that nothing describes": (drop("PerFrameFunctionalGroupsSequence"), "BROKEN_FRAMES"),
    "a frame that nothing describes": (
        lambda dataset: dataset.PerFrameFunctionalGroupsSequence.pop(),
        "BROKEN_FRAMES",
    ),
    "a frame without place": (
        lambda dataset: dataset.PerFrameFunctionalGroupsSequence[3].__delitem__("PlanePositionSequence"),
        "NO_POSITION",
    ),
    "no pixel spacing": (drop("SharedFunctionalGroupsSequence"), "NO_POSITION"),
    "pixels cut": (
        lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:-100]),
        "UNREADABLE_PIXELS",
    ),
    "a frame of colour": (put("SamplesPerPixel", 3), "NOT_MR"),
    "two at one place": (
        lambda dataset: dataset.PerFrameFunctionalGroupsSequence.__setitem__(
            3, dataset.PerFrameFunctionalGroupsSequence[2]
        ),
        "DUPLICATE_POSITIONS",
    ),
}


@pytest.mark.parametrize("fault", FRAMES)
def test_a_broken_enhanced_object_is_refused_by_name(fault: str, tmp_path: Path) -> None:
    edit, code = FRAMES[fault]
    path = write_enhanced(tmp_path / "e.dcm", volume())
    dataset = pydicom.dcmread(path)
    edit(dataset)
    dataset.save_as(path, enforce_file_format=False)

    assert refusal([path]).code == code


#: The collection of bad and odd files; the good ones among them are one slice of a series.
FILES = {
    "dwv_dwv-test_bad.zip": "UNREADABLE_FILE",
    "orthanc_DummyCTInvalidRows.dcm": "NO_PIXEL_DATA",
    "orthanc_Issue195.dcm": "UNREADABLE_FILE",
    "orthanc_Issue22-NoPixelData.dcm": "NO_PIXEL_DATA",
    "orthanc_MarekLatin2.dcm": "NOT_MR",
    "orthanc_UnknownSopClassUid.dcm": "NOT_MR",
    "pydicom_ExplVR_BigEndNoMeta.dcm": "UNREADABLE_FILE",
    "pydicom_ExplVR_LitEndNoMeta.dcm": "UNREADABLE_FILE",
    "pydicom_J2K_pixelrep_mismatch.dcm": "NOT_MR",
    "pydicom_JPEG2000-embedded-sequence-delimiter.dcm": "NOT_MR",
    "pydicom_MR_small_RLE.dcm": "TOO_FEW_SLICES",
    "pydicom_MR_small_bigendian.dcm": "TOO_FEW_SLICES",
    "pydicom_MR_small_expb.dcm": "TOO_FEW_SLICES",
    "pydicom_MR_small_implicit.dcm": "TOO_FEW_SLICES",
    "pydicom_MR_small_jp2klossless.dcm": "TOO_FEW_SLICES",
    "pydicom_MR_small_jpeg_ls_lossless.dcm": "TOO_FEW_SLICES",
    "pydicom_MR_small_padded.dcm": "TOO_FEW_SLICES",
    "pydicom_MR_truncated.dcm": "UNREADABLE_PIXELS",
    "pydicom_UN_sequence.dcm": "UNREADABLE_FILE",
    "pydicom_badVR.dcm": "NOT_MR",
    "pydicom_bad_sequence.dcm": "NOT_MR",
    "pydicom_chrArab.dcm": "NOT_MR",
    "pydicom_chrFrenMulti.dcm": "NOT_MR",
    "pydicom_chrH31.dcm": "NOT_MR",
    "pydicom_chrH32.dcm": "NOT_MR",
    "pydicom_chrI2.dcm": "NOT_MR",
    "pydicom_chrRuss.dcm": "NOT_MR",
    "pydicom_chrSQEncoding.dcm": "UNREADABLE_FILE",
    "pydicom_chrX1.dcm": "NOT_MR",
    "pydicom_chrX2.dcm": "NOT_MR",
    "pydicom_empty_charset_LEI.dcm": "UNREADABLE_FILE",
    "pydicom_emri_small_big_endian.dcm": "BROKEN_FRAMES",
    "pydicom_emri_small_jpeg_2k_lossless_too_short.dcm": "UNREADABLE_FILE",
    "pydicom_explicit_VR-UN.dcm": "NOT_MR",
    "pydicom_image_dfl.dcm": "NOT_MR",
    "pydicom_meta_missing_tsyntax.dcm": "UNREADABLE_FILE",
    "pydicom_nested_priv_SQ.dcm": "UNREADABLE_FILE",
    "pydicom_no_meta.dcm": "UNREADABLE_FILE",
    "pydicom_no_meta_group_length.dcm": "UNREADABLE_FILE",
    "pydicom_rtplan_truncated.dcm": "NOT_MR",
}


def test_every_file_of_the_collection_is_refused_by_its_name(shared_data: Path) -> None:
    paths = sorted(path for path in (shared_data / "malformed").iterdir() if path.suffix != ".csv")
    assert {path.name: refusal([path]).code for path in paths} == FILES
