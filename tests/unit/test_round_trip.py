"""There and back: through the model grid the T1W returns to its voxels, however the patient was scanned."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from slices import rotation, write_enhanced, write_series

from synthesis.preprocess import ModelInput, head_mask, to_model_grid
from synthesis.restore import restore
from synthesis.series import Series, read_series

Axes = npt.NDArray[np.float64]

#: Axes of the scanner (to the left of one who lies HFS, to the floor, into the bore) in those of the patient.
POSITIONS = {
    "HFS": np.diag([1.0, 1, 1]),
    "HFP": np.diag([-1.0, -1, 1]),
    "FFS": np.diag([-1.0, 1, -1]),
    "FFP": np.diag([1.0, -1, -1]),
    "HFDR": np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]) * [-1, -1, 1],
    "HFDL": np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]),
    "FFDR": np.array([[0.0, -1, 0], [-1, 0, 0], [0, 0, -1]]),
    "FFDL": np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]]),
}
#: Row direction, column direction, normal as columns.
PLANES = {
    "axial": np.eye(3),
    "sagittal": np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
}
#: Between columns, rows and slices, mm: 2D with gaps and oblong pixels, 3D isotropic.
SPACINGS = {"2D": (1.5, 2.0, 6.0), "3D": (2.0, 2.0, 2.0)}
THICKNESS_2D_MM = 5.0
HALF_AXES_MM = np.array([70.0, 88.0, 72.0])
LEVEL = 300.0


def head(points_mm: Axes) -> npt.NDArray[np.float64]:
    """Return a head without any symmetry, soft enough for linear interpolation, at points (…, 3)."""
    radius = np.linalg.norm(points_mm / HALF_AXES_MM, axis=-1)
    inside = np.clip((1.05 - radius) / 0.3, 0, 1)
    waves = sum(
        0.2 * np.sin(2 * np.pi * points_mm[..., axis] / length + phase)
        for axis, length, phase in ((0, 51.0, 0.5), (1, 59.0, 1.1), (2, 67.0, 2.0))
    )
    return np.asarray(LEVEL * (1 + waves) * inside**2 * (3 - 2 * inside))


def scanned(
    folder: Path, axes: Axes, spacing_mm: tuple[float, ...], position: str, *, enhanced: bool, flipped: bool
) -> Series:
    """Write and read the head as a scanner with these axes (columns, LPS) acquires it."""
    half = np.abs(axes.T) @ (1.08 * HALF_AXES_MM)
    size = np.ceil(2 * half / spacing_mm).astype(int) + 1
    origin = -axes @ ((size - 1) * spacing_mm / 2)
    index = np.stack(np.meshgrid(*map(np.arange, size[::-1]), indexing="ij"), axis=-1)[..., ::-1]
    values = head(origin + (index * spacing_mm) @ axes.T).astype("<u2")
    order = list(range(len(values)))[:: -1 if flipped else 1]
    place = {"axes": axes, "origin_mm": tuple(origin), "spacing_mm": spacing_mm, "order": order}
    if enhanced:
        return read_series([write_enhanced(folder / "e.dcm", values, **place)])  # type: ignore[arg-type]

    def lying(dataset: Dataset, number: int) -> None:
        dataset.PatientPosition = position
        dataset.SliceThickness = THICKNESS_2D_MM

    return read_series(write_series(folder, values, edit=lying, **place))  # type: ignore[arg-type]


def there_and_back(t1: sitk.Image) -> tuple[ModelInput, npt.NDArray[np.float32]]:
    """Return what the model sees of the T1W, and that put back onto nothing."""
    found = to_model_grid(t1, t1)
    back = restore(found.values[:, 0], found.grid, sitk.Image(t1) * 0, found.t1_level)
    for part in ("Size", "Origin", "Spacing", "Direction"):
        assert getattr(back, f"Get{part}")() == getattr(t1, f"Get{part}")()
    return found, sitk.GetArrayFromImage(back)


@settings(max_examples=12, deadline=None)
@given(
    position=st.sampled_from(sorted(POSITIONS)),
    plane=st.sampled_from(sorted(PLANES)),
    tilt_deg=st.tuples(*[st.floats(-25, 25)] * 3) | st.just((0.0, 0.0, 0.0)),
    kind=st.sampled_from(sorted(SPACINGS)),
    flipped=st.booleans(),
)
@example(position="HFS", plane="axial", tilt_deg=(0.0, 0.0, 0.0), kind="2D", flipped=False)
@example(position="FFDL", plane="coronal", tilt_deg=(20.0, -15.0, 10.0), kind="2D", flipped=True)
@example(position="HFP", plane="sagittal", tilt_deg=(0.0, 0.0, 0.0), kind="3D", flipped=True)
def test_the_t1w_returns_to_its_voxels_however_the_patient_was_scanned(
    position: str, plane: str, tilt_deg: tuple[float, ...], kind: str, flipped: bool
) -> None:
    axes = POSITIONS[position] @ rotation(*tilt_deg) @ PLANES[plane]
    with tempfile.TemporaryDirectory() as folder:
        spacing = SPACINGS[kind]
        t1 = scanned(Path(folder), axes, spacing, position, enhanced=kind == "3D", flipped=flipped).image
    own = sitk.GetArrayFromImage(t1)

    found, back = there_and_back(t1)

    error = np.abs(back - own)[own > 0.2 * LEVEL] / LEVEL
    assert error.mean() < 0.02
    assert np.percentile(error, 99.5) < 0.1
    np.testing.assert_allclose(found.t1_level, LEVEL, rtol=0.1)
    same = restore(np.zeros_like(found.values[:, 0]), found.grid, t1, found.t1_level)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(same), own)


def dicom(folder: Path) -> sitk.Image:
    return read_series(sorted(folder.iterdir())).image


REAL = {
    "Philips, axial 2D with gaps": lambda data: dicom(data / "BRAINIX" / "T1"),
    "Siemens, sagittal 2D": lambda data: dicom(data / "studies" / "siemens_prisma_t1_fl2d_sag"),
    "Siemens, Enhanced 3D": lambda data: (
        read_series([data / "enhanced" / "siemens_xa30" / "006_T1w_tfl_norm.dcm"]).image
    ),
    "oblique 2D": lambda data: sitk.ReadImage(
        str(data / "nifti" / "TCGA-FG-6692_native" / "t1.nii.gz"), sitk.sitkFloat32
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_a_real_t1w_returns_to_its_place_and_to_no_other(name: str, shared_data: Path) -> None:
    t1 = REAL[name](shared_data)
    own, inside = sitk.GetArrayFromImage(t1), sitk.GetArrayFromImage(head_mask(t1)) > 0

    found, back = there_and_back(t1)

    everywhere = restore(np.ones_like(found.values[:, 0]), found.grid, sitk.Image(t1) * 0, 1.0)
    inside &= sitk.GetArrayFromImage(everywhere) > 0.99
    capped = np.minimum(own, 5 * found.t1_level)  # as the model sees it
    here = alike(back, capped, inside)
    assert here > 0.9
    pixel = found.grid.GetSpacing()[0]
    for axis in range(3):
        steps = max(1, round(pixel / t1.GetSpacing()[2 - axis]))
        assert here > max(alike(np.roll(back, way * steps, axis), capped, inside) for way in (-1, 1))


def alike(
    one: npt.NDArray[np.float32], other: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_]
) -> float:
    return float(np.corrcoef(one[inside], other[inside])[0, 1])
