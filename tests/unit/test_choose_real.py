"""Choosing on real studies, which lie outside the repository."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset
from slices import write_series

from dicom_node import headers
from dicom_node.choose import Choice, Role, choose_pair, classify, group
from dicom_node.choose.pair import Decision, Situation
from dicom_node.choose.pixels import files_to_see, look_into


def study(*folders: Path) -> list[headers.Header]:
    return [
        headers.read(path)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix != ".csv" and path.is_file()
    ]


def choice_of(*folders: Path) -> Choice:
    return choose_pair(group(study(*folders)), Situation())


def test_of_brainix_the_t1_and_the_flair_are_taken_and_neither_roi_nor_t2(shared_data: Path) -> None:
    choice = choice_of(shared_data / "BRAINIX")

    chosen = {line.uid: line for line in choice.series}
    assert choice.decision == Decision.COMPLETE
    assert Counter(line.role for line in choice.series) == {
        Role.T1W: 1,
        Role.FLAIR: 1,
        Role.T2W: 1,
        Role.DERIVED: 1,
    }
    assert chosen[choice.chosen["T1W"]].role == Role.T1W
    assert chosen[choice.chosen["FLAIR"]].role == Role.FLAIR


def test_brainix_without_descriptions_is_chosen_alike(shared_data: Path) -> None:
    whole = study(shared_data / "BRAINIX")
    bare = [replace(h, series_description="", protocol_name="", sequence_name="") for h in whole]

    with_words, without = (choose_pair(group(some), Situation()) for some in (whole, bare))

    assert without.chosen == with_words.chosen


def test_brainix_without_a_word_and_without_timing_is_not_guessed(shared_data: Path) -> None:
    silent = [
        replace(
            h, series_description="", protocol_name="", sequence_name="", tr_ms=None, te_ms=None, ti_ms=None
        )
        for h in study(shared_data / "BRAINIX")
    ]

    choice = choose_pair(group(silent), Situation(expired=False))

    assert (choice.decision, choice.code, choice.chosen) == (Decision.WAITING, "CONTRAST_UNKNOWN", {})


@pytest.mark.parametrize(("lost", "code"), [("T1", "NO_T1W"), ("FLAIR", "NO_FLAIR")])
def test_brainix_without_one_of_the_two_is_declined(shared_data: Path, lost: str, code: str) -> None:
    kept = [shared_data / "BRAINIX" / name for name in ("T1", "FLAIR", "T2", "ROI") if name != lost]

    choice = choice_of(*kept)

    assert (choice.decision, choice.code) == (Decision.DECLINED, code)


@pytest.fixture(scope="module")
def gliomas(shared_data: Path) -> dict[str, list[headers.Header]]:
    """Return the headers of each glioma study, by its folder."""
    return {folder.name: study(folder) for folder in sorted((shared_data / "lgg").glob("TCGA_*"))}


def test_of_every_glioma_study_t1_and_flair_are_taken_never_t1_post(
    gliomas: dict[str, list[headers.Header]],
) -> None:
    for name, whole in gliomas.items():
        choice = choose_pair(group(whole), Situation())

        described = {line.uid: line.description for line in choice.series}
        assert choice.decision == Decision.COMPLETE, (name, choice.reason)
        assert {role: described[uid] for role, uid in choice.chosen.items()} == {
            "T1W": "T1",
            "FLAIR": "FLAIR",
        }


def test_every_glioma_study_with_only_t1_post_and_flair_is_declined(
    gliomas: dict[str, list[headers.Header]],
) -> None:
    for name, whole in gliomas.items():
        kept = [header for header in whole if header.series_description != "T1"]

        choice = choose_pair(group(kept), Situation(expired=False))

        assert (choice.decision, choice.code) == (Decision.DECLINED, "ONLY_POST_CONTRAST"), name


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("siemens_prisma_t1_fl2d_sag", {Role.T1W}),
        ("siemens_prisma_xa30_classic_T1_phantom", {Role.T1W}),
        ("ge_signa_fse_pd_bigendian", {Role.DERIVED}),  # GE calls an oblique acquisition MPR
    ],
)
def test_the_series_of_other_scanners_have_their_role(shared_data: Path, name: str, roles: set[Role]) -> None:
    found = group(study(shared_data / "studies" / name))

    assert {classify(series).role for series in found} == roles


def test_odd_slices_are_no_input(shared_data: Path) -> None:
    choice = choice_of(shared_data / "studies" / "single_slices")

    assert choice.decision == Decision.DECLINED


def test_an_enhanced_t1_of_siemens_is_a_t1w(shared_data: Path) -> None:
    found = group(study(shared_data / "enhanced" / "siemens_xa30"))

    assert {classify(series).role for series in found} == {Role.T1W}
    assert all(series.is_regular and series.slices == 96 for series in found)


def test_both_enhanced_twins_with_a_flair_are_one_scan(shared_data: Path) -> None:
    twins = study(shared_data / "enhanced" / "siemens_xa30")
    flair = study(shared_data / "BRAINIX" / "FLAIR")

    choice = choose_pair(group([*twins, *flair]), Situation())

    chosen = {line.uid: line.description for line in choice.series}
    assert choice.decision == Decision.COMPLETE, choice.reason
    assert chosen[choice.chosen["T1W"]] == "anat-T1w_acq-tfl"
    assert "T1W is series 6 " in choice.reason  # the normalised one


#: What the scanner of FG-6692, a Siemens at 1.5 T, has in its headers for such series.
PHYSICS: dict[str, dict[str, str]] = {
    "t1": {"ScanningSequence": "SE", "RepetitionTime": "500", "EchoTime": "14"},
    "flair": {
        "ScanningSequence": "IR",
        "RepetitionTime": "9000",
        "EchoTime": "110",
        "InversionTime": "2500",
    },
    "t1c": {"ScanningSequence": "SE", "RepetitionTime": "500", "EchoTime": "14"},
}
TIMES = {"t1": "100000", "flair": "100500", "t1c": "101500"}


@pytest.fixture(scope="module")
def native_study(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Return FG-6692 as DICOM: three series on three oblique grids, without a description."""
    made = {}
    for number, (role, physics) in enumerate(PHYSICS.items(), start=1):
        image = sitk.ReadImage(str(shared_data / "nifti" / "TCGA-FG-6692_native" / f"{role}.nii.gz"))
        values = np.clip(sitk.GetArrayFromImage(image), 0, 4095).astype(np.uint16)
        axes = np.array(image.GetDirection()).reshape(3, 3)
        origin = np.array(image.GetOrigin())
        if np.linalg.det(axes) < 0:  # NIfTI counts slices the other way
            origin = origin + axes[:, 2] * image.GetSpacing()[2] * (len(values) - 1)
            values, axes = values[::-1], axes * [1, 1, -1]

        def edit(dataset: Dataset, index: int, physics: dict[str, str] = physics, role: str = role) -> None:
            for keyword, value in physics.items():
                setattr(dataset, keyword, value)
            dataset.AcquisitionDate, dataset.AcquisitionTime = "20260101", TIMES[role]

        made[role] = write_series(
            tmp_path_factory.mktemp(role),
            values,
            axes=axes,
            origin_mm=origin.tolist(),
            spacing_mm=image.GetSpacing(),
            series=str(number),
            edit=edit,
        )
    return made


