"""One patient's volumes, what the networks shall make of them, and whether the two can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from synthesis.errors import RefusedInput
from synthesis.preprocess import BoolArray, FloatArray, ModelInput, brain_region, level_in, onto
from training import figures
from training.figures import Group
from training.prepare.labels import CAVITY, ENHANCING, NONE, UNKNOWN

#: T1W and T1C of one patient correlate above this in the brain, whatever the sequence.
LEAST_CORRELATION = 0.15
#: Volumes of one patient that correlate above this are one, stored twice: in `lgg` 0.89 is the most.
SAME_VOLUME = 0.9999
#: Air at the edge of the planes shows less than this share of the brain level (in `lgg` 0.17, once 0.98):
#: more is an offset, and ratios mean nothing.
HIGHEST_PEDESTAL = 0.3
#: Share of the tumour that must lie in the head.
LEAST_IN_HEAD = 0.5


@dataclass(frozen=True)
class Patient:
    """One patient's volumes on the T1W's own grid."""

    t1: sitk.Image
    flair: sitk.Image
    t1c: sitk.Image
    #: The whole tumour (in `lgg` the FLAIR abnormality), uint8; zeros where nobody segmented.
    tumour: sitk.Image
    #: Its parts, uint8, as `training.prepare.labels` names them; None where the source has none.
    labels: sitk.Image | None = None
    #: Whether somebody segmented: no tumour is not the same as none drawn.
    labelled: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What patients are stratified by."""

    tumour_ml: float
    enhancing_ml: float
    #: Whether the tumour enhances by the rule of the figures: ``none``, ``some``, ``clear``.
    group: Group


