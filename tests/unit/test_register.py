"""The FLAIR goes where the T1W is, or the job is declined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from rigid import Pair, brain_points, centre_of, displaced, error_mm, farthest, real_pair, rigid

from synthesis.errors import RefusedInput
from synthesis.phantom import FLAIR, T1W, Scan, write_study
from synthesis.register import Registration, register, same_grid
from synthesis.series import read_series


@pytest.fixture(scope="module")
def brainix(shared_data: Path) -> Pair:
    t1, flair = (read_series(sorted((shared_data / "BRAINIX" / role).iterdir())) for role in ("T1", "FLAIR"))
    return sitk.BinShrink(t1.image, [2, 2, 1]), flair.image


@pytest.fixture(scope="module")
def unmoved(brainix: Pair) -> Registration:
    return register(*brainix, same_frame_of_reference=True)


def phantom(folder: Path, flair: Scan = FLAIR) -> Pair:
    small = {"matrix": 128, "pixel_mm": 1.8}
    study = write_study(
        folder, t1=replace(T1W, **small), flair=replace(flair, **small), t2=None, localizer=False
    )
    t1, moving = (read_series(study.series[role].paths).image for role in ("t1", "flair"))
    return t1, moving


def head_points(t1: sitk.Image) -> list[tuple[float, ...]]:
    size = np.array(t1.GetSize()) - 1
    return [
        t1.TransformContinuousIndexToPhysicalPoint((np.array(share) * size).tolist())
        for share in np.ndindex(4, 4, 4)
        for share in [0.2 + 0.2 * np.array(share)]
    ]


@pytest.mark.parametrize(
    ("shift_mm", "turn_deg", "same_frame"),
    [
        ((-4.0, 6.0, 4.0), (-3.0, 3.0, 4.0), True),
        ((25.0, -30.0, 20.0), (6.0, -5.0, 10.0), False),
        ((-90.0, 70.0, 60.0), (2.0, 4.0, -3.0), False),
        ((12.0, -12.0, 10.0), (0.0, 0.0, 20.0), False),
        ((12.0, -12.0, 10.0), (20.0, 0.0, 0.0), False),
        ((-12.0, 12.0, -10.0), (0.0, -20.0, 0.0), False),
        ((10.0, 10.0, -14.0), (12.0, -10.0, 12.0), True),
    ],
)
def test_a_known_displacement_of_a_real_flair_is_found(
    shift_mm: tuple[float, ...],
    turn_deg: tuple[float, ...],
    same_frame: bool,
    brainix: Pair,
    unmoved: Registration,
) -> None:
    t1, flair = brainix
    points = head_points(t1)
    displacement = rigid(shift_mm, turn_deg, centre_of(points))
    found = register(t1, displaced(flair, displacement), same_frame_of_reference=same_frame)
    truth = sitk.CompositeTransform([displacement, unmoved.transform])
    assert error_mm(found, truth, points) < 0.5
    assert found.flair_on_t1.GetSize() == t1.GetSize()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "name",
    [
        "BRAINIX",
        "TCGA-FG-6692_native",
        "BraTS-GLI-00000-000",
        "TCGA_CS_4941_19960909",
        "TCGA_FG_A4MU_20030903",
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_20_degrees_and_20_mm_at_once_are_found_in_every_kind_of_volume(
    name: str, seed: int, shared_data: Path
) -> None:
    """From where it is found unmoved: on a shared grid the FLAIR may lie up to 1 mm off the T1W itself."""
    t1, flair = real_pair(shared_data, name)
    points = brain_points(t1)
    displacement = farthest(seed, centre_of(points))
    unmoved_one = register(t1, flair, same_frame_of_reference=False)

    found = register(t1, displaced(flair, displacement), same_frame_of_reference=bool(seed))

    truth = sitk.CompositeTransform([displacement, unmoved_one.transform])
    assert error_mm(found, truth, points) < 1.0


def test_a_patient_who_moved_between_the_series_is_followed(tmp_path: Path) -> None:
    moved = replace(FLAIR, moved_mm=(2.0, -3.0, 4.0), moved_deg=3.0)
    t1, flair = phantom(tmp_path, moved)
    found = register(t1, flair, same_frame_of_reference=True)
    truth = sitk.Euler3DTransform()
    truth.SetRotation(0.0, 0.0, np.radians(3.0))
    truth.SetTranslation((2.0, -3.0, 4.0))
    assert error_mm(found, truth, head_points(t1)) < 1.0
    assert "scanner's coordinates" in found.sentence


def test_a_patient_who_lay_still_is_hardly_moved(tmp_path: Path) -> None:
    t1, flair = phantom(tmp_path, replace(FLAIR, moved_mm=(0.0, 0.0, 0.0), moved_deg=0.0))
    found = register(t1, flair, same_frame_of_reference=True)
    assert found.moved_mm < 0.5


def test_the_same_grid_is_not_resampled(brainix: Pair) -> None:
    t1, _ = brainix
    found = register(t1, t1, same_frame_of_reference=True)
    np.testing.assert_array_equal(values(found.flair_on_t1), values(t1))
    assert "not resampled" in found.sentence


def moved_on_its_grid(flair: sitk.Image, transform: sitk.Euler3DTransform) -> sitk.Image:
    """Return the FLAIR of a patient who moved, on the grid that the scanner planned before."""
    return sitk.Resample(flair, flair, transform.GetInverse(), sitk.sitkLinear, 0.0, sitk.sitkFloat32)


def test_a_patient_who_moved_between_two_series_of_one_grid_is_followed(
    brainix: Pair, unmoved: Registration
) -> None:
    t1, points = brainix[0], head_points(brainix[0])
    movement = rigid((3.0, -2.0, 4.0), (3.0, -2.0, 2.0), centre_of(points))
    flair = moved_on_its_grid(unmoved.flair_on_t1, movement)
    assert same_grid(t1, flair)
    found = register(t1, flair, same_frame_of_reference=True)
    assert error_mm(found, movement, points) < 1.0
    assert "share one grid; the FLAIR was aligned" in found.sentence


def test_a_patient_who_lay_still_on_one_grid_is_not_resampled(brainix: Pair, unmoved: Registration) -> None:
    found = register(brainix[0], unmoved.flair_on_t1, same_frame_of_reference=True)
    np.testing.assert_array_equal(values(found.flair_on_t1), values(unmoved.flair_on_t1))
    assert "not resampled" in found.sentence


def mirrored(image: sitk.Image) -> sitk.Image:
    """Return the image with left and right swapped, its geometry as it was."""
    axis = int(np.argmax(np.abs(np.array(image.GetDirection()).reshape(3, 3)[0])))
    swapped = sitk.Flip(image, [index == axis for index in range(3)])
    swapped.CopyInformation(image)
    return swapped


@pytest.mark.parametrize("one_grid", [False, True])
def test_a_mirrored_flair_is_refused(one_grid: bool, brainix: Pair, unmoved: Registration) -> None:
    flair = unmoved.flair_on_t1 if one_grid else brainix[1]
    with pytest.raises(RefusedInput, match="Left and right seem to be swapped") as refused:
        register(brainix[0], mirrored(flair), same_frame_of_reference=True)
    assert refused.value.code == "MIRRORED"


def test_a_mirrored_flair_of_a_stripped_brain_is_refused(shared_data: Path) -> None:
    folder = shared_data / "nifti" / "BraTS-GLI-00000-000"
    t1, flair = (sitk.ReadImage(str(folder / f"{name}.nii.gz"), sitk.sitkFloat32) for name in ("t1", "flair"))
    assert "not resampled" in register(t1, flair, same_frame_of_reference=True).sentence
    with pytest.raises(RefusedInput, match="swapped"):
        register(t1, mirrored(flair), same_frame_of_reference=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_patient_of_lgg_is_taken_for_moved_or_mirrored_and_every_mirrored_one_is_refused(
    shared_data: Path,
) -> None:
    for patient in sorted(path for path in (shared_data / "lgg").iterdir() if path.is_dir()):
        t1, flair = (read_series(sorted((patient / role).iterdir())).image for role in ("t1", "flair"))
        assert "not resampled" in register(t1, flair, same_frame_of_reference=True).sentence, patient.name
        with pytest.raises(RefusedInput):
            register(t1, mirrored(flair), same_frame_of_reference=True)


def test_coordinates_that_do_not_fit_are_noticed(shared_data: Path) -> None:
    folder = shared_data / "nifti" / "TCGA-FG-6692_native"
    t1, flair = (sitk.ReadImage(str(folder / f"{name}.nii.gz"), sitk.sitkFloat32) for name in ("t1", "flair"))
    found = register(t1, flair, same_frame_of_reference=True)
    assert "do not fit" in found.sentence
    assert 15 < found.moved_mm < 20
    assert found.sharpness > 2


def test_the_same_input_gives_the_same_transform(brainix: Pair, unmoved: Registration) -> None:
    again = register(*brainix, same_frame_of_reference=True)
    assert again.transform.GetParameters() == unmoved.transform.GetParameters()
    np.testing.assert_array_equal(values(again.flair_on_t1), values(unmoved.flair_on_t1))


def test_another_patients_flair_is_refused(brainix: Pair, shared_data: Path) -> None:
    patient = sorted(path for path in (shared_data / "lgg").iterdir() if path.is_dir())[10]
    other = read_series(sorted((patient / "flair").iterdir())).image
    with pytest.raises(RefusedInput) as refused:
        register(brainix[0], other, same_frame_of_reference=True)
    assert refused.value.code == "REGISTRATION_FAILED"
    assert "do not seem to show the same head" in refused.value.sentence


def clouds(like: sitk.Image, sigma_mm: float) -> sitk.Image:
    """Return noise, smoothed, on the grid of an image."""
    noise = np.random.default_rng(5).normal(size=like.GetSize()[::-1]).astype(np.float32)
    image = sitk.GetImageFromArray(noise)
    image.CopyInformation(like)
    smooth = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(image, sigma_mm)) if sigma_mm else noise
    made = sitk.GetImageFromArray(np.abs(smooth) * 300)
    made.CopyInformation(like)
    return made


@pytest.mark.parametrize("sigma_mm", [0.0, 8.0], ids=["noise", "clouds"])
@pytest.mark.parametrize("same_frame", [True, False])
def test_a_flair_that_shows_no_head_is_refused(sigma_mm: float, same_frame: bool, brainix: Pair) -> None:
    with pytest.raises(RefusedInput):
        register(brainix[0], clouds(brainix[1], sigma_mm), same_frame_of_reference=same_frame)


def test_a_flair_of_less_than_half_the_head_is_refused(brainix: Pair) -> None:
    t1, flair = brainix
    half = flair[: int(0.42 * flair.GetWidth()), :, :]
    with pytest.raises(RefusedInput, match="field of view"):
        register(t1, half, same_frame_of_reference=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_flair_of_another_patient_is_taken(shared_data: Path) -> None:
    patients = sorted(path.name for path in (shared_data / "lgg").iterdir() if path.is_dir())[::8]
    pairs = [real_pair(shared_data, name) for name in patients]
    for (t1, _), (_, flair) in zip(pairs, pairs[1:] + pairs[:1], strict=True):
        with pytest.raises(RefusedInput):
            register(t1, flair, same_frame_of_reference=False)


def test_a_flair_of_another_region_is_refused(brainix: Pair) -> None:
    t1, flair = brainix
    lowest = flair[:, :, :6]
    with pytest.raises(RefusedInput, match="field of view"):
        register(t1, lowest, same_frame_of_reference=True)


def test_where_the_flair_was_not_acquired_it_is_zero(brainix: Pair) -> None:
    t1, flair = brainix
    found = register(t1, flair[:, :, 6:], same_frame_of_reference=True)
    shown = values(found.flair_on_t1).max(axis=(1, 2))
    assert shown[0] == 0
    assert shown[-2] > 0


def test_grids_are_compared_by_where_their_corners_lie(brainix: Pair) -> None:
    t1, flair = brainix
    assert same_grid(t1, sitk.Image(t1))
    assert not same_grid(t1, flair)
    assert not same_grid(t1, displaced(t1, rigid((0.0, 0.0, 0.0), (0.2, 0.0, 0.0), (0.0, 0.0, 0.0))))


def values(image: sitk.Image) -> npt.NDArray[np.float32]:
    return sitk.GetArrayFromImage(image)
