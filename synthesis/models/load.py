"""Weights from `synthesis/weights`: checked against their card, and run.

A model is two files: ``NAME.safetensors`` with both networks (prefixes ``segmentation.`` and ``synthesis.``)
and ``NAME.card.json``, which says what they are, on what they were trained and how well they did. What the
card does not vouch for is refused: random weights make plausible pictures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from synthesis.errors import UnusableModel
from synthesis.models.mpr_vit import MprVit, Sizes
from synthesis.models.ta_vit import TaVit
from synthesis.preprocess import FloatArray, ModelInput

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
DEFAULT = "small"
BATCH = 8
#: Δ fades to 0 where the T1W is darker than this: there is no tissue, and a halo around the head would show.
AIR = 0.15
#: What a card must say about the training.
TRAINED_KEYS = ("dataset", "patients", "steps", "seconds", "validation")

Report = Callable[[float], None]


@dataclass(frozen=True)
class Prediction:
    """What the networks say about one patient, on the model grid; 0 in the planes that were left out."""

    #: (D, S, S): T1C/level − T1/level.
    delta: FloatArray
    #: (D, S, S): probability of FLAIR abnormality, 0–1.
    tumour: FloatArray


@dataclass(frozen=True)
class LoadedModel:
    """Both networks, ready."""

    name: str
    version: str
    #: SHA-256 of the weights file.
    digest: str
    card: dict[str, Any]
    segmentation: MprVit
    synthesis: TaVit
    device: torch.device
    dtype: torch.dtype

    @property
    def caveat(self) -> str:
        """The first of the card's limits: what a reader of every image must know."""
        return str(next(iter(self.card.get("limits", ())), ""))

    @property
    def size(self) -> int:
        """Rows and columns of the model grid."""
        return self.synthesis.sizes.size

    def segment(self, found: ModelInput, report: Report = lambda share: None) -> FloatArray:
        """Return the probability of tumour, (D, S, S). `report` is told the share done, 0–1."""
        tumour = np.zeros(found.inside.shape, dtype=np.float32)
        for planes, images in self._batches(found, report):
            logits = self._run(self.segmentation, images)
            tumour[planes] = logits.sigmoid().cpu().numpy() * found.inside[planes]
        return tumour

    def synthesise(
        self, found: ModelInput, tumour: FloatArray, report: Report = lambda share: None
    ) -> FloatArray:
        """Return Δ, (D, S, S), given the probability of tumour; 0 in air."""
        delta = np.zeros(found.inside.shape, dtype=np.float32)
        for planes, images in self._batches(found, report):
            maps = self._tensor(tumour[planes][:, None])
            delta[planes] = self._run(self.synthesis, images, maps).cpu().numpy() * found.inside[planes]
        tissue: FloatArray = np.clip(found.values[:, 0] / AIR, 0.0, 1.0)
        return delta * tissue

    def predict(self, found: ModelInput, report: Report = lambda share: None) -> Prediction:
        """Return tumour and Δ. The same input gives the same output on the same machine."""
        tumour = self.segment(found, lambda share: report(0.5 * share))
        return Prediction(self.synthesise(found, tumour, lambda share: report(0.5 + 0.5 * share)), tumour)

    def _batches(self, found: ModelInput, report: Report) -> Iterator[tuple[Any, Tensor]]:
        """Yield the usable planes by eights, with their images (B, 2, S, S)."""
        if found.values.shape[2:] != (self.size, self.size):
            raise ValueError(f"The model wants planes of {self.size}×{self.size}.")
        usable = np.flatnonzero(found.usable)
        for first in range(0, len(usable), BATCH):
            planes = usable[first : first + BATCH]
            yield planes, self._tensor(found.values[planes])
            report(min(1.0, (first + BATCH) / len(usable)))

    def _tensor(self, values: FloatArray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(self.device, self.dtype)
        return tensor.contiguous(memory_format=torch.channels_last)

    def _run(self, net: nn.Module, *inputs: Tensor) -> Tensor:
        """Return the network's single channel as float32, (B, S, S)."""
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
        ):
            out: Tensor = net(*inputs)
        return out[:, 0].float()


