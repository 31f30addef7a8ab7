"""What is said of trust is as true as it was of held-out patients, and nothing where nothing is known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from heads import head

from synthesis import confidence
from synthesis.confidence import (
    NO_TUMOUR,
    NOTHING_KNOWN,
    Curve,
    clearly_enhances,
    expected_dice,
    expected_share,
    level,
    log_odds,
    sentences,
)
from synthesis.guard import Measures
from synthesis.models.load import Prediction
from synthesis.preprocess import FloatArray
from training import figures
from training.calibrate import Observed, chance_curve, curve, from_observed, observe

SHAPE = (3, 10, 10)
#: Outline and enhancement as two curves of a card; a number of 0.5 means 50 %.
KNOWN = {"slope": 1.0, "offset": 0.0, "patients": 40, "yes": 20, "informative": True}
CARD = {"confidence": {"outline": KNOWN, "enhancement": KNOWN}}


def full(value: float) -> FloatArray:
    return np.full(SHAPE, value, dtype=np.float32)


def blind(question: str) -> dict[str, Any]:
    """Return a card whose model could not tell the answer to this question."""
    return {"confidence": CARD["confidence"] | {question: KNOWN | {"informative": False, "yes": 10}}}


def answers(count: int, *, true_to_its_word: bool) -> list[tuple[float, bool]]:
    """Return what a model says, and what is so: as often as it says, or independently of it."""
    random = np.random.default_rng(11)
    said = random.uniform(0.05, 0.95, count)
    chances = said if true_to_its_word else np.full(count, 0.3)
    return [(float(p), bool(random.random() < q)) for p, q in zip(said, chances, strict=True)]


def test_a_number_becomes_the_share_in_which_it_was_right() -> None:
    assert Curve(**KNOWN).probability(0.7) == pytest.approx(0.7)
    assert Curve(**KNOWN | {"offset": -1.0}).probability(0.7) < 0.7


@pytest.mark.parametrize(("probability", "word"), [(0.85, "high"), (0.7, "moderate"), (0.3, "low")])
def test_the_outline_is_trusted_as_far_as_such_outlines_were_right(probability: float, word: str) -> None:
    assert level(probability) == word
    tumour = full(probability)
    tumour[0] = 0.51 if probability < 0.5 else probability

    said, _ = sentences(full(0.0), full(0.2), tumour, CARD)

    assert "outline" in said
    right = Curve(**KNOWN).probability(expected_dice(tumour))
    assert f"{level(right)}. {right:.0%} of such outlines" in said


@pytest.mark.parametrize(
    ("delta", "chance", "words"),
    [
        (0.5, 0.9, "clearly enhances, as the picture shows: high. 90%"),
        (0.5, 0.1, "clearly enhances, as the picture shows: low. 10%"),
        (0.0, 0.1, "does not clearly enhance, as the picture shows: high. 90%"),
        (0.0, 0.9, "does not clearly enhance, as the picture shows: low. 10%"),
    ],
)
def test_confidence_is_in_what_the_picture_shows(delta: float, chance: float, words: str) -> None:
    assert words in sentences(full(delta), full(chance), full(0.9), CARD)[1]


def test_a_model_that_cannot_tell_says_so_and_names_no_share() -> None:
    outline, enhancement = sentences(full(0.5), full(0.9), full(0.9), blind("enhancement"))
    assert "Confidence in enhancement, shown or not: none. 10 of 40" in enhancement
    assert "could not tell" in enhancement
    assert "%" not in enhancement
    assert "%" in outline

    assert "none" in sentences(full(0.5), full(0.9), full(0.9), blind("outline"))[0]


def test_without_a_tumour_or_a_calibration_nothing_is_claimed() -> None:
    assert sentences(full(0.5), full(0.9), full(0.4), CARD) == (NO_TUMOUR,)
    assert sentences(full(0.5), full(0.9), full(0.9), {}) == (NOTHING_KNOWN,)


@pytest.mark.parametrize("card", [CARD, blind("outline"), blind("enhancement"), {}])
def test_what_goes_into_images_is_ascii(card: dict[str, Any]) -> None:
    assert all(text.isascii() for text in (*sentences(full(0.5), full(0.9), full(0.9), card), NO_TUMOUR))


def test_the_expected_overlap_of_a_map_is_that_of_truths_drawn_from_it() -> None:
    random = np.random.default_rng(2)
    tumour = random.uniform(0, 1, (20, 40, 40)).astype(np.float32) ** 2
    marked = tumour > confidence.TUMOUR
    drawn = [random.random(tumour.shape) < tumour for _ in range(20)]

    found = np.mean([2 * (marked & one).sum() / (marked.sum() + one.sum()) for one in drawn])

    assert expected_dice(tumour) == pytest.approx(found, abs=0.005)
    assert expected_dice(np.zeros(SHAPE, dtype=np.float32)) == 0.0


def test_the_expected_share_is_the_mean_chance_in_the_tumour() -> None:
    chance, tumour = full(0.1), full(0.0)
    chance[0], tumour[:2] = 0.5, 0.9

    assert expected_share(chance, tumour) == pytest.approx(0.3)
    assert expected_share(chance, full(0.0)) == 0.0


def test_enhancement_is_what_the_figures_call_so() -> None:
    assert (confidence.ENHANCING, confidence.CLEAR_SHARE) == (figures.ENHANCING, figures.CLEAR_SHARE)
    tumour = np.ones((1, 10, 10), dtype=bool)
    delta = np.zeros((1, 10, 10), dtype=np.float32)
    delta[0, 0, :9] = 0.3
    assert not clearly_enhances(delta, tumour)
    delta[0, 0, 9] = 0.3
    assert clearly_enhances(delta, tumour)
    assert not clearly_enhances(delta, np.zeros_like(tumour))


def test_log_odds_have_an_end() -> None:
    assert log_odds(0.0) == pytest.approx(-log_odds(1.0))
    assert log_odds(0.0) == log_odds(1e-9)
    assert log_odds(0.5) == 0.0


def test_a_curve_finds_the_truth_and_is_informative() -> None:
    found = curve(answers(300, true_to_its_word=True))

    assert found["informative"]
    assert found["slope"] == pytest.approx(1.0, abs=0.25)
    assert found["offset"] == pytest.approx(0.0, abs=0.3)
    assert found["brier"] < found["brier_of_the_bare_share"]
    assert found["auc"] > 0.7
    assert Curve.of_card({"confidence": {"outline": found}}, "outline") is not None


def test_a_curve_of_few_patients_does_not_run_away() -> None:
    parted = [(0.2, False)] * 6 + [(0.8, True)] * 6

    found = curve(parted)

    assert 0.6 < Curve(**{key: found[key] for key in KNOWN}).probability(0.8) < 0.99


@pytest.mark.parametrize("count", [20, 39, 200])
def test_numbers_that_say_nothing_are_not_informative(count: int) -> None:
    assert not curve(answers(count, true_to_its_word=False))["informative"]


def test_a_model_that_is_wrong_on_average_is_not_turned_round() -> None:
    found = curve([(1 - number, yes) for number, yes in answers(300, true_to_its_word=True)])

    assert found["slope"] < 0
    assert not found["informative"]


def test_one_answer_in_all_patients_makes_a_curve_that_says_nothing() -> None:
    found = curve([(0.1 + 0.02 * step, True) for step in range(20)])

    assert not found["informative"]
    assert np.isfinite([found["slope"], found["offset"]]).all()


def test_a_patient_is_observed_with_what_is_so() -> None:
    found = head(1)
    drawn = np.zeros(found.inside.shape, dtype=bool)
    drawn[8:12, 30:50, 30:50] = True
    uptake = np.where(drawn, 0.4, 0.0).astype(np.float32)
    marked = np.where(drawn, 0.9, 0.1).astype(np.float32)
    prediction = Prediction(delta=uptake, chance=uptake, spread=uptake, tumour=marked)

    seen = observe(found, prediction, uptake, drawn)

    assert (seen.dice, seen.clear) == (1.0, True)
    assert seen.expected_share == pytest.approx(0.4)
    assert 0 < seen.expected_dice < 1
    assert seen.wrong["exchanged"].t1_tail == seen.measures.flair_tail
    assert seen.wrong["T1W given as FLAIR"].likeness > seen.measures.likeness
    assert not observe(found, prediction, 0 * uptake, drawn).clear


def test_the_entries_of_a_card_survive_json_and_are_read_back() -> None:
    random = np.random.default_rng(4)
    observed = [
        Observed(
            Measures(*random.normal(size=12)), {}, number, dice=float(yes), expected_share=0.1, clear=yes
        )
        for number, yes in answers(60, true_to_its_word=True)
    ]

    card = json.loads(json.dumps(from_observed(observed)))

    outline, enhancement = sentences(full(0.5), full(0.9), full(0.9), card)
    assert "60 held-out" in outline and "%" in outline
    assert "could not tell" in enhancement
    assert card["guard"]["patients"] == 60


def test_the_same_patients_give_the_same_card() -> None:
    said = answers(30, true_to_its_word=True)
    assert curve(said) == curve(list(said))
    assert curve(said) != curve([(0.5 * number, yes) for number, yes in said])


def test_the_chance_is_corrected_so_that_it_comes_true_each_tumour_weighing_the_same() -> None:
    random = np.random.default_rng(9)
    odds = random.normal(-0.5, 1.5, 60_000)
    truth = random.random(odds.size) < 1 / (1 + np.exp(-(0.6 * odds - 1.2)))
    said, marked = 1 / (1 + np.exp(-odds)), np.full(odds.size, 0.9, np.float32)
    small, large = slice(0, 20_000), slice(20_000, None)
    tumours = [(said[part], marked[part], truth[part]) for part in (small, large)]
    assert chance_curve(tumours) == pytest.approx((0.6, -1.2), abs=0.05)

    never = np.zeros(40_000, dtype=bool)
    of_one_that_never_does = chance_curve([tumours[0], (said[large], marked[large], never)])
    again = chance_curve([tumours[0], (said[20_000:30_000], marked[20_000:30_000], never[:10_000])])
    assert of_one_that_never_does[1] < -1.5
    assert of_one_that_never_does == pytest.approx(again, abs=0.05)


def test_the_offset_of_the_chance_counts_where_the_map_shows_tumour() -> None:
    said = np.full(1000, 0.5, np.float32)
    truth = np.arange(1000) < 100
    sure, unsure = (chance_curve([(said, np.full(1000, shown, np.float32), truth)]) for shown in (1.0, 0.335))
    assert sure[1] == pytest.approx(np.log(0.1 / 0.9), rel=0.02)
    assert unsure[1] == pytest.approx(2 * sure[1], rel=0.03)


def test_a_tumour_that_never_enhances_leaves_the_curve_finite() -> None:
    slope, offset = chance_curve([(np.full(50, 0.3), np.ones(50), np.zeros(50, dtype=bool))])
    assert np.isfinite(slope) and -20 < offset < -2
