"""A series becomes one volume whatever the order of its files, or is refused with a reason."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from slices import AXIAL, SAGITTAL, rotation, write_enhanced, write_series

from synthesis.errors import RefusedInput
from synthesis.series import Series, read_series

SLICES = 6
ORDERS = {
    "ascending": [0, 1, 2, 3, 4, 5],
    "reversed": [5, 4, 3, 2, 1, 0],
    "interleaved": [0, 2, 4, 1, 3, 5],
    "shuffled": [3, 0, 5, 1, 4, 2],
}


def volume(slices: int = SLICES, dtype: str = "<u2") -> npt.NDArray[np.generic]:
    """Return values that name their place: slice · 600 + row · 10 + column."""
    z, y, x = np.meshgrid(range(slices), range(36), range(40), indexing="ij")
    return (z * 600 + y * 10 + x).astype(dtype)


def array(series: Series) -> npt.NDArray[np.float32]:
    return sitk.GetArrayFromImage(series.image)


def code_of(paths: Sequence[Path]) -> str:
    with pytest.raises(RefusedInput) as refused:
        read_series(paths)
    assert refused.value.sentence.endswith(".")
    return refused.value.code


def test_a_real_series_keeps_the_scanners_geometry(shared_data: Path) -> None:
    paths = sorted((shared_data / "BRAINIX" / "T1").iterdir())
    series = read_series(paths)
    assert series.image.GetSize() == (512, 512, 22)
    assert series.image.GetSpacing() == pytest.approx((0.46875, 0.46875, 6.0), abs=1e-4)
    for index, header in enumerate(series.headers):
        there = series.image.TransformIndexToPhysicalPoint((0, 0, index))
        assert there == pytest.approx([float(v) for v in header.ImagePositionPatient], abs=1e-3)
    for path in paths[::7]:
        dataset = pydicom.dcmread(path)
        index = [str(header.SOPInstanceUID) for header in series.headers].index(str(dataset.SOPInstanceUID))
        np.testing.assert_array_equal(array(series)[index], dataset.pixel_array)


def test_a_real_enhanced_object_becomes_a_volume(shared_data: Path) -> None:
    path = shared_data / "enhanced" / "siemens_xa30" / "005_T1w_tfl.dcm"
    series = read_series([path])
    assert series.image.GetSize() == (128, 128, 96)
    assert series.image.GetSpacing() == pytest.approx((2.0, 2.0, 2.0))
    assert sorted(series.frames) == list(range(1, 97))
    assert series.headers[0].EchoTime == pytest.approx(2.41)
    assert "PixelData" not in series.headers[0]
    pixels = pydicom.dcmread(path).pixel_array
    np.testing.assert_array_equal(array(series)[10], pixels[series.frames[10] - 1])


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("axes", [AXIAL, SAGITTAL, rotation(20, -8, 5)], ids=["axial", "sagittal", "oblique"])
def test_the_order_of_files_does_not_matter(
    order: list[int], axes: npt.NDArray[np.float64], tmp_path: Path
) -> None:
    paths = write_series(tmp_path, volume(), axes=axes, order=order)
    series = read_series(paths[::-1])
    np.testing.assert_array_equal(array(series), volume())
    assert [int(header.InstanceNumber) for header in series.headers] == [order.index(z) + 1 for z in range(6)]


@settings(max_examples=15, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
    spacing=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3), st.floats(0.5, 10)),
    order=st.permutations(range(SLICES)),
)
def test_each_voxel_lies_where_its_slice_says(
    angles: tuple[float, ...], origin: tuple[float, ...], spacing: tuple[float, ...], order: list[int]
) -> None:
    axes = rotation(*angles)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_series(
            Path(folder), volume(), axes=axes, origin_mm=origin, spacing_mm=spacing, order=order
        )
        series = read_series(paths)
    np.testing.assert_array_equal(array(series), volume())
    for index in ((0, 0, 0), (11, 0, 2), (3, 9, 5)):
        expected = np.array(origin) + axes @ (np.array(index) * spacing)
        np.testing.assert_allclose(series.image.TransformIndexToPhysicalPoint(index), expected, atol=1e-3)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_frames_of_an_enhanced_object_are_sorted(order: list[int], tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "e.dcm", volume(), axes=SAGITTAL, order=order)
    series = read_series([path])
    np.testing.assert_array_equal(array(series), volume())
    assert series.frames == tuple(order.index(z) + 1 for z in range(SLICES))
    header = series.headers[0]
    assert (header.RepetitionTime, header.EchoTime, header.ScanningSequence) == (2000, 2.5, "GR")


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_lossless_compression_changes_nothing(syntax: UID, tmp_path: Path) -> None:
    series = read_series(write_series(tmp_path, volume(), syntax=syntax))
    np.testing.assert_array_equal(array(series), volume())
    assert series.lossy is None


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_jpeg_ls_slice_is_named_and_not_made_into_an_image(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    noisy = volume() + rng.integers(0, 9, (SLICES, 36, 40), dtype="<u2")
    paths = write_series(tmp_path, noisy, syntax=JPEGLSLossless)
    dataset = pydicom.dcmread(paths[3])
    stream = bytearray(dataset.PixelData)
    stream[len(stream) // 2 : len(stream) // 2 + 20] = rng.bytes(20)
    dataset.PixelData = bytes(stream)
    dataset.save_as(paths[3])

    with pytest.raises(RefusedInput, match="The pixels of instance 4 are cut short or damaged") as refused:
        read_series(paths)
    assert refused.value.code == "UNREADABLE_PIXELS"


def test_a_damaged_rle_slice_is_refused_and_ends_no_process(tmp_path: Path) -> None:
    paths = write_series(tmp_path, volume(), syntax=RLELossless)
    dataset = pydicom.dcmread(paths[3])
    segments = dataset.PixelData.index(b"\x02\0\0\0\x40\0\0\0")
    dataset.PixelData = dataset.PixelData[: segments + 64] + b"\x7f" * (
        len(dataset.PixelData) - segments - 64
    )
    dataset.save_as(paths[3])

    assert code_of(paths) in ("UNREADABLE_PIXELS", "UNREADABLE_FILE")


@settings(max_examples=40, deadline=None)
@given(data=st.data(), syntax=st.sampled_from([None, RLELossless, JPEGLSLossless, JPEG2000Lossless]))
def test_a_series_with_a_damaged_file_is_a_volume_or_is_refused(
    data: st.DataObject, syntax: UID | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = write_series(Path(folder), volume(), syntax=syntax)
        raw = bytearray(paths[2].read_bytes())
        for _ in range(data.draw(st.integers(1, 6))):
            raw[data.draw(st.integers(132, len(raw) - 1))] = data.draw(st.integers(0, 255))
        paths[2].write_bytes(raw[: data.draw(st.integers(300, len(raw)))])
        try:
            series = read_series(paths)
        except RefusedInput as refused:
            assert refused.code and refused.sentence.endswith(".")
        else:
            assert series.image.GetDepth() in (SLICES - 1, SLICES)


@pytest.mark.parametrize("position", ["HFS", "HFP", "FFS", "FFP", "HFDL", "HFDR", "FFDL", "FFDR"])
def test_how_the_patient_lay_does_not_move_a_voxel(position: str, tmp_path: Path) -> None:
    axes, origin = rotation(180, 3, -90), (12.0, -7.0, 41.0)
    series = read_series(
        write_series(
            tmp_path, volume(), axes=axes, origin_mm=origin, edit=_put_everywhere("PatientPosition", position)
        )
    )
    np.testing.assert_allclose(series.image.TransformIndexToPhysicalPoint((0, 0, 0)), origin, atol=1e-6)
    np.testing.assert_array_equal(array(series), volume())


def _put_everywhere(keyword: str, value: object) -> Callable[[Dataset, int], None]:
    return lambda dataset, index: setattr(dataset, keyword, value)


def test_lossy_compression_is_marked(tmp_path: Path) -> None:
    def mark(dataset: Dataset, index: int) -> None:
        dataset.LossyImageCompression, dataset.LossyImageCompressionRatio = "01", "12"

    paths = write_series(tmp_path, volume(), syntax=JPEG2000Lossless, edit=mark)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = JPEG2000
        dataset.save_as(path)
    lossy = read_series(paths).lossy
    assert lossy is not None
    assert (lossy.ratio, lossy.method) == (12.0, "ISO_15444_1")


def test_rescale_is_applied_slice_by_slice(tmp_path: Path) -> None:
    def rescale(dataset: Dataset, index: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{index + 0.5}", "-3"

    series = read_series(write_series(tmp_path, volume(), edit=rescale))
    slopes = np.arange(SLICES)[:, None, None] + 0.5
    np.testing.assert_allclose(array(series), volume() * slopes - 3)


def test_signed_values_stay_negative(tmp_path: Path) -> None:
    values = volume(dtype="<i2") - 500
    series = read_series(write_series(tmp_path, values, bits=16))
    np.testing.assert_array_equal(array(series), values)


def test_an_overlay_in_the_unused_bits_is_no_pixel(tmp_path: Path) -> None:
    values = volume() | 0xF000
    np.testing.assert_array_equal(array(read_series(write_series(tmp_path, values))), volume())


def test_signed_values_of_12_bits_beside_an_overlay_stay_what_they_are(tmp_path: Path) -> None:
    values = volume(dtype="<i2") // 2 - 500
    stored = (values & 0x0FFF) | 0x5000
    assert stored.min() > 0
    np.testing.assert_array_equal(array(read_series(write_series(tmp_path, stored))), values)


def test_rescale_is_applied_frame_by_frame(tmp_path: Path) -> None:
    def rescale(groups: Dataset, index: int) -> None:
        values = Dataset()
        values.RescaleSlope, values.RescaleIntercept = f"{index + 0.5}", "-3"
        groups.PixelValueTransformationSequence = [values]

    series = read_series(
        [write_enhanced(tmp_path / "e.dcm", volume(), order=ORDERS["shuffled"], edit=rescale)]
    )
    slopes = np.arange(SLICES)[:, None, None] + 0.5
    np.testing.assert_allclose(array(series), volume() * slopes - 3)


def test_monochrome1_is_turned_and_said(tmp_path: Path) -> None:
    def invert(dataset: Dataset, index: int) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"

    series = read_series(write_series(tmp_path, volume(), edit=invert))
    np.testing.assert_array_equal(array(series), volume().max() - volume().astype(float))
    assert "inverted" in series.remarks[0]


def test_an_instance_that_came_twice_counts_once(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "a", volume()) + write_series(tmp_path / "b", volume())
    assert read_series(paths).image.GetDepth() == SLICES


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    paths = write_series(tmp_path, volume())
    with pytest.raises(
        RefusedInput, match="1 slice is missing: between instance 3 and instance 5"
    ) as refused:
        read_series(paths[:3] + paths[4:])
    assert refused.value.code == "SLICE_MISSING"


def test_a_mixed_matrix_is_refused(tmp_path: Path) -> None:
    def crop(dataset: Dataset, index: int) -> None:
        if index == 2:
            dataset.Rows = 9
            dataset.PixelData = dataset.PixelData[: 9 * 40 * 2]

    assert code_of(write_series(tmp_path, volume(), edit=crop)) == "MIXED_GEOMETRY"


def test_too_few_slices_are_refused(tmp_path: Path) -> None:
    assert code_of(write_series(tmp_path, volume(4))) == "TOO_FEW_SLICES"
    assert code_of([]) == "TOO_FEW_SLICES"


def test_several_stacks_and_echoes_of_an_enhanced_object_are_refused(tmp_path: Path) -> None:
    def stack(groups: Dataset, index: int) -> None:
        groups.FrameContentSequence[0].StackID = "12"[index % 2]

    def echo(groups: Dataset, index: int) -> None:
        groups.MREchoSequence[0].EffectiveEchoTime = 2.5 + index % 2

    assert code_of([write_enhanced(tmp_path / "a.dcm", volume(), edit=stack)]) == "SEVERAL_STACKS"
    assert code_of([write_enhanced(tmp_path / "b.dcm", volume(), edit=echo)]) == "SEVERAL_ECHOES"