def target_on_grid(patient: Patient, found: ModelInput) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return (T1C / its own brain level, tumour 0–1, brain 0/1) on the model grid, each (D, S, S).

    Raises
    ------
    RefusedInput
        ``NO_PLANES`` when T1W and FLAIR show no brain in common, ``PAIR_DIFFERS`` when T1W and T1C do not
        belong together, ``SAME_VOLUME`` when two of the three images are one, ``PEDESTAL`` when T1W or T1C
        has an offset.
    """
    region = brain_region(patient.t1)
    marked = sitk.GetArrayViewFromImage(patient.tumour) > 0
    t1c_level = level_in(sitk.GetArrayViewFromImage(patient.t1c), region & ~marked)
    brain = sitk.GetImageFromArray(region.astype(np.float32))
    brain.CopyInformation(patient.t1)
    t1c = onto(patient.t1c, found.grid) / np.float32(t1c_level)
    tumour = onto(sitk.Cast(patient.tumour, sitk.sitkFloat32), found.grid)
    inner = (onto(brain, found.grid) > 0.5).astype(np.float32)
    where = (inner > 0) & found.usable[:, None, None]
    if not where.any():
        raise RefusedInput("NO_PLANES", "No plane shows the brain in T1W and FLAIR.")
    _refuse_pair(found.values[:, 0][where], found.values[:, 1][where], t1c[where])
    for name, image, level in (("T1W", patient.t1, found.t1_level), ("T1C", patient.t1c, t1c_level)):
        _refuse_pedestal(name, image, level)
    return t1c, tumour, inner


def labels_on_grid(patient: Patient, grid: sitk.Image) -> npt.NDArray[np.uint8]:
    """Return the parts of the tumour on the model grid, (D, S, S): each pixel the largest of its shares."""
    shape = grid.GetSize()[::-1]
    if not patient.labelled:
        return np.full(shape, UNKNOWN, dtype=np.uint8)
    labels = patient.tumour * UNKNOWN if patient.labels is None else patient.labels
    values = np.unique(sitk.GetArrayViewFromImage(labels))
    values = values[values != NONE]
    if not values.size:
        return np.zeros(shape, dtype=np.uint8)
    shares = np.stack([onto(sitk.Cast(labels == int(value), sitk.sitkFloat32), grid) for value in values])
    return np.where(shares.sum(axis=0) > 0.5, values[shares.argmax(axis=0)], NONE).astype(np.uint8)


def facts_of(patient: Patient, found: ModelInput) -> Facts:
    """Return the facts of a segmented patient.

    Raises
    ------
    RefusedInput
        ``LABELS_ELSEWHERE`` when most of the tumour lies outside the head, ``LABELS_DISAGREE`` when its parts
        are not what their names say.
    """
    _refuse_elsewhere(patient, found)
    tumour = sitk.GetArrayViewFromImage(patient.tumour) > 0
    region = brain_region(patient.t1) & ~tumour
    t1, t1c = (_by_level(image, region) for image in (patient.t1, patient.t1c))
    if patient.labels is None or (sitk.GetArrayViewFromImage(patient.labels) == UNKNOWN).any():
        near = figures.box(tumour)
        enhancing = figures.enhancing_by_rule(t1[near], t1c[near], tumour[near])
    else:
        labels = sitk.GetArrayViewFromImage(patient.labels)
        _refuse_disagreeing(labels, t1c - t1, region)
        enhancing = labels == ENHANCING
    voxel_ml = float(np.prod(patient.t1.GetSpacing())) / 1000
    voxels, all_of_it = int(enhancing.sum()), int(tumour.sum())
    return Facts(
        round(all_of_it * voxel_ml, 3), round(voxels * voxel_ml, 3), figures.group_of(voxels, all_of_it)
    )


def _refuse_pair(t1: FloatArray, flair: FloatArray, t1c: FloatArray) -> None:
    correlation = float(np.corrcoef(t1, t1c)[0, 1])
    if not correlation > LEAST_CORRELATION:
        raise RefusedInput("PAIR_DIFFERS", f"T1W and T1C correlate by {correlation:.2f} only in the brain.")
    for first, second, names in (
        (t1, t1c, "T1W and T1C"),
        (t1, flair, "T1W and FLAIR"),
        (flair, t1c, "FLAIR and T1C"),
    ):
        if float(np.corrcoef(first, second)[0, 1]) > SAME_VOLUME:
            raise RefusedInput("SAME_VOLUME", f"{names} are one and the same volume.")


def _refuse_pedestal(name: str, image: sitk.Image, level: float) -> None:
    values = sitk.GetArrayViewFromImage(image)
    sides = (values[:, 0], values[:, -1], values[:, :, 0], values[:, :, -1])
    air = float(np.median(np.concatenate([side.ravel() for side in sides]))) / level
    if air > HIGHEST_PEDESTAL:
        raise RefusedInput("PEDESTAL", f"Air shows {air:.2f} of the brain in the {name}.")


def _refuse_elsewhere(patient: Patient, found: ModelInput) -> None:
    tumour = onto(sitk.Cast(patient.tumour, sitk.sitkFloat32), found.grid) > 0.5
    count = int(tumour.sum())
    if count and int((tumour & found.inside).sum()) < LEAST_IN_HEAD * count:
        raise RefusedInput("LABELS_ELSEWHERE", "Most of the segmented tumour lies outside the head.")


def _refuse_disagreeing(labels: npt.NDArray[np.uint8], uptake: FloatArray, brain: BoolArray) -> None:
    """Refuse labels that the images contradict. Of 285 lesions of BraTS 2020, 2 would be."""
    usual = float(np.median(uptake[brain]))
    enhancing, cavity = uptake[labels == ENHANCING], uptake[labels == CAVITY]
    if enhancing.size >= figures.LEAST_VOXELS and float(np.median(enhancing)) <= usual:
        raise RefusedInput(
            "LABELS_DISAGREE",
            "What is labelled enhancing takes up no more than normal brain: the labels mean something else, "
            "or T1W and T1C are exchanged.",
        )
    if (
        cavity.size >= figures.LEAST_VOXELS
        and not enhancing.size
        and float(np.median(cavity)) > usual + figures.ENHANCING
    ):
        raise RefusedInput(
            "LABELS_DISAGREE", "What should be a cavity enhances: label 4 is enhancing tumour here."
        )


def _by_level(image: sitk.Image, region: BoolArray) -> FloatArray:
    values = sitk.GetArrayFromImage(image).astype(np.float32)
    return np.asarray(values / np.float32(level_in(values, region)), dtype=np.float32)
