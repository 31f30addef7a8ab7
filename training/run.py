"""A training run: its network, one step of it, and its file, from which it goes on exactly."""

from __future__ import annotations

import copy
import hashlib
import math
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from synthesis.job import fsync_folder
from synthesis.models.blocks import ArtBlock, Decoder, Encoder, TransformerBlock
from synthesis.models.mpr_vit import SIZES, MprVit, Sizes
from synthesis.models.ta_vit import TaVit
from synthesis.models.uptake import OUTPUTS
from training.data import Batch
from training.distributed import ALONE, Ranks
from training.losses import answer, loss_of
from training.muon import optimisers_of
from training.recipes import RECIPES, Recipe
from training.unet import UNet

#: Gradients longer than this, all parameters together, are shortened to it.
LONGEST_GRADIENT = 1.0
#: The rate at the end, as a share of the highest.
LAST_RATE = 0.02


class Diverged(Exception):
    """The loss or its gradient is no number; the sentence says where."""


@dataclass(frozen=True)
class Best:
    """The averaged weights that did best on what is held out."""

    error: float
    step: int
    weights: dict[str, Tensor]


@dataclass
class Run:
    """A training run at some step: everything that the next step depends on.

    Nothing in a step draws from the global random generators: the batch follows from seed and step, and the
    networks have no dropout. So their states need not be kept.
    """

    recipe: Recipe
    net: nn.Module
    average: nn.Module
    optimisers: tuple[torch.optim.Optimizer, ...]
    ranks: Ranks
    #: `net` as the processes train it together.
    together: nn.Module
    step: int = 0
    seconds: float = 0.0
    #: Trained before, and not changed: the segmentation whose features the latent is read from.
    finder: MprVit | None = None
    #: Only of a recipe with patience.
    best: Best | None = None

    @property
    def gave_up(self) -> bool:
        """Whether the averaged weights have not improved for as long as the recipe has patience."""
        patience = self.recipe.patience * self.recipe.validate_every
        return bool(patience) and self.best is not None and self.step - self.best.step >= patience

    def judged(self, error: float) -> None:
        """Keep the averaged weights of this step if none did better. `error` is NaN in a run that is lost."""
        if self.recipe.patience and not (self.best and self.best.error <= error) and math.isfinite(error):
            weights = {name: value.cpu().clone() for name, value in self.average.state_dict().items()}
            self.best = Best(error, self.step, weights)

    def save(self, path: Path) -> None:
        """Write the run; whole or not at all, and durably.

        Raises
        ------
        OSError
            When there is no room; what was saved before stays.
        """
        state = {
            "recipe": self.recipe.name,
            "asked": asked(self.recipe),
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "seconds": self.seconds,
        }
        if self.best:
            state["best"] = {"error": self.best.error, "step": self.best.step, "weights": self.best.weights}
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # PyTorch makes a RuntimeError of a failed write
            partial.unlink(missing_ok=True)
            raise OSError(f"Step {self.step} could not be saved; {path} stays as it was: {error}") from error
        partial.rename(path)
        fsync_folder(path.parent)

    def load(self, path: Path) -> None:
        """Take up a saved run."""
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state["recipe"] != self.recipe.name:
            raise ValueError(f"{path.name} is of recipe {state['recipe']}, not of {self.recipe.name}.")
        if state.get("asked") != asked(self.recipe):
            raise ValueError(f"{self.recipe.name} was changed since {path} was begun: it cannot go on.")
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.best = Best(**state["best"]) if "best" in state else None


def asked(recipe: Recipe) -> str:
    """Return what changes when anything of a recipe does, but for what no recipe could say before."""
    said = {one.name: getattr(recipe, one.name) for one in fields(recipe)}
    own = {name: value for name, value in said.items() if value != getattr(Recipe, name, None)}
    return hashlib.sha256(repr(own).encode()).hexdigest()[:16]


def sizes_of(recipe: Recipe) -> Sizes:
    """Return the sizes of the recipe's network."""
    return replace(
        SIZES[recipe.sizes],
        size=recipe.grid,
        map_shrink=recipe.grid // SIZES[recipe.sizes].size if recipe.latent == "map" else 1,
        skips=recipe.skips,
        flair=recipe.flair,
        neighbours=recipe.neighbours,
        latent=recipe.latent,
        latent_stage=recipe.latent_stage,
    )


def network(recipe: Recipe) -> nn.Module:
    """Return the recipe's network, fresh."""
    sizes = sizes_of(recipe)
    match recipe.network:
        case "ta_vit":
            return TaVit(sizes)
        case "unet":
            return UNet(sizes)
        case "mpr_vit":
            return MprVit(sizes, out_channels=OUTPUTS)
        case "segmentation":
            return MprVit(sizes)


def start(recipe: Recipe, ranks: Ranks = ALONE) -> Run:
    """Return the run at step 0, the same on every machine."""
    torch.manual_seed(recipe.seed)
    net = network(recipe).to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(net)
    # on the CPU a compiled step takes 0.87 of the time, and each stage over 36 s to compile: not worth it
    if ranks.device.type == "cuda":
        compile_parts(net)
    return Run(recipe, net, average, optimisers_of(recipe, net), ranks, ranks.wrapped(net))


