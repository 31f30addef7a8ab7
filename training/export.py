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
from training.arms import described, trained_folds
from training.data import folds
from training.prepare import read_cases
from training.recipes import RECIPES, Recipe
from training.run import path_of, weights_of

log = logging.getLogger(__name__)

INTENDED = (
    "Research on synthetic post-contrast T1 from a pre-contrast T1W and a FLAIR of adult brains with "
    "glioma, and trying out the node. Not for diagnosis, treatment, or any decision about a patient or "
    "an injection."
)
LIMITS = (
    "Contrast enhancement is NOT predicted reliably: a tumour that enhances may stay dark in the "
    "synthetic image, and one that does not may light up. Absence of enhancement in it means nothing.",
    "Few patients, from a handful of institutions; metastases, meningiomas, strokes, children, and "
    "brains after an operation were not seen.",
    "Trained on 8-bit images with the skull kept (a share of them with the skull masked away), each channel "
    "scaled by its own maximum: the true scale between pre- and post-contrast was lost, and T1C is scaled by "
    "its own brain level.",
    "The difference that is added to the T1W was learnt on 2 mm pixels: vessels, rims and small lesions are "
    "blurred or missed. Scalp and other fat are not meant to change.",
    "The segmentation shows FLAIR abnormality, not enhancing tumour; in some patients it misses it.",
    "The maps that condition the synthesis were predicted out of fold; a map of a training patient may come "
    "from a network that saw a patient of the held-out fold.",
)
LICENCE = (
    "Non-commercial research only. Learnt from the LGG MRI segmentation set (Buda 2019; TCGA-LGG: TCIA "
    "says CC BY 3.0, the derived set is believed CC BY-NC-SA 4.0) and from patches of BraTS 2020 "
    "(research, citation: Menze 2015, Bakas 2017 and 2018). No image of either is contained."
)
DATASET = (
    "lgg (patients with T1, FLAIR, T1C and SEG; DICOM, 8 bit, skull kept), and lesions of BraTS 2020 "
    "(`lesions`; patients 260–335 left out: low-grade, some of the same collection; every eighth held out), "
    "transplanted into the brains of lgg"
)


#: (slope, offset in tumour) of the log odds of enhancement. Half of the batches show tumour, and lesions that
#: enhance are transplanted: more enhances there than in patients. What is shown was chosen, cross-validated,
#: between recovery and false enhancement, the chance is a logistic regression on all tumours: LOG.md.
SHOWN, CALIBRATED = (1.0, -1.5), (0.413, -1.196)


def pack(
    name: str, synthesis: Recipe, segmentation: Recipe, cache: Path, runs: Path
) -> tuple[LoadedModel, bytes]:
    """Return the model of all folds as it will be loaded, its card not yet judged, and its weights' bytes.

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
    cases = read_cases(cache / "lgg")
    lesions = read_cases(cache / "lesions")
    everyone = frozenset().union(*folds(synthesis.folds))
    card: dict[str, Any] = {
        "name": name,
        "family": "TA-ViT conditioned on the latent of MPR-ViT's tumour map (reading B, map encoder); "
        "each member trained without one fold of the patients",
        "inputs": "T1W and FLAIR, axial planes of 120×120 pixels of 2 mm, each divided by its brain level",
        "outputs": "Δ = T1C/level − T1W/level, chance of enhancement, probability of FLAIR abnormality",
        "skull": "kept or stripped",
        "intended": INTENDED,
        "limits": list(LIMITS),
        "licence": LICENCE,
        **described(synthesis, segmentation, members),
        "mirrored": False,
        "shown": SHOWN,
        "calibrated": CALIBRATED,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    card["version"] = card["sha256"][:8]
    card["trained"] = {
        "dataset": DATASET,
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
