"""The geometry of a stack: gaps, regularity, planes, for any orientation and any order of arrival."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scans import AXIAL, CORONAL, SAGITTAL, headers, series

from dicom_node.choose.series import REGULAR_WITHIN, Series, group


@st.composite
def orientations(draw: st.DrawFn) -> tuple[float, ...]:
    """Return direction cosines of any oblique plane."""
    angles = [draw(st.floats(-np.pi, np.pi)) for _ in range(3)]
    (ca, cb, cc), (sa, sb, sc) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    about_y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    about_z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    axes = about_z @ about_y @ about_x
    return (*map(float, axes[:, 0]), *map(float, axes[:, 1]))


@st.composite
def stacks(draw: st.DrawFn) -> dict[str, Any]:
    """Return arguments of a stack of any orientation, place, length and spacing."""
    return {
        "cosines": draw(orientations()),
        "origin_mm": tuple(draw(st.floats(-300, 300)) for _ in range(3)),
        "slices": draw(st.integers(3, 60)),
        "spacing_mm": draw(st.floats(0.5, 9.0)),
    }


@given(stacks())
def test_a_whole_stack_is_regular_in_any_orientation(stack: dict[str, Any]) -> None:
    whole = series("T1", **stack)

    assert whole.is_regular and not whole.gaps and whole.numbers_are_contiguous
    assert whole.spacing_mm == pytest.approx(stack["spacing_mm"], rel=1e-6)
    assert whole.extent_mm == pytest.approx(stack["spacing_mm"] * (stack["slices"] - 1), rel=1e-6)


@given(stacks(), st.data())
def test_a_missing_inner_slice_is_found_wherever_it_is(stack: dict[str, Any], data: st.DataObject) -> None:
    stack["slices"] = max(stack["slices"], 5)
    members = headers("T1", **stack)
    lost = data.draw(st.integers(1, len(members) - 2))

    broken = Series("1", tuple(members[:lost] + members[lost + 1 :]))

    assert [gap.missing for gap in broken.gaps] == [1]
    assert f"instance number {lost + 1}" in broken.gaps[0].sentence()
    assert not broken.is_regular and not broken.numbers_are_contiguous


@given(stacks(), st.integers(2, 4), st.data())
def test_several_missing_slices_are_counted(stack: dict[str, Any], lost: int, data: st.DataObject) -> None:
    stack["slices"] = max(stack["slices"], 12)
    members = headers("T1", **stack)
    first = data.draw(st.integers(1, len(members) - lost - 1))

    broken = Series("1", tuple(members[:first] + members[first + lost :]))

    assert [gap.missing for gap in broken.gaps] == [lost]
    assert broken.gaps[0].sentence().startswith(f"{lost} slices are missing (between instance numbers ")


@given(stacks(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(stack: dict[str, Any], random: Any) -> None:
    members = headers("T1", **stack)
    shuffled = list(members)
    random.shuffle(shuffled)

    one, other = Series("1", tuple(members)), Series("1", tuple(shuffled))

    assert other.is_regular and other.offsets_mm == one.offsets_mm
    assert other.spacing_mm == one.spacing_mm and other.plane == one.plane


@settings(max_examples=50)
@given(stacks(), st.data())
def test_jitter_within_the_tolerance_is_regular(stack: dict[str, Any], data: st.DataObject) -> None:
    largest = 0.4 * REGULAR_WITHIN * stack["spacing_mm"]
    members = headers("T1", **stack)
    normal = np.cross(stack["cosines"][:3], stack["cosines"][3:])
    moved = [
        replace(
            header,
            positions_mm=(
                tuple(np.array(header.positions_mm[0]) + data.draw(st.floats(-largest, largest)) * normal),
            ),
        )
        for header in members
    ]

    assert Series("1", tuple(moved)).is_regular


def test_a_slice_out_of_its_place_is_not_regular() -> None:
    members = headers("T1", slices=20, spacing_mm=5.0)
    members[7] = replace(members[7], positions_mm=((-120.0, -120.0, -60.0 + 7 * 5.0 + 1.5),))

    uneven = Series("1", tuple(members))

    assert not uneven.gaps and not uneven.is_regular


def test_two_images_at_one_place_are_not_regular() -> None:
    twice = Series("1", (*headers("T1", slices=20), *headers("T1", slices=20)))

    assert not twice.gaps and not twice.is_regular


def test_another_matrix_within_a_series_is_not_uniform() -> None:
    members = headers("T1")
    members[3] = replace(members[3], rows=512)

    assert not Series("1", tuple(members)).is_uniform


def test_images_without_orientation_are_not_uniform() -> None:
    assert not series("T1", orientation=()).is_uniform


def test_three_planes_in_one_series_are_not_uniform() -> None:
    planes = [
        header for cosines in (AXIAL, SAGITTAL, CORONAL) for header in headers(cosines=cosines, slices=5)
    ]

    assert not Series("1", tuple(planes)).is_uniform


@pytest.mark.parametrize(
    ("cosines", "name"), [(AXIAL, "AXIAL"), (SAGITTAL, "SAGITTAL"), (CORONAL, "CORONAL")]
)
def test_the_plane_is_named(cosines: tuple[float, ...], name: str) -> None:
    assert series("T1", cosines=cosines).plane == name


def test_frames_of_one_enhanced_instance_are_its_slices() -> None:
    one = headers("T1", slices=1)[0]
    positions = tuple((0.0, 0.0, 3.0 * k) for k in range(12))

    multiframe = Series("1", (replace(one, frames=12, positions_mm=positions),))

    assert multiframe.slices == 12 and multiframe.is_regular and multiframe.spacing_mm == 3.0


def test_a_gap_among_frames_has_no_instance_number() -> None:
    one = headers("T1", slices=1)[0]
    positions = tuple((0.0, 0.0, 3.0 * k) for k in range(12) if k != 5)

    multiframe = Series("1", (replace(one, frames=11, positions_mm=positions),))

    assert multiframe.gaps[0].sentence() == "one slice is missing (between 12.0 and 18.0 mm)"


def test_series_are_grouped_by_uid_and_ordered_by_number() -> None:
    mixed = headers("FLAIR", uid="1.2", series_number=7, slices=3) + headers("T1", uid="1.1", series_number=4)

    grouped = group(reversed(mixed))

    assert [one.uid for one in grouped] == ["1.1", "1.2"]


def test_a_title_has_number_and_description() -> None:
    assert series("T1 tra", series_number=4).title == "4 “T1 tra”"
    assert series("", series_number=None, protocol_name="head").title == "“head”"
