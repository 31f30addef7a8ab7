"""The phantom looks like a head to a scanner and like a study to a PACS."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from synthesis.phantom import FLAIR, T1_POST, T1W, T1W_SAGITTAL, T2W, PhantomStudy, Scan, write_study
from synthesis.phantom.lesion import bend, draw_lesion, grow
from synthesis.phantom.scan import acquire, signal
from synthesis.phantom.tissue import CONSTANTS, MAP_FILE, HeadMap, Tissue


def small(scan: Scan) -> Scan:
    return replace(scan, matrix=64, pixel_mm=3.6)


QUICK = {"t1": small(T1W), "flair": small(FLAIR), "t2": None, "localizer": False}


def small_study(folder: Path, **changes: object) -> PhantomStudy:
    return write_study(folder, **{**QUICK, **changes})  # type: ignore[arg-type]


def brightness(tissue: Tissue, scan: Scan) -> float:
    return signal(CONSTANTS[tissue], scan)


def test_white_matter_is_brighter_than_grey_in_t1w_and_darker_in_flair_and_t2w() -> None:
    white, grey = Tissue.WHITE_MATTER, Tissue.GREY_MATTER
    assert brightness(white, T1W) > 1.2 * brightness(grey, T1W)
    assert brightness(grey, FLAIR) > 1.1 * brightness(white, FLAIR)
    assert brightness(grey, T2W) > brightness(white, T2W)


def test_csf_is_dark_in_t1w_and_in_flair_but_not_in_t2w() -> None:
    for scan in (T1W, FLAIR):
        assert brightness(Tissue.CSF, scan) < 0.5 * brightness(Tissue.GREY_MATTER, scan)
    assert brightness(Tissue.CSF, T2W) > 1.5 * brightness(Tissue.GREY_MATTER, T2W)


def test_fat_is_the_brightest_of_the_t1w() -> None:
    assert max(Tissue, key=lambda tissue: brightness(tissue, T1W)) is Tissue.FAT


def test_oedema_is_bright_in_flair_and_dark_in_t1w() -> None:
    assert brightness(Tissue.OEDEMA, FLAIR) > 1.3 * brightness(Tissue.GREY_MATTER, FLAIR)
    assert brightness(Tissue.OEDEMA, T1W) < brightness(Tissue.GREY_MATTER, T1W)


@pytest.mark.parametrize("tissue", [Tissue.TUMOUR, Tissue.BLOOD, Tissue.MUCOSA, Tissue.CHOROID])
def test_what_takes_up_the_agent_lights_up(tissue: Tissue) -> None:
    assert brightness(tissue, T1_POST) > 1.3 * brightness(tissue, T1W)


def test_the_same_seed_makes_the_same_files(tmp_path: Path) -> None:
    first = small_study(tmp_path / "a", seed=3)
    second = small_study(tmp_path / "b", seed=3)
    assert [p.read_bytes() for p in first.paths] == [p.read_bytes() for p in second.paths]


def test_another_seed_is_another_patient(tmp_path: Path) -> None:
    first, second = (small_study(tmp_path / str(seed), seed=seed) for seed in (3, 4))
    assert first.uid != second.uid
    assert first.patient_id != second.patient_id
    assert not {s.uid for s in first.series.values()} & {s.uid for s in second.series.values()}
    assert first.lesion != second.lesion


def test_a_series_that_is_left_out_does_not_change_the_others(tmp_path: Path) -> None:
    whole = small_study(tmp_path / "a", with_t1_post=True)
    part = small_study(tmp_path / "b", t1=None)
    assert set(part.series) == {"flair"}
    assert whole.uid == part.uid
    assert whole.series["flair"].uid == part.series["flair"].uid
    assert whole.series["t1"].uid != whole.series["t1_post"].uid


@pytest.mark.parametrize("plane_scan", [T1W, T1W_SAGITTAL])
def test_slices_lie_one_spacing_apart_along_an_oblique_normal(tmp_path: Path, plane_scan: Scan) -> None:
    study = small_study(tmp_path, t1=small(plane_scan), flair=None)
    images = [pydicom.dcmread(path) for path in study.series["t1"].paths]
    row, column = np.array(images[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    normal = np.cross(row, column)
    assert 0.9 < np.abs(normal).max() < 0.9999
    steps = np.diff([np.array(i.ImagePositionPatient, dtype=float) for i in images], axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(6.0 * normal, steps.shape), atol=1e-3)


@pytest.mark.parametrize("order", ["ascending", "descending", "interleaved"])
def test_the_order_of_slices_changes_their_numbers_and_not_their_places(tmp_path: Path, order: str) -> None:
    study = small_study(tmp_path, order=order, flair=None)
    images = [pydicom.dcmread(path) for path in study.series["t1"].paths]
    by_place = sorted(images, key=lambda image: float(image.SliceLocation))
    assert [i.InstanceNumber for i in images] == list(range(1, 23))
    assert ([i.InstanceNumber for i in by_place] == list(range(1, 23))) is (order == "ascending")


def test_a_place_in_the_head_has_the_same_signal_in_the_axial_and_the_sagittal_scan() -> None:
    head = HeadMap.load()
    person = bend(head, np.random.default_rng(1))
    thin = replace(T1W, thickness_mm=1.5, gap_mm=0.0, matrix=96, pixel_mm=2.0, slices=40)
    images = []
    for plane in ("axial", "sagittal"):
        scan = replace(thin, plane=plane, centre_mm=(0.0, 0.0, 20.0))
        image = sitk.GetImageFromArray(acquire(head, person, scan, np.random.default_rng(0)).astype(float))
        image.SetOrigin(scan.first_pixel_mm().tolist())
        image.SetDirection(scan.axes().ravel().tolist())
        image.SetSpacing((2.0, 2.0, 1.5))
        images.append(image)
    axial = sitk.GetArrayFromImage(images[0])
    sagittal = sitk.GetArrayFromImage(sitk.Resample(images[1], images[0], sitk.Transform(), sitk.sitkLinear))
    both = sagittal > 0
    assert both.sum() > 20_000
    assert np.corrcoef(axial[both], sagittal[both])[0, 1] > 0.9


def test_a_tumour_lies_in_the_brain_and_nowhere_else() -> None:
    rng = np.random.default_rng(5)
    head = HeadMap.load()
    lesion = draw_lesion(rng)
    grown = grow(head, lesion, rng)
    changed = grown.labels != head.labels
    assert changed.sum() * head.voxel_mm**3 > 5_000
    assert np.isin(grown.labels[changed], (Tissue.OEDEMA, Tissue.TUMOUR, Tissue.NECROSIS)).all()
    assert (grown.labels == Tissue.NECROSIS).any()
    assert (head.white + head.grey)[changed].mean() > 0.9


def test_the_healthy_head_is_another_patient_without_a_tumour(tmp_path: Path) -> None:
    healthy = small_study(tmp_path / "a", lesion=False)
    assert healthy.lesion is None
    assert healthy.uid != small_study(tmp_path / "b").uid


def test_the_post_contrast_series_says_so_in_its_header_and_the_others_do_not(tmp_path: Path) -> None:
    study = small_study(tmp_path, with_t1_post=True)
    agents = {
        role: "ContrastBolusAgent" in pydicom.dcmread(series.paths[0])
        for role, series in study.series.items()
    }
    assert agents == {"flair": False, "t1": False, "t1_post": True}


def test_the_licence_of_the_template_is_shipped_with_the_map() -> None:
    notice = MAP_FILE.with_name("ICBM-NOTICE.txt")
    assert "McConnell Brain Imaging Centre" in notice.read_text(encoding="utf-8")