def compile_parts(net: nn.Module) -> None:
    """Compile what is computed alike at every place of a picture, for each stage's fixed shapes.

    Part by part: the positions of crops are looked up with numbers that differ from batch to batch, and a
    graph around them would be compiled again for each. The state keeps its names.
    """
    for module in [net] if isinstance(net, UNet) else net.modules():
        if isinstance(module, (UNet, Encoder, Decoder, TransformerBlock)):
            module.compile(dynamic=False)
        elif isinstance(module, ArtBlock):
            module.residual.compile(dynamic=False)


def inherit(net: nn.Module, weights: dict[str, Tensor], whole: bool) -> int:
    """Copy the weights whose name and shape agree; the head only from a network of the same kind.

    A first layer that sees more neighbours begins with what it had learnt of fewer, and without the others.
    """
    own = net.state_dict()
    first = "encoder.stages.0.weight"
    if first in own and first in weights and weights[first].shape[1] < own[first].shape[1]:
        wider = torch.zeros_like(own[first])
        wider[:, : weights[first].shape[1]] = weights[first]
        weights = {**weights, first: wider}
    same = {
        name: value
        for name, value in weights.items()
        if name in own and own[name].shape == value.shape and (whole or not name.startswith("decoder.head"))
    }
    net.load_state_dict(own | same)
    return len(same)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the rate of this step: linear warm-up, then half a cosine to 2 %."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    along = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * along)))


def step(run: Run, batch: Batch) -> float:
    """Do one step of optimisation on the whole batch; return the loss before it.

    Raises
    ------
    Diverged
        When the loss or its gradient is no number; the run is left as it was before the step.
    """
    run.net.train()
    for optimiser in run.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(run.recipe, run.step)
        optimiser.zero_grad()
    device = run.ranks.device
    own = answer(run.together, run.ranks.share(batch).to(device), run.net, run.finder)
    loss = loss_of(run.ranks.gathered(own), batch.to(device), run.recipe.loss)
    # the processes' gradients are averaged, and should be added
    (loss * run.ranks.count).backward()  # type: ignore[no-untyped-call]
    length = nn.utils.clip_grad_norm_(run.net.parameters(), LONGEST_GRADIENT)
    if not bool(torch.isfinite(loss.detach() + length)):
        raise Diverged(
            f"Step {run.step} of {run.recipe.name} has loss {loss.item():.3g} and a gradient of length "
            f"{float(length):.3g}: a voxel of its batch is no number, or the learning rate is too high."
        )
    for optimiser in run.optimisers:
        optimiser.step()
    keep = min(run.recipe.ema, (1 + run.step) / (10 + run.step))
    follow = get_ema_multi_avg_fn(keep)  # type: ignore[no-untyped-call]
    follow(list(run.average.parameters()), list(run.net.parameters()), run.step)
    run.step += 1
    return float(loss.detach())


def path_of(recipe: Recipe, runs: Path, fold: int | None) -> Path:
    """Return where the run of a recipe is kept; without a fold it is trained on all patients."""
    return runs / (recipe.name if fold is None else f"{recipe.name}-fold{fold}") / "run.pt"


def kept_weights(recipe: Recipe, runs: Path, fold: int | None) -> dict[str, Tensor]:
    """Return the weights that a run's file answers with: averaged, the best of them where that was judged.

    Raises
    ------
    FileNotFoundError
        When there is no such run.
    ValueError
        When the recipe was changed since, or the run has not ended: nobody would know what was judged.
    """
    path = path_of(recipe, runs, fold)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: {path.parent.name} was not trained yet.")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state.get("asked") != asked(recipe):
        raise ValueError(f"{recipe.name} was changed since {path} was trained.")
    if state["step"] < recipe.steps and not recipe.patience:
        raise ValueError(f"{path} is at step {state['step']} of {recipe.steps}: go on with --resume.")
    return cast(dict[str, Tensor], state["best"]["weights"] if "best" in state else state["average"])


def weights_at_start(recipe: Recipe, runs: Path, fold: int | None) -> dict[str, Tensor]:
    """Return the weights that this recipe starts from: of the same fold, or of none.

    Raises
    ------
    FileNotFoundError
        When there is no run of the recipe before.
    """
    before = RECIPES[recipe.start_from]
    for own in (fold, None):
        if path_of(before, runs, own).exists():
            return weights_of(before, runs, own)
    raise FileNotFoundError(f"{recipe.name} starts from {before.name}, which was not trained yet.")


def weights_of(recipe: Recipe, runs: Path, fold: int | None) -> dict[str, Tensor]:
    """Return the weights that a recipe's network answers with.

    Raises
    ------
    FileNotFoundError
        When the run is missing, or with `both_ends` the one that it started from.
    """
    own = kept_weights(recipe, runs, fold)
    if not recipe.both_ends:
        return own
    before = weights_at_start(recipe, runs, fold)
    return {name: (value + before[name]) / 2 for name, value in own.items()}


def averaged(recipe: Recipe, runs: Path, fold: int | None = None) -> nn.Module:
    """Return the averaged weights of a run, ready to answer on the CPU."""
    net = network(recipe)
    net.load_state_dict(weights_of(recipe, runs, fold))
    return cast(nn.Module, net.eval().to(memory_format=torch.channels_last))  # type: ignore[call-overload]