@pytest.mark.parametrize("timeless", [False, True])
def test_native_series_on_three_grids_without_a_word_have_their_roles(
    native_study: dict[str, list[Path]], timeless: bool
) -> None:
    found, files = {}, []
    for role, paths in native_study.items():
        found[role] = [replace(h, acquired="" if timeless else h.acquired) for h in map(headers.read, paths)]
        files += zip(paths, found[role], strict=True)
    everything = [header for members in found.values() for header in members]

    choice = choose_pair(group(everything), Situation(look=look_into(files_to_see(files))))

    assert choice.decision == Decision.COMPLETE, choice.reason
    assert choice.chosen == {
        "T1W": found["t1"][0].series_uid,
        "FLAIR": found["flair"][0].series_uid,
    }


def test_every_malformed_file_is_a_header_or_unreadable_and_nothing_else(shared_data: Path) -> None:
    outcomes: Counter[str] = Counter()
    for path in sorted((shared_data / "malformed").iterdir()):
        if path.suffix == ".csv":
            continue
        try:
            headers.read(path)
            outcomes["header"] += 1
        except headers.Unreadable as error:
            outcomes["unreadable"] += 1
            assert error.sentence.endswith(".")
    assert outcomes["header"] >= 20 and outcomes["unreadable"] >= 5, outcomes


def test_no_malformed_file_puts_a_patients_name_into_the_sentence(shared_data: Path) -> None:
    names = (
        "Lastname",
        "CompressedSamples",
        "Wang",
        "Hong",
        "Yamada",
        "Testowy",
        "KNIX",
        "Last^First",
        "Buc^",
    )
    for path in sorted((shared_data / "malformed").iterdir()):
        try:
            said = str(headers.read(path).to_json()) if path.suffix != ".csv" else ""
        except headers.Unreadable as error:
            said = error.sentence
        assert not [name for name in names if name in said], path.name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("orthanc_Issue22-NoPixelData.dcm", "no pixel data"),
        ("pydicom_MR_truncated.dcm", "cut short"),
        ("orthanc_DummyCTInvalidRows.dcm", "no pixel data"),
    ],
)
def test_pixels_that_cannot_be_used_are_named(shared_data: Path, name: str, words: str) -> None:
    assert words in headers.read(shared_data / "malformed" / name).pixel_problem


def test_a_study_of_malformed_files_is_declined_not_a_crash(shared_data: Path) -> None:
    readable = []
    for path in sorted((shared_data / "malformed").iterdir()):
        try:
            readable.append(headers.read(path))
        except headers.Unreadable:
            continue

    choice = choose_pair(group(readable), Situation())

    assert choice.decision == Decision.DECLINED
