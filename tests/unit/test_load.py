"""Weights are used only when the card vouches for them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import save

from synthesis.errors import UnusableModel
from synthesis.models.load import WEIGHTS, load_model
from synthesis.models.mpr_vit import MprVit, Sizes
from synthesis.models.ta_vit import TaVit
from synthesis.preprocess import ModelInput

TINY = Sizes(size=24, width=8, blocks=2, transformers_at=(1,), dim=64, heads=1, depth=1, tokens=6)
TRAINED = {"dataset": "noise", "patients": 3, "steps": 5, "seconds": 2.0, "validation": {"psnr": 20.0}}


def write_model(folder: Path, heads: float = 0.1, **changes: Any) -> None:
    """Write a tiny model called "tiny" with its card; `changes` replace entries of the card."""
    torch.manual_seed(3)
    nets: dict[str, MprVit | TaVit] = {"segmentation": MprVit(TINY), "synthesis": TaVit(TINY)}
    for net in nets.values():
        torch.nn.init.constant_(net.decoder.head.weight, heads)
    data = save(
        {f"{name}.{key}": t.half() for name, net in nets.items() for key, t in net.state_dict().items()}
    )
    card = {
        "version": "1",
        "sizes": {name: TINY.to_json() for name in nets},
        "sha256": hashlib.sha256(data).hexdigest(),
        "trained": TRAINED,
    }
    (folder / "tiny.safetensors").write_bytes(data)
    (folder / "tiny.card.json").write_text(json.dumps(card | changes), encoding="utf-8")


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


def test_a_trained_model_is_loaded(tmp_path: Path) -> None:
    write_model(tmp_path)
    model = load_model("tiny", "cpu", tmp_path)
    assert (model.name, model.version, model.size) == ("tiny", "1", 24)
    assert model.digest == model.card["sha256"]
    assert not model.synthesis.training


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
    wider = Sizes(size=24, width=16, blocks=2, transformers_at=(1,), dim=64, heads=1, depth=1, tokens=6)
    write_model(tmp_path, sizes={"segmentation": wider.to_json(), "synthesis": wider.to_json()})
    assert refusal(tmp_path).code == "MODEL_DAMAGED"


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path).code == "MODEL_MISSING"


def test_a_card_that_is_no_json_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / "tiny.card.json").write_text("{", encoding="utf-8")
    assert refusal(tmp_path).code == "MODEL_DAMAGED"


def test_prediction_is_the_same_twice_and_leaves_out_blank_planes_and_air(tmp_path: Path) -> None:
    write_model(tmp_path)
    model, found = load_model("tiny", "cpu", tmp_path), model_input()
    shares: list[float] = []
    first, second = model.predict(found, shares.append), model.predict(found)
    assert np.array_equal(first.delta, second.delta)
    assert np.array_equal(first.tumour, second.tumour)
    assert first.delta[1:-1].any()
    assert not first.delta[[0, -1]].any()
    assert not first.delta[:, :4].any()
    assert 0 <= first.tumour.min() <= first.tumour.max() <= 1
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_two_steps_make_the_prediction(tmp_path: Path) -> None:
    write_model(tmp_path)
    model, found = load_model("tiny", "cpu", tmp_path), model_input()
    tumour = model.segment(found)
    assert np.array_equal(model.synthesise(found, tumour), model.predict(found).delta)


def test_planes_of_another_size_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path)
    found = model_input()
    wrong = ModelInput(found.values[..., :20], 1.0, 1.0, found.grid, found.inside[..., :20])
    with pytest.raises(ValueError, match="24×24"):
        load_model("tiny", "cpu", tmp_path).segment(wrong)


def test_the_shipped_model_loads_and_says_what_it_is_not_for() -> None:
    model = load_model("default", "cpu")
    assert model.card["trained"]["patients"] >= 20
    assert "Not for diagnosis" in model.card["intended"]
    assert any("enhancement is NOT predicted reliably" in limit for limit in model.card["limits"])
    assert "Non-commercial" in model.card["licence"]
    assert (WEIGHTS / f"{model.name}.safetensors").stat().st_size < 30e6


def test_half_the_digits_change_little() -> None:
    model = load_model("default", "cpu")
    if model.dtype is torch.float32:
        pytest.skip("this processor computes in float32 anyway")
    images, tumour = torch.rand(1, 2, 120, 120), torch.zeros(1, 1, 120, 120)
    with torch.inference_mode():
        quick = model.synthesis(images.to(model.dtype), tumour.to(model.dtype)).float()
        exact = model.synthesis.float()(images, tumour)
    assert float((quick - exact).abs().mean()) < 1e-2
