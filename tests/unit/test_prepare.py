"""Preparing data: every naming is understood, every fault has its name, and one bad exam stops no other."""

from __future__ import annotations

import gzip
import logging
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copy

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from synthesis.errors import RefusedInput
from synthesis.preprocess import to_model_grid
from synthesis.series import read_series
from training.__main__ import main
from training.prepare import (
    Case,
    cache_folder,
    find_exams,
    prepare_lesions,
    prepare_patients,
    read_cases,
    read_exam,
    read_patient,
    summary,
    target_on_grid,
)
from training.prepare.cache import CacheWriter
from training.prepare.exams import Exam, Role, Scheme
from training.prepare.labels import CAVITY, ENHANCING, NECROSIS, OEDEMA, UNKNOWN, read_labels
from training.prepare.names import patient_of, read_tables
from training.prepare.nifti import read_volume
from training.prepare.run import Converted, convert

SIZE = 48
SHRINK = 4
GLI = "BraTS-GLI-00000-000"
Volumes = dict[str, sitk.Image]

#: Where the T1W, FLAIR, T1C and segmentation of an exam lie, and whether 4 is its enhancing tumour.
NAMINGS = {
    "UCSF-PDGM-0004": (
        [f"UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_{name}.nii.gz" for name in ("T1", "FLAIR", "T1c")]
        + ["UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_tumor_segmentation.nii.gz"],
        True,
    ),
    "UCSF-PDGM-0391_FU016d": (
        [
            f"a/UCSF-PDGM-0391_FU016d_nifti/UCSF-PDGM-0391_FU016d_{name}.nii"
            for name in (
                "T1_bias.nii/UCSF-PDGM-0391_FU016d_T1_bias",
                "FLAIR.nii/UCSF-PDGM-0391_FU016d_FLAIR",
                "T1c_bias.nii/UCSF-PDGM-0391_FU016d_T1gad_bias",
                "tumor_segmentation.nii/UCSF-PDGM-0391_FU016d_tumor_segmentation",
            )
        ],
        True,
    ),
    "BraTS20_Training_355": (
        [
            f"BraTS20_Training_355/{name}.nii"
            for name in (
                "BraTS20_Training_355_t1",
                "BraTS20_Training_355_flair",
                "BraTS20_Training_355_t1ce",
                "W39_1998.09.19_Segm",
            )
        ],
        True,
    ),
    "BraTS2021_00002": (
        [f"BraTS2021_00002/BraTS2021_00002_{name}.nii.gz" for name in ("t1", "flair", "t1ce", "seg")],
        True,
    ),
    GLI: ([f"{GLI}/{GLI}-{name}.nii.gz" for name in ("t1n", "t2f", "t1c", "seg")], False),
    "UPENN-GBM-00001_11": (
        [f"structural/UPENN-GBM-00001_11_{name}.nii.gz" for name in ("T1", "FLAIR", "T1GD")]
        + ["segm/UPENN-GBM-00001_11_segm.nii.gz"],
        True,
    ),
    "somebody": ([f"somebody/{name}.nii.gz" for name in ("t1", "flair", "t1c", "mask")], False),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small planes are not worth threads."""
    count = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    yield
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Volumes:
    """Return a real ring-enhancing glioblastoma on voxels of 4 mm: t1, flair, t1c, seg (1, 2, 3)."""
    folder = shared_data / "nifti" / GLI
    volumes = {
        name: sitk.Cast(sitk.BinShrink(sitk.ReadImage(str(folder / f"{name}.nii.gz")), [SHRINK] * 3), 2)
        for name in ("t1", "flair", "t1c")
    }
    mask = sitk.ReadImage(str(folder / "mask.nii.gz"))
    volumes["seg"] = sitk.Resample(mask, volumes["t1"], sitk.Transform(), sitk.sitkNearestNeighbor)
    return volumes


def write(root: Path, name: str, volumes: Volumes) -> dict[str, Path]:
    """Write an exam under the names of a data set; return the files."""
    places, four_enhances = NAMINGS[name]
    files = {}
    for (what, image), place in zip(volumes.items(), places, strict=True):
        if what == "seg" and four_enhances:
            image = sitk.ChangeLabel(image, {3: 4})
        files[what] = root / place
        files[what].parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(files[what]))
    return files


def put(image: sitk.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def only(root: Path) -> Exam:
    """Return the one exam in a folder."""
    (exam,) = find_exams(root)
    return exam


def array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def like(values: np.ndarray, image: sitk.Image) -> sitk.Image:
    """Return an array as an image on the grid of another."""
    out = sitk.GetImageFromArray(values)
    out.CopyInformation(image)
    return out


def converted(root: Path, volumes: Volumes) -> Converted:
    write(root, GLI, volumes)
    return convert(only(root), SIZE, with_labels=True)


@pytest.mark.parametrize("name", NAMINGS)
def test_every_naming_is_understood(name: str, real: Volumes, tmp_path: Path) -> None:
    write(tmp_path, name, real)
    exam = only(tmp_path)
    patient = read_exam(exam)
    assert exam.name == name
    assert set(exam.files) == set(Role)
    for what, image in (("t1", patient.t1), ("flair", patient.flair), ("t1c", patient.t1c)):
        assert np.array_equal(array(image), array(real[what]))
    assert patient.labels is not None
    assert np.array_equal(array(patient.labels), array(real["seg"]))  # 1, 2, 3 are our own words, too
    assert np.array_equal(array(patient.tumour) > 0, array(real["seg"]) > 0)


def test_a_follow_up_has_its_patients_name(real: Volumes, tmp_path: Path) -> None:
    write(tmp_path, "UCSF-PDGM-0391_FU016d", real)
    exam = only(tmp_path)
    assert (exam.patient, exam.institution) == ("UCSF-PDGM-0391", "UCSF")
    assert patient_of("UCSF-PDGM-289") == "UCSF-PDGM-0391"  # its name until version 3
    assert exam.notes == ("The T1 is bias-corrected.", "The T1C is bias-corrected.")


def test_images_as_acquired_are_preferred_and_never_mixed(real: Volumes, tmp_path: Path) -> None:
    files = write(tmp_path, "UCSF-PDGM-0004", real)
    for what in ("t1", "flair", "t1c"):
        copy(files[what], str(files[what]).replace(".nii.gz", "_bias.nii.gz"))
    assert not any("bias" in path.name for path in only(tmp_path).files.values())
    files["t1c"].unlink()
    bias = {role for role, path in only(tmp_path).files.items() if "bias" in path.name}
    assert bias == {Role.T1, Role.T1C}
    next(path for path in tmp_path.rglob("*_T1_bias.nii.gz")).unlink()
    one = convert(only(tmp_path), SIZE, with_labels=True)
    assert (one.case.code, one.case.count) == ("BIAS_DIFFERS", 0)


@pytest.mark.parametrize("family", ["MEN", "MET", "SSA"])
def test_the_other_tumours_of_brats_are_named_as_gliomas(family: str, real: Volumes, tmp_path: Path) -> None:
    name = f"BraTS-{family}-00002-000"
    for what, file in (("t1", "t1n"), ("flair", "t2f"), ("t1c", "t1c"), ("seg", "seg")):
        put(real[what], tmp_path / name / f"{name}-{file}.nii.gz")
    exam = only(tmp_path)
    assert (exam.name, exam.patient, exam.scheme) == (name, name[:-4], Scheme.SINCE_2023)
    assert (set(exam.files), exam.also) == (set(Role), ())


def test_upper_case_is_no_other_name(real: Volumes, tmp_path: Path) -> None:
    for name in ("T1", "FLAIR", "T1CE", "seg"):
        put(real["t1"], tmp_path / "BraTS2021_00002" / f"BraTS2021_00002_{name}.nii.gz")
    assert set(only(tmp_path).files) == set(Role)


def test_two_folders_of_one_name_are_two_exams(real: Volumes, tmp_path: Path) -> None:
    for place in ("P1/anat", "P2/anat"):
        for what, image in real.items():
            put(image, tmp_path / place / f"{what}.nii.gz")
    (tmp_path / "P1" / "anat" / "flair.nii.gz").unlink()
    first, second = find_exams(tmp_path)
    assert [(exam.name, exam.patient) for exam in (first, second)] == [("P1/anat",) * 2, ("P2/anat",) * 2]
    assert Role.FLAIR not in first.files
    assert {path.parent for path in second.files.values()} == {tmp_path / "P2" / "anat"}


def test_two_versions_of_a_named_exam_are_not_mixed(real: Volumes, tmp_path: Path) -> None:
    write(tmp_path / "v1", GLI, real)["flair"].unlink()
    write(tmp_path / "v2", GLI, real)
    first, second = find_exams(tmp_path)
    assert (first.name, first.patient) == (f"v1/{GLI}", "BraTS-GLI-00000")
    assert (second.name, second.patient) == (f"v2/{GLI}", "BraTS-GLI-00000")
    assert Role.FLAIR not in first.files


def test_images_of_no_exam_are_listed_and_links_are_followed(real: Volumes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write(source / "batch", GLI, real)
    put(real["t1"], source / "batch" / "unheard" / "of.nii.gz")
    write(source, "UPENN-GBM-00001_11", real)
    put(real["t1"], source / "more" / "UPENN-GBM-00001_11" / "of.nii.gz")
    put(real["t1"], source / "loose.nii.gz")
    write(tmp_path / "elsewhere", "BraTS2021_00002", real)
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(source)
    exams = find_exams(source)
    assert [(exam.name, len(exam.files)) for exam in exams] == [
        (GLI, 4),
        ("BraTS2021_00002", 4),
        ("more/UPENN-GBM-00001_11", 0),
        ("segm/UPENN-GBM-00001_11", 4),
        ("source", 0),
        ("unheard", 0),
    ]
    assert convert(exams[-1], SIZE, with_labels=True).case.code == "NO_T1"


def test_the_labels_mean_what_name_and_values_say_together() -> None:
    three, four = np.array([[0.0, 1, 2, 3]]), np.array([[0.0, 1, 2, 4]])
    both = np.array([[0.0, 2, 3, 4]])
    enhancing = [[0, NECROSIS, OEDEMA, ENHANCING]]
    assert read_labels(four, Scheme.UNTIL_2021)[0].tolist() == enhancing
    assert read_labels(four, Scheme.SINCE_2023)[0].tolist() == [[0, NECROSIS, OEDEMA, CAVITY]]
    assert read_labels(both, Scheme.SINCE_2023)[0].tolist() == [[0, OEDEMA, ENHANCING, CAVITY]]
    assert read_labels(both, Scheme.UNNAMED)[0].tolist() == [[0, OEDEMA, ENHANCING, CAVITY]]
    assert read_labels(four, Scheme.UNNAMED)[0].tolist() == enhancing
    assert read_labels(np.array([[0.0, 255]]), Scheme.UNNAMED)[0].tolist() == [[0, UNKNOWN]]
    assert "Label 4" in read_labels(four, Scheme.UNNAMED)[1]
    assert read_labels(four * 1.0000153, Scheme.UNTIL_2021)[0].tolist() == enhancing  # by a scale slope
    labels, note = read_labels(three, Scheme.UNTIL_2021)
    assert labels.tolist() == enhancing
    assert "3" in note


@pytest.mark.parametrize(
    ("values", "scheme", "code"),
    [
        ([0, 3, 4], Scheme.UNTIL_2021, "LABELS_UNCLEAR"),
        ([0, 4], Scheme.UNNAMED, "LABELS_UNCLEAR"),
        ([0, 1, 7], Scheme.SINCE_2023, "LABELS_UNEXPECTED"),
        ([-1, 0, 1], Scheme.UNTIL_2021, "LABELS_UNEXPECTED"),
        ([0, 1, 5], Scheme.UNNAMED, "LABELS_UNEXPECTED"),
        ([0, 0.5, 1], Scheme.UNTIL_2021, "LABELS_UNEXPECTED"),
        ([0, 1.002, 2], Scheme.UNTIL_2021, "LABELS_UNEXPECTED"),
    ],
)
def test_labels_that_stand_for_nothing_known_are_refused(
    values: list[float], scheme: Scheme, code: str
) -> None:
    with pytest.raises(RefusedInput) as refused:
        read_labels(np.array([values]), scheme)
    assert refused.value.code == code


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def patch(path: Path, offset: int, layout: str, *values: float) -> None:
    """Change fields of a compressed NIfTI-1 header."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into(layout, data, offset, *values)
    path.write_bytes(gzip.compress(data, 1))


def change(path: Path, edit: Callable[[sitk.Image], sitk.Image]) -> None:
    sitk.WriteImage(edit(sitk.ReadImage(str(path))), str(path))


def with_nan(image: sitk.Image) -> sitk.Image:
    values = array(image).astype(np.float32)
    values[10, 10, 10] = np.nan
    return like(values, image)


def z_scored(image: sitk.Image) -> sitk.Image:
    values = array(image).astype(np.float32)
    return like((values - values.mean()) / values.std(), image)


def moved(image: sitk.Image) -> sitk.Image:
    image.SetOrigin([place + 20 for place in image.GetOrigin()])
    return image


def elsewhere(image: sitk.Image) -> sitk.Image:
    image = image[:, :, 4:]
    image.SetOrigin([place + 500 for place in image.GetOrigin()])
    return image


FAULTS: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    "a missing T1W": ("NO_T1", "t1", Path.unlink),
    "a link to nothing": ("UNREADABLE_FILE", "t1", lambda path: (path.unlink(), path.symlink_to("gone"))[1]),
    "a missing FLAIR": ("NO_FLAIR", "flair", Path.unlink),
    "a missing T1C": ("NO_T1C", "t1c", Path.unlink),
    "text": ("UNREADABLE_FILE", "flair", lambda path: path.write_text("no image") and None),
    "an empty file": ("UNREADABLE_FILE", "seg", lambda path: path.write_bytes(b"") and None),
    "a file cut short": ("UNREADABLE_FILE", "t1c", cut),
    "a damaged file": ("UNREADABLE_FILE", "t1", flip_a_byte),
    "a header that promises more": ("UNREADABLE_FILE", "t1", lambda path: patch(path, 42, "<h", 2000)),
    "two volumes": ("WRONG_SHAPE", "flair", lambda path: change(path, lambda i: sitk.JoinSeries([i, i]))),
    "three slices": ("WRONG_SHAPE", "t1c", lambda path: change(path, lambda i: i[:, :, :3])),
    "no orientation": ("NO_POSITION", "t1", lambda path: patch(path, 252, "<hh", 0, 0)),
    "NaN": ("NOT_FINITE", "t1c", lambda path: change(path, with_nan)),
    "z-scores": ("NEGATIVE_VALUES", "t1", lambda path: change(path, z_scored)),
    "another origin": ("GRIDS_DISAGREE", "flair", lambda path: change(path, moved)),
    "another place": ("GRIDS_DISAGREE", "t1c", lambda path: change(path, elsewhere)),
    "a mask of another grid": ("GRIDS_DISAGREE", "seg", lambda path: change(path, moved)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_file_has_its_name(fault: str, real: Volumes, tmp_path: Path) -> None:
    code, what, spoil = FAULTS[fault]
    spoil(write(tmp_path, GLI, real)[what])
    one = convert(only(tmp_path), SIZE, with_labels=True)
    assert one.case.code == code
    assert one.case.refused.endswith(".")
    assert one.case.count == len(one.arrays) == 0


def test_a_file_cut_short_is_found_without_compression(real: Volumes, tmp_path: Path) -> None:
    cut(write(tmp_path, "BraTS20_Training_355", real)["t1"])
    with pytest.raises(RefusedInput, match="cut short"):
        read_exam(only(tmp_path))


@pytest.mark.parametrize(
    ("code", "spoil"),
    [
        ("BLANK_VOLUME", lambda real: {"t1": real["t1"] * 0}),
        ("BLANK_VOLUME", lambda real: {"t1c": real["t1c"] * 0}),
        ("BLANK_VOLUME", lambda real: {"t1c": real["t1c"] * 0 + 300}),
        ("NOT_A_HEAD", lambda real: {"flair": real["flair"] * sitk.Cast(real["seg"] == 1, 2)}),
        ("SAME_VOLUME", lambda real: {"t1c": real["t1"] * 2}),
        ("SAME_VOLUME", lambda real: {"flair": real["t1"]}),
        ("PAIR_DIFFERS", lambda real: {"t1c": like(array(real["t1c"])[::-1, ::-1], real["t1c"])}),
        ("PEDESTAL", lambda real: {"t1c": real["t1c"] + 2000}),
        ("LABELS_DISAGREE", lambda real: {"t1": real["t1c"], "t1c": real["t1"]}),
        ("LABELS_DISAGREE", lambda real: {"seg": sitk.ChangeLabel(real["seg"], {3: 4})}),
        ("LABELS_ELSEWHERE", lambda real: {"seg": like(np.roll(array(real["seg"]), 20, 0), real["seg"])}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_images_show_is_checked(
    code: str, spoil: Callable[[Volumes], Volumes], real: Volumes, tmp_path: Path
) -> None:
    one = converted(tmp_path, real | spoil(real))
    assert (one.case.code, one.case.count) == (code, 0)


def test_a_scale_slope_is_applied(real: Volumes, tmp_path: Path) -> None:
    path = write(tmp_path, GLI, real)["t1"]
    patch(path, 112, "<ff", 0.5, 10)
    assert np.array_equal(array(read_volume(path, "it")), array(real["t1"]) * np.float32(0.5) + 10)
    patch(path, 112, "<ff", 0, 0)  # by the standard: no scale
    assert np.array_equal(array(read_volume(path, "it")), array(real["t1"]))


def test_a_good_exam_comes_with_labels_and_facts(real: Volumes, tmp_path: Path) -> None:
    one = converted(tmp_path, real)
    case, arrays = one.case, one.arrays
    enhancing_ml = (array(real["seg"]) == 3).sum() * SHRINK**3 / 1000
    assert (case.code, case.patient, case.group) == ("", "BraTS-GLI-00000", "clear")
    assert case.enhancing_ml == pytest.approx(enhancing_ml)
    assert arrays["values"].shape == (case.count, 2, SIZE, SIZE)
    assert set(np.unique(arrays["labels"])) == {0, NECROSIS, OEDEMA, ENHANCING}
    assert np.mean((arrays["labels"] > 0) == (arrays["tumour"] > 127)) > 0.999
    uptake = arrays["t1c"].astype(np.float32) - arrays["values"][:, 0]
    assert uptake[arrays["labels"] == ENHANCING].mean() > 0.4


def test_the_orientation_of_the_file_does_not_matter(real: Volumes, tmp_path: Path) -> None:
    turned = {what: sitk.DICOMOrient(image, "RAS") for what, image in real.items()}
    one, other = converted(tmp_path / "a", real), converted(tmp_path / "b", turned)
    assert one.case.count == other.case.count
    for name in one.arrays:
        apart = np.abs(one.arrays[name].astype(np.float32) - other.arrays[name].astype(np.float32))
        assert np.mean(apart > 0.02) < 0.005, name


def test_blank_planes_are_left_out_and_counted(real: Volumes, tmp_path: Path) -> None:
    values = array(real["flair"])
    values[15:18] = 0
    whole, less = (
        converted(tmp_path / "a", real),
        converted(tmp_path / "b", real | {"flair": like(values, real["flair"])}),
    )
    assert less.case.left_out == whole.case.left_out + 3
    assert less.case.count == whole.case.count - 3


def test_a_volume_on_its_own_grid_is_resampled_with_a_note(real: Volumes, tmp_path: Path) -> None:
    thick = sitk.Shrink(real["flair"], [1, 1, 2])
    write(tmp_path, "somebody", real | {"flair": thick})
    patient = read_exam(only(tmp_path))
    assert patient.flair.GetSize() == patient.t1.GetSize()
    assert patient.notes == ("The FLAIR lay on a grid of its own (60×60×19).",)
    assert np.corrcoef(array(patient.flair).ravel(), array(real["flair"]).ravel())[0, 1] > 0.97


def test_without_segmentation_an_exam_is_kept_and_says_so(real: Volumes, tmp_path: Path) -> None:
    write(tmp_path, GLI, real)["seg"].unlink()
    one = convert(only(tmp_path), SIZE, with_labels=True)
    assert one.case.count > 0
    assert (one.case.labelled, one.case.group, one.case.tumour_ml) == (False, "", None)
    assert not one.arrays["tumour"].any()
    assert (one.arrays["labels"] == UNKNOWN).all()


def test_a_cavity_is_no_tumour(real: Volumes, tmp_path: Path) -> None:
    write(tmp_path, GLI, real | {"seg": sitk.ChangeLabel(real["seg"], {1: 4})})
    patient = read_exam(only(tmp_path))
    assert patient.labels is not None
    cavity = array(patient.labels) == CAVITY
    assert np.array_equal(cavity, array(real["seg"]) == 1)
    assert not array(patient.tumour)[cavity].any()
    alone = real | {"seg": sitk.Cast(real["seg"] == 1, 2) * 4}
    assert converted(tmp_path / "alone", alone).case.notes == (
        "The segmentation holds a cavity and no tumour.",
    )


def test_a_folder_is_prepared_whatever_is_wrong_with_some_exams(
    real: Volumes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # as many processes as there are processors
    source = tmp_path / "source"
    write(source, GLI, real)
    write(source, "BraTS2021_00002", real)  # the same images under another name
    cut(write(source, "UCSF-PDGM-0004", real)["t1"])
    (source / "nothing").mkdir()
    (source / "old.csv").mkdir()
    (source / "open.csv").write_text(
        'ID,BraTS21 ID\nUCSF-PDGM-0004,BraTS2021_00097\nUCSF-PDGM-0005,"' + "x\n" * 9
    )
    lost = write(source, "UPENN-GBM-00001_11", real)["flair"]
    lost.unlink()
    lost.symlink_to("gone")
    with caplog.at_level(logging.INFO):
        cases = prepare_patients(source, tmp_path / "cache", SIZE)
    assert [(case.exam, case.code) for case in cases] == [
        (GLI, ""),
        ("BraTS2021_00002", "SAME_IMAGES"),
        ("UCSF-PDGM-0004", "UNREADABLE_FILE"),
        ("UPENN-GBM-00001_11", "UNREADABLE_FILE"),
        ("nothing", "NO_T1"),
        ("old.csv", "NO_T1"),
    ]
    assert "BraTS-00097" in cases[2].also  # before the open quote
    assert "table 1 cannot be read to its end (IsADirectoryError)" in caplog.text
    assert "table 2 cannot be read to its end (Error)" in caplog.text
    assert read_cases(tmp_path / "cache") == cases
    alone = convert(find_exams(source)[0], SIZE, with_labels=True)
    for name, values in alone.arrays.items():
        assert np.array_equal(np.load(tmp_path / "cache" / f"{name}.npy", mmap_mode="r"), values)
    said = summary(cases) + caplog.text
    assert "1 of 6 exams kept" in said
    assert "UNREADABLE_FILE       2  exam 3, 4: The file of the T1W is damaged or no NIfTI." in said
    assert not any(case.exam in said for case in cases)


def test_of_twins_the_segmented_one_is_kept(
    real: Volumes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "source", "BraTS2021_00002", real)["seg"].unlink()
    write(tmp_path / "source", "UCSF-PDGM-0004", real)
    cases = prepare_patients(tmp_path / "source", tmp_path / "cache", SIZE)
    assert [(case.exam, case.code) for case in cases] == [
        ("UCSF-PDGM-0004", ""),
        ("BraTS2021_00002", "SAME_IMAGES"),
    ]
    assert "NO TABLE SAYS WHO IS IN BOTH" in caplog.text


def test_a_source_of_any_spelling_takes_no_other_cache_with_it(
    real: Volumes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mine", GLI, real)
    other = tmp_path / "work" / "cache" / "other" / "cases.json"
    other.parent.mkdir(parents=True)
    other.write_text("[]")
    monkeypatch.chdir(tmp_path / "mine")
    assert main(["--work", str(tmp_path / "work"), "prepare", "."]) == 0
    assert [case.exam for case in read_cases(tmp_path / "work" / "cache" / "mine")] == [GLI]
    assert main(["--work", str(tmp_path / "work"), "prepare", "/"]) == 1
    assert main(["--work", str(tmp_path / "work"), "prepare", ".", "--name", ".."]) == 1
    assert other.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp", "a\\b"])
def test_a_cache_has_a_name_of_its_own(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no name for a cache"):
        cache_folder(tmp_path, name)


def test_a_folder_that_is_no_cache_is_not_replaced(tmp_path: Path) -> None:
    cache = CacheWriter(tmp_path / "cache", "plan")
    cache.add(Case("a", 0, 2), slices(2))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "thesis.txt").write_text("all of it")
    with pytest.raises(FileExistsError, match="no cache"):
        cache.finish()
    with pytest.raises(FileExistsError, match="no cache"):
        CacheWriter(tmp_path / "cache", "plan")
    assert (tmp_path / "cache" / "thesis.txt").exists()


def test_nothing_usable_leaves_nothing_behind(real: Volumes, tmp_path: Path) -> None:
    cut(write(tmp_path / "source", GLI, real)["t1"])
    with pytest.raises(FileNotFoundError, match="No usable patient"):
        prepare_patients(tmp_path / "source", tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def slices(count: int) -> dict[str, np.ndarray]:
    """Return arrays of which no two slices are alike."""
    random = np.random.default_rng(count)
    return {
        "values": random.random((count, 2, 6, 6)).astype(np.float16),
        "brain": np.ones((count, 6, 6), np.uint8),
    }


def test_a_killed_run_goes_on_after_the_last_whole_exam(tmp_path: Path) -> None:
    parts = [slices(count) for count in (3, 11, 2)]
    cases = [Case(str(n), 0, len(part["brain"]), also=("x",)) for n, part in enumerate(parts)]
    whole, killed = CacheWriter(tmp_path / "whole", "plan"), CacheWriter(tmp_path / "killed", "plan")
    for case, part in zip(cases, parts, strict=True):
        whole.add(case, part)
    killed.add(cases[0], parts[0])
    killed.add(cases[1], parts[1])
    for name in ("values.npy", "cases.jsonl"):  # it was writing the third when it died
        with (tmp_path / ".killed.partial" / name).open("ab") as file:
            file.write(b"half a slice")
    resumed = CacheWriter(tmp_path / "killed", "plan")
    assert resumed.cases == cases[:2]
    resumed.add(cases[2], parts[2])
    for cache in (whole, resumed):
        cache.finish()
    for name in ("values.npy", "brain.npy", "cases.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    together = np.concatenate([part["values"] for part in parts])
    np.save(tmp_path / "saved.npy", together)
    assert (tmp_path / "whole" / "values.npy").read_bytes() == (tmp_path / "saved.npy").read_bytes()


def test_another_source_starts_over_and_the_old_cache_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    first = CacheWriter(tmp_path / "cache", "plan")
    first.add(Case("a", 0, 2), slices(2))
    first.finish()
    CacheWriter(tmp_path / "cache", "plan 2").add(Case("b", 0, 3), slices(3))
    assert CacheWriter(tmp_path / "cache", "plan 3").cases == []
    assert [case.patient for case in read_cases(tmp_path / "cache")] == ["a"]


def test_tables_say_who_is_who(tmp_path: Path) -> None:
    (tmp_path / "UCSF-PDGM-metadata_v5.csv").write_text(
        "ID,Sex,BraTS21 ID\nUCSF-PDGM-004,M,BraTS2021_00097\nUCSF-PDGM-0429_FU003d,F,00557\n"
    )
    (tmp_path / "name_mapping.csv").write_text(
        "BraTS2021;BraTS2020;Site No (represents the originating institution)\n"
        "BraTS2021_00097;BraTS20_Training_012;18\n"
    )
    (tmp_path / "splits.csv").write_text("train,test\nUCSF-PDGM-004,UCSF-PDGM-005\n")  # of two patients
    tables = read_tables(tmp_path)
    assert tables["UCSF-PDGM-0004"].also == {"BraTS-00097"}
    assert tables["UCSF-PDGM-0429"].also == {"BraTS-00557"}
    assert tables["BraTS-00097"].also == {"UCSF-PDGM-0004", "BraTS20_Training_012"}
    assert tables["BraTS20_Training_012"].institution == "site 18"


def test_a_real_patient_is_read_as_before(shared_data: Path) -> None:
    folder = shared_data / "lgg" / "TCGA_CS_4941_19960909"
    patient = read_patient(folder)
    found = to_model_grid(patient.t1, patient.flair, SIZE)
    t1c, tumour, brain = target_on_grid(patient, found)
    one = convert(only(folder), SIZE, with_labels=False)
    assert one.case == replace(one.case, patient=folder.name, institution="CS", group="clear", count=21)
    assert set(one.arrays) == {"values", "t1c", "tumour", "brain", "inside"}
    shown = found.usable & ((t1c > 0.05) & found.inside).any(axis=(1, 2))
    assert np.array_equal(one.arrays["tumour"], np.round(255 * tumour[shown]).astype(np.uint8))
    assert np.array_equal(one.arrays["brain"], brain[shown] > 0)


def test_a_real_pedestal_is_refused(shared_data: Path) -> None:
    one = convert(only(shared_data / "lgg" / "TCGA_FG_A4MU_20030903"), SIZE, with_labels=False)
    assert one.case.code == "PEDESTAL"


def linked(source: Path, folder: Path, *names: str) -> Path:
    """Return a folder with links to series of a DICOM exam."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).symlink_to(source / name)
    return folder


def test_dicom_exams_of_one_name_are_two_and_of_one_id_one_person(shared_data: Path, tmp_path: Path) -> None:
    sources = [shared_data / "lgg" / name for name in ("TCGA_HT_7680_19970202", "TCGA_HT_7874_19950902")]
    for source, place in zip(sources, ("P1/study", "P2/study"), strict=True):
        linked(source, tmp_path / place, "flair", "t1c", "seg")
        (tmp_path / place / "t1").mkdir()
        (tmp_path / place / "dwi").mkdir()  # belongs to the exam: not listed
        dataset = pydicom.dcmread(next((source / "t1").glob("*.dcm")))
        dataset.PatientID = "1234567"
        dataset.save_as(tmp_path / place / "t1" / "1.dcm")
        dataset.save_as(tmp_path / place / "dwi" / "1.dcm")
    first, second = find_exams(tmp_path)
    assert [first.patient, second.patient] == ["P1/study", "P2/study"]
    assert first.also == second.also
    assert first.also[0].startswith("ID ")
    assert "1234567" not in repr(first)
    for issuer, number in (("another hospital", "1234567"), ("", "")):
        dataset.IssuerOfPatientID, dataset.PatientID = issuer, number
        dataset.save_as(tmp_path / "P2" / "study" / "t1" / "1.dcm")
        also = find_exams(tmp_path)[1].also
        assert (also != first.also, len(also)) == (True, 1 if number else 0)


def test_dicom_needs_no_suffix(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "lgg" / "TCGA_HT_7680_19970202"
    for number, path in enumerate(sorted(source.rglob("*.dcm"))):
        place = tmp_path / "one" / path.parent.name / f"{number}{'.IMA' * (number % 2)}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path)
    (tmp_path / "one" / "t1" / "thumbs.db").write_text("no DICOM")
    (tmp_path / "two").symlink_to(source / "t1")  # in no known layout
    one, two = find_exams(tmp_path)
    assert np.array_equal(array(read_exam(one).t1), array(read_patient(source).t1))
    assert (two.name, two.files) == ("two", {})


def test_a_flair_of_a_patient_who_moved_is_aligned_as_the_pipeline_does_it(
    shared_data: Path, tmp_path: Path
) -> None:
    source = shared_data / "lgg" / "TCGA_HT_7680_19970202"
    folder = linked(source, tmp_path / source.name, "t1", "t1c", "seg")
    (folder / "flair").mkdir()
    for path in sorted((source / "flair").glob("*.dcm")):
        dataset = pydicom.dcmread(path)
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x + 5.0, y, z]
        dataset.save_as(folder / "flair" / path.name)
    still, moved = array(read_patient(source).flair), array(read_patient(folder).flair)
    as_told = sitk.Resample(read_series(sorted((folder / "flair").iterdir())).image, read_patient(source).t1)
    head = still > still.mean()
    wrong = float(np.abs(array(as_told) - still)[head].mean())
    assert float(np.abs(moved - still)[head].mean()) < 0.4 * wrong


def test_of_two_segmentations_it_is_said_which_was_taken(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "lgg" / "TCGA_HT_7680_19970202"
    folder = linked(source, tmp_path / source.name, "t1", "flair", "t1c")
    (folder / "seg").mkdir()
    for name in ("a.dcm", "b.dcm"):
        copy(next((source / "seg").glob("*.dcm")), folder / "seg" / name)
    assert read_patient(folder).notes == ("The SEG is there 2 times: a.dcm was taken.",)


@pytest.mark.parametrize(
    ("code", "edit"),
    [
        ("FRAMES_DIFFER", lambda seg: seg.update({"FrameOfReferenceUID": "2.25.7"})),
        ("SEGMENT_ELSEWHERE", lambda seg: shift(seg, 2.0)),
        ("SEGMENT_ELSEWHERE", lambda seg: shift(seg, 5000.0)),
        ("UNREADABLE_FILE", lambda seg: seg.pop("PerFrameFunctionalGroupsSequence")),
    ],
)
def test_a_dicom_segmentation_of_something_else_is_refused(
    code: str, edit: Callable[[pydicom.Dataset], object], shared_data: Path, tmp_path: Path
) -> None:
    source = shared_data / "lgg" / "TCGA_HT_7680_19970202"
    folder = linked(source, tmp_path / source.name, "t1", "flair", "t1c")
    (folder / "seg").mkdir()
    seg = pydicom.dcmread(next((source / "seg").glob("*.dcm")))
    edit(seg)
    seg.save_as(folder / "seg" / "1.dcm")
    with pytest.raises(RefusedInput) as refused:
        read_patient(folder)
    assert refused.value.code == code


def shift(seg: pydicom.Dataset, distance_mm: float) -> None:
    for group in seg.PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0].ImagePositionPatient
        place[2] = float(place[2]) + distance_mm


def test_lesions_become_thick_slices(shared_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "lesions"
    source.mkdir()
    paths = sorted((shared_data / "lesions").glob("BraTS20_00*.npz"))[:2]
    paths += sorted((shared_data / "lesions").glob("BraTS20_27*.npz"))[:1]
    for path in paths:
        copy(path, source)
    cases = prepare_lesions(source, tmp_path / "cache")
    assert [case.code for case in cases] == ["", "", "SAME_PATIENTS"]
    mask = np.load(tmp_path / "cache" / "mask.npy")
    assert len(mask) == sum(case.count for case in cases) > 0
    assert set(np.unique(mask)) <= {0, 1, 2}
