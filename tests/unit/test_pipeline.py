"""A job from files to files: the whole way, with a stand-in for the networks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk
from objects import texts

from synthesis import confidence, guard
from synthesis.__main__ import dicom_files, main
from synthesis.errors import RefusedInput
from synthesis.job import Kind, Wanted
from synthesis.models.load import Synthesised
from synthesis.montage import axial, save_montage, shown_slices
from synthesis.phantom import FLAIR, T1W, T1W_SAGITTAL, PhantomStudy, Scan, write_study
from synthesis.pipeline import STEPS, Made, run
from synthesis.series import read_series
from synthesis.threads import given_threads

Volume = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Arithmetic:
    """What the pipeline asks of a model, by arithmetic: bright on the FLAIR is tumour, tumour takes up."""

    name: str = "arithmetic"
    version: str = "1"
    digest: str = "ef" * 32
    size: int = 120
    device: str = "cpu"
    caveat: str = "Arithmetic predicts nothing."
    card: dict[str, Any] = field(default_factory=dict)

    def segment(self, found: Any, report: Any) -> Volume:
        report(0.5)
        return np.clip((found.values[:, 1] - 1.15) * 6, 0, 1) * found.inside

    def synthesise(self, found: Any, tumour: Volume, report: Any) -> Synthesised:
        report(1.0)
        delta = np.asarray(0.3 * tumour, dtype=np.float32)
        return Synthesised(delta, chance=tumour, spread=np.asarray(0.1 * tumour, dtype=np.float32))


MODEL: Any = Arithmetic()


def study(folder: Path, t1: Scan = T1W, **changes: Any) -> PhantomStudy:
    scans = {"t1": replace(t1, matrix=96, pixel_mm=2.4), "flair": replace(FLAIR, matrix=96, pixel_mm=2.4)}
    return write_study(folder, t2=None, localizer=False, **(scans | changes))


SAID_BY_THE_NODE = "The T1W may have been acquired after contrast agent."


def made(phantom: PhantomStudy, out: Path) -> Made:
    return run(
        phantom.series["t1"].paths,
        phantom.series["flair"].paths,
        out,
        MODEL,
        lambda step, share: None,
        remarks_before=(SAID_BY_THE_NODE,),
    )


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> PhantomStudy:
    return study(tmp_path_factory.mktemp("phantom"))


@pytest.fixture(scope="module")
def result(phantom: PhantomStudy, tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Path]:
    out = tmp_path_factory.mktemp("out")
    return made(phantom, out), out


def test_what_a_reader_must_know_of_the_model_is_in_every_image_and_in_the_remarks(
    result: tuple[Made, Path],
) -> None:
    job, out = result
    comments = {pydicom.dcmread(out / one.path).ImageComments for one in job.instances}
    assert len(comments) == 1
    assert MODEL.caveat in comments.pop()
    assert job.remarks[0] == MODEL.caveat


def test_what_a_reader_must_know_of_this_result_is_in_every_image_and_in_the_remarks(
    result: tuple[Made, Path],
) -> None:
    job, out = result
    unchecked = "It could not be checked whether the model has seen such images: its card does not say."
    for sentence in (SAID_BY_THE_NODE, unchecked, confidence.NOTHING_KNOWN):
        assert sentence in job.remarks
        assert all(sentence in pydicom.dcmread(out / one.path).ImageComments for one in job.instances)


def test_images_unlike_the_training_are_declined_before_anything_is_written(
    phantom: PhantomStudy, tmp_path: Path
) -> None:
    centre = np.zeros(len(guard.NAMES))
    limits = {"distance": 1.0, "deviation": 1.0}
    known: dict[str, Any] = {"measures": guard.NAMES, "centre": centre, "spread": centre + 1e-3}
    known |= {"flag": limits, "decline": limits}
    model: Any = Arithmetic(card={"guard": known})
    t1, flair = (phantom.series[role].paths for role in ("t1", "flair"))

    with pytest.raises(RefusedInput) as refused:
        run(t1, flair, tmp_path / "out", model, lambda step, share: None)

    assert refused.value.code == "UNLIKE_TRAINING"
    assert not (tmp_path / "out").exists()


def test_one_instance_per_t1w_instance_is_written(phantom: PhantomStudy, result: tuple[Made, Path]) -> None:
    job, out = result
    assert len(job.instances) == len(phantom.series["t1"].paths) == len(list(out.iterdir()))
    for instance in job.instances:
        dataset = pydicom.dcmread(out / instance.path)
        assert dataset.SOPInstanceUID == instance.sop_instance_uid
        assert dataset.SeriesInstanceUID == instance.series_instance_uid
        assert dataset.SOPClassUID == instance.sop_class_uid
        assert dataset.StudyInstanceUID == phantom.uid


def test_every_object_that_is_wanted_is_written_once(phantom: PhantomStudy, tmp_path: Path) -> None:
    t1, flair = (phantom.series[role].paths for role in ("t1", "flair"))
    wanted = Wanted(tuple(kind.value for kind in Kind), "enhanced", "fractional")

    job = run(t1, flair, tmp_path, MODEL, lambda step, share: None, wanted)

    written = [pydicom.dcmread(tmp_path / one.path) for one in job.instances]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(one.path for one in job.instances)
    slices = len(t1)
    kinds = [str(one.SOPClassUID.name) for one in written]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "Enhanced MR Image Storage": 1,
        "MR Image Storage": 2 * slices,
        "Segmentation Storage": 1,
        "Comprehensive 3D SR Storage": 1,
    }
    assert len({one.SOPInstanceUID for one in written}) == len(written)
    assert all(one.SyntheticData == "YES" and one.StudyInstanceUID == phantom.uid for one in written)
    report = texts(written[-1])
    assert all(remark in report for remark in job.remarks if "FLAIR was aligned" in remark)
    assert MODEL.caveat in report


def test_where_nothing_that_is_wanted_can_be_shown_the_job_is_declined_and_says_why(
    phantom: PhantomStudy, tmp_path: Path
) -> None:
    class Healthy(Arithmetic):
        def segment(self, found: Any, report: Any) -> Volume:
            return np.zeros_like(found.values[:, 0])

    healthy: Any = Healthy()
    t1, flair = phantom.series["t1"].paths, phantom.series["flair"].paths

    with pytest.raises(RefusedInput, match="No tumour was found") as refused:
        run(t1, flair, tmp_path, healthy, lambda step, share: None, Wanted(("seg",)))

    assert refused.value.code == "NOTHING_TO_SHOW"


def test_the_series_is_the_t1w_plus_what_the_model_says(
    phantom: PhantomStudy, result: tuple[Made, Path]
) -> None:
    job, out = result
    t1, t1c = read_series(phantom.series["t1"].paths), read_series(sorted(out.iterdir()))
    assert t1c.image.GetOrigin() == t1.image.GetOrigin()
    before, after = (sitk.GetArrayFromImage(series.image) for series in (t1, t1c))
    tumour = sitk.GetArrayFromImage(job.pictures.tumour)
    np.testing.assert_array_equal(before[tumour < 1e-3], after[tumour < 1e-3])
    assert (after - before)[tumour > 0.9].mean() > 20


def test_a_second_run_makes_the_same_and_reports_its_steps(
    phantom: PhantomStudy, result: tuple[Made, Path], tmp_path: Path
) -> None:
    heard: list[tuple[str, float]] = []
    t1, flair = (phantom.series[role].paths for role in ("t1", "flair"))
    again = run(t1[::-1], flair[::-1], tmp_path, MODEL, lambda step, share: heard.append((step, share)))
    assert list(again.seconds) == list(STEPS)
    assert list(dict.fromkeys(step for step, _ in heard)) == list(STEPS)
    assert [share for _, share in heard] == sorted(share for _, share in heard)
    assert heard[-1] == ("derive", 1.0)
    job, out = result
    assert again.instances == job.instances
    for instance in job.instances:
        one, other = (pydicom.dcmread(folder / instance.path) for folder in (out, tmp_path))
        assert one.PixelData == other.PixelData


def test_a_sagittal_t1w_with_an_axial_flair_keeps_its_place(tmp_path: Path) -> None:
    sagittal = study(tmp_path / "in", T1W_SAGITTAL, order="interleaved")
    job = made(sagittal, tmp_path / "out")
    t1 = read_series(sagittal.series["t1"].paths)
    t1c = read_series([tmp_path / "out" / instance.path for instance in job.instances])
    for index in ((0, 0, 0), (80, 30, 11), (64, 95, 23)):
        assert t1c.image.TransformIndexToPhysicalPoint(index) == t1.image.TransformIndexToPhysicalPoint(index)
    before, after = (sitk.GetArrayFromImage(series.image) for series in (t1, t1c))
    tumour = sitk.GetArrayFromImage(job.pictures.tumour)
    np.testing.assert_array_equal(before[tumour < 1e-3], after[tumour < 1e-3])


def test_a_flair_of_half_the_head_is_said(phantom: PhantomStudy, tmp_path: Path) -> None:
    halves = []
    for path in phantom.series["flair"].paths:
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array.copy()
        pixels[:, : int(0.4 * pixels.shape[1])] = 0
        dataset.PixelData = pixels.tobytes()
        halves.append(tmp_path / path.name)
        dataset.save_as(halves[-1])

    job = run(phantom.series["t1"].paths, halves, tmp_path / "out", MODEL, lambda step, share: None)

    assert any("shows nothing in" in said and "rests on the T1W alone" in said for said in job.remarks)


def test_remarks_hold_no_patient(phantom: PhantomStudy, result: tuple[Made, Path]) -> None:
    text = "\n".join(result[0].remarks)
    assert "FLAIR was aligned" in text
    assert phantom.patient_id not in text
    assert "2.25." not in text


def test_the_same_series_twice_is_refused(phantom: PhantomStudy, tmp_path: Path) -> None:
    paths = phantom.series["t1"].paths
    with pytest.raises(RefusedInput) as refused:
        run(paths, paths, tmp_path, MODEL, lambda step, share: None)
    assert refused.value.code == "SAME_SERIES"


def test_two_patients_are_refused(phantom: PhantomStudy, tmp_path: Path) -> None:
    other = study(tmp_path / "other", seed=2)
    with pytest.raises(RefusedInput) as refused:
        run(
            phantom.series["t1"].paths, other.series["flair"].paths, tmp_path, MODEL, lambda step, share: None
        )
    assert refused.value.code == "DIFFERENT_PATIENTS"


def test_our_own_series_is_no_input(phantom: PhantomStudy, result: tuple[Made, Path], tmp_path: Path) -> None:
    with pytest.raises(RefusedInput) as refused:
        run(
            sorted(result[1].iterdir()),
            phantom.series["flair"].paths,
            tmp_path,
            MODEL,
            lambda step, share: None,
        )
    assert refused.value.code == "SYNTHETIC_INPUT"


def test_no_head_is_refused_by_name(shared_data: Path, tmp_path: Path) -> None:
    phantom_scan = sorted((shared_data / "studies" / "siemens_prisma_xa30_classic_T1_phantom").iterdir())
    flair = sorted((shared_data / "BRAINIX" / "FLAIR").iterdir())
    patient = pydicom.dcmread(flair[0]).PatientID
    copies = []
    for path in phantom_scan:
        dataset = pydicom.dcmread(path)
        dataset.PatientID = patient
        copies.append(tmp_path / path.name)
        dataset.save_as(copies[-1])
    with pytest.raises(RefusedInput, match=r"T1W: .*not a head") as refused:
        run(copies, flair, tmp_path / "out", MODEL, lambda step, share: None)
    assert refused.value.code == "NOT_A_HEAD"
    assert not (tmp_path / "out").exists()


def test_the_montage_is_a_picture_without_patient(result: tuple[Made, Path], tmp_path: Path) -> None:
    file = tmp_path / "montage.png"
    save_montage(result[0].pictures, file, rows=3)
    data = file.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert b"PHANTOM" not in data
    assert b"RESEARCH ONLY" in data


def test_the_montage_shows_the_tumour_and_axial_planes() -> None:
    tumour = np.zeros((20, 4, 4), dtype=np.float32)
    assert len(set(shown_slices(tumour, 4))) == 4
    tumour[6:12] = 1.0
    shown = shown_slices(tumour, 4)
    assert shown == sorted(shown, reverse=True)
    assert min(shown) >= 6
    assert max(shown) <= 11
    sagittal = sitk.Image([50, 60, 7], sitk.sitkFloat32)
    sagittal.SetDirection((0, 0, -1, 1, 0, 0, 0, -1, 0))
    sagittal.SetSpacing((1.6, 1.6, 8.0))
    assert axial(sagittal).shape == (48, 100, 70)


def test_threads_are_those_that_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert given_threads() == 1


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none"), str(tmp_path), str(tmp_path)]) == 2
    assert "is no folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["--nonsense"])
    assert stopped.value.code == 2
    (tmp_path / "text.txt").write_text("no DICOM")
    assert dicom_files(tmp_path) == []
    assert main([str(tmp_path), str(tmp_path), str(tmp_path / "out"), "--model", "none-of-ours"]) == 1
    assert "Failed (MODEL_MISSING)" in capsys.readouterr().err


def test_the_command_makes_a_series(
    phantom: PhantomStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synthesis.models.load.load_model", lambda name, device: Arithmetic())
    t1, flair = (str(phantom.series[role].folder) for role in ("t1", "flair"))
    montage = tmp_path / "montage.png"
    assert main([t1, flair, str(tmp_path / "out"), "--montage", str(montage)]) == 0
    said = capsys.readouterr().out
    for step in STEPS:
        assert step in said
    assert "22 instances" in said
    assert main([t1, flair, str(tmp_path / "seg"), "--objects", "seg", "report"]) == 0
    assert "2 instances" in capsys.readouterr().out
    assert montage.is_file()
    assert main([t1, t1, str(tmp_path / "out")]) == 1
    assert "Declined (SAME_SERIES)" in capsys.readouterr().err
