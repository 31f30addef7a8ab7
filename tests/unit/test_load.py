"""Weights are used only when the card vouches for them; members answer together, each from what it reads."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import save

from synthesis.errors import UnusableModel
from synthesis.models.load import WEIGHTS, LoadedModel, load_model
from synthesis.models.mpr_vit import Latent, MprVit, Sizes
from synthesis.models.ta_vit import TaVit
from synthesis.models.uptake import OUTPUTS
from synthesis.preprocess import FloatArray, ModelInput

TINY = Sizes(size=24, width=8, blocks=2, transformers_at=(1,), dim=64, heads=1, depth=1, tokens=6)
TRAINED = {"dataset": "noise", "patients": 3, "steps": 5, "seconds": 2.0, "validation": {"psnr": 20.0}}


def write_model(
    folder: Path,
    members: int = 1,
    segmentation: Sizes = TINY,
    synthesis: Sizes = TINY,
    heads: float = 0.1,
    **changes: Any,
) -> None:
    """Write a tiny model called "tiny" with its card; `changes` replace entries of the card."""
    torch.manual_seed(3)
    nets: dict[str, MprVit | TaVit] = {}
    for member in range(members):
        nets[f"segmentation.{member}"] = MprVit(segmentation)
        unconditioned = synthesis.latent == "none"
        nets[f"synthesis.{member}"] = MprVit(synthesis, OUTPUTS) if unconditioned else TaVit(synthesis)
    for net in nets.values():
        for parameter in net.parameters():  # what is zero before training: else the condition does nothing
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        torch.nn.init.normal_(net.decoder.head.weight, std=heads)
    data = save(
        {f"{name}.{key}": t.half() for name, net in nets.items() for key, t in net.state_dict().items()}
    )
    card = {
        "version": "1",
        "members": members,
        "sizes": {"segmentation": segmentation.to_json(), "synthesis": synthesis.to_json()},
        "sha256": hashlib.sha256(data).hexdigest(),
        "trained": TRAINED,
    }
    (folder / "tiny.safetensors").write_bytes(data)
    (folder / "tiny.card.json").write_text(json.dumps(card | changes), encoding="utf-8")


def tiny(folder: Path, **parts: Any) -> LoadedModel:
    """Return the model that `write_model` makes of these parts."""
    write_model(folder, **parts)
    return load_model("tiny", "cpu", folder)


def refusal(folder: Path) -> UnusableModel:
    """Return the error of loading "tiny"."""
    with pytest.raises(UnusableModel) as refused:
        load_model("tiny", "cpu", folder)
    assert refused.value.sentence.endswith(".")
    return refused.value


def model_input() -> ModelInput:
    """Return eleven planes of noise, the first and the last blank."""
    values = np.random.default_rng(0).uniform(0.5, 1.5, (11, 2, 24, 24)).astype(np.float32)
    values[[0, -1]] = 0
    inside = np.zeros((11, 24, 24), dtype=bool)
    inside[:, 4:20, 4:20] = True
    return ModelInput(values, 300.0, 200.0, sitk.Image([24, 24, 11], sitk.sitkFloat32), inside)


def with_values(found: ModelInput, values: FloatArray) -> ModelInput:
    """Return the input with other intensities."""
    return replace(found, values=values)


def maps(found: ModelInput, value: float) -> FloatArray:
    """Return tumour maps that are the same everywhere."""
    return np.full(found.inside.shape, value, dtype=np.float32)


def log_odds(chance: FloatArray) -> FloatArray:
    return np.asarray(np.log(chance / (1 - chance)), dtype=np.float32)


def test_a_trained_model_is_loaded(tmp_path: Path) -> None:
    model = tiny(tmp_path, members=2)
    assert (model.name, model.version, model.size, model.members) == ("tiny", "1", 24, 2)
    assert model.digest == model.card["sha256"]
    assert not any(net.training for net in (*model.segmentation, *model.synthesis))


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path)
    path = tmp_path / "tiny.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert refusal(tmp_path).code == "MODEL_DAMAGED"


@pytest.mark.parametrize(
    "trained",
    [None, {}, "yes", TRAINED | {"steps": 0}, {k: v for k, v in TRAINED.items() if k != "validation"}],
)
def test_a_card_that_does_not_vouch_for_training_is_refused(tmp_path: Path, trained: object) -> None:
    write_model(tmp_path, trained=trained)
    assert refusal(tmp_path).code == "MODEL_UNTRAINED"


def test_a_network_whose_last_layer_is_zero_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, heads=0.0)
    assert refusal(tmp_path).code == "MODEL_UNTRAINED"


def test_weights_that_do_not_fit_the_card_are_refused(tmp_path: Path) -> None:
    wider = replace(TINY, width=16)
    write_model(tmp_path, sizes={"segmentation": wider.to_json(), "synthesis": wider.to_json()})
    assert refusal(tmp_path).code == "MODEL_DAMAGED"


@pytest.mark.parametrize("members", [0, 2, "some", None])
def test_a_card_that_counts_its_members_wrongly_is_refused(tmp_path: Path, members: object) -> None:
    write_model(tmp_path)
    path = tmp_path / "tiny.card.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(card | {"members": members}), encoding="utf-8")
    assert refusal(tmp_path).code == "MODEL_DAMAGED"


@pytest.mark.parametrize(
    ("segmentation", "synthesis"),
    [
        (replace(TINY, size=48), TINY),
        (replace(TINY, width=16), replace(TINY, latent="features")),
    ],
)
def test_networks_that_cannot_work_together_are_refused(
    tmp_path: Path, segmentation: Sizes, synthesis: Sizes
) -> None:
    write_model(tmp_path, segmentation=segmentation, synthesis=synthesis)
    assert refusal(tmp_path).code == "MODEL_DAMAGED"


def test_a_card_of_sizes_that_make_no_network_is_refused(tmp_path: Path) -> None:
    sizes = TINY.to_json() | {"latent": "thoughts"}
    write_model(tmp_path, sizes={"segmentation": TINY.to_json(), "synthesis": sizes})
    assert refusal(tmp_path).code == "MODEL_DAMAGED"


def test_a_card_from_before_there_were_other_inputs_and_latents_means_the_same(tmp_path: Path) -> None:
    old = ("size", "width", "blocks", "transformers_at", "dim", "heads", "depth", "tokens", "skips")
    sizes = {name: TINY.to_json()[name] for name in old}
    found = model_input()
    now = tiny(tmp_path).predict(found)
    before = tiny(tmp_path, sizes={"segmentation": sizes, "synthesis": sizes}).predict(found)
    assert np.array_equal(now.delta, before.delta)
    assert np.array_equal(now.tumour, before.tumour)


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path).code == "MODEL_MISSING"


def test_a_card_that_is_no_json_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / "tiny.card.json").write_text("{", encoding="utf-8")
    assert refusal(tmp_path).code == "MODEL_DAMAGED"


def test_prediction_is_the_same_twice_and_leaves_out_blank_planes_and_air(tmp_path: Path) -> None:
    model, found = tiny(tmp_path), model_input()
    shares: list[float] = []
    first, second = model.predict(found, shares.append), model.predict(found)
    assert np.array_equal(first.delta, second.delta)
    assert np.array_equal(first.tumour, second.tumour)
    assert first.delta[1:-1].any()
    assert not first.delta[[0, -1]].any()
    assert not first.delta[:, :4].any()
    assert 0 <= first.chance.min() < first.chance.max() <= 1
    assert 0 <= first.tumour.min() <= first.tumour.max() <= 1
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_two_steps_make_the_prediction(tmp_path: Path) -> None:
    model, found = tiny(tmp_path), model_input()
    both = model.predict(found)
    made = model.synthesise(found, model.segment(found))
    assert np.array_equal(made.delta, both.delta)
    assert np.array_equal(made.chance, both.chance)


@pytest.mark.parametrize("latent", ["map", "features", "none"])
def test_members_answer_together_what_each_answers_alone(tmp_path: Path, latent: Latent) -> None:
    model, found = tiny(tmp_path, members=2, synthesis=replace(TINY, latent=latent)), model_input()
    tumour = maps(found, 0.5)
    together = model.synthesise(found, tumour)
    first, second = (model.only(member).synthesise(found, tumour) for member in (0, 1))
    seen = first.chance > 0
    odds = np.stack([log_odds(one.chance[seen]) for one in (first, second)])
    assert np.ptp(odds, axis=0).max() > 0.01
    assert np.allclose(log_odds(together.chance[seen]), odds.mean(axis=0), atol=1e-3)
    assert np.allclose(together.spread, np.abs(first.delta - second.delta) / 2, atol=1e-4)
    segmented = [model.only(member).segment(found) for member in (0, 1)]
    assert np.allclose(model.segment(found), np.mean(segmented, axis=0), atol=1e-6)


def test_one_network_that_looks_once_does_not_disagree_with_itself(tmp_path: Path) -> None:
    assert not tiny(tmp_path).predict(model_input()).spread.any()


def test_a_model_that_looks_at_mirror_images_makes_no_difference_between_left_and_right(
    tmp_path: Path,
) -> None:
    found = model_input()
    mirror = with_values(found, found.values[..., ::-1])
    once, both = tiny(tmp_path), tiny(tmp_path, mirrored=True)
    assert not np.allclose(once.predict(mirror).delta[..., ::-1], once.predict(found).delta, atol=1e-3)
    for name in ("delta", "chance", "spread", "tumour"):
        seen, seen_mirrored = getattr(both.predict(found), name), getattr(both.predict(mirror), name)
        assert np.allclose(seen_mirrored[..., ::-1], seen, atol=1e-5), name
    assert both.predict(found).spread.any()


def test_the_card_corrects_the_odds_where_the_map_shows_tumour(tmp_path: Path) -> None:
    found, model = model_input(), tiny(tmp_path)
    corrected = tiny(tmp_path, calibrated=[2.0, -1.0], shown=[1.0, 30.0])
    for share, offset in ((0.0, 0.0), (1.0, -1.0)):
        plain, changed = (one.synthesise(found, maps(found, share)) for one in (model, corrected))
        seen = (plain.chance > 0.01) & (plain.chance < 0.99)
        odds = np.exp(2 * log_odds(plain.chance[seen]) + offset)
        assert np.allclose(changed.chance[seen], odds / (1 + odds), atol=1e-3)
        assert (changed.delta[seen] > plain.delta[seen]).all() == bool(share)
    flatter = tiny(tmp_path, shown=[0.5, 0.0])
    for share in (0.0, 1.0):
        plain, changed = (one.synthesise(found, maps(found, share)) for one in (model, flatter))
        assert np.allclose(changed.delta, plain.delta) == (not share)


def test_a_drawn_or_edited_map_changes_what_is_made_where_it_is_read(tmp_path: Path) -> None:
    model, found = tiny(tmp_path), model_input()
    edited = maps(found, 0.0)
    edited[4] = 1
    plain, changed = model.synthesise(found, maps(found, 0.0)), model.synthesise(found, edited)
    planes = np.abs(changed.delta - plain.delta).max(axis=(1, 2)) > 0
    assert planes.nonzero()[0].tolist() == [4]


def test_a_latent_of_features_comes_from_the_segmentation_of_the_same_member(tmp_path: Path) -> None:
    synthesis = replace(TINY, latent="features", flair=False)
    model, found = tiny(tmp_path, members=2, synthesis=synthesis), model_input()
    flair = with_values(found, found.values * np.array([1.0, 1.2], np.float32)[:, None, None])
    plain = model.synthesise(found, maps(found, 0.0))
    assert np.array_equal(plain.delta, model.synthesise(found, maps(found, 1.0)).delta)
    # the synthesis does not see the FLAIR: it can only have come through the segmentation
    assert not np.array_equal(plain.delta, model.synthesise(flair, maps(found, 0.0)).delta)
    crossed = replace(model.only(0), segmentation=(model.segmentation[1],))
    own = model.only(0).synthesise(found, maps(found, 0.0))
    assert not np.array_equal(own.delta, crossed.synthesise(found, maps(found, 0.0)).delta)


def test_a_synthesis_without_condition_is_the_same_for_every_map(tmp_path: Path) -> None:
    model, found = tiny(tmp_path, synthesis=replace(TINY, latent="none")), model_input()
    empty, full = (model.synthesise(found, maps(found, value)) for value in (0.0, 1.0))
    assert empty.delta.any()
    assert np.array_equal(empty.delta, full.delta)


def test_a_model_of_the_t1w_alone_does_not_see_the_flair(tmp_path: Path) -> None:
    alone = replace(TINY, flair=False)
    model, found = tiny(tmp_path, segmentation=alone, synthesis=alone), model_input()
    other = with_values(found, found.values.copy())
    other.values[:, 1] = np.where(found.values[:, 1] > 0, 0.8, 0.0)
    plain, changed = model.predict(found), model.predict(other)
    assert plain.delta.any()
    assert np.array_equal(plain.delta, changed.delta)
    assert np.array_equal(plain.tumour, changed.tumour)


def test_neighbouring_planes_are_seen_by_the_network_that_looks_at_them(tmp_path: Path) -> None:
    model, found = tiny(tmp_path, synthesis=replace(TINY, neighbours=1)), model_input()
    other = with_values(found, found.values.copy())
    other.values[5] *= 1.2
    tumour = maps(found, 0.5)
    made = np.abs(model.synthesise(found, tumour).delta - model.synthesise(other, tumour).delta)
    segmented = np.abs(model.segment(found) - model.segment(other))
    assert made.any(axis=(1, 2)).nonzero()[0].tolist() == [4, 5, 6]
    assert segmented.any(axis=(1, 2)).nonzero()[0].tolist() == [5]


def test_a_neighbour_that_shows_too_little_is_passed_over_as_in_training(tmp_path: Path) -> None:
    model, found = tiny(tmp_path, synthesis=replace(TINY, neighbours=1)), model_input()
    found.values[5, 1] = 0
    other = with_values(found, found.values.copy())
    other.values[4] *= 1.2
    tumour = maps(found, 0.5)
    made = np.abs(model.synthesise(found, tumour).delta - model.synthesise(other, tumour).delta)
    assert not found.usable[5]
    assert made.any(axis=(1, 2)).nonzero()[0].tolist() == [3, 4, 6]


def test_planes_of_another_size_are_refused(tmp_path: Path) -> None:
    found = model_input()
    wrong = ModelInput(found.values[..., :20], 1.0, 1.0, found.grid, found.inside[..., :20])
    with pytest.raises(ValueError, match="24×24"):
        tiny(tmp_path).segment(wrong)


def test_the_shipped_model_loads_and_says_what_it_is_not_for() -> None:
    model = load_model("default", "cpu")
    assert model.card["trained"]["patients"] >= 20
    assert "Not for diagnosis" in model.card["intended"]
    assert any("enhancement is NOT predicted reliably" in limit for limit in model.card["limits"])
    assert "Non-commercial" in model.card["licence"]
    assert (WEIGHTS / f"{model.name}.safetensors").stat().st_size < 95e6


def test_half_the_digits_change_little() -> None:
    model = load_model("default", "cpu")
    if model.dtype is torch.float32:
        pytest.skip("this processor computes in float32 anyway")
    images, tumour = torch.rand(1, 2, 120, 120), torch.zeros(1, 1, 120, 120)
    with torch.inference_mode():
        net = model.synthesis[0]
        exact = TaVit(Sizes.from_json(model.card["sizes"]["synthesis"])).eval()
        exact.load_state_dict({name: value.float() for name, value in net.state_dict().items()})
        quick, exactly = net(images, tumour).float(), exact(images, tumour)
    assert float((quick - exactly).abs().mean()) < 1e-2
