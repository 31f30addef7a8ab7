"""Weights from `synthesis/weights`: checked against their card, and run.

A model is two files: ``NAME.safetensors`` with the networks and ``NAME.card.json``, which says what they are,
on what they were trained and how well they did. What the card does not vouch for is refused: random weights
make plausible pictures. A model has one or more members, each a network for the segmentation and one for the
synthesis (prefixes ``segmentation.0.``, ``synthesis.0.`` …) that were trained without some of the patients;
they answer together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from synthesis.errors import UnusableModel
from synthesis.models.mpr_vit import MprVit, Sizes, channels_of
from synthesis.models.precision import fastest_safe, set_precision
from synthesis.models.ta_vit import TaVit
from synthesis.models.uptake import OUTPUTS, Uptake
from synthesis.models.window import Window, window_around
from synthesis.preprocess import FloatArray, ModelInput

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
DEFAULT = "small"
BATCH = 8
#: Δ fades to 0 where the T1W is darker than this: there is no tissue, and a halo around the head would show.
AIR = 0.15
#: In training more tumours enhance than do in patients. A card may correct the log odds by a slope and an
#: offset; they count where the tumour map says at least this, and in proportion below. Only the slope of the
#: chance that is told counts everywhere.
SURE = 0.67
#: What a card must say about the training.
TRAINED_KEYS = ("dataset", "patients", "steps", "seconds", "validation")

Report = Callable[[float], None]
Part = Literal["segmentation", "synthesis"]
#: (B,): indices of planes.
Planes = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Synthesised:
    """What the synthesis says of one patient, (D, S, S) on the model grid; 0 in air and planes left out."""

    #: T1C/level − T1W/level.
    delta: FloatArray
    #: Probability of enhancement, 0–1.
    chance: FloatArray
    #: Standard deviation of Δ among members and mirror images.
    spread: FloatArray


@dataclass(frozen=True)
class Prediction(Synthesised):
    """What all networks say."""

    #: (D, S, S): probability of FLAIR abnormality, 0–1.
    tumour: FloatArray


@dataclass(frozen=True)
class LoadedModel:
    """All networks, ready."""

    name: str
    version: str
    #: SHA-256 of the weights file.
    digest: str
    card: dict[str, Any]
    segmentation: tuple[nn.Module, ...]
    synthesis: tuple[nn.Module, ...]
    device: torch.device
    dtype: torch.dtype

    @property
    def members(self) -> int:
        """How many networks answer together."""
        return len(self.synthesis)

    def only(self, member: int) -> LoadedModel:
        """Return this member alone: what is to judge the patients that it did not see."""
        return replace(self, segmentation=(self.segmentation[member],), synthesis=(self.synthesis[member],))

    @property
    def caveat(self) -> str:
        """The first of the card's limits: what a reader of every image must know."""
        return str(next(iter(self.card.get("limits", ())), ""))

    @property
    def size(self) -> int:
        """Rows and columns of the model grid."""
        return self._sizes("synthesis").size

    def segment(self, found: ModelInput, report: Report = lambda share: None) -> FloatArray:
        """Return the probability of tumour, (D, S, S). `report` is told the share done, 0–1."""
        tumour = np.zeros(found.inside.shape, dtype=np.float32)
        window = self._window(found)
        for planes in self._batches(found, report):
            images = self._seen(found, planes, "segmentation", window)
            chances = [
                mirrored(
                    self._run(net, mirrored(images, flip), window.corners(len(planes), flip))[:, 0], flip
                )
                for net in self.segmentation
                for flip in self._flips
            ]
            window.of(tumour)[planes] = torch.stack(chances).sigmoid().mean(dim=0).cpu().numpy()
        return tumour * found.inside

    def synthesise(
        self, found: ModelInput, tumour: FloatArray, report: Report = lambda share: None
    ) -> Synthesised:
        """Return what is to be seen, given the probability of tumour (D, S, S).

        It may be drawn or edited, too. Networks whose latent is not read from the map do not look at it; the
        card's offsets of the odds always hold where it shows tumour.
        """
        parts = np.zeros((3, *found.inside.shape), dtype=np.float32)
        shown, calibrated = (self.card.get(key, (1.0, 0.0)) for key in ("shown", "calibrated"))
        window = self._window(found)
        for planes in self._batches(found, report):
            answers = [
                self._answer(member, found, planes, tumour, flip, window)
                for member in range(self.members)
                for flip in self._flips
            ]
            together = Uptake.together(answers)
            marked = (self._tensor(window.of(tumour[planes][:, None])) / SURE).clamp(max=1.0)
            shift = (1 + (shown[0] - 1) * marked, shown[1] * marked)
            deltas = torch.cat([answer.delta(*shift) for answer in answers], dim=1)
            answer = (
                together.delta(*shift)[:, 0],
                together.chance(calibrated[0], calibrated[1] * marked)[:, 0],
                deltas.std(dim=1, correction=0),
            )
            window.of(parts)[:, planes] = torch.stack(answer).cpu().numpy()
        tissue: FloatArray = np.clip(found.values[:, 0] / AIR, 0.0, 1.0) * found.inside
        return Synthesised(*(part * tissue for part in parts))

    def predict(self, found: ModelInput, report: Report = lambda share: None) -> Prediction:
        """Return all of it. The same input gives the same output on the same machine."""
        tumour = self.segment(found, lambda share: report(0.5 * share))
        made = self.synthesise(found, tumour, lambda share: report(0.5 + 0.5 * share))
        return Prediction(made.delta, made.chance, made.spread, tumour)

    @property
    def _flips(self) -> tuple[bool, ...]:
        """Which mirror images are looked at: left and right of a head are alike."""
        return (False, True) if self.card.get("mirrored") else (False,)

    def _sizes(self, part: Part) -> Sizes:
        return Sizes.from_json(self.card["sizes"][part])

    def _answer(
        self, member: int, found: ModelInput, planes: Planes, tumour: FloatArray, flip: bool, window: Window
    ) -> Uptake:
        """Return what one synthesis network says of these planes, seen as they are or mirrored."""
        net, sizes = self.synthesis[member], self._sizes("synthesis")
        corners = window.corners(len(planes), flip)
        inputs = [mirrored(self._seen(found, planes, "synthesis", window), flip)]
        if sizes.latent == "map":
            inputs.append(mirrored(self._tensor(window.of(tumour[planes][:, None])), flip))
        elif sizes.latent == "features":
            images = mirrored(self._seen(found, planes, "segmentation", window), flip)
            read = cast(MprVit, self.segmentation[member]).features
            inputs.append(self._run(read, images, sizes.latent_stage, corners).to(self.dtype))
        return Uptake.of(mirrored(self._run(net, *inputs, corners), flip))

    def _batches(self, found: ModelInput, report: Report) -> Iterator[Planes]:
        """Yield the usable planes by eights."""
        if found.values.shape[2:] != (self.size, self.size):
            raise ValueError(f"The model wants planes of {self.size}×{self.size}.")
        usable = np.flatnonzero(found.usable)
        for first in range(0, len(usable), BATCH):
            yield usable[first : first + BATCH]
            report(min(1.0, (first + BATCH) / len(usable)))

    def _window(self, found: ModelInput) -> Window:
        """Return what the networks look at of every plane of this patient."""
        sizes = self._sizes("synthesis")
        return window_around(found.inside, sizes.size // sizes.tokens)

    def _seen(self, found: ModelInput, planes: Planes, part: Part, window: Window) -> Tensor:
        """Return the images of these planes that the networks for this part see, (B, C, h, w).

        A neighbour that is not usable is passed over, as in training.
        """
        values, sizes = found.values, self._sizes(part)
        if sizes.neighbours:
            usable = np.flatnonzero(found.usable)
            values, planes = values[usable], np.searchsorted(usable, planes)
        return self._tensor(window.of(channels_of(values, planes, sizes)))

    def _tensor(self, values: FloatArray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(self.device)
        return tensor.contiguous(memory_format=torch.channels_last)

    def _run(self, net: Callable[..., Tensor], *inputs: Tensor | int) -> Tensor:
        """Return the network's answer, float32, (B, C, h, w)."""
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
        ):
            return net(*inputs).float()


def mirrored(values: Tensor, flip: bool) -> Tensor:
    """Return (…, h, w) with left and right exchanged, or as it is."""
    return values.flip(-1) if flip else values


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
    dtype = fastest_safe(where)
    segmentation, synthesis = _networks(stem, card, data)
    for net in (*segmentation, *synthesis):
        if not net.decoder.head.weight.any():
            raise UnusableModel("MODEL_UNTRAINED", f"Model {stem} was never trained: its last layer is zero.")
        set_precision(net.eval().requires_grad_(False), where, dtype)
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


def _networks(
    stem: str, card: dict[str, Any], data: bytes
) -> tuple[tuple[MprVit, ...], tuple[MprVit | TaVit, ...]]:
    try:
        tensors = load_tensors(data)
        finder, maker = (Sizes.from_json(card["sizes"][part]) for part in ("segmentation", "synthesis"))
        _refuse_unlike(finder, maker)
        members = range(int(card["members"]))
        segmentation = tuple(MprVit(finder) for _ in members)
        synthesis = tuple(
            MprVit(maker, out_channels=OUTPUTS) if maker.latent == "none" else TaVit(maker) for _ in members
        )
        for member in members:
            segmentation[member].load_state_dict(_under(f"segmentation.{member}.", tensors))
            synthesis[member].load_state_dict(_under(f"synthesis.{member}.", tensors))
        if not synthesis:
            raise ValueError("A model without members answers nothing.")
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UnusableModel("MODEL_DAMAGED", f"The weights of model {stem} do not fit its card.") from error
    return segmentation, synthesis


def _refuse_unlike(segmentation: Sizes, synthesis: Sizes) -> None:
    """Refuse two networks of which the second cannot use what the first says."""
    if segmentation.size != synthesis.size:
        raise ValueError("Both networks look at the same grid.")
    if synthesis.latent == "features" and segmentation.width != synthesis.width:
        raise ValueError("Features are read from a network of the same width.")


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t.float() for name, t in tensors.items() if name.startswith(prefix)}
