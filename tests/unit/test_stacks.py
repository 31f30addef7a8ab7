"""Of several volumes in one Enhanced MR object the one that covers the head best is read, or none by name."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk
from highdicom.legacy import LegacyConvertedEnhancedMRImage
from hypothesis import given, settings
from hypothesis import strategies as st
from objects import blob, like, source
from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian
from scans import FLAIR_2D, series
from slices import AXIAL, SAGITTAL, decimals, write_enhanced, write_series
from small_studies import new_uid, stack

from dicom_node import headers
from dicom_node.choose.pair import Decision, Situation, choose_pair
from dicom_node.choose.pixels import read as read_coarse
from dicom_node.choose.series import group
from synthesis.derive.seg import derive_seg
from synthesis.errors import RefusedInput
from synthesis.job import Wanted
from synthesis.series import read_series

CORONAL = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
Put = Callable[[Dataset], None]


@dataclass(frozen=True)
class Part:
    """One of the volumes in an object."""

    frames: int
    axes: npt.NDArray[np.float64]
    between_mm: float = 5.0
    stack: str = "1"
    put: Put = lambda groups: None


def write(path: Path, parts: Sequence[Part], order: Sequence[int] | None = None) -> Path:
    """Write the parts as one object; each frame holds other values."""
    frames = [(part, number) for part in parts for number in range(part.frames)]
    ramp = np.arange(36 * 40, dtype=np.uint16).reshape(36, 40) // 40
    values = np.stack([(ramp + index * 40) % 4000 for index in range(len(frames))]).astype(np.uint16)

    def edit(groups: Dataset, index: int) -> None:
        part, number = frames[index]
        place = part.axes[:, 2] * part.between_mm * number
        groups.PlanePositionSequence[0].ImagePositionPatient = decimals(place)
        groups.PlaneOrientationSequence[0].ImageOrientationPatient = decimals(part.axes[:, :2].T)
        groups.FrameContentSequence[0].StackID = part.stack
        groups.FrameContentSequence[0].InStackPositionNumber = number + 1
        kind = Dataset()
        kind.FrameType, kind.ComplexImageComponent = ["ORIGINAL", "PRIMARY", "T1", "NONE"], "MAGNITUDE"
        groups.MRImageFrameTypeSequence = [kind]
        part.put(groups)

    return write_enhanced(path, values, order=order, edit=edit)


def refused(path: Path) -> RefusedInput:
    with pytest.raises(RefusedInput) as caught:
        read_series([path])
    header = headers.read(path)
    assert (header.several_code, header.several_volumes) == (caught.value.code, caught.value.sentence)
    assert header.chosen_frames == ()
    return caught.value


def component(name: str) -> Put:
    return lambda groups: setattr(groups.MRImageFrameTypeSequence[0], "ComplexImageComponent", name)


def echo(ms: float) -> Put:
    return lambda groups: setattr(groups.MREchoSequence[0], "EffectiveEchoTime", ms)


def time_point(index: int) -> Put:
    return lambda groups: setattr(groups.FrameContentSequence[0], "TemporalPositionIndex", index)


SURVEY = (Part(3, AXIAL, 60.0, "1"), Part(12, SAGITTAL, 5.0, "2"))
HEAD = Part(30, CORONAL, 5.0, "3")


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_of_several_stacks_the_one_that_covers_the_head_is_read_in_whatever_order(random: object) -> None:
    order = list(range(45))
    random.shuffle(order)  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "e.dcm", (*SURVEY, HEAD), order)
        found, header = read_series([path]), headers.read(path)
        stored = pydicom.dcmread(path).pixel_array

    assert found.frames == tuple(order.index(15 + number) + 1 for number in range(30))
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(found.image), stored[[number - 1 for number in found.frames if number]]
    )
    assert "30 slices over 145 mm are read, not " in found.remarks[0]
    assert sorted(header.chosen_frames) == sorted(number for number in found.frames if number)
    assert (header.frames, header.orientations) == (30, 1)
    assert set(header.positions_mm) == {
        tuple(float(v) for v in one.ImagePositionPatient) for one in found.headers
    }


def test_of_magnitude_and_phase_the_magnitude_is_read(tmp_path: Path) -> None:
    parts = (Part(20, AXIAL, put=component("PHASE")), Part(20, AXIAL, put=component("MAGNITUDE")))
    path = write(tmp_path / "e.dcm", parts)

    found, header = read_series([path]), headers.read(path)

    assert found.frames == tuple(range(21, 41))
    assert "different kind of image" in found.remarks[0]
    assert header.complex_component == "MAGNITUDE" and header.image_type[2] == "T1"


def test_of_a_fine_and_a_coarse_stack_of_one_length_the_fine_one_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "e.dcm", (Part(15, AXIAL, 10.0, "1"), Part(29, AXIAL, 5.0, "2")))
    assert read_series([path]).frames == tuple(range(16, 45))


@pytest.mark.parametrize(
    ("parts", "code", "what"),
    [
        ((Part(20, AXIAL, stack="1"), Part(20, SAGITTAL, stack="2")), "SEVERAL_STACKS", "stack"),
        ((Part(20, AXIAL, put=echo(2.5)), Part(20, AXIAL, put=echo(5.0))), "SEVERAL_ECHOES", "echo time"),
        (
            (Part(20, AXIAL, put=time_point(1)), Part(20, AXIAL, put=time_point(2))),
            "SEVERAL_VOLUMES",
            "time point",
        ),
    ],
    ids=["stacks", "echoes", "times"],
)
def test_equally_fit_volumes_are_refused_by_what_differs(
    parts: tuple[Part, ...], code: str, what: str, tmp_path: Path
) -> None:
    why = refused(write(tmp_path / "e.dcm", parts))
    assert why.code == code
    assert f"2 of them are equally fit (20 slices over 95 mm, different {what})" in why.sentence


def test_label_and_control_of_a_perfusion_are_not_mixed(tmp_path: Path) -> None:
    def context(name: str) -> Put:
        def put(groups: Dataset) -> None:
            labelling = Dataset()
            labelling.ASLContext = name
            groups.MRArterialSpinLabelingSequence = [labelling]

        return put

    parts = (Part(20, AXIAL, put=context("LABEL")), Part(20, AXIAL, put=context("CONTROL")))
    assert refused(write(tmp_path / "e.dcm", parts)).code == "SEVERAL_VOLUMES"


def test_a_dimension_that_counts_what_no_attribute_says_parts_volumes(tmp_path: Path) -> None:
    path = write(tmp_path / "e.dcm", (Part(20, AXIAL), Part(20, AXIAL)))
    dataset = pydicom.dcmread(path)
    dataset.DimensionIndexSequence = [Dataset(), Dataset()]
    for item, pointer in zip(
        dataset.DimensionIndexSequence, (Tag("InStackPositionNumber"), 0x00191001), strict=True
    ):
        item.DimensionIndexPointer = pointer
    for index, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        groups.FrameContentSequence[0].DimensionIndexValues = [index % 20 + 1, index // 20 + 1]
    dataset.save_as(path)

    assert refused(path).code == "SEVERAL_VOLUMES"


def test_a_time_that_differs_from_slice_to_slice_parts_nothing(tmp_path: Path) -> None:
    counted = iter(range(1, 21))
    path = write(tmp_path / "e.dcm", [Part(20, AXIAL, put=lambda groups: time_point(next(counted))(groups))])
    assert len(read_series([path]).frames) == 20
    assert headers.read(path).several_volumes == ""


def counted(groups: Dataset, index: int) -> None:
    groups.FrameContentSequence[0].StackID = str(index)


def rounded(groups: Dataset, index: int) -> None:
    random = np.random.default_rng(index)
    cosines = np.array([0.9999875, 0.005, 0, -0.005, 0.9999875, 0]) + random.normal(0, 1e-6, 6)
    groups.PlaneOrientationSequence[0].ImageOrientationPatient = decimals(cosines)


def echo_by_frame(groups: Dataset, index: int) -> None:
    groups.MREchoSequence[0].EffectiveEchoTime = 10 + 1e-3 * index


def inversion_by_package(groups: Dataset, index: int) -> None:
    modifier = Dataset()
    modifier.InversionTimes = [2500.0 + index % 2]
    groups.MRModifierSequence = [modifier]


@pytest.mark.parametrize("edit", [counted, rounded, echo_by_frame, inversion_by_package])
def test_what_differs_among_the_slices_of_one_regular_volume_parts_nothing(
    edit: Callable[[Dataset, int], None], tmp_path: Path
) -> None:
    values = np.arange(24 * 8 * 8, dtype=np.uint16).reshape(24, 8, 8)
    path = write_enhanced(tmp_path / "e.dcm", values, edit=edit)
    header = headers.read(path)

    assert len(read_series([path]).headers) == 24
    assert (header.frames, header.orientations, header.several_volumes) == (24, 1, "")


def test_several_stacks_in_parts_of_a_concatenation_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "e.dcm", (*SURVEY, HEAD))
    dataset = pydicom.dcmread(path)
    dataset.InConcatenationTotalNumber = 2
    dataset.save_as(path)
    assert "cut into parts" in refused(path).sentence


def test_derived_objects_refer_to_the_frames_that_were_read(tmp_path: Path) -> None:
    t1 = read_series([write(tmp_path / "e.dcm", (*SURVEY, HEAD))])
    flair = read_series(write_series(tmp_path / "flair", np.ones((6, 36, 40), np.uint16), series="2"))
    given = source(t1, flair, Wanted())
    assert (
        [items[0].ReferencedFrameNumber for items in given.images] == list(t1.frames) == list(range(16, 46))
    )

    made = derive_seg(given, like(t1, blob(t1)))

    assert isinstance(made, highdicom.seg.Segmentation)
    for frame in made.PerFrameFunctionalGroupsSequence:
        number = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(place, t1.headers[t1.frames.index(number)].ImagePositionPatient, atol=1e-3)


def choice_of(path: Path, tmp_path: Path) -> tuple[Decision, str, str, str]:
    dataset = pydicom.dcmread(path)
    dataset.SeriesDescription = "T1 mprage"
    dataset.SharedFunctionalGroupsSequence[0].MRTimingAndRelatedParametersSequence[0].RepetitionTime = "8"
    dataset.save_as(path)
    found = [*group([headers.read(path)]), series("T2 FLAIR", **FLAIR_2D)]
    choice = choose_pair(found, Situation(expired=True))
    line = next(line for line in choice.series if line.uid == found[0].uid)
    return choice.decision, choice.code, choice.reason, "; ".join(line.why)


def test_the_explanation_says_which_stack_is_read(tmp_path: Path) -> None:
    decision, _, _, why = choice_of(write(tmp_path / "e.dcm", (*SURVEY, HEAD)), tmp_path)
    assert decision == Decision.COMPLETE
    assert "holds 3 volumes (different stack): 30 slices over 145 mm are read" in why


def test_a_study_whose_t1w_holds_two_equal_stacks_is_declined_by_name(tmp_path: Path) -> None:
    parts = (Part(20, AXIAL, stack="1"), Part(20, SAGITTAL, stack="2"))
    decision, code, reason, _ = choice_of(write(tmp_path / "e.dcm", parts), tmp_path)
    assert (decision, code) == (Decision.DECLINED, "SEVERAL_STACKS")
    assert "equally fit" in reason


def test_pixels_are_compared_on_the_stack_that_is_read(tmp_path: Path) -> None:
    alone, among = (
        read_coarse([write(tmp_path / f"{len(parts)}.dcm", parts)]) for parts in ((HEAD,), (*SURVEY, HEAD))
    )
    assert among.values.shape == alone.values.shape
    np.testing.assert_allclose(among.origin_mm, alone.origin_mm)


@pytest.mark.parametrize(("name", "code"), [("PHASE", ""), ("MAGNITUDE", "SEVERAL_VOLUMES")])
def test_a_real_object_with_a_second_volume(name: str, code: str, shared_data: Path, tmp_path: Path) -> None:
    """Siemens XA30, and the same frames again: as phase, or as a second time point."""
    path = shared_data / "enhanced" / "siemens_xa30" / "005_T1w_tfl.dcm"
    dataset = pydicom.dcmread(path)
    again = copy.deepcopy(dataset.PerFrameFunctionalGroupsSequence)
    for groups in again:
        groups.MRImageFrameTypeSequence[0].ComplexImageComponent = name
        groups.FrameContentSequence[0].TemporalPositionIndex = 2
    dataset.PerFrameFunctionalGroupsSequence.extend(again)
    dataset.PixelData = dataset.PixelData * 2
    dataset.NumberOfFrames = 192
    dataset.save_as(tmp_path / "e.dcm")

    if code:
        assert refused(tmp_path / "e.dcm").code == code
    else:
        assert sorted(read_series([tmp_path / "e.dcm"]).frames) == list(range(1, 97))


def test_a_single_dimension_is_one_dimension(tmp_path: Path) -> None:
    def edit(groups: Dataset, index: int) -> None:
        groups.FrameContentSequence[0].DimensionIndexValues = index + 1

    values = np.arange(12 * 8 * 8, dtype=np.uint16).reshape(12, 8, 8)
    path = write_enhanced(tmp_path / "e.dcm", values, edit=edit)

    assert headers.read(path).frames == len(read_series([path]).headers) == 12


@pytest.mark.filterwarnings("ignore")
def test_what_a_conversion_to_enhanced_mr_left_unassigned_counts(tmp_path: Path) -> None:
    classic = stack(new_uid(), "FLAIR", ContrastBolusAgent="GD", AccessionNumber="", StudyID="1")
    for image in classic:
        image.ReferringPhysicianName, image.SoftwareVersions = "", "1"
    converted = LegacyConvertedEnhancedMRImage(
        classic, highdicom.UID(), 3, highdicom.UID(), 1, transfer_syntax_uid=ExplicitVRLittleEndian
    )
    converted.save_as(tmp_path / "e.dcm")

    header, found = headers.read(tmp_path / "e.dcm"), read_series([tmp_path / "e.dcm"]).headers[0]

    assert (header.tr_ms, header.te_ms, header.ti_ms) == (9000, 100, 2500)
    assert header.contrast_given and header.scanning_sequence == ("SE", "IR")
    assert (found.RepetitionTime, found.EchoTime, list(found.ScanningSequence)) == (9000, 100, ["SE", "IR"])
