"""A lone T1W of which nothing says whether it is native: pixels as after contrast agent are told."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scans import FLAIR_2D, GADOLINIUM, T1_MPRAGE, T1_SE, at, series

from dicom_node import headers
from dicom_node.choose import Choice, choose_pair
from dicom_node.choose.candidates import Growth
from dicom_node.choose.enhancement import LOOKS_SO_FROM, Glance, glance_into, margin, margin_of
from dicom_node.choose.pair import Decision, Situation
from dicom_node.choose.pixels import Coarse, Difference, files_to_see

T1 = series("T1 tra", uid="1.1", series_number=2, acquired=at(0), **T1_SE)
FLAIR = series("FLAIR tra", uid="1.2", series_number=3, acquired=at(4), **FLAIR_2D)


def seen(margin: float) -> Glance:
    return lambda uid: margin


def never(uid: str) -> float:
    raise AssertionError("there is nothing to look at")


def choose(*all_series: object, glance: Glance, **values: object) -> Choice:
    return choose_pair(list(all_series), Situation(glance=glance, **values))  # type: ignore[arg-type]


def test_a_lone_t1w_that_looks_enhanced_is_taken_and_flagged() -> None:
    choice = choose(T1, FLAIR, glance=seen(1.4))

    assert (choice.decision, choice.chosen["T1W"]) == (Decision.COMPLETE, "1.1")
    assert choice.flags == (
        "The T1W may have been acquired after contrast agent: its header says nothing of one, but bright "
        "vessels and mucosa look so (margin 1.4, suspicious from 0.6).",
    )
    assert choice.reason.endswith(choice.flags[0])
    assert choice.to_json("r")["flags"] == list(choice.flags)


@pytest.mark.parametrize("margin", [0.59, -math.inf])
def test_a_lone_t1w_that_does_not_is_taken_without_a_word(margin: float) -> None:
    choice = choose(T1, FLAIR, glance=seen(margin))

    assert choice.flags == () and "flags" not in choice.to_json("r")
    assert "contrast" not in choice.reason


def test_a_t1w_called_native_is_not_looked_at() -> None:
    native = series("T1 tra nativ", uid="1.1", acquired=at(0), **T1_SE)

    assert choose(native, FLAIR, glance=never).decision == Decision.COMPLETE


def test_a_t1w_before_a_post_contrast_t1_is_not_looked_at() -> None:
    post = series("T1 tra KM", uid="1.8", acquired=at(20), **(T1_SE | GADOLINIUM))

    assert choose(T1, FLAIR, post, glance=never).chosen["T1W"] == "1.1"


def test_a_post_contrast_t1_of_unknown_time_says_nothing_of_the_t1w() -> None:
    post = series("T1 tra KM", uid="1.8", **(T1_SE | GADOLINIUM))

    assert choose(T1, FLAIR, post, glance=seen(1.4)).flags


def test_a_t1w_that_was_compared_with_its_twin_is_not_looked_at() -> None:
    twin = series("T1 tra", uid="1.8", series_number=8, acquired=at(20), **T1_SE)

    choice = choose(T1, FLAIR, twin, glance=never, look=lambda one, other: Difference(3.0))

    assert choice.chosen["T1W"] == "1.1"


def test_of_two_unlabelled_t1w_of_other_sequences_the_chosen_one_is_looked_at() -> None:
    volume = series("T1 MPRAGE", uid="1.9", slices=176, spacing_mm=1.0, acquired=at(2), **T1_MPRAGE)

    choice = choose(T1, FLAIR, volume, glance=lambda uid: 1.4 if uid == "1.9" else -1.0)

    assert choice.chosen["T1W"] == "1.9" and choice.flags


def test_nothing_is_looked_at_before_the_pair_is_whole() -> None:
    choice = choose(T1, FLAIR, glance=never, growth={"1.1": Growth.GROWING}, expired=False)

    assert choice.decision == Decision.RECEIVING


# --- what is measured ----------------------------------------------------------------------------


def head() -> Coarse:
    """Return an egg of brain with fluid and grey matter, skin bright, on a grid of 20×60×50."""
    random = np.random.default_rng(0)
    z, y, x = np.meshgrid(*[np.arange(n) - n / 2 for n in (20, 60, 50)], indexing="ij")
    radius = np.sqrt((x / 22) ** 2 + (y / 27) ** 2 + (z / 14) ** 2)
    values = np.where(radius < 1, 100 + 5 * random.normal(size=x.shape), 0)
    values[(radius < 1) & (random.random(x.shape) < 0.25)] = 65
    values[(radius > 0.9) & (radius < 1)] = 250
    return Coarse(values, np.zeros(3), np.diag([6.0, 4.0, 4.0])[:, ::-1].copy(), "1.2")


def test_bright_vessels_raise_the_margin_whatever_the_scale() -> None:
    native = head()
    vessels = np.random.default_rng(9).random(native.values.shape) < 0.1
    post = replace(native, values=native.values * np.where(vessels & (native.values < 200), 1.8, 1.0))

    assert margin_of(post) > margin_of(native) + 1
    assert margin_of(replace(post, values=post.values * 37.0)) == pytest.approx(margin_of(post))


def test_what_cannot_be_read_or_is_no_head_is_no_evidence(tmp_path: Path) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"nothing")

    assert margin((broken,)) == -math.inf
    assert margin_of(replace(head(), values=np.ones((2, 9, 9)))) == -math.inf


def coarse(path: Path) -> Coarse:
    """Return a NIfTI volume as the node sees a series."""
    image = sitk.ReadImage(str(path), sitk.sitkFloat64)
    factor = max(1, round(4.0 / image.GetSpacing()[0]))
    small = sitk.BinShrink(image, [factor, factor, 1])
    axes = np.array(small.GetDirection()).reshape(3, 3) * small.GetSpacing()
    return Coarse(sitk.GetArrayFromImage(small), np.array(small.GetOrigin()), axes.T[::-1].copy(), "one")


@pytest.mark.parametrize("name", ["TCGA-FG-6692_native", "BraTS-GLI-00000-000"])
@pytest.mark.parametrize("role", ["t1", "t1c"])
def test_volumes_that_the_weights_never_saw_are_told(name: str, role: str, shared_data: Path) -> None:
    found = margin_of(coarse(shared_data / "nifti" / name / f"{role}.nii.gz"))

    assert (found >= LOOKS_SO_FROM) == (role == "t1c")


@pytest.mark.parametrize(
    "place", ["BRAINIX/T1", "enhanced/siemens_xa30/005_T1w_tfl.dcm", "studies/siemens_prisma_t1_fl2d_sag"]
)
def test_native_t1w_of_other_scanners_raise_no_suspicion(place: str, shared_data: Path) -> None:
    path = shared_data / place
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    (seen,) = files_to_see((one, headers.read(one)) for one in files).values()

    assert -10 < glance_into({"1": seen})("1") < 0


@pytest.mark.slow
def test_of_lgg_at_most_one_native_t1w_is_suspected_and_half_of_the_others(shared_data: Path) -> None:
    patients = [path for path in (shared_data / "lgg").iterdir() if path.is_dir()]

    suspected = {
        role: sum(margin(tuple(sorted((one / role).iterdir()))) >= LOOKS_SO_FROM for one in patients)
        for role in ("t1", "t1c")
    }

    assert suspected["t1"] <= 1 and suspected["t1c"] >= len(patients) // 2
