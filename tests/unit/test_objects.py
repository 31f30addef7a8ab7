"""Segmentation, report, answer, retraction: in their place, saying what they must, and never an input."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from highdicom.sr import srread
from objects import ALL, MADE, blob, every_object, like, maker, save_all, source, texts, volumes
from pydicom import Dataset
from slices import SAGITTAL, write_enhanced, write_series

from dicom_node import headers
from synthesis.derive.answer import Refusal, answer_document, answer_page
from synthesis.derive.objects import NO_SPREAD, NO_TUMOUR_NO_SEG, Volumes, derive
from synthesis.derive.retraction import retract
from synthesis.derive.seg import derive_seg
from synthesis.job import Kind, Wanted
from synthesis.series import Series, read_series

ORDER = [3, 0, 5, 1, 4, 2]
REFUSAL = Refusal("NO_FLAIR", "The FLAIR was not sent.")


def values() -> np.ndarray:
    return (np.arange(6 * 36 * 40, dtype=np.uint16).reshape(6, 36, 40) // 5) + 50


@pytest.fixture(scope="module")
def t1(tmp_path_factory: pytest.TempPathFactory) -> Series:
    folder = tmp_path_factory.mktemp("t1")
    return read_series(
        write_series(folder, values(), axes=SAGITTAL, origin_mm=(-50.5, -80.25, 90.125), order=ORDER)
    )


@pytest.fixture(scope="module")
def flair(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return read_series(write_series(tmp_path_factory.mktemp("flair"), values(), series="2"))


@pytest.fixture(scope="module")
def everything(t1: Series, flair: Series) -> dict[str, list[Dataset]]:
    return every_object(t1, flair)


@pytest.mark.parametrize("fractional", [False, True], ids=["binary", "fractional"])
@pytest.mark.parametrize("form", ["classic", "enhanced"])
def test_the_segmentation_lies_over_the_tumour_in_patient_coordinates(
    form: str, fractional: bool, t1: Series, tmp_path: Path
) -> None:
    """Every voxel of the mask as an independent reader places it is found again in the volume, in mm."""
    if form == "enhanced":
        t1 = read_series([write_enhanced(tmp_path / "e.dcm", values(), axes=SAGITTAL, order=ORDER)])
    tumour = blob(t1)
    made = derive_seg(source(t1, t1, Wanted()), like(t1, tumour), fractional=fractional)
    assert made is not None
    read = highdicom.seg.segread(save_all([made], tmp_path / "out")[0])
    shown = read.get_volume()
    found = 0
    for index in np.argwhere(shown.array[..., 0] > (0.5 if not fractional else 0.02)):
        point = (shown.affine @ [*index[:3], 1])[:3]
        x, y, z = t1.image.TransformPhysicalPointToIndex(point.tolist())
        assert np.abs(point - t1.image.TransformIndexToPhysicalPoint((x, y, z))).max() < 1e-3
        stored = shown.array[(*index[:3], 0)]
        if fractional:
            assert stored == pytest.approx(tumour[z, y, x], abs=1 / 255)
        else:
            assert tumour[z, y, x] > 0.5
            found += 1
    if not fractional:
        assert found == int((tumour > 0.5).sum())
    by_uid = {str(header.SOPInstanceUID): z for z, header in enumerate(t1.headers)}
    for frame in read.PerFrameFunctionalGroupsSequence:
        item = frame.DerivationImageSequence[0].SourceImageSequence[0]
        z = (
            by_uid[item.ReferencedSOPInstanceUID]
            if form == "classic"
            else (t1.frames.index(item.ReferencedFrameNumber))
        )
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(place, t1.headers[z].ImagePositionPatient, atol=1e-3)


@pytest.mark.parametrize("fractional", [False, True], ids=["binary", "fractional"])
def test_readers_that_know_no_gaps_place_two_tumours_right(
    fractional: bool, t1: Series, tmp_path: Path
) -> None:
    tumour = np.zeros_like(blob(t1))
    tumour[[0, 1, 4], 10:14, 20:28] = 1
    made = derive_seg(source(t1, t1, Wanted()), like(t1, tumour), fractional=fractional)
    assert made is not None

    read = sitk.ReadImage(str(save_all([made], tmp_path)[0]))

    assert int((sitk.GetArrayViewFromImage(read) > 0).sum()) == int(tumour.sum())
    for z, y, x in np.argwhere(tumour).tolist():
        place = t1.image.TransformIndexToPhysicalPoint((x, y, z))
        index = read.TransformPhysicalPointToIndex(place)
        assert np.abs(np.subtract(read.TransformIndexToPhysicalPoint(index), place)).max() < 1e-3
        assert read[index] > 0


def test_no_tumour_and_no_spread_are_said_instead_of_drawn(t1: Series, flair: Series) -> None:
    wanted = Wanted(ALL)
    given = source(t1, flair, wanted)
    nothing = like(t1, np.zeros_like(blob(t1)))
    found = derive(wanted, given, Volumes(t1.image, nothing, nothing), ())
    assert {str(one.Modality) for one in found.instances} == {"MR", "SR"}
    assert set(found.remarks) >= {NO_TUMOUR_NO_SEG, NO_SPREAD}
    assert NO_TUMOUR_NO_SEG in texts(found.instances[-1])


def test_only_what_is_wanted_is_made(t1: Series, flair: Series) -> None:
    for kind, modality in ((Kind.SEG, "SEG"), (Kind.REPORT, "SR"), (Kind.DIFFERENCE, "MR")):
        wanted = Wanted((kind.value,))
        given = source(t1, flair, wanted)
        made = derive(wanted, given, volumes(t1, given.level), ()).instances
        assert {str(one.Modality) for one in made} == {modality}


def test_the_report_holds_volumes_model_and_every_sentence(
    t1: Series, everything: dict[str, list[Dataset]], tmp_path: Path
) -> None:
    report = srread(save_all(everything["classic: SYNTH REPORT (AI)"], tmp_path)[0])
    voxel_ml = float(np.prod(t1.image.GetSpacing())) / 1000
    by_tracking = {
        item.ContentSequence[0].TextValue: item for item in report.ContentSequence[-2].ContentSequence
    }
    measured = {
        name: float(number.MeasuredValueSequence[0].NumericValue)
        for name, group in by_tracking.items()
        for number in group.ContentSequence
        if number.ValueType == "NUM"
    }
    expected = int((blob(t1) > 0.5).sum()) * voxel_ml
    assert measured["Predicted tumour"] == pytest.approx(expected, abs=0.05)
    assert 0 < measured["Predicted enhancement in the tumour"] <= measured["Predicted tumour"]
    text = texts(report)
    for said in ("One.", "Another one.", "small", "ab" * 32, "mL"):
        assert said in text


def test_the_answer_to_a_declined_study_says_why(t1: Series, tmp_path: Path) -> None:
    refusal = Refusal("NO_FLAIR", "The FLAIR was not sent.", ("Send it: the study opens again.",))
    document = answer_document(refusal, t1.headers, maker(Wanted()), MADE)
    page = answer_page(refusal, t1.headers, maker(Wanted()), MADE)
    read = srread(save_all([document], tmp_path)[0])
    assert refusal.reason in texts(read)
    assert refusal.details[0] in texts(read)
    assert (document.StudyInstanceUID, page.StudyInstanceUID) == (t1.headers[0].StudyInstanceUID,) * 2
    assert page.pixel_array.shape == (512, 512)
    assert 0.01 < (page.pixel_array > 128).mean() < 0.3
    again = answer_document(refusal, t1.headers[::-1], maker(Wanted()), MADE)
    other = answer_document(REFUSAL, t1.headers, maker(Wanted()), MADE)
    assert document.SOPInstanceUID == again.SOPInstanceUID != other.SOPInstanceUID


def test_a_retraction_rejects_every_instance_of_the_result(
    everything: dict[str, list[Dataset]], tmp_path: Path
) -> None:
    results = everything["classic: SYNTH T1C (AI, no Gd)"]
    document = retract(results, results[0], "The outline is wrong.", maker(Wanted()), MADE)
    read = pydicom.dcmread(save_all([document], tmp_path)[0])
    assert read.ConceptNameCodeSequence[0].CodeValue == "113001"
    assert read.ContentSequence[0].ConceptCodeSequence[0].CodeValue == "111219"
    named = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in read.ContentSequence
        if item.ValueType == "IMAGE"
    }
    assert named == {str(one.SOPInstanceUID) for one in results}
    with pytest.raises(ValueError, match="one study"):
        retract([], results[0], "Nothing.", maker(Wanted()), MADE)


def test_none_of_our_objects_can_be_taken_for_an_input(
    everything: dict[str, list[Dataset]], tmp_path: Path
) -> None:
    for number, (kind, instances) in enumerate(everything.items()):
        for path in save_all(instances[:2], tmp_path / str(number)):
            header = headers.read(path)
            assert header.synthetic, kind


def uids(dataset: Dataset) -> list[tuple[str, object]]:
    """Return every identifier in an object, those in its sequences too."""
    return [(element.keyword, element.value) for element in dataset.iterall() if element.VR == "UI"]


def test_no_two_kinds_share_a_series_and_a_second_run_makes_the_same_identifiers(
    t1: Series, flair: Series, everything: dict[str, list[Dataset]]
) -> None:
    series = {kind: {str(one.SeriesInstanceUID) for one in found} for kind, found in everything.items()}
    assert all(len(uids) == 1 for uids in series.values())
    assert len(set.union(*series.values())) == len(everything)
    again = every_object(t1, flair)
    for kind, found in everything.items():
        for first, second in zip(found, again[kind], strict=True):
            assert uids(first) == uids(second), kind
        assert all(str(one.SOPInstanceUID).startswith("2.25.") for one in found)
        assert all(one.SyntheticData == "YES" for one in found)
        assert all(one.DeviceUID == maker(Wanted()).device_uid for one in found)


def test_no_series_description_matches_a_hanging_rule_for_post_contrast(
    everything: dict[str, list[Dataset]],
) -> None:
    for found in everything.values():
        words = str(found[0].SeriesDescription).upper()
        assert words.startswith("SYNTH")
        assert not [word for word in ("POST", "+C", "T1 ", "GAD", "CONTRAST") if word in words]
