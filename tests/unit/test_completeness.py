"""When a series counts as whole: evidence first, the timer only where evidence is weak."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scans import FLAIR_2D, SAGITTAL, T1_SE, headers, series

from dicom_node.choose.candidates import Growth
from dicom_node.choose.series import Series
from dicom_node.completeness import Transfer, counted_alike, growth_of, growths, shortfall, transfers
from dicom_node.headers import ENHANCED_MR
from dicom_node.inquire import due_at
from dicom_node.ledger import Arrival, AssociationRow, Ending, Held, Inquiry, StudyArrival

NOW, QUIET_S = 1000.0, 20.0
T1 = series("T1 tra", uid="1.1", **T1_SE)


def came(*, is_open: bool = False, at_once: bool = True, seconds_ago: float = 1.0) -> Transfer:
    return Transfer(is_open, at_once, NOW - seconds_ago)


def growth(
    one: Series, transfer: Transfer, longest_mm: float = 0.0, inquiry: Inquiry | None = None
) -> Growth:
    return growth_of(one, transfer, longest_mm, NOW, QUIET_S, inquiry)


def test_a_regular_series_is_whole_as_soon_as_its_association_is_released() -> None:
    assert growth(T1, came(seconds_ago=0.0)) == Growth.WHOLE


def test_while_the_association_stands_more_may_come() -> None:
    assert growth(T1, came(is_open=True)) == Growth.GROWING


def test_what_did_not_come_at_once_waits_for_the_timer() -> None:
    assert growth(T1, came(at_once=False)) == Growth.GROWING
    assert growth(T1, came(at_once=False, seconds_ago=QUIET_S)) == Growth.WHOLE


def brought(*numbers: range) -> Transfer:
    """Return how a series came in associations that brought these instance numbers and were released."""
    return replace(
        came(at_once=False), released=tuple(frozenset(f"1.1.{n}" for n in some) for some in numbers)
    )


def test_a_slice_that_fills_a_hole_needs_no_timer() -> None:
    all_but_the_ninth = frozenset(f"1.1.{n}" for n in range(1, 21) if n != 9)
    filled = replace(brought(range(9, 10)), released=(all_but_the_ninth, frozenset({"1.1.9"})))

    assert growth(T1, filled) == Growth.WHOLE


@pytest.mark.parametrize(
    "parts",
    [(range(1, 11), range(11, 21)), (range(1, 21, 2), range(2, 21, 2))],
    ids=["halves", "every second"],
)
def test_parts_of_which_none_has_both_ends_wait_for_the_timer(parts: tuple[range, range]) -> None:
    assert growth(T1, brought(*parts)) == Growth.GROWING


def test_an_association_that_never_closes_is_waited_for_as_long_as_the_timer() -> None:
    assert growth(T1, came(is_open=True, seconds_ago=QUIET_S)) == Growth.WHOLE


def test_a_gap_is_told_at_once() -> None:
    broken = Series("1.1", (*T1.headers[:7], *T1.headers[8:]))

    assert growth(broken, came()) == Growth.GAP


def test_a_gap_is_a_gap_after_the_timer_too() -> None:
    broken = Series("1.1", (*T1.headers[:7], *T1.headers[8:]))

    assert growth(broken, came(at_once=False, seconds_ago=60)) == Growth.GAP


def test_a_hole_in_the_instance_numbers_is_weak_evidence() -> None:
    numbers = tuple(replace(h, instance_number=h.instance_number + (k > 9)) for k, h in enumerate(T1.headers))  # type: ignore[operator]
    holed = Series("1.1", numbers)

    assert growth(holed, came()) == Growth.GROWING
    assert growth(holed, came(seconds_ago=QUIET_S)) == Growth.WHOLE


def test_slices_that_come_interleaved_are_whole() -> None:
    shuffled = Series("1.1", (*T1.headers[::2], *T1.headers[1::2]))

    assert growth(shuffled, came()) == Growth.WHOLE


def test_a_short_stack_beside_a_long_one_is_weak_evidence() -> None:
    half = Series("1.1", T1.headers[:11])

    assert growth(half, came(), longest_mm=T1.extent_mm) == Growth.GROWING
    assert growth(half, came(seconds_ago=QUIET_S), longest_mm=T1.extent_mm) == Growth.WHOLE


def test_a_few_slices_are_weak_evidence() -> None:
    assert growth(Series("1.1", T1.headers[:5]), came()) == Growth.GROWING


def test_an_irregular_stack_waits_for_the_timer() -> None:
    moved = replace(T1.headers[4], positions_mm=((-120.0, -120.0, -60.0 + 4 * 6.0 + 2.0),))
    uneven = Series("1.1", (*T1.headers[:4], moved, *T1.headers[5:]))

    assert growth(uneven, came()) == Growth.GROWING


def test_one_enhanced_instance_is_whole_at_once() -> None:
    positions = tuple((0.0, 0.0, 3.0 * k) for k in range(30))
    one = replace(headers(slices=1)[0], sop_class_uid=ENHANCED_MR, frames=30, positions_mm=positions)

    assert growth(Series("1.1", (one,)), came()) == Growth.WHOLE


def test_an_enhanced_instance_still_waits_for_the_release() -> None:
    one = replace(headers(slices=1)[0], sop_class_uid=ENHANCED_MR, frames=30)

    assert growth(Series("1.1", (one,)), came(is_open=True)) == Growth.GROWING


def test_unusable_pixels_are_told_at_once() -> None:
    assert growth(series("T1", pixel_problem="it holds no pixel data"), came()) == Growth.WHOLE


@pytest.mark.parametrize("seconds_ago", [19.9, 20.0])
def test_the_timer_counts_from_the_last_arrival(seconds_ago: float) -> None:
    short = Series("1.1", T1.headers[:5])

    whole = growth(short, came(seconds_ago=seconds_ago)) == Growth.WHOLE

    assert whole is (seconds_ago >= QUIET_S)


# --- what others count ---------------------------------------------------------------------------


def said(instances: int, numbers: dict[str, int | None] | None = None, asked: float = NOW) -> Inquiry:
    """Return the answer of a sender that holds so many instances of the T1."""
    return Inquiry("pacs", asked, {"1.1": Held(instances, numbers or {})})


def counted(images: int, here: int = 20) -> Series:
    """Return a T1 whose images say that the acquisition made so many."""
    return series("T1 tra", uid="1.1", slices=here, images_in_acquisition=images, **T1_SE)


def numbered(count: int) -> dict[str, int | None]:
    return {f"1.1.{k}": k for k in range(1, count + 1)}


def test_images_that_came_one_by_one_are_whole_when_the_sender_holds_no_more() -> None:
    assert growth(T1, came(at_once=False), inquiry=said(20)) == Growth.WHOLE


def test_a_few_slices_are_whole_when_the_sender_holds_no_more() -> None:
    assert growth(Series("1.1", T1.headers[:5]), came(), inquiry=said(5)) == Growth.WHOLE


def test_a_count_from_before_the_last_image_is_no_evidence() -> None:
    assert growth(T1, came(at_once=False), inquiry=said(20, asked=NOW - 1.5)) == Growth.GROWING


def test_an_equal_count_does_not_outvote_an_association_that_stands() -> None:
    assert growth(T1, came(is_open=True, at_once=False), inquiry=said(20)) == Growth.GROWING


@pytest.mark.parametrize("asked", [NOW, NOW - 60])
def test_a_sender_that_holds_more_outvotes_a_release_whenever_it_was_asked(asked: float) -> None:
    assert growth(T1, came(), inquiry=said(24, asked=asked)) == Growth.GAP
    assert growth(T1, came(at_once=False), inquiry=said(24, asked=asked)) == Growth.GROWING


def test_a_sender_that_holds_more_outvotes_the_timer() -> None:
    assert growth(T1, came(seconds_ago=QUIET_S), inquiry=said(24)) == Growth.GAP


def test_a_sender_that_holds_fewer_or_does_not_know_the_series_changes_nothing() -> None:
    assert growth(T1, came(), inquiry=said(3)) == Growth.WHOLE
    assert growth(T1, came(at_once=False), inquiry=Inquiry("pacs", NOW, {})) == Growth.GROWING


@pytest.mark.parametrize("images", [24, 21])
def test_an_acquisition_that_made_more_images_waits_for_the_timer(images: int) -> None:
    assert growth(counted(images), came()) == Growth.GROWING
    assert growth(counted(images), came(seconds_ago=QUIET_S)) == Growth.WHOLE


def test_images_that_came_one_by_one_are_whole_when_the_scanner_made_no_more() -> None:
    assert growth(counted(20), came(at_once=False)) == Growth.WHOLE
    assert growth(counted(20), came(at_once=False, seconds_ago=0.5)) == Growth.GROWING


def test_a_vendor_that_always_writes_one_image_tells_nothing() -> None:
    assert growth(counted(1), came()) == Growth.WHOLE
    assert growth(counted(1), came(at_once=False)) == Growth.GROWING


def test_enhanced_mr_in_an_aborted_association_is_whole_when_each_frame_has_its_place() -> None:
    positions = tuple((0.0, 0.0, 3.0 * k) for k in range(30))
    one = replace(headers(slices=1)[0], sop_class_uid=ENHANCED_MR, frames=30, positions_mm=positions)

    assert growth(Series("1.1", (one,)), came(at_once=False)) == Growth.WHOLE
    assert growth(Series("1.1", (replace(one, frames=40),)), came(at_once=False)) == Growth.GROWING


def test_a_part_of_enhanced_mr_waits_for_the_others() -> None:
    positions = tuple((0.0, 0.0, 3.0 * k) for k in range(30))
    one = replace(headers(slices=1)[0], sop_class_uid=ENHANCED_MR, frames=30, positions_mm=positions, parts=2)
    other = replace(one, positions_mm=tuple((x, y, z + 90.0) for x, y, z in positions))

    assert growth(Series("1.1", (one,)), came()) == Growth.GROWING
    assert growth(Series("1.1", (one, other)), came()) == Growth.WHOLE


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ({13}, "1 image of the 20 that the sender holds did not arrive (instance number 13)."),
        ({19, 20}, "2 images of the 20 that the sender holds did not arrive (instance numbers 19 to 20)."),
        ({3, 20}, "2 images of the 20 that the sender holds did not arrive (instance numbers 3, 20)."),
        (set(range(2, 17, 2)), "(instance numbers 2, 4, 6, 8, 10, 12, …)."),
    ],
)
def test_what_is_missing_is_said_by_number(gone: set[int], words: str) -> None:
    here = Series("1.1", tuple(h for h in T1.headers if h.instance_number not in gone))

    sentence = shortfall([here], ["1.1"], said(20, numbered(20)))

    assert sentence.startswith("Series “T1 tra”: ") and sentence.endswith(words)


def test_without_numbers_the_count_is_said() -> None:
    sentence = shortfall([T1], ["1.1"], said(24))

    assert sentence == "Series “T1 tra”: 4 images of the 24 that the sender holds did not arrive."


def test_nothing_is_missing_of_what_nobody_counted() -> None:
    assert shortfall([T1], ["1.1"], None) == shortfall([T1], ["1.2"], said(24)) == ""
    assert not counted_alike([T1], ["1.1"], None)


def test_a_sender_is_asked_at_once_then_when_it_is_silent_and_not_again() -> None:
    assert due_at(NOW, None) == 0.0
    assert due_at(NOW, NOW - 0.5) == NOW + 1.0
    assert due_at(NOW, NOW + 1.0) is None


def test_a_sender_that_sends_for_long_is_asked_now_and_then() -> None:
    assert due_at(NOW, NOW - 30.0) == NOW - 25.0


# --- how a series came ---------------------------------------------------------------------------


def association(number: int, ending: Ending | None) -> AssociationRow:
    closed = None if ending is None else NOW - 1
    return AssociationRow(number, "SCANNER", "TAVIT", "127.0.0.1", "scanner", NOW - 10, closed, ending)


def transfer_of(
    *carried: tuple[int, str, Arrival], endings: dict[int, Ending | None] | None = None
) -> Transfer:
    """Return how a series came, from (association, instance, kind) in the order of time."""
    arrivals = [
        StudyArrival("1.1", instance, number, float(at), kind)
        for at, (number, instance, kind) in enumerate(carried)
    ]
    numbers = {number for number, _, _ in carried}
    ended = {number: Ending.RELEASED for number in numbers} | (endings or {})
    return transfers(arrivals, {number: association(number, ended[number]) for number in numbers})["1.1"]


NEW, SAME = Arrival.NEW, Arrival.SAME


def test_one_released_association_that_brought_all_is_evidence() -> None:
    assert transfer_of((1, "a", NEW), (1, "b", NEW)) == Transfer(False, True, 1.0)


def test_an_aborted_association_is_no_evidence() -> None:
    assert not transfer_of((1, "a", NEW), endings={1: Ending.ABORTED}).came_at_once


def test_an_association_that_stands_is_open() -> None:
    found = transfer_of((1, "a", NEW), endings={1: None})

    assert found.is_open and not found.came_at_once


def test_a_series_in_several_associations_did_not_come_at_once() -> None:
    assert not transfer_of((1, "a", NEW), (2, "b", NEW)).came_at_once


def test_an_association_that_repeats_the_whole_series_proves_it() -> None:
    found = transfer_of((1, "a", NEW), (2, "a", SAME), (2, "b", NEW), endings={1: Ending.ABORTED})

    assert found.came_at_once


def test_a_repetition_does_not_count_as_an_arrival() -> None:
    found = transfer_of((1, "a", NEW), (1, "b", NEW), (2, "a", SAME), endings={2: None})

    assert found == Transfer(False, True, 1.0)


def test_each_series_of_a_study_has_its_own_transfer() -> None:
    arrivals = [StudyArrival("1.1", "a", 1, 5.0, NEW), StudyArrival("1.2", "b", 2, 6.0, NEW)]
    ended = {1: association(1, Ending.RELEASED), 2: association(2, None)}

    found = transfers(arrivals, ended)

    assert (found["1.1"].is_open, found["1.2"].is_open) == (False, True)


# --- the series of a study together --------------------------------------------------------------


def test_stacks_are_compared_within_their_plane() -> None:
    axial = series("T1 tra", uid="1.1", slices=20, spacing_mm=6, **T1_SE)
    sagittal = series("T1 sag", uid="1.2", slices=12, spacing_mm=6, cosines=SAGITTAL, **T1_SE)

    found = growths([axial, sagittal], {"1.1": came(), "1.2": came()}, NOW, QUIET_S)

    assert found == {"1.1": Growth.WHOLE, "1.2": Growth.WHOLE}


def test_half_a_flair_beside_a_whole_t1w_is_growing() -> None:
    half = series("FLAIR", uid="1.2", slices=11, **FLAIR_2D)

    found = growths([T1, half], {"1.1": came(), "1.2": came()}, NOW, QUIET_S)

    assert found["1.2"] == Growth.GROWING
