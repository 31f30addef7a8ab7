"""The derived series is valid, lies where the T1W lies, and says what it is and what made it."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from slices import AXIAL, SAGITTAL, rotation, write_enhanced, write_series

from synthesis.derive.enhanced_mr import derive_enhanced
from synthesis.derive.mr import derive_series, difference_volume, t1c_volume, uncertainty_volume
from synthesis.derive.provenance import Maker, series_uid, stable_uid
from synthesis.derive.scaling import scaling_of
from synthesis.derive.source import Source, flair_slices, refuse_synthetic
from synthesis.errors import RefusedInput
from synthesis.series import LossyCompression, Series, read_series

MAKER = Maker("small", "0.1", "ab" * 32)
MADE = datetime.datetime(2026, 5, 4, 3, 2, 1)
IDENTITY = sitk.Euler3DTransform()


def values(slices: int = 6) -> npt.NDArray[np.uint16]:
    return np.arange(slices * 36 * 40, dtype=np.uint16).reshape(slices, 36, 40) // 5


def source(t1: Series, flair: Series | None = None, **changes: Any) -> Source:
    known: dict[str, Any] = {"level": 200.0, "maker": MAKER, "made": MADE} | changes
    return Source.of(t1, flair or t1, IDENTITY, known.pop("level"), known.pop("maker"), **known)


def derived(t1: Series, flair: Series | None = None, *, corner_text: bool = False, **changes: Any) -> Any:
    given = source(t1, flair, **changes)
    return derive_series(given, t1c_volume(given, t1.image, corner_text=corner_text)[0])


def pair(folder: Path, **changes: object) -> tuple[Series, Series]:
    t1 = read_series(write_series(folder / "t1", values(), **changes))  # type: ignore[arg-type]
    flair = read_series(write_series(folder / "flair", values(), series="2"))
    return t1, flair


def written(instances: Sequence[Any], folder: Path) -> list[Path]:
    paths = []
    for instance in instances:
        paths.append(folder / f"{instance.InstanceNumber}.dcm")
        instance.save_as(paths[-1], enforce_file_format=True)
    return paths


@settings(max_examples=8, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
    spacing=st.tuples(st.floats(0.3, 3), st.floats(0.3, 3), st.floats(0.5, 10)),
    order=st.permutations(range(6)),
)
def test_a_point_of_the_t1w_lies_at_the_same_place_in_the_t1c(
    angles: tuple[float, ...], origin: tuple[float, ...], spacing: tuple[float, ...], order: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        geometry = {"axes": rotation(*angles), "origin_mm": origin, "spacing_mm": spacing, "order": order}
        t1, flair = pair(folder, **geometry)
        t1c = read_series(written(derived(t1, flair), folder))
    assert t1c.image.GetOrigin() == t1.image.GetOrigin()
    assert t1c.image.GetDirection() == t1.image.GetDirection()
    assert t1c.image.GetSpacing() == t1.image.GetSpacing()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(t1c.image), sitk.GetArrayFromImage(t1.image))


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [0, 2, 4, 1, 3, 5]])
@pytest.mark.parametrize("axes", [AXIAL, SAGITTAL], ids=["axial", "sagittal"])
def test_each_instance_belongs_to_one_of_the_t1w(
    order: list[int], axes: npt.NDArray[np.float64], tmp_path: Path
) -> None:
    t1, flair = pair(tmp_path, axes=axes, order=order)
    by_uid = {str(header.SOPInstanceUID): header for header in t1.headers}
    for number, instance in enumerate(derived(t1, flair), start=1):
        source = by_uid[instance.SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert instance.SourceImageSequence[0].SpatialLocationsPreserved == "YES"
        assert instance.InstanceNumber == number
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
            assert _as_written(instance[keyword].value) == _as_written(source[keyword].value)
        index = order[int(source.InstanceNumber) - 1]
        np.testing.assert_array_equal(instance.pixel_array, values()[index])


def _as_written(value: object) -> list[str]:
    several = value if isinstance(value, pydicom.multival.MultiValue) else [value]
    return [str(one) for one in several]


def test_it_says_that_it_is_synthetic_and_what_made_it(tmp_path: Path) -> None:
    t1, flair = pair(tmp_path)
    instance = derived(t1, flair)[0]
    assert instance.SyntheticData == "YES"
    assert instance.ImageType == ["DERIVED", "SECONDARY", "OTHER", "SYNTHETIC"]
    assert instance.ContentQualification == "RESEARCH"
    assert instance.BurnedInAnnotation == "NO"
    assert instance.SeriesDescription == "SYNTH T1C (AI, no Gd)"
    assert instance.SeriesNumber == 9003
    assert instance.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert [code.CodeValue for code in instance.DerivationCodeSequence] == ["123110", "113085"]
    equipment = {
        item.PurposeOfReferenceCodeSequence[0].CodeValue: item
        for item in instance.ContributingEquipmentSequence
    }
    assert equipment["109101"].Manufacturer == "Maker of Scanners"
    assert MAKER.digest in equipment["109100"].SoftwareVersions
    assert instance.Manufacturer != "Maker of Scanners"
    assert instance.DeviceUID == MAKER.device_uid
    assert not [element for element in instance if element.keyword.startswith("Contrast")]
    assert (instance.WindowCenter, instance.WindowWidth) == (220, 400)


def test_nothing_of_the_scanners_private_matters_comes_along(tmp_path: Path) -> None:
    def edit(dataset: Dataset, index: int) -> None:
        dataset.private_block(0x0029, "VENDOR", create=True).add_new(1, "LO", "secret")
        dataset.ContrastBolusAgent, dataset.SAR, dataset.OperatorsName = "Gd", "0.1", "Some^One"
        dataset.add_new(0x60003000, "OW", b"\0\0")

    t1, flair = pair(tmp_path, edit=edit)
    instance = derived(t1, flair)[0]
    assert not [element for element in instance if element.tag.is_private or element.tag.group == 0x6000]
    for keyword in ("ContrastBolusAgent", "SAR", "OperatorsName"):
        assert keyword not in instance


def test_the_same_inputs_and_weights_give_the_same_identifiers(tmp_path: Path) -> None:
    t1, flair = pair(tmp_path)
    first, again = derived(t1, flair), derived(t1, flair, made=datetime.datetime.now())
    assert [one.SOPInstanceUID for one in first] == [one.SOPInstanceUID for one in again]
    others = derived(t1, flair, maker=Maker("small", "0.1", "cd" * 32))
    with_parameters = derived(t1, flair, corner_text=True)
    assert len({one[0].SeriesInstanceUID for one in (first, others, with_parameters)}) == 3
    assert len({one.SOPInstanceUID for one in first}) == 6
    assert all(len(one.SOPInstanceUID) <= 44 and one.SOPInstanceUID.startswith("2.25.") for one in first)


def test_identifiers_do_not_depend_on_the_order_of_the_inputs() -> None:
    assert series_uid("t1c", ["a", "b"], MAKER) == series_uid("t1c", ["b", "a"], MAKER)
    assert stable_uid("a", "b") != stable_uid("ab")


def test_frames_of_an_enhanced_t1w_become_single_instances(tmp_path: Path) -> None:
    order = [3, 0, 5, 1, 4, 2]
    path = write_enhanced(tmp_path / "e.dcm", values(), axes=SAGITTAL, order=order)
    t1 = read_series([path])
    instances = derived(t1)
    assert len({instance.SOPInstanceUID for instance in instances}) == 6
    for z, instance in enumerate(instances):
        assert instance.SOPClassUID == pydicom.uid.MRImageStorage
        assert instance.SourceImageSequence[0].ReferencedFrameNumber == order.index(z) + 1
        assert (instance.EchoTime, instance.RepetitionTime, instance.ScanningSequence) == (2.5, 2000, "GR")
        assert "NumberOfFrames" not in instance
    t1c = read_series(written(instances, tmp_path))
    assert t1c.image.GetOrigin() == t1.image.GetOrigin()


def test_only_flair_slices_that_overlap_are_named(tmp_path: Path) -> None:
    t1 = sitk.Image([8, 8, 4], sitk.sitkFloat32)
    t1.SetSpacing((1, 1, 5))
    flair = sitk.Image([8, 8, 10], sitk.sitkFloat32)
    flair.SetSpacing((1, 1, 2))
    assert flair_slices(t1, flair, IDENTITY) == [range(1), range(2, 4), range(5, 6), range(7, 9)]
    away = sitk.Euler3DTransform()
    away.SetTranslation((0, 0, 16.0))
    assert list(flair_slices(t1, flair, away)[3]) == []


@pytest.mark.parametrize(
    ("highest", "lowest", "level", "bits", "expected"),
    [
        (1800.0, 0.0, 300.0, 12, (0.0, 1.0, 12)),
        (5000.0, 0.0, 300.0, 12, (0.0, 1.0, 16)),
        (255.0, 0.0, 40.0, 16, (0.0, 1.0, 16)),
        (2.0, 0.0, 0.5, 16, (0.0, 2000.0, 16)),
        (131070.0, 0.0, 20000.0, 16, (0.0, 0.5, 16)),
        (1000.0, -12.5, 300.0, 16, (-13.0, 1.0, 16)),
    ],
)
def test_the_t1ws_values_are_kept_where_they_fit(
    highest: float, lowest: float, level: float, bits: int, expected: tuple[float, float, int]
) -> None:
    volume = np.array([lowest, highest], dtype=np.float32)
    scaling, said = scaling_of(volume, level, bits)
    offset, factor, bits_stored = expected
    assert (scaling.offset, scaling.bits_stored) == (offset, bits_stored)
    assert scaling.factor == pytest.approx(factor, rel=1e-3)
    assert bool(said) == (scaling.factor != 1 or offset != 0)
    assert scaling.stored(volume)[1] == pytest.approx((highest - offset) * scaling.factor, abs=0.51)


def test_lossy_input_marks_the_output(tmp_path: Path) -> None:
    t1, flair = pair(tmp_path)
    lossy = Series(**{**vars(flair), "lossy": LossyCompression(12.0, "ISO_15444_1")})
    instance = derived(t1, lossy)[0]
    assert instance.LossyImageCompression == "01"
    assert instance.LossyImageCompressionRatio == 12
    assert instance.LossyImageCompressionMethod == "ISO_15444_1"
    assert derived(t1, flair)[0].LossyImageCompression == "00"


def test_pixels_that_were_compressed_twice_pass_both_on(tmp_path: Path) -> None:
    def edit(dataset: Dataset, index: int) -> None:
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionRatio = ["10", "2.5"]
        dataset.LossyImageCompressionMethod = ["ISO_10918_1", "ISO_15444_1"]

    t1, flair = pair(tmp_path, edit=edit)
    path = written(derived(t1, flair)[:1], tmp_path)[0]

    instance = pydicom.dcmread(path)
    assert instance.LossyImageCompressionRatio == [10, 2.5]
    assert instance.LossyImageCompressionMethod == ["ISO_10918_1", "ISO_15444_1"]


def test_synthetic_input_is_refused(tmp_path: Path) -> None:
    t1, flair = pair(tmp_path)
    ours = read_series(written(derived(t1, flair), tmp_path))
    with pytest.raises(RefusedInput) as refused:
        refuse_synthetic(ours)
    assert refused.value.code == "SYNTHETIC_INPUT"
    refuse_synthetic(t1)


def test_a_corner_says_synthetic_when_asked_and_the_header_says_so(tmp_path: Path) -> None:
    rows = np.full((5, 256, 256), 300, dtype=np.uint16)
    t1 = read_series(write_series(tmp_path, rows))
    plain, marked = derived(t1)[0], derived(t1, corner_text=True)[0]
    assert (plain.BurnedInAnnotation, marked.BurnedInAnnotation) == ("NO", "YES")
    changed = np.argwhere(plain.pixel_array != marked.pixel_array)
    assert len(changed) > 200
    assert (changed.max(axis=0) < (40, 128)).all()
    assert plain.SeriesInstanceUID != marked.SeriesInstanceUID


def test_the_difference_added_to_the_t1w_is_the_t1c(tmp_path: Path) -> None:
    t1, flair = pair(tmp_path)
    before = sitk.GetArrayFromImage(t1.image)
    image = sitk.GetImageFromArray(np.where(before % 7 < 3, before * 0.5, before + 60.4).astype(np.float32))
    image.CopyInformation(t1.image)
    given = source(t1, flair)
    t1c = derive_series(given, t1c_volume(given, image)[0])
    change = derive_series(given, difference_volume(given, image)[0])
    for one, other, slice_ in zip(t1c, change, before, strict=True):
        assert other.ImageType == ["DERIVED", "SECONDARY", "OTHER", "SYNTHETIC", "DIFFERENCE"]
        assert (other.SyntheticData, other.PixelRepresentation) == ("YES", 1)
        assert other.SmallestImagePixelValue < 0 < other.LargestImagePixelValue
        assert other.ImagePositionPatient == one.ImagePositionPatient
        np.testing.assert_allclose(slice_ + other.pixel_array, one.pixel_array, atol=1)
    assert t1c[0].SeriesInstanceUID != change[0].SeriesInstanceUID


def test_the_uncertainty_is_stored_in_thousandths_of_the_brain(tmp_path: Path) -> None:
    t1, flair = pair(tmp_path)
    spread = sitk.Image(t1.image) * 0 + 30.0
    given = source(t1, flair)
    instance = derive_series(given, uncertainty_volume(given, spread))[0]
    assert (instance.pixel_array == 150).all()
    assert instance.ImageType[3:] == ["SYNTHETIC", "UNCERTAINTY"]


def test_a_change_too_large_for_16_bits_is_scaled_and_said(tmp_path: Path) -> None:
    t1, flair = pair(tmp_path)
    given = source(t1, flair)
    volume, said = difference_volume(given, t1.image + 50000.0)
    assert "times the T1W's values" in said[0]
    assert volume.pixels.max() == 2**15 - 1


def test_texts_of_our_own_are_written_whole(tmp_path: Path) -> None:
    t1, flair = pair(tmp_path)
    path = written(derived(t1, flair, notes=("Δ ≥ 1 …",))[:1], tmp_path)[0]
    assert "Δ ≥ 1 …" in pydicom.dcmread(path).ImageComments


@pytest.mark.parametrize("axes", [AXIAL, SAGITTAL], ids=["axial", "sagittal"])
def test_one_enhanced_object_lies_where_the_t1w_lies(axes: npt.NDArray[np.float64], tmp_path: Path) -> None:
    t1, flair = pair(tmp_path, axes=axes, origin_mm=(-11.5, 7.25, 3.125))
    given = source(t1, flair)
    made = derive_enhanced(given, t1c_volume(given, t1.image)[0])
    assert made.ImageType == ["DERIVED", "PRIMARY", "OTHER", "SYNTHETIC"]
    again = read_series(written([made], tmp_path))
    assert again.image.GetOrigin() == t1.image.GetOrigin()
    assert again.image.GetDirection() == t1.image.GetDirection()
    assert again.image.GetSpacing() == t1.image.GetSpacing()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(again.image), sitk.GetArrayFromImage(t1.image))
    with pytest.raises(RefusedInput):
        refuse_synthetic(again)


@pytest.mark.parametrize("number", ["", None, 2147483647, -1])
def test_a_strange_series_number_still_gives_a_valid_one(number: object, tmp_path: Path) -> None:
    def edit(dataset: Dataset, index: int) -> None:
        dataset.SeriesNumber = number

    t1, flair = pair(tmp_path, edit=edit)
    assert derived(t1, flair)[0].SeriesNumber == 9000


def test_a_japanese_name_is_written_as_it_was(shared_data: Path, tmp_path: Path) -> None:
    named = pydicom.dcmread(shared_data / "malformed" / "pydicom_chrH31.dcm")

    def edit(dataset: Dataset, index: int) -> None:
        dataset.SpecificCharacterSet = named.SpecificCharacterSet
        dataset.PatientName = named.PatientName

    t1, flair = pair(tmp_path, edit=edit)
    path = written(derived(t1, flair)[:1], tmp_path)[0]
    assert str(pydicom.dcmread(path).PatientName) == str(named.PatientName)
