"""The way back: the T1W's own voxels and geometry, changed only where Δ says so."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from synthesis.restore import restore, restore_map


def t1w(axes: npt.NDArray[np.float64], size: tuple[int, int, int] = (48, 40, 9)) -> sitk.Image:
    """Return noise on a grid with these axes (columns, LPS), 4×4×8 mm, around a point that is not 0."""
    values = np.random.default_rng(0).uniform(-1, 900, size[::-1]).astype(np.float32)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing([1.1, 1.1, 8.0])
    image.SetDirection(axes.ravel().tolist())
    image.SetOrigin([-31.7, 12.9, 44.1])
    return image


def grid_over(t1: sitk.Image, depth: int = 24) -> sitk.Image:
    """Return an upright grid of 40×40 pixels of 4 mm around the middle of the T1W."""
    middle = np.asarray(t1.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in t1.GetSize()]))
    grid = sitk.Image([40, 40, depth], sitk.sitkFloat32)
    grid.SetSpacing([4.0, 4.0, 4.0])
    grid.SetOrigin((middle - np.array([19.5, 19.5, (depth - 1) / 2]) * 4).tolist())
    return grid


def turned(degrees: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Return the axes of an acquisition turned about x, y and z."""
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*np.deg2rad(degrees).tolist())
    return np.asarray(transform.GetMatrix()).reshape(3, 3)


ANGLES = st.tuples(*[st.floats(-180, 180)] * 3)


@settings(max_examples=15, deadline=None)
@given(ANGLES)
def test_no_difference_gives_the_t1w_bit_for_bit(angles: tuple[float, float, float]) -> None:
    image = t1w(turned(angles))
    grid = grid_over(image)
    out = restore(np.zeros(grid.GetSize()[::-1], np.float32), grid, image, 321.0)
    assert np.array_equal(sitk.GetArrayFromImage(out), sitk.GetArrayFromImage(image))
    assert out.GetPixelID() == sitk.sitkFloat32


@settings(max_examples=15, deadline=None)
@given(ANGLES)
def test_the_result_has_the_geometry_of_the_t1w_exactly(angles: tuple[float, float, float]) -> None:
    image = t1w(turned(angles))
    grid = grid_over(image)
    for out in (
        restore(np.ones(grid.GetSize()[::-1], np.float32), grid, image, 10.0),
        restore_map(np.ones(grid.GetSize()[::-1], np.float32), grid, image),
    ):
        assert out.GetSize() == image.GetSize()
        assert out.GetOrigin() == image.GetOrigin()
        assert out.GetSpacing() == image.GetSpacing()
        assert out.GetDirection() == image.GetDirection()


@settings(max_examples=15, deadline=None)
@given(ANGLES)
def test_a_difference_lies_where_the_network_put_it(angles: tuple[float, float, float]) -> None:
    image = t1w(turned(angles)) * 0 + 100
    grid = grid_over(image)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.GetSize()), indexing="ij"), axis=-1)
    points = np.asarray(grid.GetOrigin()) + index * 4.0
    middle = np.asarray(image.TransformContinuousIndexToPhysicalPoint([23.5, 19.5, 4.0]))
    delta = np.exp(-((np.linalg.norm(points - middle, axis=-1) / 8) ** 2)).T.astype(np.float32)
    change = sitk.GetArrayFromImage(restore(delta, grid, image, 50.0)) - 100
    zyx = np.stack(np.meshgrid(*(np.arange(n) for n in change.shape), indexing="ij"), axis=-1)
    centre = (zyx * change[..., None]).sum(axis=(0, 1, 2)) / change.sum()
    assert centre[::-1] == pytest.approx([23.5, 19.5, 4.0], abs=0.6)
    assert 35 < change.max() <= 50


def test_nothing_falls_below_zero_where_something_changed() -> None:
    image = t1w(np.eye(3))
    grid = grid_over(image, depth=40)
    out = sitk.GetArrayFromImage(restore(np.full(grid.GetSize()[::-1], -9, np.float32), grid, image, 1000.0))
    assert out.min() == 0


def test_far_from_a_difference_the_t1w_is_untouched() -> None:
    image = t1w(np.eye(3), size=(140, 140, 9))
    grid = grid_over(image)
    delta = np.zeros(grid.GetSize()[::-1], np.float32)
    delta[12, 20, 20] = 1
    changed = sitk.GetArrayFromImage(restore(delta, grid, image, 100.0)) != sitk.GetArrayFromImage(image)
    assert 0 < changed.sum() < 500


def test_a_map_stays_a_probability() -> None:
    image = t1w(np.eye(3))
    grid = grid_over(image)
    noise = np.random.default_rng(1).uniform(0, 1, grid.GetSize()[::-1]).astype(np.float32)
    out = sitk.GetArrayFromImage(restore_map(noise, grid, image))
    assert out.min() >= 0
    assert out.max() <= 1


def test_a_difference_of_another_shape_or_not_finite_is_refused() -> None:
    image = t1w(np.eye(3))
    grid = grid_over(image)
    with pytest.raises(ValueError, match="shape"):
        restore(np.zeros((3, 3, 3), np.float32), grid, image, 1.0)
    with pytest.raises(ValueError, match="finite"):
        restore(np.full(grid.GetSize()[::-1], np.nan, np.float32), grid, image, 1.0)
