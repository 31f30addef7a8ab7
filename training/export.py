"""`python -m training export`: the runs of all folds become weights, and the card that vouches for them."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors

from synthesis.models.load import LoadedModel, build
from synthesis.preprocess import FIELD_MM
from training.arms import described, trained_folds
from training.data import folds
from training.prepare import read_cases
from training.recipes import RECIPES, Recipe
from training.run import path_of, sizes_of, weights_of
from training.words import Words

log = logging.getLogger(__name__)


#: By the latent of the synthesis.
FAMILY = {
    "map": "TA-ViT conditioned on the latent of MPR-ViT's tumour map (reading B, map encoder)",
    "features": "TA-ViT conditioned on features of the MPR-ViT that finds the tumour (reading A)",
    "none": "MPR-ViT",
}


def pack(
    name: str, synthesis: Recipe, segmentation: Recipe, cache: Path, runs: Path, words: Words
) -> tuple[LoadedModel, bytes]:
    """Return the model of all folds as it will be loaded, its card not yet judged, and its weights' bytes.

    `cache` holds the caches of all data.

    Raises
    ------
    FileNotFoundError
        When a run is missing.
    """
    members = trained_folds(synthesis, runs)
    tensors = {
        f"{part}.{member}.{key}": value.half().contiguous()
        for part, recipe in (("segmentation", segmentation), ("synthesis", synthesis))
        for member, fold in enumerate(members)
        for key, value in weights_of(recipe, runs, fold).items()
    }
    data = save_tensors(tensors)
    stages = [_stage(recipe, runs, fold) for recipe, fold in _chain(segmentation, synthesis, members, runs)]
    cases = read_cases(cache / synthesis.data)
    lesions = read_cases(cache / "lesions") if (cache / "lesions").exists() else []
    sizes, shapes = sizes_of(synthesis), described(synthesis, segmentation, members)
    everyone = frozenset().union(*folds(synthesis.folds))
    card: dict[str, Any] = {
        "name": name,
        "family": f"{FAMILY[shapes['sizes']['synthesis']['latent']]}; "
        "each member trained without one fold of the patients",
        "inputs": f"T1W{' and FLAIR' * synthesis.flair}, axial planes of {sizes.size}×{sizes.size} pixels of "
        f"{FIELD_MM / sizes.size:g} mm, each divided by its brain level; planes above and below: "
        f"{segmentation.neighbours} for the segmentation, {synthesis.neighbours} for the synthesis",
        "outputs": "Δ = T1C/level − T1W/level, chance of enhancement, probability of FLAIR abnormality",
        "skull": "kept or stripped",
        "intended": words.intended,
        "limits": list(words.limits),
        "licence": words.licence,
        **shapes,
        "mirrored": False,
        "shown": words.shown,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    card["version"] = card["sha256"][:8]
    card["trained"] = {
        "dataset": words.dataset,
        "patients": sum(case.count > 0 and case.patient in everyone for case in cases),
        "lesion_patients": len({case.patient.rsplit("_", 1)[0] for case in lesions if case.count}),
        "refused": sorted(case.refused for case in cases if case.refused),
        "steps": sum(stage["steps"] for stage in stages),
        "seconds": round(sum(stage["seconds"] for stage in stages)),
        "runs": stages,
    }
    return build(name, card, data, "cpu"), data


def save(model: LoadedModel, data: bytes, out: Path) -> None:
    """Write weights and card, whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(model.card, indent=1, ensure_ascii=False) + "\n"
    for path, content in (
        (out / f"{model.name}.safetensors", data),
        (out / f"{model.name}.card.json", text.encode("utf-8")),
    ):
        partial = path.with_name(f".{path.name}")
        partial.write_bytes(content)
        partial.rename(path)
    log.info("%s: %.1f MB", model.name, len(data) / 1e6)


def _chain(
    segmentation: Recipe, synthesis: Recipe, members: tuple[int, ...], runs: Path
) -> list[tuple[Recipe, int | None]]:
    """Return every run that led to the weights, first to last."""
    chain: list[tuple[Recipe, int | None]] = []
    for recipe in (segmentation, synthesis):
        chain += [(recipe, fold) for fold in members]
        while recipe.start_from:
            recipe = RECIPES[recipe.start_from]
            own: tuple[int | None, ...] = tuple(m for m in members if path_of(recipe, runs, m).exists())
            chain = [*((recipe, fold) for fold in own or (None,)), *chain]
    return chain


def _stage(recipe: Recipe, runs: Path, fold: int | None) -> dict[str, Any]:
    state = torch.load(path_of(recipe, runs, fold), map_location="cpu", weights_only=True)
    return {
        "recipe": recipe.name,
        "fold": fold,
        "steps": int(state["step"]),
        "of": recipe.steps,
        "seconds": round(float(state["seconds"])),
    }
