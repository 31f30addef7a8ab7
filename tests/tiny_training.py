"""A training of seconds: a small network, made-up patients in the real folds, lesions; also as a program.

``python -m torch.distributed.run … tiny_training.py WORK STEPS`` trains in ``WORK/runs`` from ``WORK/cache``,
in float32, without clipping.
``python tiny_training.py WORK save`` writes the run's file again and again, until it is killed.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch

import training.run
from synthesis.models.mpr_vit import SIZES, Sizes
from training.data import folds
from training.fit import fit
from training.recipes import RECIPES, Recipe, Stage
from training.run import path_of, start

SIZE, SLICES, LESION = 120, 4, 32
SIZES_TINY = Sizes(size=SIZE, width=8, blocks=2, transformers_at=(1,), dim=64, heads=1, depth=1, tokens=30)
FOLD = 0

RECIPE = Recipe(
    "ta_vit",
    (Stage("heads", 3, 4), Stage("heads", 3, 2)),
    name="tiny",
    sizes="tiny",
    maps="drawn",
    learning_rate=3e-3,
    warmup=2,
    transplants=0.5,
    validate_every=3,
)


def enter(recipe: Recipe = RECIPE) -> None:
    """Make size and recipe known in this process."""
    SIZES["tiny"] = SIZES_TINY
    RECIPES[recipe.name] = recipe


def write_cache(folder: Path) -> Path:
    """Write what `prepare` writes: a patient of each fold, four lesions, the last one held out."""
    random = np.random.default_rng(0)
    lgg, lesions = folder / "lgg", folder / "lesions"
    for made in (lgg, lesions):
        made.mkdir(parents=True)
    patients = [min(fold) for fold in folds()]
    shape = (SLICES * len(patients), SIZE, SIZE)
    inside, brain, tumour = (np.zeros(shape, np.uint8) for _ in range(3))
    inside[:, 10:110, 15:105], brain[:, 20:100, 25:95], tumour[:, 40:60, 50:75] = 1, 1, 255
    head = inside * random.uniform(0.8, 1.2, shape)
    flair = head + 0.6 * (tumour > 0)
    t1c = head + 0.5 * (tumour > 0) * (np.arange(len(head)) % 2 == 0)[:, None, None]
    np.save(lgg / "values.npy", np.stack([head, flair], axis=1).astype(np.float16))
    np.save(lgg / "t1c.npy", t1c.astype(np.float16))
    for name, values in (("tumour", tumour), ("brain", brain), ("inside", inside)):
        np.save(lgg / f"{name}.npy", values)
    _write_cases(lgg, {patient: SLICES for patient in patients})

    mask = np.zeros((4, LESION, LESION), np.uint8)
    mask[:, 10:22, 10:22] = 2
    np.save(lesions / "values.npy", np.ones((4, 2, LESION, LESION), np.float16))
    np.save(lesions / "t1c.npy", np.float16(1) + mask.astype(np.float16) / 2)
    np.save(lesions / "mask.npy", mask)
    np.save(lesions / "inside.npy", np.ones_like(mask))
    _write_cases(lesions, {f"BraTS20_{number:03d}_lesion{number}": 1 for number in (1, 2, 3, 8)})
    return folder


def _write_cases(folder: Path, counts: dict[str, int]) -> None:
    cases, first = [], 0
    for patient, count in counts.items():
        cases.append({"patient": patient, "first": first, "count": count, "refused": ""})
        first += count
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")


def main(work: Path, what: str) -> None:
    """Train so many steps, or save for ever."""
    enter()
    path = path_of(RECIPE, work / "runs", FOLD)
    if what != "save":
        del torch.cpu._is_avx512_bf16_supported
        training.run.LONGEST_GRADIENT = math.inf
        fit(RECIPE, work / "cache", work / "runs", False, FOLD, most_steps=int(what))
        return
    run = start(RECIPE)
    path.parent.mkdir(parents=True)
    while True:
        run.step += 1
        run.save(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
