"""Heads pass, phantoms and noise do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk

from synthesis.errors import RefusedInput
from synthesis.phantom import FLAIR, T1W, T1W_SAGITTAL, write_study
from synthesis.quality import Measured, check_head, measure, remarks, why_no_head
from synthesis.series import read_series

HEAD = Measured(
    litres=2.8,
    extents_mm=(132.0, 169.0, 217.0),
    spread=0.37,
    structure=0.07,
    smoothness=0.83,
    background=0.0,
    cut=0.0,
    section_at_top=0.38,
    ghosts=0.01,
)
REAL_HEADS = {
    "BRAINIX T1W": "BRAINIX/T1",
    "BRAINIX FLAIR": "BRAINIX/FLAIR",
    "Siemens 3D, enhanced": "enhanced/siemens_xa30/005_T1w_tfl.dcm",
    "Siemens sagittal": "studies/siemens_prisma_t1_fl2d_sag",
    "GE": "studies/ge_signa_fse_pd_bigendian",
}


def files(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())


@pytest.mark.parametrize("place", REAL_HEADS.values(), ids=REAL_HEADS)
def test_a_real_head_passes_without_remark(place: str, shared_data: Path) -> None:
    image = read_series(files(shared_data / place)).image
    check_head(image)
    assert remarks("T1W", measure(image)) == ()


def test_heads_of_many_scanners_pass(shared_data: Path) -> None:
    patients = sorted(path for path in (shared_data / "lgg").iterdir() if path.is_dir())
    for number, patient in enumerate(patients[::8]):
        check_head(read_series(files(patient / ("t1", "flair")[number % 2])).image)


@pytest.mark.slow
def test_both_series_of_every_patient_of_lgg_pass(shared_data: Path) -> None:
    for patient in sorted(path for path in (shared_data / "lgg").iterdir() if path.is_dir()):
        for role in ("t1", "flair"):
            check_head(read_series(files(patient / role)).image)


def test_native_and_skull_stripped_volumes_pass(shared_data: Path) -> None:
    for path in sorted((shared_data / "nifti").rglob("*.nii.gz")):
        if path.name.startswith(("t1", "flair")):
            check_head(sitk.ReadImage(str(path), sitk.sitkFloat32))


@pytest.mark.parametrize("scan", [T1W, FLAIR, T1W_SAGITTAL], ids=lambda scan: scan.description)
def test_the_projects_own_phantom_is_head_enough(scan: object, tmp_path: Path) -> None:
    small = replace(scan, matrix=96, pixel_mm=2.4)  # type: ignore[type-var]
    study = write_study(tmp_path, t1=small, flair=None, t2=None, localizer=False)
    check_head(read_series(study.series["t1"].paths).image)


@pytest.mark.parametrize(
    "place",
    [
        "studies/siemens_prisma_xa30_classic_T1_phantom",
        "enhanced/philips_small/d2n_philips_T1_noisepixels.dcm",
    ],
)
def test_a_scanners_phantom_and_noise_are_refused(place: str, shared_data: Path) -> None:
    with pytest.raises(RefusedInput, match="not a head") as refused:
        check_head(read_series(files(shared_data / place)).image)
    assert refused.value.code == "NOT_A_HEAD"


def _coordinates() -> tuple[npt.NDArray[np.float64], ...]:
    return tuple(
        np.meshgrid(*[(np.arange(n) - n / 2) * mm for n, mm in ((26, 5), (120, 2), (120, 2))], indexing="ij")
    )


def _image(values: npt.NDArray[np.floating]) -> sitk.Image:
    image = sitk.GetImageFromArray(values.astype(np.float32))
    image.SetSpacing((2, 2, 5))
    return image


Shape = Callable[..., npt.NDArray[np.floating]]
BODIES: dict[str, Shape] = {
    "ball": lambda z, y, x: 500.0 * (x**2 + y**2 + z**2 < 85**2),
    "cylinder": lambda z, y, x: 500.0 * (x**2 + y**2 < 80**2),
    "cylinder across": lambda z, y, x: 500.0 * (x**2 + z**2 < 60**2),
    "cylinder beside a coil": lambda z, y, x: 500.0 * (x**2 + y**2 < 80**2) * (1 + x / 250),
    "cylinder with inserts": lambda z, y, x: (
        np.where(x**2 + y**2 < 45**2, 100.0, 500.0) * (x**2 + y**2 < 95**2)
    ),
    "rod": lambda z, y, x: 500.0 * (x**2 + y**2 < 20**2),
    "noise alone": lambda z, y, x: 0.0 * x,
}


@pytest.mark.parametrize("shape", BODIES.values(), ids=BODIES)
def test_balls_and_cylinders_are_refused(shape: Shape) -> None:
    rng = np.random.default_rng(1)
    signal = shape(*_coordinates())
    noisy = np.hypot(signal + rng.normal(0, 12, signal.shape), rng.normal(0, 12, signal.shape))
    with pytest.raises(RefusedInput) as refused:
        check_head(_image(noisy))
    assert refused.value.code == "NOT_A_HEAD"


@pytest.mark.parametrize("value", [0.0, 100.0])
def test_a_constant_volume_is_refused(value: float) -> None:
    with pytest.raises(RefusedInput) as refused:
        check_head(_image(np.full((20, 64, 64), value)))
    assert refused.value.code == "BLANK_VOLUME"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"smoothness": 0.0}, "noise"),
        ({"spread": 0.01}, "homogeneous"),
        ({"structure": 0.005}, "homogeneous"),
        ({"extents_mm": (22.0, 158.0, 198.0)}, "too small"),
        ({"extents_mm": (132.0, 169.0, 400.0)}, "too large"),
        ({"litres": 9.0}, "too large"),
        ({"litres": 0.5}, "too small"),
    ],
)
def test_each_reason_is_a_sentence(change: dict[str, object], words: str) -> None:
    assert why_no_head(HEAD) is None
    reason = why_no_head(replace(HEAD, **change))  # type: ignore[arg-type]
    assert reason is not None
    assert words in reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cut": 0.4}, "cuts the head"),
        ({"section_at_top": 0.8}, "top"),
        ({"background": 0.5}, "Low signal"),
        ({"ghosts": 0.12}, "Motion or flow repeats the head beside the head in the FLAIR, with 12%"),
    ],
)
def test_what_a_reader_should_know_is_said(change: dict[str, float], words: str) -> None:
    assert remarks("FLAIR", HEAD) == ()
    (remark,) = remarks("FLAIR", replace(HEAD, **change))  # type: ignore[arg-type]
    assert words in remark
    assert "FLAIR" in remark


def restless(image: sitk.Image, axis: int, mm: float) -> sitk.Image:
    """Return what a scanner makes of a head that sways while its lines are acquired.

    Each line of k-space along `axis` (1 rows, 2 columns) has the phase of the place where the head was.
    """
    values = sitk.GetArrayFromImage(image).astype(np.float64)
    lines = values.shape[axis]
    shift = mm / image.GetSpacing()[2 - axis] * np.sin(2 * np.pi * 0.23 * np.arange(lines))
    phase = np.exp(-2j * np.pi * np.fft.fftshift(np.fft.fftfreq(lines)) * shift)
    shape = [1, 1, 1]
    shape[axis] = lines
    spectrum = np.fft.fft2(values, axes=(1, 2)) * np.fft.ifftshift(phase).reshape(shape)
    moved = sitk.GetImageFromArray(np.abs(np.fft.ifft2(spectrum, axes=(1, 2))).astype(np.float32))
    moved.CopyInformation(image)
    return moved


@pytest.mark.parametrize("axis", [1, 2], ids=["rows", "columns"])
@pytest.mark.parametrize("place", ["BRAINIX/T1", "BRAINIX/FLAIR"])
def test_a_head_that_sways_by_four_mm_is_remarked(place: str, axis: int, shared_data: Path) -> None:
    still = read_series(files(shared_data / place)).image

    assert measure(still).ghosts < 0.02
    (remark,) = remarks("T1W", measure(restless(still, axis, 4.0)))
    assert remark.startswith("Motion or flow repeats the head")


@pytest.mark.slow
def test_few_series_of_lgg_are_said_to_have_ghosts(shared_data: Path) -> None:
    patients = sorted(path for path in (shared_data / "lgg").iterdir() if path.is_dir())
    found = [measure(read_series(files(one / role)).image) for one in patients for role in ("t1", "flair")]

    assert sum(any("repeats" in said for said in remarks("T1W", one)) for one in found) <= 0.05 * len(found)
