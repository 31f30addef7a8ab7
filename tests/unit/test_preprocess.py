"""The model grid: where it lies, which way it looks, and what 1 means on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from synthesis.errors import RefusedInput
from synthesis.preprocess import brain_level, brain_region, to_model_grid
from training.prepare.run import read_patient

AXIAL = np.eye(3)
SAGITTAL = np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]])  # columns: along rows, along columns, normal (LPS)
CORONAL = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


def rotated(degrees: float, about: int) -> npt.NDArray[np.float64]:
    """Return a rotation of the patient's frame about x, y or z."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.eye(3)
    i, j = [axis for axis in range(3) if axis != about]
    turn[i, i], turn[j, j], turn[i, j], turn[j, i] = c, c, -s, s
    return turn


def head(
    axes: npt.NDArray[np.float64] = AXIAL,
    spacing: tuple[float, float, float] = (2.0, 2.0, 6.0),
    centre: tuple[float, float, float] = (10.0, -20.0, 30.0),
    brain: float = 300.0,
    fat: float = 3.0,
    radii: tuple[float, float, float] = (75.0, 95.0, 80.0),
    mark: float = 2.0,
    field: float = 240.0,
) -> sitk.Image:
    """Return an ellipsoid of brain in fluid, bone and fat, with a bright mark in front, left and up."""
    size = [int(field / step) for step in spacing]
    image = sitk.Image(size, sitk.sitkFloat32)
    image.SetSpacing(spacing)
    image.SetDirection(axes.ravel().tolist())
    half = np.array([(count - 1) / 2 * step for count, step in zip(size, spacing, strict=True)])
    image.SetOrigin((np.asarray(centre) - axes @ half).tolist())
    index = np.stack(np.meshgrid(*(np.arange(count) for count in size), indexing="ij"), axis=-1)
    points = image.GetOrigin() + (index * np.asarray(spacing)) @ axes.T - np.asarray(centre)
    depth = (1 - np.linalg.norm(points / np.asarray(radii), axis=-1)) * min(radii)  # about mm from the skin
    values = np.select(
        [depth < 0, depth < 5, depth < 10, depth < 13], [0, fat * brain, 0, 0.3 * brain], brain
    )
    values = np.where(np.linalg.norm(points - [30, -45, 15], axis=-1) < 12, mark * brain, values)
    out = sitk.GetImageFromArray(np.ascontiguousarray(values.T, dtype=np.float32))
    out.CopyInformation(image)
    return out


def test_the_brain_is_one() -> None:
    assert brain_level(head(brain=300.0)) == pytest.approx(300, rel=0.02)


@pytest.mark.parametrize("fat", [0.0, 0.6, 4.0, 8.0])
def test_skull_and_fat_do_not_change_the_level(fat: float) -> None:
    assert brain_level(head(fat=fat)) == pytest.approx(300, rel=0.03)


def test_a_stripped_brain_has_the_level_of_the_whole_head() -> None:
    image = head()
    inside = sitk.GetImageFromArray(brain_region(image).astype(np.float32))
    inside.CopyInformation(image)
    assert brain_level(image * inside) == pytest.approx(brain_level(image), rel=0.02)


@pytest.mark.parametrize("fat", [0.0, 0.6, 4.0])
def test_of_a_stripped_brain_all_is_brain_and_of_a_head_its_inside(fat: float) -> None:
    image = head(fat=fat)
    region = brain_region(image)
    stripped = sitk.GetImageFromArray(sitk.GetArrayFromImage(image) * region)
    stripped.CopyInformation(image)
    again = brain_region(stripped)
    assert (again & region).sum() > 0.97 * region.sum()
    assert again.sum() < 1.4 * region.sum()  # its edge is found on voxels of 3 mm and more
    assert to_model_grid(stripped, stripped).stripped
    if fat > 1:
        assert not to_model_grid(image, image).stripped


def test_a_real_head_has_a_scalp_and_a_stripped_brain_has_none(shared_data: Path) -> None:
    folders = {"nifti/BraTS-GLI-00000-000": True, "nifti/TCGA-FG-6692_native": False}
    for folder, stripped in folders.items():
        patient = read_patient(shared_data / folder)
        found = to_model_grid(patient.t1, patient.flair)
        assert found.stripped == stripped
        t1, tumour = (sitk.GetArrayFromImage(image) for image in (patient.t1, patient.tumour))
        if stripped:
            brain = brain_region(patient.t1)
            assert brain.sum() > 0.75 * (t1 > 0).sum()
            assert (brain & (tumour > 0)).sum() > 0.9 * (tumour > 0).sum()


def test_blank_slices_do_not_change_the_level() -> None:
    values = sitk.GetArrayFromImage(head())
    values[:12] = 0
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(head())
    assert brain_level(image) == pytest.approx(300, rel=0.03)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_blank_volume_is_refused(value: float) -> None:
    with pytest.raises(RefusedInput) as refused:
        brain_level(head() * 0 + value)
    assert refused.value.code == "BLANK_VOLUME"


