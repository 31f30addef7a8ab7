"""Two T1W of equal physics, geometry and words are told apart by their pixels, or a person is asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import RLELossless
from scans import FLAIR_2D, GADOLINIUM, SAGITTAL, T1_MPRAGE, T1_SE, at, series
from slices import rotation, write_enhanced, write_series

from dicom_node import headers
from dicom_node.choose import Choice, Role, Series, choose_pair, group
from dicom_node.choose.candidates import Growth
from dicom_node.choose.pair import Decision, Situation
from dicom_node.choose.pixels import (
    Coarse,
    Difference,
    Look,
    compare,
    difference,
    files_to_see,
    look_into,
    read,
)

#: A group of patients whose T1 POST is fat-suppressed, as the README of the data says or shows.
FAT_SUPPRESSED = ("CS_4941", "CS_5397", "CS_6186", "CS_6290")


def seen(score: float, problem: str = "") -> Look:
    """Return a look at series 1.1 (native) and 1.8 (as after contrast if the score is positive)."""
    return lambda one, other: Difference(score if one < other else -score, problem)


FLAIR = series("FLAIR tra", uid="1.2", series_number=3, acquired=at(4), **FLAIR_2D)


def t1(uid: str, minutes: float | None, description: str = "T1 tra", **values: object) -> Series:
    when = "" if minutes is None else at(minutes)
    return series(description, uid=uid, series_number=int(uid[-1]), acquired=when, **(T1_SE | values))


def choose(*all_series: Series, look: Look, **values: object) -> Choice:
    return choose_pair(list(all_series), Situation(quiet=False, expired=False, look=look, **values))  # type: ignore[arg-type]


def why(choice: Choice, uid: str) -> str:
    return " · ".join(next(line.why for line in choice.series if line.uid == uid))


# --- what is decided -----------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [(0, 6), (0, 25), (None, None), (None, 6)])
def test_of_two_t1w_that_only_the_pixels_tell_apart_the_darker_is_taken(
    first: float | None, second: float | None
) -> None:
    choice = choose(t1("1.1", first), t1("1.8", second), FLAIR, look=seen(3.4))

    assert (choice.decision, choice.chosen.get("T1W")) == (Decision.COMPLETE, "1.1")
    assert next(line.role for line in choice.series if line.uid == "1.8") == Role.T1C
    assert "brighter than series 1 “T1 tra” as after contrast: clear difference" in why(choice, "1.8")
    assert "(margin 3.4, 1 is needed)" in why(choice, "1.8") and "margin 3.4" in why(choice, "1.1")
    assert "holds a real post-contrast T1" in choice.reason


def test_a_thin_margin_asks_and_says_how_thin() -> None:
    choice = choose(t1("1.1", 0), t1("1.8", 6), FLAIR, look=seen(0.9))

    assert (choice.decision, choice.code) == (Decision.WAITING, "TWO_T1W")
    assert "no clear difference in the pixels (margin 0.9, 1 is needed)" in choice.reason


def test_pixels_that_say_nothing_ask_and_say_why() -> None:
    choice = choose(t1("1.1", None), t1("1.8", None), FLAIR, look=seen(3.0, "they cannot be read"))

    assert choice.code == "TWO_T1W"
    assert "they cannot be read" in choice.reason


@pytest.mark.parametrize("minutes", [6, 25])
def test_pixels_against_the_clock_ask(minutes: float) -> None:
    choice = choose(t1("1.1", minutes), t1("1.8", 0), FLAIR, look=seen(3.4))

    assert (choice.decision, choice.code, choice.chosen) == (Decision.WAITING, "TWO_T1W", {})
    assert "as after contrast, but acquired before it" in choice.reason


def test_a_third_t1w_after_the_one_that_the_pixels_show_to_be_after_contrast_is_so_too() -> None:
    volume = t1("1.9", 8, "T1 MPRAGE", slices=176, spacing_mm=1.0, **T1_MPRAGE)

    choice = choose(t1("1.1", 0), t1("1.8", 6), volume, FLAIR, look=seen(3.4))

    assert choice.chosen["T1W"] == "1.1"
    assert "acquired after another post-contrast T1" in why(choice, "1.9")


def test_without_times_the_one_that_the_pixels_show_to_be_native_is_taken_before_others() -> None:
    sagittal = t1("1.9", None, "T1 sag", cosines=SAGITTAL, slices=24, spacing_mm=5.5)

    choice = choose(t1("1.1", None), t1("1.8", None), sagittal, FLAIR, look=seen(3.4))

    assert choice.chosen.get("T1W") == "1.1"


def never(one: str, other: str) -> Difference:
    raise AssertionError("nothing to compare here")


@pytest.mark.parametrize(
    "other",
    [
        t1("1.8", 6, "T1 tra KM"),
        t1("1.8", 6, **T1_MPRAGE),
        t1("1.8", 6, slices=30, spacing_mm=4.0),
        t1("1.8", 6, tr_ms=700.0),
    ],
    ids=["words", "sequence", "geometry", "timing"],
)
def test_pixels_are_compared_only_where_nothing_else_differs(other: Series) -> None:
    choose(t1("1.1", 0), other, FLAIR, look=never)


def test_a_series_that_is_not_whole_is_not_looked_at() -> None:
    choose(t1("1.1", 0), t1("1.8", 6), FLAIR, look=never, growth={"1.8": Growth.GROWING})


def test_two_series_that_both_name_an_agent_are_held_when_one_looks_native() -> None:
    pair = (t1("1.1", 0, **GADOLINIUM), t1("1.8", 6, **GADOLINIUM))

    choice = choose(*pair, FLAIR, look=seen(3.4))
    alike = choose(*pair, FLAIR, look=seen(0.1))

    assert (choice.decision, choice.code) == (Decision.WAITING, "CONTRAST_UNCLEAR")
    assert "of equal physics is brighter as after contrast" in choice.reason
    assert alike.code == "ONLY_POST_CONTRAST"


# --- what is measured ----------------------------------------------------------------------------


def head(seed: int = 0) -> Coarse:
    """Return an egg of textured brain with a bright rim on a grid of 20×60×50."""
    random = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.arange(n) - n / 2 for n in (20, 60, 50)], indexing="ij")
    radius = np.sqrt((x / 22) ** 2 + (y / 27) ** 2 + (z / 14) ** 2)
    values = np.where(radius < 1, 100 + 8 * random.normal(size=x.shape), 0)
    values[(radius > 0.9) & (radius < 1)] = 250
    return Coarse(values, np.zeros(3), np.diag([6.0, 4.0, 4.0])[:, ::-1].copy(), "1.2")


def with_vessels(native: Coarse, share: float = 0.03) -> Coarse:
    vessels = np.random.default_rng(9).random(native.values.shape) < share
    brain = (native.values > 50) & (native.values < 200)
    return replace(native, values=np.where(vessels & brain, native.values * 1.8, native.values))


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 40.0), st.floats(0.01, 40.0))
def test_brighter_vessels_tell_whatever_the_scale_and_the_order(one: float, other: float) -> None:
    native = head()
    post = with_vessels(native)
    native, post = (replace(c, values=c.values * f) for c, f in ((native, one), (post, other)))

    there, back = difference(native, post), difference(post, native)

    assert there.tells and there.score > 2
    assert back.score == pytest.approx(-there.score)


def test_another_slope_of_the_coil_and_noise_tell_nothing() -> None:
    slope = 1 + 0.2 * np.linspace(-1, 1, 50)
    again = replace(head(), values=head(1).values * slope)

    assert not difference(head(), again).tells


def test_other_coordinates_fat_suppression_and_an_empty_volume_are_named() -> None:
    native, post = head(), with_vessels(head())
    fatless = replace(post, values=np.where(post.values > 200, 60.0, post.values))
    elsewhere = replace(post, origin_mm=np.array([0.0, 0.0, 500.0]))

    assert "coordinate" in difference(native, replace(post, frame_of_reference="1.3")).problem
    assert "fat" in difference(native, fatless).problem
    assert "too little" in difference(native, elsewhere).problem


def test_what_cannot_be_read_is_no_evidence(tmp_path: Path) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"nothing")

    found = compare((broken,), (broken,))

    assert not found.tells and "cannot be read" in found.sentence()


def test_of_a_long_series_planes_equally_far_apart_are_looked_at(tmp_path: Path) -> None:
    values = np.arange(90 * 8 * 8, dtype=np.uint16).reshape(90, 8, 8)
    order = np.random.default_rng(2).permutation(90).tolist()
    classic = write_series(tmp_path, values, order=order)
    enhanced = write_enhanced(tmp_path / "e.dcm", values, order=order)
    (seen,) = files_to_see((path, headers.read(path)) for path in classic).values()

    assert [int(dcmread(path).ImagePositionPatient[2] / 5) for path in seen] == list(range(0, 90, 3))
    for found in (read(seen), read([enhanced])):
        assert len(found.values) == 30 and found.steps_mm[0][2] == pytest.approx(15)


def test_damaged_rle_is_no_evidence_and_does_not_end_the_process(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    paths = write_series(
        tmp_path, random.integers(0, 4000, (3, 64, 64)).astype(np.uint16), syntax=RLELossless
    )
    for path in paths:
        whole = path.read_bytes()
        path.write_bytes(whole[:-6000] + bytes(2000) + whole[-4000:])

    assert "cannot be read" in compare(tuple(paths), tuple(paths)).sentence()


def blob(size: tuple[int, int, int] = (16, 40, 48)) -> np.ndarray:  # type: ignore[type-arg]
    random = np.random.default_rng(3)
    image = sitk.GetImageFromArray(random.normal(size=size).astype(np.float32))
    smooth = sitk.GetArrayFromImage(sitk.DiscreteGaussian(image, 4.0))
    return np.asarray(500 + 3000 * np.clip(smooth, 0, None)).astype(np.uint16)


@settings(max_examples=5, deadline=None)
@given(st.tuples(*[st.floats(-60, 60)] * 3))
def test_a_voxel_is_found_where_the_scanner_says_it_lies(
    tmp_path_factory: pytest.TempPathFactory, turn: tuple[float, float, float]
) -> None:
    folder, axes, values = tmp_path_factory.mktemp("s"), rotation(*turn), blob()
    shuffled = np.random.default_rng(1).permutation(len(values)).tolist()
    kinds = {"axes": axes, "origin_mm": (-40.0, 12.0, 7.0), "spacing_mm": (2.0, 2.0, 5.0)}
    classic = read(write_series(folder, values, order=shuffled, **kinds))  # type: ignore[arg-type]
    enhanced = read([write_enhanced(folder / "e.dcm", values, order=shuffled, **kinds)])  # type: ignore[arg-type]

    for found in (classic, enhanced):
        expected = values.reshape(16, 20, 2, 24, 2).mean(axis=(2, 4))
        np.testing.assert_allclose(np.diff(found.values, axis=0), np.diff(expected, axis=0), atol=600)
        place = found.origin_mm + np.array([3, 4, 5]) @ found.steps_mm
        true = np.array([-40.0, 12.0, 7.0]) + axes @ np.array([5 * 4 + 1.0, 4 * 4 + 1.0, 3 * 5.0])
        np.testing.assert_allclose(place, true, atol=1e-3)


# --- real patients -------------------------------------------------------------------------------

Edit = Callable[[headers.Header, str], headers.Header]


def without_evidence(times: tuple[str, str]) -> Edit:
    """Take from T1 and T1 POST all that tells them apart."""

    def edit(header: headers.Header, role: str) -> headers.Header:
        bare = replace(header, contrast_agent="", contrast_given=False, protocol_name="")
        if role == "flair":
            return bare
        return replace(bare, series_description="T1", acquired=times[role == "t1c"])

    return edit


def choice_of(patient: Path, edit: Edit) -> tuple[Choice, dict[str, str]]:
    """Return the choice of one patient, and the role of each series UID in truth."""
    found, files, truth = [], [], {}
    for role in ("t1", "flair", "t1c"):
        for path in sorted((patient / role).iterdir()):
            header = edit(headers.read(path), role)
            found.append(header)
            files.append((path, header))
            truth[header.series_uid] = role
    look = look_into(files_to_see(files))
    return choose_pair(group(found), Situation(expired=False, look=look)), truth


def patients(shared_data: Path) -> list[Path]:
    return sorted(path for path in (shared_data / "lgg").iterdir() if path.is_dir())


@pytest.mark.parametrize("times", [("", ""), (at(0), at(6))], ids=["no times", "six minutes"])
@pytest.mark.parametrize("number", [1, 18, 33])
def test_t1_and_t1_post_of_a_patient_under_one_name_are_told_apart(
    number: int, times: tuple[str, str], shared_data: Path
) -> None:
    choice, truth = choice_of(patients(shared_data)[number], without_evidence(times))

    assert {role: truth[uid] for role, uid in choice.chosen.items()} == {"T1W": "t1", "FLAIR": "flair"}


def test_a_fat_suppressed_t1_post_under_the_same_name_asks_a_person(shared_data: Path) -> None:
    choice, _ = choice_of(patients(shared_data)[0], without_evidence(("", "")))

    assert (choice.decision, choice.code) == (Decision.WAITING, "TWO_T1W")
    assert "fat is suppressed in one of them only" in choice.reason


@pytest.mark.slow
def test_no_patient_of_lgg_is_chosen_wrongly_and_only_fat_suppression_asks(shared_data: Path) -> None:
    asked = []
    for patient in patients(shared_data):
        choice, truth = choice_of(patient, without_evidence(("", "")))
        if choice.chosen:
            assert truth[choice.chosen["T1W"]] == "t1", patient.name
        else:
            asked.append(patient.name[5:12])
    assert set(asked) <= {*FAT_SUPPRESSED, "FG_A4MU"}


def coarse(path: Path) -> Coarse:
    """Return a NIfTI volume as the node sees a series."""
    image = sitk.ReadImage(str(path), sitk.sitkFloat64)
    factor = max(1, round(4.0 / image.GetSpacing()[0]))
    small = sitk.BinShrink(image, [factor, factor, 1])
    axes = np.array(small.GetDirection()).reshape(3, 3) * small.GetSpacing()
    return Coarse(sitk.GetArrayFromImage(small), np.array(small.GetOrigin()), axes.T[::-1].copy(), "one")


@pytest.mark.parametrize("name", ["TCGA-FG-6692_native", "BraTS-GLI-00000-000"])
def test_native_and_stripped_volumes_are_told_apart(name: str, shared_data: Path) -> None:
    native, post = (coarse(shared_data / "nifti" / name / f"{role}.nii.gz") for role in ("t1", "t1c"))

    found = difference(native, post)

    assert found.tells and found.score > 0
    assert math.isclose(found.score, -difference(post, native).score, abs_tol=0.8)
