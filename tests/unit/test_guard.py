"""What a model never saw is named, and what is no T1W with its FLAIR is declined."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from heads import head

from synthesis.errors import RefusedInput
from synthesis.guard import NAMES, WORDS, Measures, Reference, check, distance, measure
from synthesis.models.load import DEFAULT, WEIGHTS
from synthesis.phantom import FLAIR, T1W, T2W, write_study
from synthesis.preprocess import FloatArray, ModelInput, to_model_grid
from synthesis.register import register
from synthesis.series import read_series
from training.calibrate import given_wrongly, guard_statistics

#: Patients whose images a test knows.
KNOWN = range(12)


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    """Return the card of a model that has seen some of these heads; as JSON brings it back."""
    return json.loads(json.dumps({"guard": guard_statistics([measure(head(seed)) for seed in KNOWN])}))


def with_channels(found: ModelInput, t1: FloatArray, flair: FloatArray) -> ModelInput:
    return replace(found, values=np.stack([t1, flair], axis=1).astype(np.float32))


def wrongly(name: str, seed: int = 100) -> ModelInput:
    found = head(seed)
    return given_wrongly(found, np.zeros(found.inside.shape, dtype=np.float32))[name]


def refusal(found: ModelInput, card: dict[str, Any]) -> str:
    with pytest.raises(RefusedInput) as refused:
        check(found, card)
    assert refused.value.code == "UNLIKE_TRAINING"
    return refused.value.sentence


@pytest.mark.parametrize("seed", range(100, 106))
def test_a_new_patient_of_the_same_kind_is_not_declined_and_as_a_rule_passes(
    seed: int, card: dict[str, Any]
) -> None:
    said = check(head(seed), card)

    assert said == () or seed not in (100, 101, 102)


def test_exchanged_series_are_named_as_such(card: dict[str, Any]) -> None:
    assert "exchanged" in refusal(wrongly("exchanged"), card)


@pytest.mark.parametrize(
    "name",
    ["T1W given as FLAIR", "FLAIR given as T1W", "T1W inverted", "FLAIR inverted", "FLAIR back to front"],
)
def test_what_is_no_t1w_with_its_flair_is_declined(name: str, card: dict[str, Any]) -> None:
    assert "unlike a T1W with its FLAIR" in refusal(wrongly(name), card)


def test_a_blurred_t1w_is_named(card: dict[str, Any]) -> None:
    found = head(100)
    t1 = sitk.GetArrayFromImage(
        sitk.DiscreteGaussian(sitk.GetImageFromArray(found.values[:, 0]), [0.4, 0.4, 0])
    )

    try:
        (sentence,) = check(with_channels(found, t1, found.values[:, 1]), card)
    except RefusedInput as refused:
        sentence = refused.sentence

    assert "the T1W is unusually smooth" in sentence


@pytest.mark.parametrize("stripped", [True, False])
def test_a_model_that_never_saw_a_stripped_brain_declines_it_and_the_other_way_round(
    stripped: bool, card: dict[str, Any]
) -> None:
    shown, other = ("stripped", "kept") if stripped else ("kept", "stripped")
    found = replace(head(100), stripped=stripped)
    assert f"The skull is {shown}" in refusal(found, card | {"skull": other})
    for skull in (shown, "kept or stripped"):
        assert check(found, card | {"skull": skull}) == check(found, card)


def test_a_card_without_statistics_says_that_nothing_was_checked() -> None:
    (sentence,) = check(wrongly("exchanged"), {})

    assert "could not be checked" in sentence


def test_statistics_of_other_measures_are_not_used(card: dict[str, Any]) -> None:
    older = {"guard": card["guard"] | {"measures": [*NAMES[:-1], "another"]}}

    assert Reference.of_card(older) is None


def test_blank_images_are_declined_and_not_measured(card: dict[str, Any]) -> None:
    found = head(100)
    blank = replace(found, values=np.zeros_like(found.values))

    assert measure(blank) == Measures(tissue=0.0) or np.isnan(astuple(measure(blank))[1])
    assert "hardly any place shows brain tissue" in refusal(blank, card)


def test_measuring_twice_gives_the_same() -> None:
    assert measure(head(3)) == measure(head(3))


def test_every_measure_has_its_words() -> None:
    assert tuple(WORDS) == NAMES == tuple(asdict(Measures()))
    assert all(text.isascii() for pair in WORDS.values() for text in pair)


Change = Callable[[ModelInput], ModelInput]


def brighter_vessels(found: ModelInput) -> ModelInput:
    flair = found.values[:, 1]
    vessels = found.inside & (flair < 0.4) & (np.arange(found.inside.shape[2]) % 4 == 0)
    return with_channels(found, np.where(vessels, 1.8, found.values[:, 0]), flair)


def moved(found: ModelInput) -> ModelInput:
    return with_channels(found, found.values[:, 0], np.roll(found.values[:, 1], 6, axis=1))


def fluid_on_the_flair(found: ModelInput) -> ModelInput:
    t1, flair = found.values[:, 0], found.values[:, 1]
    return with_channels(found, t1, np.where((t1 < 0.5) & found.inside, 2.2, flair))


def noisy(found: ModelInput) -> ModelInput:
    noise = np.random.default_rng(1).normal(0, 0.2, found.inside.shape)
    return with_channels(found, np.abs(found.values[:, 0] + noise), found.values[:, 1])


@pytest.mark.parametrize(
    ("change", "name", "sign"),
    [
        (brighter_vessels, "t1_vessels", 1),
        (moved, "match", -1),
        (fluid_on_the_flair, "flair_fluid", 1),
        (noisy, "t1_grain", 1),
    ],
)
def test_each_measure_answers_to_what_it_is_named_for(
    change: Change, name: str, sign: int, card: dict[str, Any]
) -> None:
    reference = Reference.of_card(card)
    assert reference is not None
    before, after = (
        dict(zip(NAMES, reference.deviations(measure(found)), strict=True))
        for found in (head(100), change(head(100)))
    )

    assert sign * (after[name] - before[name]) > 2


def test_the_distance_leaves_out_what_could_not_be_measured() -> None:
    assert distance(np.array([3.0, np.nan, -3.0])) == pytest.approx(3.0)
    assert distance(np.array([np.nan])) == 0.0


def table(count: int) -> list[Measures]:
    random = np.random.default_rng(5)
    return [Measures(*random.normal(size=len(NAMES))) for _ in range(count)]


def test_statistics_find_centre_and_spread_and_few_false_alarms() -> None:
    found = guard_statistics(table(40))

    np.testing.assert_allclose(found["centre"], 0.0, atol=0.4)
    np.testing.assert_allclose(found["spread"], 1.0, atol=0.4)
    assert found["rightly"]["flagged"] <= 0.1
    assert found["rightly"]["declined"] == 0.0


def test_what_is_given_wrongly_is_counted() -> None:
    known = table(30)
    far = [replace(one, match=-30.0) for one in known]

    found = guard_statistics(
        known, [{"far": one, "near": right} for one, right in zip(far, known, strict=True)]
    )

    assert found["wrongly"]["far"] == {"flagged": 1.0, "declined": 1.0}
    assert found["wrongly"]["near"] == found["rightly"]


def test_one_odd_patient_does_not_hide_the_next() -> None:
    known = [*table(30), Measures(*[40.0] * len(NAMES))]

    found = guard_statistics(known)

    assert max(found["spread"]) < 10


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    """Return the card of the weights that ship."""
    found = json.loads((WEIGHTS / f"{DEFAULT}.card.json").read_text(encoding="utf-8"))
    if "guard" not in found:
        pytest.skip("THE SHIPPED CARD HOLDS NO GUARD")
    return dict(found)


def pair(t1: list[Path], flair: list[Path]) -> ModelInput:
    one, other = read_series(t1).image, read_series(flair).image
    placed = register(one, other, same_frame_of_reference=True)
    return to_model_grid(one, placed.flair_on_t1)


def test_the_projects_phantom_is_not_declined_and_its_t2w_is(shipped: dict[str, Any], tmp_path: Path) -> None:
    study = write_study(tmp_path, t1=T1W, flair=FLAIR, t2=T2W, localizer=False)
    files = {role: list(series.paths) for role, series in study.series.items()}

    check(pair(files["t1"], files["flair"]), shipped)

    refusal(pair(files["t2"], files["flair"]), shipped)
    assert "exchanged" in refusal(pair(files["flair"], files["t1"]), shipped)


def test_a_real_pair_passes_and_its_t2w_does_not(shipped: dict[str, Any], shared_data: Path) -> None:
    files = {name: sorted((shared_data / "BRAINIX" / name).rglob("*.dcm")) for name in ("T1", "FLAIR", "T2")}

    assert check(pair(files["T1"], files["FLAIR"]), shipped) == ()

    refusal(pair(files["T2"], files["FLAIR"]), shipped)
    refusal(pair(files["T1"], files["T2"]), shipped)
    assert "exchanged" in refusal(pair(files["FLAIR"], files["T1"]), shipped)
