"""What `evaluate` and `export` put together: which arms are judged on whom, and what the card says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthesis.models.load import LoadedModel, load_model
from training.arms import Arm, cross_validated, drawn_map, mean_uptake, trained, uptake_on_map
from training.calibrate import calibrate, fit_chance
from training.compare import by_patient
from training.data import folds
from training.evaluate import Evaluation, evaluate, summary
from training.export import pack, save
from training.figures import Group
from training.prepare import Exam, find_exams
from training.recipes import Recipe
from training.report import write_report
from training.words import Words

#: What the card says of its figures.
CROSS_VALIDATED = (
    "cross-validated: each patient judged by the one member that did not see him (a new patient "
    "is answered by all together); what is shown was chosen on the same patients; mean, standard "
    "deviation and bootstrap interval over patients, on the T1W's own grid; over_identity: paired "
    "difference to the T1W taken for the T1C"
)


def judge_model(name: str, source: Path, cache: Path, out: Path, baseline: Arm | None) -> Path:
    """Report on weights that ship, by patients that they never saw; return the page.

    A patient who was held out is judged by the member that did not see him, any other by all together.

    Parameters
    ----------
    name : str
        Of the model.
    source : Path
        Folder of the exams.
    cache : Path
        Of the patients that it was trained on, for the baseline "mean uptake × map".
    out : Path
        Folder of the report.
    baseline : Arm, optional
        The U-Net that stands beside it: `unet`.
    """
    model = load_model(name, "cpu")
    seen = frozenset().union(*folds(Path(model.card["folds"]["file"]).stem)) - _held_out(model)
    exams = [exam for exam in find_exams(source) if exam.patient not in seen]
    if not exams:
        raise FileNotFoundError(f"{source} holds nobody on whom {model.name} was not trained.")
    found = evaluate(exams, _arms(model, cache, baseline))
    return write_report(found, out, f"Model {model.name} {model.version}, on patients that it never saw.")


def judge_arms(
    recipes: Sequence[Recipe],
    segmentation: Recipe,
    source: Path,
    cache: Path,
    runs: Path,
    out: Path,
    baseline: Arm | None,
) -> Path:
    """Report on runs beside each other, on the patients that all of them held out; return the page.

    An oracle is told the tumour as it was drawn, as in training. `cache` is of the same patients, for the
    baseline "mean uptake × map". `baseline`, a U-Net, stands beside them.
    """
    models = [trained(recipe, segmentation, runs) for recipe in recipes]
    patients = frozenset.intersection(*(_held_out(model) for model in models))
    arms = [
        (drawn_map if recipe.is_oracle else cross_validated)(model, recipe.name)
        for model, recipe in zip(models, recipes, strict=True)
    ]
    arms.append(uptake_on_map(arms[0], mean_uptake(cache, folds(recipes[0].folds))))
    if baseline:
        arms.append(baseline)
    found = evaluate(_exams(source, patients), arms)
    return write_report(
        found, out, f"Runs of {', '.join(recipe.name for recipe in recipes)}, held-out patients."
    )


def unet(recipe: Recipe, segmentation: Recipe, runs: Path) -> Arm:
    """Return the U-Net that no figure should stand without, every patient judged by the fold without him.

    Raises
    ------
    FileNotFoundError
        When it was not trained.
    ValueError
        When a run has not ended, or the two recipes do not hold out the same patients.
    """
    return cross_validated(trained(recipe, segmentation, runs), recipe.name)


def export(
    name: str,
    synthesis: Recipe,
    segmentation: Recipe,
    source: Path,
    cache: Path,
    runs: Path,
    out: Path,
    words: Words,
    baseline: Recipe,
    elsewhere: tuple[Recipe, Recipe] | None,
) -> None:
    """Write the weights of all folds and their card, judged as they ship; the report lies beside the runs.

    Parameters
    ----------
    baseline : Recipe
        A U-Net.
    elsewhere : (Recipe, Recipe), optional
        A synthesis and a segmentation that held an institution out: what they do there goes on the card too.
    """
    beside = unet(baseline, segmentation, runs)
    model, data = pack(name, synthesis, segmentation, cache, runs, words)
    exams = _exams(source, _held_out(model))
    model.card["calibrated"] = fit_chance(cross_validated(model), exams)
    arms = _arms(model, cache / synthesis.data, beside)
    found = evaluate(exams, arms)
    write_report(found, runs.parent / f"report-{name}", f"Model {name} {model.version}, cross-validated.")
    model.card["trained"]["validation"] = {"note": CROSS_VALIDATED, **summary(found)}
    if elsewhere:
        model.card["trained"]["elsewhere"] = _elsewhere(*elsewhere, source, cache, runs)
    model.card["limits"].append(falsely_lit(found))
    save(replace(model, card=model.card | calibrate(arms[0], exams)), data, out)


def _elsewhere(
    synthesis: Recipe, segmentation: Recipe, source: Path, cache: Path, runs: Path
) -> dict[str, Any]:
    """Return, for the card, how these do on patients of the institutions that they never saw."""
    model = trained(synthesis, segmentation, runs)
    own = cross_validated(model)
    uptake = mean_uptake(cache / synthesis.data, folds(synthesis.folds))
    found = evaluate(_exams(source, _held_out(model)), [own, uptake_on_map(own, uptake)])
    return {
        "note": f"an institution held out ({synthesis.folds}): not these weights, but {synthesis.name} and "
        f"{segmentation.name}, {synthesis.steps} and {segmentation.steps} steps; nothing was chosen by them",
        **summary(found),
    }


def falsely_lit(found: Evaluation) -> str:
    """Return how much of the tumours that do not enhance the arm under test lights up, as a sentence."""
    rows = by_patient(found.rows, found.arms[0]).values()
    volumes = [row.figures["false_ml"] for row in rows if row.group is Group.NONE]
    return (
        f"In the {len(volumes)} tumours of patients never seen that do not enhance, "
        f"{sum(volumes) / max(1, len(volumes)):.2f} mL lit up falsely on average, "
        f"{max(volumes, default=0.0):.2f} mL at most."
    )


def _arms(model: LoadedModel, cache: Path, baseline: Arm | None) -> list[Arm]:
    held_out = [frozenset(fold) for fold in model.card["folds"]["held_out"]]
    own = cross_validated(model)
    arms = [own, uptake_on_map(own, mean_uptake(cache, held_out)), drawn_map(model)]
    return [*arms, baseline] if baseline else arms


def _held_out(model: LoadedModel) -> frozenset[str]:
    return frozenset().union(*map(frozenset, model.card["folds"]["held_out"]))


def _exams(source: Path, patients: frozenset[str]) -> list[Exam]:
    found = [exam for exam in find_exams(source) if exam.patient in patients]
    if not found:
        raise FileNotFoundError(f"{source} holds none of the {len(patients)} patients to judge on.")
    return found
