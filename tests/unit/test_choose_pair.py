"""From a study's series to the pair, or to the sentence that says why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scans import (
    AXIAL,
    CORONAL,
    FLAIR_2D,
    GADOLINIUM,
    SAGITTAL,
    T1_MPRAGE,
    T1_SE,
    T2_TSE,
    at,
    headers,
    series,
)

from dicom_node.choose import Choice, Role, Series, choose_pair, group
from dicom_node.choose.candidates import Growth
from dicom_node.choose.pair import Decision, Situation
from dicom_node.headers import Header

JUST_ARRIVED = Situation(quiet=False, expired=False)
QUIET = Situation(quiet=True, expired=False)

T1 = series("T1 tra", uid="1.1", series_number=2, acquired=at(0), **T1_SE)
FLAIR = series("FLAIR tra", uid="1.2", series_number=3, acquired=at(4), **FLAIR_2D)
T2 = series("T2 tra", uid="1.3", series_number=4, acquired=at(8), **T2_TSE)
POST = series("T1 tra KM", uid="1.4", series_number=9, acquired=at(25), **T1_SE)
MASK = series("FLAIR ROI", uid="1.5", series_number=10, distinct_values=2, **FLAIR_2D)


def choose(*all_series: Series, situation: Situation = JUST_ARRIVED) -> Choice:
    return choose_pair(list(all_series), situation)


def roles(choice: Choice) -> dict[str, Role]:
    return {line.uid: line.role for line in choice.series}


def test_t1w_and_flair_are_a_pair() -> None:
    choice = choose(T1, FLAIR)

    assert (choice.decision, choice.code) == (Decision.COMPLETE, "PAIR")
    assert choice.chosen == {"T1W": "1.1", "FLAIR": "1.2"}
    assert choice.reason == "T1W is series 2 “T1 tra”, FLAIR is series 3 “FLAIR tra”."


def test_t2_roi_and_survey_are_left_aside() -> None:
    survey = series("Survey", uid="1.6", slices=9, **T1_SE)

    choice = choose(T2, MASK, survey, T1, FLAIR)

    assert choice.chosen == {"T1W": "1.1", "FLAIR": "1.2"}
    assert roles(choice) == {
        "1.1": Role.T1W,
        "1.2": Role.FLAIR,
        "1.3": Role.T2W,
        "1.5": Role.DERIVED,
        "1.6": Role.LOCALIZER,
    }


def test_every_series_has_a_line_that_says_why() -> None:
    choice = choose(T1, FLAIR, T2, POST, MASK)

    assert {line.uid for line in choice.series} == {"1.1", "1.2", "1.3", "1.4", "1.5"}
    assert all(line.why and all(line.why) for line in choice.series)
    assert [line.why[-1] for line in choice.series if line.uid in {"1.1", "1.2"}] == ["chosen", "chosen"]


def test_the_explanation_has_the_shape_that_scripts_hold_on_to() -> None:
    explanation = choose(T1, FLAIR).to_json("every study")

    assert set(explanation) == {"rule", "decision", "code", "reason", "chosen", "series"}
    assert explanation["chosen"] == {"T1W": "1.1", "FLAIR": "1.2"}
    assert all(set(line) == {"uid", "description", "role", "why"} for line in explanation["series"])


@given(st.permutations(range(5)), st.integers(0, 2**32))
def test_the_order_in_which_things_come_does_not_change_the_choice(order: list[int], seed: int) -> None:
    whole = (T1, FLAIR, T2, POST, MASK)
    members = [header for number in order for header in whole[number].headers]
    Random(seed).shuffle(members)

    choice = choose(*group(members))

    assert choice.chosen == {"T1W": "1.1", "FLAIR": "1.2"}


# --- what is missing -----------------------------------------------------------------------------


def test_without_a_flair_it_waits_for_one() -> None:
    choice = choose(T1, T2)

    assert (choice.decision, choice.code) == (Decision.WAITING, "NO_FLAIR")
    assert choice.reason.startswith("The study holds no FLAIR; seen: 2 “T1 tra” (T1W), 4 “T2 tra” (T2W)")


def test_without_a_flair_it_is_declined_when_the_time_is_over() -> None:
    assert choose(T1, T2, situation=Situation()).decision == Decision.DECLINED


def test_without_a_t1w_it_waits_for_one() -> None:
    assert choose(FLAIR, T2).code == "NO_T1W"


def test_without_both_it_says_both() -> None:
    choice = choose(T2)

    assert choice.code == "NO_T1W_NO_FLAIR"
    assert choice.reason.startswith("The study holds no pre-contrast T1W and no FLAIR")


def silent(uid: str, number: int) -> Series:
    """Return a series whose header says nothing of its contrast."""
    return series("", uid=uid, series_number=number)


def test_series_without_timing_and_words_are_never_guessed_a_person_is_asked() -> None:
    choice = choose(silent("1.1", 1), silent("1.2", 2))

    assert (choice.decision, choice.code, choice.chosen) == (Decision.WAITING, "CONTRAST_UNKNOWN", {})
    assert choice.reason == (
        "Neither TR, TE, TI nor a description tells what series 1 “no description”, 2 “no description” show: "
        "pre-contrast T1W or FLAIR is not guessed. "
        "Say which one with: dicom-node queue retry JOB --t1 SERIES --flair SERIES."
    )
    assert choose(silent("1.1", 1), silent("1.2", 2), situation=Situation()).decision == Decision.DECLINED


def test_a_silent_series_beside_a_t1w_is_not_taken_for_the_flair() -> None:
    choice = choose(T1, silent("1.9", 9))

    assert (choice.decision, choice.code) == (Decision.WAITING, "CONTRAST_UNKNOWN")
    assert "series 9 “no description” shows: FLAIR is not guessed" in choice.reason


def test_a_silent_series_alone_cannot_be_both() -> None:
    assert choose(silent("1.1", 1)).code == "NO_T1W_NO_FLAIR"


def test_while_instances_arrive_nothing_is_missing_yet() -> None:
    choice = choose(T1, situation=replace(JUST_ARRIVED, arriving=True))

    assert choice.decision == Decision.RECEIVING


def test_a_series_that_grows_holds_the_study() -> None:
    choice = choose(T1, FLAIR, situation=replace(JUST_ARRIVED, growth={"1.1": Growth.GROWING}))

    assert choice.decision == Decision.RECEIVING


def test_a_t2_that_still_grows_does_not_hold_the_pair() -> None:
    choice = choose(
        T1, FLAIR, T2, situation=replace(JUST_ARRIVED, arriving=True, growth={"1.3": Growth.GROWING})
    )

    assert choice.decision == Decision.COMPLETE


def test_a_study_without_acquired_mr_is_declined_when_it_is_quiet() -> None:
    ct = series("CT head", uid="1.7", modality="CT")

    waiting, declined = choose(ct), choose(ct, situation=QUIET)

    assert (waiting.decision, declined.decision) == (Decision.WAITING, Decision.DECLINED)
    assert declined.code == "NO_ACQUIRED_MR"


def test_unreadable_instances_are_mentioned_where_something_is_missing() -> None:
    choice = choose(T1, situation=replace(JUST_ARRIVED, unreadable=2))

    assert choice.reason.endswith("2 instances that came with this study could not be read.")


def test_unreadable_instances_do_not_hold_a_pair() -> None:
    assert choose(T1, FLAIR, situation=replace(JUST_ARRIVED, unreadable=1)).decision == Decision.COMPLETE


# --- flaws ---------------------------------------------------------------------------------------


def without(whole: Series, *numbers: int) -> Series:
    return Series(whole.uid, tuple(h for h in whole.headers if h.instance_number not in numbers))


def test_a_missing_slice_is_named() -> None:
    choice = choose(without(T1, 7), FLAIR)

    assert (choice.decision, choice.code) == (Decision.WAITING, "SLICE_MISSING")
    assert "one slice is missing (instance number 7" in choice.reason


def test_a_missing_slice_declines_when_the_time_is_over() -> None:
    assert choose(without(T1, 7), FLAIR, situation=Situation()).decision == Decision.DECLINED


def test_a_flawed_t1w_does_not_hold_a_whole_one() -> None:
    whole = series("T1 sag", uid="1.8", cosines=SAGITTAL, slices=24, acquired=at(1), **T1_SE)

    assert choose(without(T1, 7), whole, FLAIR).chosen["T1W"] == "1.8"


@pytest.mark.parametrize(
    ("values", "code", "words"),
    [
        ({"slices": 6}, "TOO_FEW_SLICES", "has 6 slices; a brain needs 10"),
        (
            {"pixel_problem": "it holds no pixel data"},
            "NO_PIXEL_DATA",
            "holds no pixel data (20 such instances)",
        ),
        ({"pixel_problem": "its pixel data is cut short"}, "UNREADABLE_PIXELS", "cut short"),
        ({"orientation": ()}, "MIXED_GEOMETRY", "differ in orientation or matrix"),
    ],
)
def test_a_series_that_cannot_be_used_says_why(values: dict[str, Any], code: str, words: str) -> None:
    choice = choose(series("T1 tra", uid="1.1", **T1_SE, **values), FLAIR)

    assert choice.code == code
    assert words in choice.reason


def tilted(header: Header, mm: float) -> Header:
    (x, y, z), number = header.positions_mm[0], header.instance_number or 0
    return replace(header, positions_mm=((x, y + mm * number, z),))


@pytest.mark.parametrize(
    ("edit", "code", "words"),
    [
        (lambda h: tilted(h, 0.5), "SHEARED_STACK", "by up to 9.5 mm (like a tilted gantry)"),
        (lambda h: replace(h, positions_mm=()), "NO_POSITION", "do not say where they lie"),
        (
            lambda h: replace(h, frame_of_reference=f"1.{(h.instance_number or 0) % 2}"),
            "MIXED_SERIES",
            "lie in 2 frames of reference",
        ),
    ],
    ids=["tilted", "no place", "two frames of reference"],
)
def test_a_series_that_makes_no_volume_is_named_and_another_one_taken(
    edit: Callable[[Header], Header], code: str, words: str
) -> None:
    flawed = Series("1.1", tuple(edit(header) for header in T1.headers))
    other = series("T1 sag", uid="1.8", cosines=SAGITTAL, slices=24, acquired=at(1), **T1_SE)

    alone = choose(flawed, FLAIR)

    assert alone.code == code and words in alone.reason
    assert choose(flawed, other, FLAIR).chosen["T1W"] == "1.8"


def test_a_series_with_two_images_at_one_place_is_irregular() -> None:
    dynamic = Series(
        "1.1", (*T1.headers, *(replace(h, instance_number=h.instance_number + 50) for h in T1.headers))
    )  # type: ignore[operator]

    assert choose(dynamic, FLAIR).code == "IRREGULAR"


# --- before or after contrast --------------------------------------------------------------------


def test_a_post_contrast_t1_is_never_the_input() -> None:
    choice = choose(T1, FLAIR, POST)

    assert choice.chosen["T1W"] == "1.1"
    assert "holds a real post-contrast T1 as well; it is not used" in choice.reason


def test_a_rule_may_decline_a_study_with_a_real_post_contrast_t1() -> None:
    choice = choose(T1, FLAIR, POST, situation=replace(JUST_ARRIVED, if_contrast_given="decline"))

    assert (choice.decision, choice.code) == (Decision.DECLINED, "CONTRAST_GIVEN")


def test_only_a_post_contrast_t1_waits_until_it_is_quiet_then_declines() -> None:
    waiting, declined = choose(FLAIR, POST), choose(FLAIR, POST, situation=QUIET)

    assert (waiting.decision, waiting.code) == (Decision.WAITING, "ONLY_POST_CONTRAST")
    assert (declined.decision, declined.code) == (Decision.DECLINED, "ONLY_POST_CONTRAST")


def test_an_unlabelled_t1w_acquired_after_a_post_contrast_t1_is_post_contrast() -> None:
    later = series("T1 sag", uid="1.8", cosines=SAGITTAL, slices=24, acquired=at(30), **T1_SE)

    choice = choose(FLAIR, POST, later)

    assert roles(choice)["1.8"] == Role.T1C
    assert choice.code == "ONLY_POST_CONTRAST"


@pytest.mark.parametrize(
    ("injected", "words"),
    [
        (series("ep2d_dsc", uid="1.9", acquired=at(20), scanning_sequence=("EP",)), "a perfusion"),
        (
            series("T2 tra", uid="1.9", acquired=at(20), **T2_TSE, **GADOLINIUM),
            "which names a contrast agent",
        ),
    ],
    ids=["perfusion", "T2 with agent"],
)
def test_an_unlabelled_t1w_acquired_after_any_injection_is_post_contrast(
    injected: Series, words: str
) -> None:
    later = series("T1 sag", uid="1.8", cosines=SAGITTAL, slices=24, acquired=at(30), **T1_SE)

    alone, beside = choose(FLAIR, injected, later), choose(T1, FLAIR, injected, later)

    assert alone.code == "ONLY_POST_CONTRAST"
    assert beside.chosen["T1W"] == "1.1"
    assert any(words in why for line in alone.series if line.uid == "1.8" for why in line.why)


def test_arterial_spin_labelling_injects_nothing() -> None:
    asl = series("3D ASL perfusion", uid="1.9", acquired=at(1), scanning_sequence=("RM",))
    later = series("T1 tra", uid="1.1", acquired=at(30), **T1_SE)

    assert choose(later, FLAIR, asl).chosen["T1W"] == "1.1"


def test_an_unlabelled_t1w_acquired_before_the_post_contrast_t1_is_native() -> None:
    assert roles(choose(T1, FLAIR, POST))["1.1"] == Role.T1W


def test_a_second_t1w_long_after_the_first_is_not_trusted() -> None:
    later = series("T1 tra", uid="1.8", acquired=at(20), **T1_SE)

    choice = choose(T1, FLAIR, later)

    assert choice.chosen["T1W"] == "1.1"
    assert "began 20 min after another T1W: whether contrast was given between is not known" in next(
        line.why for line in choice.series if line.uid == "1.8"
    )


def test_a_second_t1w_called_native_is_trusted_though_it_is_late() -> None:
    later = series("T1 tra nativ", uid="1.8", acquired=at(20), **T1_SE)

    assert choose(T1, FLAIR, later).chosen["T1W"] == "1.8"


@pytest.mark.parametrize("minutes", [5, 8])
def test_a_finer_t1w_minutes_after_the_first_is_not_trusted(minutes: int) -> None:
    finer = series("T1 MPRAGE", uid="1.8", slices=176, spacing_mm=1.0, acquired=at(minutes), **T1_MPRAGE)

    assert choose(T1, FLAIR, finer).chosen["T1W"] == "1.1"


def test_a_finer_t1w_of_unknown_time_asks_a_person() -> None:
    finer = series("T1 MPRAGE", uid="1.8", slices=176, spacing_mm=1.0, **T1_MPRAGE)

    choice = choose(T1, FLAIR, finer)

    assert (choice.decision, choice.code) == (Decision.WAITING, "TWO_T1W")
    assert "before or after contrast" in choice.reason


def test_a_series_called_native_that_was_acquired_after_a_post_contrast_t1_is_unclear() -> None:
    native = series("T1 tra nativ", uid="1.8", acquired=at(40), **T1_SE)

    choice = choose(native, FLAIR, POST, situation=QUIET)

    assert (choice.decision, choice.code) == (Decision.WAITING, "CONTRAST_UNCLEAR")


def test_an_agent_on_a_native_series_is_unclear_and_said_so() -> None:
    both = series("T1 nativ", uid="1.1", **T1_SE, **GADOLINIUM)

    choice = choose(both, FLAIR)

    assert (choice.decision, choice.code) == (Decision.WAITING, "CONTRAST_UNCLEAR")
    assert "the header names a contrast agent, the description says that none was given" in choice.reason


ALL_THE_SAME = "20000101000000"


def test_times_that_are_all_the_same_tell_nothing() -> None:
    finer = series(
        "T1 3D", uid="1.8", series_number=9, slices=176, spacing_mm=1.0, acquired=ALL_THE_SAME, **T1_MPRAGE
    )
    first = series("T1 tra", uid="1.1", series_number=2, acquired=ALL_THE_SAME, **T1_SE)
    flair = series("FLAIR tra", uid="1.2", series_number=3, acquired=ALL_THE_SAME, **FLAIR_2D)

    choice = choose(first, finer, flair)

    assert (choice.decision, choice.code) == (Decision.WAITING, "TWO_T1W")


def test_two_cuts_through_one_scan_are_no_two_scans() -> None:
    thick = series("t1_mprage tra", uid="1.7", slices=40, spacing_mm=4.0, acquired=at(1), **T1_MPRAGE)
    volume = series("t1_mprage", uid="1.8", slices=176, spacing_mm=1.0, acquired=at(1), **T1_MPRAGE)

    assert choose(thick, volume, FLAIR).chosen["T1W"] == "1.8"


@pytest.mark.parametrize("time", ["", ALL_THE_SAME])
def test_without_times_those_numbered_before_the_post_contrast_t1_are_native(time: str) -> None:
    def t1(uid: str, number: int, description: str, cosines: tuple[float, ...] = AXIAL) -> Series:
        return series(
            description, uid=uid, series_number=number, cosines=cosines, slices=24, acquired=time, **T1_SE
        )

    sagittal, axial = t1("1.1", 2, "T1 sag", SAGITTAL), t1("1.7", 4, "T1 tra")
    post, after = t1("1.8", 9, "T1 tra KM"), t1("1.9", 10, "T1 cor", CORONAL)

    assert choose(sagittal, axial, post, after, FLAIR).chosen.get("T1W") == "1.7"


def test_of_two_equal_t1w_far_apart_the_first_is_native_though_a_third_is_called_post_contrast() -> None:
    first, again = (
        series("t1_mprage", uid=uid, slices=176, spacing_mm=1.0, acquired=at(minutes), **T1_MPRAGE)
        for uid, minutes in (("1.1", 0), ("1.8", 15))
    )

    choice = choose(first, again, FLAIR, POST)

    assert choice.chosen.get("T1W") == "1.1"


def test_an_echo_planar_perfusion_with_a_long_echo_is_an_injection() -> None:
    perfusion = series(
        "ep2d_perf", uid="1.9", acquired=at(3), tr_ms=1500.0, te_ms=30.0, scanning_sequence=("EP",)
    )
    later = series("T1 tra", uid="1.8", acquired=at(6), **T1_SE)

    assert roles(choose(T1, later, FLAIR, perfusion))["1.8"] == Role.T1C


def test_a_series_called_post_contrast_is_an_injection_whatever_it_shows() -> None:
    swi = series("SWI +C", uid="1.9", acquired=at(3), tr_ms=28.0, te_ms=20.0, scanning_sequence=("GR",))
    later = series("T1 tra", uid="1.8", acquired=at(6), **T1_SE)

    assert roles(choose(T1, later, FLAIR, swi))["1.8"] == Role.T1C


def test_a_functional_series_after_a_task_is_no_injection() -> None:
    bold = series("bold post", uid="1.9", acquired=at(1), te_ms=30.0, scanning_sequence=("EP", "GR"))
    later = series("T1 sag", uid="1.8", cosines=SAGITTAL, slices=24, acquired=at(2), **T1_SE)

    assert roles(choose(T1, later, FLAIR, bold))["1.8"] == Role.T1W


@pytest.mark.parametrize(
    "late",
    [
        series("FLAIR tra", uid="1.8", acquired=at(40), **FLAIR_2D, **GADOLINIUM),
        series("FLAIR tra +C", uid="1.8", acquired=at(40), **FLAIR_2D),
        series("FLAIR tra", uid="1.8", acquired=at(40), **FLAIR_2D),
        series("FLAIR sag", uid="1.8", acquired=at(40), slices=176, spacing_mm=1.0, **FLAIR_2D, **GADOLINIUM),
    ],
    ids=["agent", "words", "time", "finer"],
)
def test_of_two_flair_the_one_before_contrast_is_taken(late: Series) -> None:
    choice = choose(T1, FLAIR, POST, late)

    assert choice.chosen.get("FLAIR") == "1.2"
    assert "acquired after contrast agent: it may differ from one before" in next(
        line.why for line in choice.series if line.uid == "1.8"
    )


def test_a_flair_after_contrast_is_taken_where_there_is_no_other() -> None:
    late = series("FLAIR tra", uid="1.8", acquired=at(40), **FLAIR_2D, **GADOLINIUM)

    choice = choose(T1, POST, late)

    assert choice.chosen["FLAIR"] == "1.8"
    assert choice.flags == ("The FLAIR was acquired after contrast agent: it may differ from one before.",)


@pytest.mark.parametrize(
    "other",
    [
        series("T1 tra KM", uid="1.8", series_number=9, acquired=at(20), **T1_SE, **GADOLINIUM),
        series("localizer", uid="1.8", series_number=1, acquired=at(-2), slices=9, **T1_SE, **GADOLINIUM),
    ],
    ids=["its twin after contrast", "the localizer"],
)
def test_an_agent_that_was_typed_in_before_it_was_given_asks(other: Series) -> None:
    named = series("T1 tra", uid="1.1", series_number=2, acquired=at(0), **T1_SE, **GADOLINIUM)

    choice = choose(named, FLAIR, other, situation=QUIET)

    assert (choice.decision, choice.code) == (Decision.WAITING, "CONTRAST_UNCLEAR")
    assert "it may have been typed in before" in choice.reason


def test_a_localizer_after_the_injection_does_not_make_the_agent_doubtful() -> None:
    again = series("localizer", uid="1.8", series_number=8, acquired=at(22), slices=9, **T1_SE, **GADOLINIUM)
    post = series("T1 tra", uid="1.4", series_number=9, acquired=at(25), **T1_SE, **GADOLINIUM)

    assert roles(choose(T1, FLAIR, again, post))["1.4"] == Role.T1C


# --- several candidates --------------------------------------------------------------------------


def test_two_equal_t1w_ask_a_person() -> None:
    twin = series("T1 tra", uid="1.8", series_number=5, acquired=at(5), **T1_SE)

    choice = choose(T1, twin, FLAIR)

    assert (choice.decision, choice.code) == (Decision.WAITING, "TWO_T1W")
    assert "2 “T1 tra” and 5 “T1 tra”" in choice.reason and "queue retry" in choice.reason


def test_two_equal_t1w_are_declined_when_nobody_said() -> None:
    twin = series("T1 tra", uid="1.8", acquired=at(5), **T1_SE)

    assert choose(T1, twin, FLAIR, situation=Situation()).decision == Decision.DECLINED


def test_two_equal_flair_ask_a_person() -> None:
    twin = series("FLAIR tra", uid="1.8", acquired=at(5), **FLAIR_2D)

    assert choose(T1, twin, FLAIR).code == "TWO_FLAIR"


def test_of_sagittal_and_axial_the_one_in_the_flairs_plane_is_taken() -> None:
    sagittal = series(
        "T1 sag", uid="1.8", cosines=SAGITTAL, slices=24, spacing_mm=5.5, acquired=at(1), **T1_SE
    )

    assert choose(sagittal, T1, FLAIR).chosen["T1W"] == "1.1"


def test_an_isotropic_volume_is_taken_whatever_its_plane() -> None:
    volume = series(
        "t1_mprage_sag", uid="1.8", cosines=SAGITTAL, slices=176, spacing_mm=1.0, acquired=at(1), **T1_MPRAGE
    )

    assert choose(volume, T1, FLAIR).chosen["T1W"] == "1.8"


def test_a_thin_slab_of_the_sella_does_not_beat_the_whole_brain() -> None:
    sella = series(
        "T1 cor sella", uid="1.8", cosines=CORONAL, slices=14, spacing_mm=2.0, acquired=at(1), **T1_SE
    )

    assert choose(sella, T1, FLAIR).chosen["T1W"] == "1.1"


def test_a_thin_slab_of_the_hippocampi_does_not_beat_the_whole_flair() -> None:
    slab = series("FLAIR cor", uid="1.8", cosines=CORONAL, slices=25, spacing_mm=3.0, **FLAIR_2D)

    assert choose(T1, slab, FLAIR).chosen["FLAIR"] == "1.2"


def test_of_one_scan_stored_twice_the_corrected_one_is_taken() -> None:
    raw = series(
        "t1_mprage", uid="1.8", acquired=at(1), image_type=("ORIGINAL", "PRIMARY", "M", "ND"), **T1_MPRAGE
    )
    corrected = series(
        "t1_mprage", uid="1.9", acquired=at(1), image_type=("ORIGINAL", "PRIMARY", "M", "DIS2D"), **T1_MPRAGE
    )

    choice = choose(raw, corrected, FLAIR)

    assert (choice.decision, choice.chosen.get("T1W")) == (Decision.COMPLETE, "1.9")


def test_twins_are_known_though_their_slices_came_in_another_order() -> None:
    def scan(uid: str, kind: str) -> list[Any]:
        members = headers("T1 fl2d", uid=uid, image_type=("ORIGINAL", "PRIMARY", "M", kind), **T1_SE)
        return [replace(header, acquired=at(k / 10)) for k, header in enumerate(members)]

    raw, corrected = scan("1.8", "ND"), scan("1.9", "DIS2D")

    choice = choose(Series("1.8", tuple(raw)), Series("1.9", tuple(reversed(corrected))), FLAIR)

    assert choice.chosen.get("T1W") == "1.9"


def test_of_a_dixon_the_image_in_phase_is_taken() -> None:
    kinds = {"1.6": "WATER", "1.7": "OPP_PHASE", "1.8": "IN_PHASE", "1.9": "FAT"}
    parts = [
        series(
            "t1_tse_dixon",
            uid=uid,
            series_number=int(uid[-1]),
            acquired=at(1),
            image_type=("ORIGINAL", "PRIMARY", "M", "DIXON", kind),
            **T1_SE,
        )
        for uid, kind in kinds.items()
    ]

    assert choose(*parts, FLAIR).chosen.get("T1W") == "1.8"


# --- by hand -------------------------------------------------------------------------------------


def by_hand(t1w: str, flair: str) -> Situation:
    return Situation(by_hand={"T1W": t1w, "FLAIR": flair})


def test_a_person_overrules_the_choice() -> None:
    choice = choose(T1, FLAIR, POST, situation=by_hand("1.4", "1.2"))

    assert (choice.decision, choice.code) == (Decision.COMPLETE, "BY_HAND")
    assert choice.chosen == {"T1W": "1.4", "FLAIR": "1.2"}


@pytest.mark.parametrize(
    ("t1w", "flair", "code"),
    [("9.9", "1.2", "NO_SUCH_SERIES"), ("1.1", "1.1", "SAME_SERIES"), ("1.7", "1.2", "NO_ACQUIRED_MR")],
)
def test_a_person_cannot_choose_what_cannot_be_used(t1w: str, flair: str, code: str) -> None:
    ours = series("SYNTH T1C", uid="1.7", synthetic=True, **T1_SE)

    choice = choose(T1, FLAIR, ours, situation=by_hand(t1w, flair))

    assert (choice.decision, choice.code) == (Decision.DECLINED, code)


def test_a_person_cannot_choose_a_series_with_a_missing_slice() -> None:
    assert choose(without(T1, 7), FLAIR, situation=by_hand("1.1", "1.2")).code == "SLICE_MISSING"


def test_our_own_output_is_never_an_input() -> None:
    ours = series("SYNTH T1C (AI, no Gd)", uid="1.7", synthetic=True, cosines=AXIAL, **T1_SE)

    assert choose(ours, FLAIR).chosen == {}
