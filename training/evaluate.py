"""`python -m training evaluate`: the figures of held-out patients, on the T1W's own grid, beside identity."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from synthesis.models.load import LoadedModel
from synthesis.preprocess import FloatArray, brain_region, level_in, to_model_grid
from synthesis.restore import restore, restore_map
from training.figures import Enhancement, Region, enhancement, in_region
from training.prepare import read_patient

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """One patient's figures: of the model, and of the T1W taken for the T1C."""

    brain: Region
    brain_identity: Region
    tumour: Region
    tumour_identity: Region
    enhancement: Enhancement
    #: Dice of the predicted tumour map at 0.5 with the drawn FLAIR abnormality.
    dice: float


@dataclass(frozen=True)
class Volumes:
    """One patient's volumes, (D, H, W), divided by the brain level, for looking at them."""

    t1: FloatArray
    flair: FloatArray
    tumour_map: FloatArray
    predicted: FloatArray
    t1c: FloatArray


def judge(folder: Path, model: LoadedModel) -> tuple[Judged, Volumes]:
    """Return the figures and the volumes of one patient's folder."""
    patient = read_patient(folder)
    found = to_model_grid(patient.t1, patient.flair, model.size)
    prediction = model.predict(found)
    t1c_image = restore(prediction.delta, found.grid, patient.t1, found.t1_level)
    tumour_map = restore_map(prediction.tumour, found.grid, patient.t1)

    t1, flair, t1c, predicted, chance = (
        sitk.GetArrayFromImage(image)
        for image in (patient.t1, patient.flair, patient.t1c, t1c_image, tumour_map)
    )
    planes = found.usable & (t1c > 0).any(axis=(1, 2))
    region = brain_region(patient.t1) & planes[:, None, None]
    drawn = (sitk.GetArrayFromImage(patient.tumour) > 0) & planes[:, None, None]
    healthy = region & ~drawn
    t1_level, t1c_level = level_in(t1, healthy), level_in(t1c, healthy)
    t1, predicted, t1c = t1 / t1_level, predicted / t1_level, t1c / t1c_level
    peak = float(np.percentile(t1c[region], 99.5))
    voxel_ml = float(np.prod(patient.t1.GetSpacing())) / 1000
    found_tumour = chance > 0.5
    judged = Judged(
        brain=in_region(predicted, t1c, healthy, peak),
        brain_identity=in_region(t1, t1c, healthy, peak),
        tumour=in_region(predicted, t1c, drawn, peak),
        tumour_identity=in_region(t1, t1c, drawn, peak),
        enhancement=enhancement(predicted, t1, t1c, drawn, voxel_ml),
        dice=float(2 * (found_tumour & drawn).sum() / max(1, found_tumour.sum() + drawn.sum())),
    )
    return judged, Volumes(t1, flair / found.flair_level, chance, predicted, t1c)


def summary(judged: Iterable[Judged]) -> dict[str, object]:
    """Return mean and standard deviation over patients of every figure, as the card holds them."""
    all_of_them = list(judged)
    out: dict[str, object] = {"patients": len(all_of_them)}
    for name in ("brain", "brain_identity", "tumour", "tumour_identity"):
        regions = [asdict(getattr(one, name)) for one in all_of_them]
        out[name] = {figure: _mean_sd([region[figure] for region in regions]) for figure in regions[0]}
    counting = [one.enhancement for one in all_of_them if one.enhancement.counts]
    out["enhancement"] = {
        "enhancing_patients": len(counting),
        "auc": _mean_sd([one.auc for one in counting]),
        "recovery": _mean_sd([one.recovery for one in counting]),
        "false_enhancement_ml": _mean_sd([one.enhancement.false_ml for one in all_of_them]),
    }
    out["tumour_map_dice"] = _mean_sd([one.dice for one in all_of_them])
    return out


def evaluate(source: Path, patients: Iterable[str], model: LoadedModel) -> dict[str, object]:
    """Return the summary over these patients' folders in `source`."""
    judged = []
    for number, patient in enumerate(sorted(patients), 1):
        judged.append(judge(source / patient, model)[0])
        one = judged[-1]
        log.info(
            "patient %d: brain %.1f dB (identity %.1f), tumour %.1f (%.1f), NCC %.2f (%.2f), AUC %.2f, "
            "recovery %.2f, false %.1f mL, Dice %.2f",
            number,
            *(one.brain.psnr_in_region, one.brain_identity.psnr_in_region),
            *(one.tumour.psnr_in_region, one.tumour_identity.psnr_in_region),
            *(one.tumour.ncc, one.tumour_identity.ncc, one.enhancement.auc, one.enhancement.recovery),
            *(one.enhancement.false_ml, one.dice),
        )
    return summary(judged)


def _mean_sd(values: list[float]) -> list[float]:
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return []
    return [round(float(np.mean(finite)), 4), round(float(np.std(finite)), 4)]