def load_model(
    name: str = "default", device: str | torch.device = "auto", weights: Path = WEIGHTS
) -> LoadedModel:
    """Return the model of this name.

    Parameters
    ----------
    name : str
        Stem of the files; "default" is what the package ships.
    device : str or torch.device
        "auto" is CUDA where there is one, else the CPU.
    weights : Path
        Folder of the files.

    Raises
    ------
    UnusableModel
        When a file is missing or damaged, the two do not belong together, or the weights were never trained.
    """
    stem = DEFAULT if name == "default" else name
    card, data = _read(weights, stem)
    if hashlib.sha256(data).hexdigest() != card.get("sha256"):
        raise UnusableModel("MODEL_DAMAGED", f"The weights of model {stem} are not those of its card.")
    _refuse_untrained(stem, card)
    return build(stem, card, data, device)


def build(stem: str, card: dict[str, Any], data: bytes, device: str | torch.device = "auto") -> LoadedModel:
    """Return the model of this card and these safetensors; the caller vouches for the training.

    Raises
    ------
    UnusableModel
        When the two do not fit each other, or a last layer is as it was before training.
    """
    where = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    dtype = _fastest_safe(where)
    segmentation, synthesis = _networks(stem, card, data)
    for part in (segmentation, synthesis):
        if not part.decoder.head.weight.any():
            raise UnusableModel("MODEL_UNTRAINED", f"Model {stem} was never trained: its last layer is zero.")
        part.eval().requires_grad_(False)
        part.to(where, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    digest, version = hashlib.sha256(data).hexdigest(), str(card.get("version", "0"))
    return LoadedModel(stem, version, digest, card, segmentation, synthesis, where, dtype)


def _read(folder: Path, stem: str) -> tuple[dict[str, Any], bytes]:
    try:
        card = json.loads((folder / f"{stem}.card.json").read_text(encoding="utf-8"))
        data = (folder / f"{stem}.safetensors").read_bytes()
    except FileNotFoundError as error:
        raise UnusableModel("MODEL_MISSING", f"Model {stem} is not installed.") from error
    except (OSError, ValueError) as error:
        raise UnusableModel("MODEL_DAMAGED", f"The files of model {stem} cannot be read.") from error
    if not isinstance(card, dict):
        raise UnusableModel("MODEL_DAMAGED", f"The card of model {stem} is not a card.")
    return card, data


def _refuse_untrained(stem: str, card: dict[str, Any]) -> None:
    """Refuse a card that does not say who was seen, for how long, and how well it went."""
    trained = card.get("trained")
    said = trained if isinstance(trained, dict) else {}
    missing = [key for key in TRAINED_KEYS if not said.get(key)]
    if missing:
        raise UnusableModel(
            "MODEL_UNTRAINED",
            f"The card of model {stem} does not say that it was trained ({', '.join(missing)} missing).",
        )


def _networks(stem: str, card: dict[str, Any], data: bytes) -> tuple[MprVit, TaVit]:
    try:
        tensors = load_tensors(data)
        segmentation, synthesis = (
            MprVit(Sizes.from_json(card["sizes"]["segmentation"])),
            TaVit(Sizes.from_json(card["sizes"]["synthesis"])),
        )
        segmentation.load_state_dict(_under("segmentation.", tensors))
        synthesis.load_state_dict(_under("synthesis.", tensors))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UnusableModel("MODEL_DAMAGED", f"The weights of model {stem} do not fit its card.") from error
    return segmentation, synthesis


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t.float() for name, t in tensors.items() if name.startswith(prefix)}


def _fastest_safe(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the hardware computes in it, else float32: emulated, it is far slower."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if fast else torch.float32
