"""What is read of an instance: from real bytes, good and damaged."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from small_studies import PATIENT_ID, PATIENT_NAME, image, write

from dicom_node import headers
from dicom_node.headers import ENHANCED_MR, Header, Unreadable, says_contrast


def one(**attributes: Any) -> Dataset:
    return image("1.2.3", "1.2.3.4", "FLAIR", 1, **attributes)


def read(ds: Dataset, folder: Path) -> Header:
    return headers.read(write([ds], folder)[0])


def test_timing_geometry_and_words_are_read(tmp_path: Path) -> None:
    header = read(one(), tmp_path)

    assert (header.tr_ms, header.te_ms, header.ti_ms) == (9000, 100, 2500)
    assert header.scanning_sequence == ("SE", "IR")
    assert header.positions_mm == ((-120.0, -120.0, -50.0),) and header.orientation == (1, 0, 0, 0, 1, 0)
    assert header.series_description == "FLAIR tra" and header.body_part == "BRAIN"
    assert header.acquired == "20260112094000"
    assert header.pixel_problem == "" and header.distinct_values == 256


def test_nothing_of_the_patient_is_read(tmp_path: Path) -> None:
    text = json.dumps(read(one(), tmp_path).to_json(), ensure_ascii=False)

    assert not any(part in text for part in (*PATIENT_NAME.split("^"), PATIENT_ID, "19700101"))


def test_a_header_survives_the_ledger(tmp_path: Path) -> None:
    header = read(one(), tmp_path)

    assert Header.from_json(json.loads(json.dumps(header.to_json()))) == header


def test_only_what_differs_from_the_defaults_is_kept() -> None:
    header = Header("1", "2", "3", "4")

    assert set(header.to_json()) == {"study_uid", "series_uid", "sop_instance_uid", "sop_class_uid"}


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_an_instance_that_belongs_nowhere_is_unreadable(keyword: str) -> None:
    ds = one()
    delattr(ds, keyword)

    with pytest.raises(Unreadable, match=f"An instance has no {keyword}."):
        headers.of_dataset(ds)


def test_bytes_that_are_no_dicom_are_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + bytes(range(256)) * 40)

    with pytest.raises(Unreadable):
        headers.read(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_a_header_or_unreadable_and_never_quotes_the_patient(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = write([one()], tmp_path)[0]
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(132, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(140, len(raw)))])

    try:
        said = ""
        headers.read(path)
    except Unreadable as error:
        said = error.sentence

    assert not any(part in said for part in (*PATIENT_NAME.split("^"), PATIENT_ID))


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"PixelData": None}, "it holds no pixel data"),
        ({"Rows": None}, "its header has no valid Rows"),
        ({"Rows": 0}, "its header has no valid Rows"),
        ({"SamplesPerPixel": None}, "its header has no valid SamplesPerPixel"),
        ({"PixelData": b"\0" * 300}, "its pixel data is cut short"),
        ({"PixelData": b""}, "its pixel data is cut short"),
        ({"Rows": 4096}, "its pixel data is cut short"),
    ],
)
def test_pixels_that_cannot_be_used_are_named(tmp_path: Path, attributes: dict[str, Any], words: str) -> None:
    assert read(one(**attributes), tmp_path).pixel_problem == words


def test_padding_after_the_pixels_is_no_problem(tmp_path: Path) -> None:
    assert read(one(PixelData=b"\1\0" * 260), tmp_path).pixel_problem == ""


def test_a_file_cut_within_its_pixels_is_named(tmp_path: Path) -> None:
    path = write([one()], tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-200])

    assert headers.read(path).pixel_problem == "its pixel data is cut short"


def test_a_mask_has_few_values(tmp_path: Path) -> None:
    assert read(one(PixelData=b"\0\0\1\0" * 128), tmp_path).distinct_values == 2


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_uncompressed_syntaxes_read_alike(tmp_path: Path, syntax: str) -> None:
    ds = one()
    path = tmp_path / "x.dcm"
    ds.file_meta.TransferSyntaxUID = syntax
    big_endian = syntax == ExplicitVRBigEndian
    if big_endian:
        ds["PixelData"].VR = "OW"
    ds.save_as(path, enforce_file_format=True)

    header = headers.read(path)

    assert (header.tr_ms, header.pixel_problem, header.distinct_values) == (9000, "", 256)


def test_the_values_of_compressed_pixels_are_not_counted(tmp_path: Path) -> None:
    ds = one()
    ds.compress(RLELossless)

    header = read(ds, tmp_path)

    assert header.pixel_problem == "" and header.distinct_values is None


@pytest.mark.parametrize(
    "value",
    ["", "NONE", "No", "0", "-", "n/a", "kein", " ", "No contrast", "(none)", "without Gd", "0 ml"],
)
def test_an_agent_of_that_name_is_none(value: str) -> None:
    assert not says_contrast(value)


@pytest.mark.parametrize("value", ["GADOVIST", "Gd-DTPA", "yes", "15 ml Dotarem", "Contrast", "0.1 mmol/kg"])
def test_an_agent_of_that_name_was_given(value: str) -> None:
    assert says_contrast(value)


@pytest.mark.parametrize(
    ("attributes", "given"),
    [
        ({"ContrastBolusAgent": "GADOVIST", "ContrastBolusStartTime": "094500"}, False),
        ({"ContrastBolusAgent": "GADOVIST", "ContrastBolusStartTime": "093500"}, True),
        ({"ContrastBolusAgent": "", "ContrastBolusVolume": "7.5"}, True),
        ({"ContrastBolusAgent": "", "ContrastBolusVolume": "0"}, False),
    ],
    ids=["before the bolus", "after it", "a volume", "no volume"],
)
def test_start_and_volume_of_the_bolus_count(tmp_path: Path, attributes: dict[str, str], given: bool) -> None:
    assert read(one(**attributes), tmp_path).contrast_given is given


def test_the_agent_of_a_file_counts(tmp_path: Path) -> None:
    assert read(one(ContrastBolusAgent="Gadovist"), tmp_path).contrast_given
    assert not read(one(ContrastBolusAgent="NONE"), tmp_path / "none").contrast_given


def test_synthetic_data_is_read(tmp_path: Path) -> None:
    assert read(one(SyntheticData="YES"), tmp_path).synthetic


@pytest.mark.filterwarnings("ignore")
def test_faulty_values_do_not_hide_the_rest(tmp_path: Path) -> None:
    ds = one(PatientSex="0000", SeriesNumber=None)
    ds["EchoTime"]._value = "1,5"

    header = read(ds, tmp_path)

    assert header.series_number is None and header.te_ms is None and header.tr_ms == 9000


def enhanced(frames: int = 4, **attributes: Any) -> Dataset:
    ds = one(SOPClassUID=ENHANCED_MR, NumberOfFrames=frames, **attributes)
    for keyword in ("RepetitionTime", "EchoTime", "InversionTime", "ImageOrientationPatient", "PixelSpacing"):
        delattr(ds, keyword)
    ds.PixelData = ds.PixelData * frames
    ds.AcquisitionContrast = "T1"
    shared, timing, echo, modifier, measures, plane = (Dataset() for _ in range(6))
    timing.RepetitionTime, timing.FlipAngle, timing.EchoTrainLength = 2300, 9, 1
    echo.EffectiveEchoTime = 2.98
    modifier.InversionTimes = [900]
    measures.PixelSpacing = [1, 1]
    plane.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    shared.MRTimingAndRelatedParametersSequence = [timing]
    shared.MREchoSequence = [echo]
    shared.MRModifierSequence = [modifier]
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [plane]
    ds.SharedFunctionalGroupsSequence = [shared]
    items = []
    for number in range(frames):
        position, item = Dataset(), Dataset()
        position.ImagePositionPatient = [10 + number, 0, 0]
        item.PlanePositionSequence = [position]
        items.append(item)
    ds.PerFrameFunctionalGroupsSequence = items
    return ds


def test_enhanced_mr_is_read_from_its_functional_groups(tmp_path: Path) -> None:
    header = read(enhanced(), tmp_path)

    assert (header.tr_ms, header.te_ms, header.ti_ms, header.flip_deg) == (2300, 2.98, 900, 9)
    assert header.frames == 4 and len(header.positions_mm) == 4
    assert header.orientation == (0, 1, 0, 0, 0, -1) and header.orientations == 1
    assert header.spacing_mm == (1, 1) and header.acquisition_contrast == "T1"


def agent(administered: str) -> dict[str, Any]:
    item = Dataset()
    item.ContrastBolusAgentNumber = 1
    usage = Dataset()
    usage.ContrastBolusAgentAdministered = administered
    return {"item": item, "usage": usage}


@pytest.mark.parametrize(("administered", "given"), [("YES", True), ("NO", False)])
def test_an_agent_of_enhanced_mr_counts_when_it_was_administered(
    tmp_path: Path, administered: str, given: bool
) -> None:
    ds, made = enhanced(), agent(administered)
    ds.ContrastBolusAgentSequence = [made["item"]]
    ds.SharedFunctionalGroupsSequence[0].ContrastBolusUsageSequence = [made["usage"]]

    assert read(ds, tmp_path).contrast_given is given


def test_enhanced_mr_without_functional_groups_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    ds = one(SOPClassUID=ENHANCED_MR, NumberOfFrames=1)

    assert read(ds, tmp_path).frames == 1


@pytest.mark.parametrize("number", ["nan", "inf", "1e400"])
def test_a_number_that_is_none_is_left_out_and_the_header_stays_json(number: str) -> None:
    ds = one()
    ds["EchoTime"] = DataElement("EchoTime", "FD", float(number))
    ds["ImagePositionPatient"] = DataElement("ImagePositionPatient", "FD", [0.0, 0.0, float(number)])

    header = headers.of_dataset(ds)

    assert header.te_ms is None and header.positions_mm == ()
    json.dumps(header.to_json(), allow_nan=False)


def coded(value: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", "a derivation"
    return item


@pytest.mark.parametrize(
    ("attributes", "first"),
    [
        ({"LossyImageCompression": "01"}, "ORIGINAL"),
        ({"LossyImageCompression": "01", "DerivationCodeSequence": [coded("113040")]}, "ORIGINAL"),
        ({"LossyImageCompression": "01", "DerivationDescription": "Lossy compression with JPEG"}, "ORIGINAL"),
        ({"LossyImageCompression": "00"}, "DERIVED"),
        ({}, "DERIVED"),
        ({"LossyImageCompression": "01", "DerivationDescription": "Subtraction"}, "DERIVED"),
        (
            {
                "LossyImageCompression": "01",
                "DerivationCodeSequence": [coded("113040"), coded("113062")],
            },
            "DERIVED",
        ),
    ],
)
def test_what_is_derived_by_lossy_compression_alone_counts_as_what_it_was(
    attributes: dict[str, Any], first: str
) -> None:
    header = headers.of_dataset(one(ImageType=["DERIVED", "PRIMARY", "M"], **attributes))

    assert header.image_type == (first, "PRIMARY", "M")


def test_a_secondary_image_stays_one_however_it_is_compressed() -> None:
    header = headers.of_dataset(one(ImageType=["DERIVED", "SECONDARY", "MPR"], LossyImageCompression="01"))

    assert header.image_type == ("DERIVED", "SECONDARY", "MPR")


@pytest.mark.parametrize("share", [0.7, 0.9, 0.995])
def test_a_compressed_file_that_is_cut_keeps_its_place_and_says_so(tmp_path: Path, share: float) -> None:
    ds = one(Rows=64, Columns=64, PixelData=bytes(range(256)) * 32)
    ds.compress(JPEGLSLossless, generate_instance_uid=False)
    path = write([ds], tmp_path)[0]
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    header = headers.read(path)

    assert (header.instance_number, header.pixel_problem) == (1, "its pixel data is cut short")


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("ISO_IR 100", "T1 après"),
        ("ISO_IR 101", "przed kontrastem żółć"),
        ("ISO_IR 144", "Т1 до контраста"),
        ("ISO_IR 192", "平扫 T1"),
        ("GB18030", "平扫 T1"),
        (["", "ISO 2022 IR 87"], "T1単純"),
        (["", "ISO 2022 IR 149"], "T1 조영전"),
        (["ISO_IR 13", "ISO 2022 IR 87"], "ｻﾞｳｴｲ前"),
    ],
)
def test_descriptions_are_read_in_their_character_set(tmp_path: Path, charset: Any, text: str) -> None:
    ds = one(SpecificCharacterSet=charset, SeriesDescription=text)

    assert read(ds, tmp_path).series_description == text


@pytest.mark.parametrize("charset", [None, "", "UTF8", "ISO IR 100", "NO_SUCH", ["", "ISO 2022 IR 999"]])
def test_a_character_set_that_is_wrong_hides_nothing_else(tmp_path: Path, charset: Any) -> None:
    path = write([one(SeriesDescription="FLAIR tra")], tmp_path)[0]
    ds = one(SpecificCharacterSet=charset)
    ds.add_new(0x00081030, "LO", "MR Kopf \xe4".encode("latin-1"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is written; reading is tested
        ds.save_as(path, enforce_file_format=True)

    header = headers.read(path)

    assert (header.tr_ms, header.series_description) == (9000, "FLAIR tra")


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_a_mask_is_known_though_it_is_compressed(tmp_path: Path, syntax: UID) -> None:
    def stored(values: np.ndarray) -> Dataset:
        ds = one(Rows=128, Columns=128)
        ds.PixelData = values.astype(np.uint16).tobytes()
        ds.compress(syntax, generate_instance_uid=False)
        return ds

    blob = np.zeros((128, 128))
    blob[40:70, 50:90], blob[50:60, 60:70] = 1, 2
    noisy = np.random.default_rng(0).integers(0, 4000, (128, 128))

    assert read(stored(blob), tmp_path).distinct_values == 3
    assert read(stored(noisy), tmp_path).distinct_values is None


@pytest.mark.parametrize(
    ("attributes", "sequence"),
    [
        ({"EchoPulseSequence": "SPIN", "InversionRecovery": "YES"}, ("SE", "IR")),
        ({"EchoPulseSequence": "GRADIENT", "EchoPlanarPulseSequence": "YES"}, ("GR", "EP")),
        ({"EchoPulseSequence": "BOTH"}, ("SE", "GR")),
        ({}, ()),
    ],
)
def test_the_pulse_sequence_of_enhanced_mr_is_read_in_classic_terms(
    tmp_path: Path, attributes: dict[str, str], sequence: tuple[str, ...]
) -> None:
    ds = enhanced(**attributes)
    if "ScanningSequence" in ds:
        del ds.ScanningSequence

    assert read(ds, tmp_path).scanning_sequence == sequence


def test_the_contrast_and_component_of_the_frames_count_where_the_object_says_neither(tmp_path: Path) -> None:
    ds, kind = enhanced(), Dataset()
    del ds.AcquisitionContrast
    kind.AcquisitionContrast, kind.ComplexImageComponent = "FLUID_ATTENUATED", "MAGNITUDE"
    ds.SharedFunctionalGroupsSequence[0].MRImageFrameTypeSequence = [kind]

    header = read(ds, tmp_path)

    assert (header.acquisition_contrast, header.complex_component) == ("FLUID_ATTENUATED", "MAGNITUDE")


def test_without_a_time_of_its_own_an_enhanced_object_began_with_its_first_frame(tmp_path: Path) -> None:
    ds = enhanced()
    for number, item in enumerate(ds.PerFrameFunctionalGroupsSequence):
        content = Dataset()
        content.FrameAcquisitionDateTime = f"20260112093{9 - number}00"
        item.FrameContentSequence = [content]

    assert read(ds, tmp_path).acquired == "20260112093600"