def test_a_blank_flair_is_refused() -> None:
    image = head()
    with pytest.raises(RefusedInput, match="no brain"):
        to_model_grid(image, image * 0)


def test_a_speck_is_not_a_head() -> None:
    with pytest.raises(RefusedInput) as refused:
        brain_level(head(radii=(30.0, 30.0, 30.0)))
    assert refused.value.code == "NOT_A_HEAD"


def test_the_grid_keeps_the_planes_of_an_axial_acquisition() -> None:
    image = head()
    found = to_model_grid(image, image * 0.5)
    assert found.values.shape == (40, 2, 120, 120)
    assert found.values.dtype == np.float32
    assert found.grid.GetSpacing() == pytest.approx((2.0, 2.0, 6.0))
    assert found.flair_level == pytest.approx(found.t1_level / 2, rel=1e-3)
    brain = found.values[20, :, 60, 55:65]
    assert brain == pytest.approx(1, abs=0.02)


def test_planes_without_head_are_not_usable() -> None:
    image = head(radii=(75.0, 95.0, 60.0))
    found = to_model_grid(image, image)
    assert not found.usable[0]
    assert found.usable[20]
    assert found.usable.sum() == pytest.approx(20, abs=2)


def test_where_the_flair_shows_nothing_is_measured() -> None:
    t1 = head()
    flair = sitk.Image(t1)
    flair[: int(0.4 * t1.GetWidth()), :, :] = 0
    assert to_model_grid(t1, t1).without_flair < 0.01
    assert to_model_grid(t1, flair).without_flair == pytest.approx(0.27, abs=0.05)


def test_what_lies_below_the_grid_is_measured() -> None:
    sagittal = head(SAGITTAL, spacing=(2.0, 2.0, 4.0), radii=(75.0, 95.0, 115.0))
    assert to_model_grid(sagittal, sagittal).below_mm == pytest.approx(30, abs=6)
    axial = head(radii=(75.0, 95.0, 115.0))
    assert to_model_grid(axial, axial).below_mm == 0


def test_a_head_that_is_larger_than_the_field_is_not_cut() -> None:
    image = head(radii=(120.0, 140.0, 80.0), spacing=(3.0, 3.0, 6.0), field=300.0)
    found = to_model_grid(image, image)
    assert found.grid.GetSpacing()[0] > 280 / 120
    assert not found.inside[:, 0].any()
    assert not found.inside[:, -1].any()


ORIENTATIONS = st.sampled_from([AXIAL, SAGITTAL, CORONAL, AXIAL @ np.diag([-1.0, 1, -1])])


@settings(max_examples=12, deadline=None)
@given(ORIENTATIONS, st.floats(-25, 25), st.integers(0, 2), st.tuples(*[st.floats(-60, 60)] * 3))
def test_a_mark_lies_at_its_place_whatever_the_acquisition(
    axes: npt.NDArray[np.float64], degrees: float, about: int, centre: tuple[float, float, float]
) -> None:
    image = head(rotated(degrees, about) @ axes, (3.0, 3.0, 5.0), centre)
    found = to_model_grid(image, image)
    bright = np.argwhere((found.values[:, 0] > 1.5) & (_depth(found.grid, centre) > 13))
    place = np.mean(
        [found.grid.TransformIndexToPhysicalPoint([int(i) for i in zyx[::-1]]) for zyx in bright], axis=0
    )
    assert place == pytest.approx(np.add(centre, (30, -45, 15)), abs=3.0)


@settings(max_examples=12, deadline=None)
@given(ORIENTATIONS, st.floats(-25, 25), st.integers(0, 2))
def test_rows_run_to_the_back_and_columns_to_the_left(
    axes: npt.NDArray[np.float64], degrees: float, about: int
) -> None:
    image = head(rotated(degrees, about) @ axes, (3.0, 3.0, 5.0))
    direction = np.asarray(to_model_grid(image, image).grid.GetDirection()).reshape(3, 3)
    assert direction[0, 0] > 0.85
    assert direction[1, 1] > 0.85
    assert direction[2, 2] > 0.85
    assert direction.T @ direction == pytest.approx(np.eye(3), abs=1e-9)


def test_fine_pixels_are_averaged_not_skipped() -> None:
    stripes = head(spacing=(0.5, 0.5, 8.0), fat=0.0)
    values = sitk.GetArrayFromImage(stripes)
    values[:, :, ::2] *= 2
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(stripes)
    found = to_model_grid(image, image)
    middle = found.values[found.values.shape[0] // 2, 0, 50:70, 50:62]
    assert float(middle.std()) < 0.02


def _depth(grid: sitk.Image, centre: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Return the depth below the skin of `head`, (D, S, S)."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.GetSize()), indexing="ij"), axis=-1)
    axes = np.asarray(grid.GetDirection()).reshape(3, 3)
    points = grid.GetOrigin() + (index * np.asarray(grid.GetSpacing())) @ axes.T - np.asarray(centre)
    return np.asarray((1 - np.linalg.norm(points / [75.0, 95.0, 80.0], axis=-1)).T * 75)
