"""`python -m training export`: two runs become ``NAME.safetensors`` and the card that vouches for it."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors

from synthesis.models.load import build
from training.data import split
from training.evaluate import evaluate
from training.fit import sizes_of
from training.recipes import RECIPES, Recipe

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
    "Trained on 8-bit images with the skull kept, each channel scaled by its own maximum: the true "
    "scale between pre- and post-contrast was lost, and T1C is scaled by its own brain level.",
    "The difference that is added to the T1W is a soft one, learnt on 2 mm pixels in minutes: vessels, rims "
    "and small lesions are blurred or missed. Scalp and other fat are not meant to change.",
    "The segmentation shows FLAIR abnormality, not enhancing tumour, and has false spots in the orbits, the "
    "face and the neck.",
    "The tumour maps that condition the synthesis were not predicted out of fold in training: first the"
    " drawn ones, then those of a network that had seen these patients; both perturbed (left out in 15 "
    "%, widened, narrowed, noise).",
)
LICENCE = (
    "Non-commercial research only. Learnt from the LGG MRI segmentation set (Buda 2019; TCGA-LGG: TCIA "
    "says CC BY 3.0, the derived set is believed CC BY-NC-SA 4.0) and from patches of BraTS 2020 "
    "(research, citation: Menze 2015, Bakas 2017 and 2018). No image of either is contained."
)
DATASET = (
    "lgg (patients with T1, FLAIR, T1C and SEG; DICOM, 8 bit, skull kept), and lesions of BraTS 2020 "
    "(`lesions`, patients 260–335 left out: low-grade, some of the same collection) transplanted into "
    "them"
)
NOTE = (
    "mean, SD over patients; identity is the T1W taken for the T1C; brain is the head's inside, tumour "
    "left out"
)


def export(
    source: Path, cache: Path, runs: Path, out: Path, name: str, synthesis: Recipe, segmentation: Recipe
) -> None:
    """Write weights (half precision) and card of the averaged weights, judged as shipped on the held-out.

    Raises
    ------
    FileNotFoundError
        When a run is missing.
    """
    tensors = {
        f"{recipe.network}.{key}": value.half().contiguous()
        for recipe in (segmentation, synthesis)
        for key, value in torch.load(runs / f"{recipe.name}.pt", weights_only=True)["average"].items()
    }
    data = save_tensors(tensors)
    sizes = {recipe.network: sizes_of(recipe).to_json() for recipe in (segmentation, synthesis)}
    train, held_out = split()
    cases = json.loads((cache / "lgg" / "cases.json").read_text(encoding="utf-8"))
    refused = {case["patient"]: case["refused"] for case in cases if case["refused"]}
    lesions = json.loads((cache / "lesions" / "cases.json").read_text(encoding="utf-8"))
    stages = [_stage(recipe, runs) for recipe in (*_chain(segmentation), *_chain(synthesis))]
    card: dict[str, Any] = {
        "name": name,
        "family": "TA-ViT conditioned on the latent of MPR-ViT's tumour map (reading B, map encoder)",
        "inputs": "T1W and FLAIR, axial planes of 120×120 pixels of 2 mm, each divided by its brain level",
        "outputs": "Δ = T1C/level − T1W/level, and the probability of FLAIR abnormality",
        "intended": INTENDED,
        "limits": list(LIMITS),
        "licence": LICENCE,
        "sizes": sizes,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    card["version"] = card["sha256"][:8]
    model = build(name, card, data, "cpu")
    card["trained"] = {
        "dataset": DATASET,
        "patients": len(train - set(refused)),
        "lesion_patients": len({case["patient"].rsplit("_", 1)[0] for case in lesions if case["count"]}),
        "refused": sorted(refused.values()),
        "steps": sum(stage["steps"] for stage in stages),
        "seconds": round(sum(stage["seconds"] for stage in stages)),
        "stages": stages,
        "validation": {
            "split": "training/folds/lgg.json, held out before any training",
            "note": NOTE,
            **evaluate(source, held_out, model),
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.safetensors").write_bytes(data)
    text = json.dumps(card, indent=1, ensure_ascii=False)
    (out / f"{name}.card.json").write_text(text + "\n", encoding="utf-8")
    log.info("%s: %.1f MB", name, len(data) / 1e6)


def _chain(recipe: Recipe) -> list[Recipe]:
    """Return the recipes of this network that led to it, first to last."""
    before = RECIPES.get(recipe.start_from)
    return [*(_chain(before) if before else []), recipe]


def _stage(recipe: Recipe, runs: Path) -> dict[str, Any]:
    state = torch.load(runs / f"{recipe.name}.pt", weights_only=True)
    return {
        "recipe": recipe.name,
        "maps": recipe.maps,
        "slices_per_step": recipe.batch,
        "steps": int(state["step"]),
        "seconds": round(float(state["seconds"])),
    }
