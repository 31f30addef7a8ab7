"""What is judged beside each other: weights that ship, runs by folds, baselines, and what none can pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthesis.models.load import LoadedModel, Prediction
from synthesis.preprocess import ModelInput
from training import figures
from training.compare import IDENTITY
from training.data import T1, T1C, TUMOUR, Slices, folds, judged
from training.prepare import Exam, Patient, target_on_grid
from training.recipes import Recipe
from training.run import averaged, path_of, sizes_of

#: A map says yes above this.
YES = 0.5


@dataclass(frozen=True)
class Subject:
    """An exam that is judged on; a follow-up is one of its own."""

    exam: Exam
    patient: Patient


@dataclass(frozen=True)
class Arm:
    """What is judged under one name: a model, a model by folds, a baseline."""

    name: str
    #: Rows and columns of the model grid on which it answers.
    size: int
    #: Its answer for a patient on that grid, by what never saw him in training.
    answer: Callable[[Subject, ModelInput], Prediction]


def cross_validated(model: LoadedModel, name: str = "model") -> Arm:
    """Return the arm in which every patient is judged by the member of the model that did not see him.

    A patient who stands in no fold was seen by no member, and is judged by all of them together.

    Raises
    ------
    ValueError
        By its answer, for a patient whom all members of the model have seen.
    """
    unseeing = _by_fold(model)
    last: list[tuple[ModelInput, Prediction]] = []

    def answer(subject: Subject, found: ModelInput) -> Prediction:
        if not last or last[0][0] is not found:  # else `uptake_on_map` asks for what was just answered
            last[:] = [(found, unseeing(subject.exam.patient).predict(found))]
        return last[0][1]

    return Arm(name, model.size, answer)


def identity(size: int) -> Arm:
    """Return the arm that takes the T1W for the T1C."""

    def answer(subject: Subject, found: ModelInput) -> Prediction:
        nothing = np.zeros(found.inside.shape, dtype=np.float32)
        return Prediction(delta=nothing, chance=nothing, spread=nothing, tumour=nothing)

    return Arm(IDENTITY, size, answer)


def uptake_on_map(arm: Arm, uptake: Callable[[str], float]) -> Arm:
    """Return the arm T1W + mean uptake × the tumour map that another arm predicts.

    Parameters
    ----------
    arm : Arm
        Whose map it is.
    uptake : callable
        The mean uptake to use for a patient, learnt from others: `mean_uptake`.
    """

    def answer(subject: Subject, found: ModelInput) -> Prediction:
        tumour = arm.answer(subject, found).tumour
        delta = np.float32(uptake(subject.exam.patient)) * tumour
        return Prediction(delta=delta, chance=tumour, spread=np.zeros_like(delta), tumour=tumour)

    return Arm("uptake-on-map", arm.size, answer)


def drawn_map(model: LoadedModel, name: str = "drawn-map") -> Arm:
    """Return the arm in which the synthesis is told the tumour as it was drawn: no better map can be had."""
    unseeing = _by_fold(model)

    def answer(subject: Subject, found: ModelInput) -> Prediction:
        tumour = np.clip(target_on_grid(subject.patient, found)[1], 0.0, 1.0)
        made = unseeing(subject.exam.patient).synthesise(found, tumour)
        return Prediction(delta=made.delta, chance=made.chance, spread=made.spread, tumour=tumour)

    return Arm(name, model.size, answer)


def true_change(size: int) -> Arm:
    """Return the arm that knows the T1C, on the model grid: what a perfect network of that size reaches."""

    def answer(subject: Subject, found: ModelInput) -> Prediction:
        t1c, tumour, _ = target_on_grid(subject.patient, found)
        delta = (t1c - found.values[:, 0]) * (found.inside & found.usable[:, None, None])
        chance = (delta > figures.ENHANCING).astype(np.float32)
        return Prediction(
            delta=delta, chance=chance, spread=np.zeros_like(delta), tumour=np.clip(tumour, 0.0, 1.0)
        )

    return Arm("true-change", size, answer)


def mean_uptake(cache: Path, parts: Sequence[frozenset[str]]) -> Callable[[str], float]:
    """Return what gives the mean uptake in the drawn tumours of the patients outside a patient's fold.

    Parameters
    ----------
    cache : Path
        Of `prepare_patients`. Patients that it refused have no part in it.
    parts : sequence of frozenset of str
        For a patient in none of them, all patients count.
    """
    slices = Slices(cache, frozenset().union(*parts))
    found = {}
    for name, own in zip(slices.patients, slices.with_tumour, strict=True):
        stacks = [slices.channels(int(index)) for index in own]
        uptake = [(stack[T1C] - stack[T1])[stack[TUMOUR] > YES] for stack in stacks]
        if uptake:
            found[name] = float(np.concatenate(uptake).mean())

    def of(patient: str) -> float:
        own: frozenset[str] = next((part for part in parts if patient in part), frozenset())
        return float(np.mean([mean for name, mean in found.items() if name not in own]))

    return of


def trained_folds(recipe: Recipe, runs: Path) -> tuple[int, ...]:
    """Return the folds that this recipe was trained without, so far.

    Raises
    ------
    FileNotFoundError
        When there is none.
    """
    found = tuple(fold for fold in range(len(folds(recipe.folds))) if path_of(recipe, runs, fold).exists())
    if not found:
        raise FileNotFoundError(f"{recipe.name} was not trained yet: `fit {recipe.name} --fold 0` and so on.")
    return found


def trained(synthesis: Recipe, segmentation: Recipe, runs: Path) -> LoadedModel:
    """Return the model of two recipes: a member for each fold that the synthesis was trained without.

    Raises
    ------
    FileNotFoundError
        When a run is missing.
    ValueError
        When the two recipes do not hold out the same patients.
    """
    if synthesis.folds != segmentation.folds:
        raise ValueError(f"{synthesis.name} and {segmentation.name} do not hold out the same patients.")
    members = trained_folds(synthesis, runs)
    return LoadedModel(
        name=synthesis.name,
        version="run",
        digest="",
        card=described(synthesis, segmentation, members),
        segmentation=tuple(averaged(segmentation, runs, fold) for fold in members),
        synthesis=tuple(averaged(synthesis, runs, fold) for fold in members),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def described(synthesis: Recipe, segmentation: Recipe, members: tuple[int, ...]) -> dict[str, Any]:
    """Return what the card says of the networks' shapes and of whom each did not see."""
    sizes = sizes_of(synthesis)
    if synthesis.network != "ta_vit":
        sizes = replace(sizes, latent="none")
    return {
        "members": len(members),
        "sizes": {"segmentation": sizes_of(segmentation).to_json(), "synthesis": sizes.to_json()},
        "folds": {
            "file": f"training/folds/{synthesis.folds}.json",
            "held_out": [sorted(judged(fold, synthesis.folds)) for fold in members],
        },
    }


def _by_fold(model: LoadedModel) -> Callable[[str], LoadedModel]:
    known = model.card.get("folds")
    held_out = [frozenset(fold) for fold in known["held_out"]] if known else []
    everyone = frozenset().union(*folds(Path(known["file"]).stem)) if known else frozenset()
    members = [model.only(member) for member in range(len(held_out))]

    def unseeing(patient: str) -> LoadedModel:
        for member, fold in zip(members, held_out, strict=True):
            if patient in fold:
                return member
        if patient in everyone:
            raise ValueError("All members of the model were trained on a patient who is to judge it.")
        return model

    return unseeing
