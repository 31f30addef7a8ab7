"""`python -m training evaluate`: how a model does on patients that it never saw, beside the baselines.

Each patient is read and brought to the model grid once, by the code of the pipeline. Every arm answers there;
its answer is restored to the T1W's own grid by the code of the pipeline, and judged by `figures`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from rich.console import Console
from rich.progress import track

from synthesis.errors import RefusedInput
from synthesis.models.load import Prediction
from synthesis.preprocess import FloatArray, ModelInput, brain_region, level_in, to_model_grid
from synthesis.restore import restore, restore_map
from training import figures
from training.arms import YES, Arm, Subject, identity
from training.compare import IDENTITY, Mean, by_patient, over_patients
from training.figures import BoolArray, Counts, Group, Row
from training.prepare import Exam, Patient, facts_of, read_exam, target_on_grid
from training.prepare.labels import ENHANCING, NECROSIS, UNKNOWN

log = logging.getLogger(__name__)

#: Air is darker than this share of the brain.
AIR = 0.25
DIGITS = 5


@dataclass(frozen=True)
class Look:
    """One slice of a patient to look at, (H, W), in units of the brain: the one with most of what matters."""

    patient: str
    #: Height over width of a pixel.
    aspect: float
    t1: FloatArray
    flair: FloatArray
    t1c: FloatArray
    tumour: BoolArray
    enhancing: BoolArray
    #: The synthetic T1C by arm, and the first arm's chance of enhancement.
    predicted: Mapping[str, FloatArray]
    chance: FloatArray


@dataclass(frozen=True)
class Evaluation:
    """What was found; the arm that comes first is the one under test."""

    arms: tuple[str, ...]
    rows: tuple[Row, ...]
    looks: tuple[Look, ...]
    #: Of each arm's chance of enhancement, over the tumours of all patients.
    calibration: Mapping[str, Counts]
    #: Why patients were not judged.
    refused: tuple[str, ...]


def evaluate(
    exams: Sequence[Exam], arms: Sequence[Arm], read: Callable[[Exam], Patient] = read_exam
) -> Evaluation:
    """Return how all arms do on all exams. No figure stands without identity: it is added when missing.

    What `prepare` refuses is refused here, and so is what nobody segmented.

    Parameters
    ----------
    exams : sequence of Exam
        As `find_exams` finds them.
    arms : sequence of Arm
        The one under test first.
    read : callable
        Reads an exam.
    """
    if all(arm.name != IDENTITY for arm in arms):
        arms = (arms[0], identity(arms[0].size), *arms[1:])
    rows: list[Row] = []
    looks, refused = [], []
    counts = {arm.name: np.zeros((3, figures.BINS)) for arm in arms}
    bar = Console(stderr=True)
    for number, exam in enumerate(track(exams, "judging", console=bar, disable=not bar.is_terminal), 1):
        try:
            subject = Subject(exam, read(exam))
            inputs = {size: _checked(subject.patient, size) for size in {arm.size for arm in arms}}
        except RefusedInput as error:
            refused.append(error.sentence)
            log.warning("patient %d refused: %s", number, refused[-1])
            continue
        truth = truth_of(subject, inputs[arms[0].size])
        images = {}
        for arm in arms:
            found = inputs[arm.size]
            judged = judge(truth, subject, found, arm.name, arm.answer(subject, found))
            rows.append(judged.row)
            counts[arm.name] += judged.calibration
            images[arm.name] = judged
        looks.append(_look(truth, subject, found.flair_level, images))
        _say(number, rows[-len(arms) :])
    return Evaluation(tuple(arm.name for arm in arms), tuple(rows), tuple(looks), counts, tuple(refused))


def summary(found: Evaluation) -> dict[str, Any]:
    """Return means, spreads and intervals over patients of every arm, and over identity, ready for JSON."""
    of = {arm: by_patient(found.rows, arm) for arm in found.arms}
    groups = [row.group for row in of[found.arms[0]].values()]
    return {
        "patients": len(groups),
        "enhancing": sum(group is not Group.NONE for group in groups),
        "clearly_enhancing": groups.count(Group.CLEAR),
        "refused": sorted(found.refused),
        "arms": {arm: _plain(over_patients(rows)) for arm, rows in of.items()},
        "over_identity": {
            arm: _plain(over_patients(rows, of[IDENTITY])) for arm, rows in of.items() if arm != IDENTITY
        },
        "calibration_error": {
            arm: _rounded(figures.calibration_error(counts)) for arm, counts in found.calibration.items()
        },
    }


@dataclass(frozen=True)
class Truth:
    """What a patient is judged by, (D, H, W) on the T1W's own grid; T1W and T1C by their own brain levels."""

    t1: FloatArray
    t1c: FloatArray
    t1_level: float
    #: The regions that are not empty, by name.
    regions: Mapping[str, BoolArray]
    tumour: BoolArray
    enhancing: BoolArray
    #: Whether an expert drew what enhances.
    labelled: bool
    #: The true T1C's 99.5th percentile in the brain.
    peak: float
    voxel_ml: float


def truth_of(subject: Subject, found: ModelInput) -> Truth:
    """Return what to judge by: planes that a model cannot see, or in which the T1C is blank, are left out."""
    patient = subject.patient
    t1, t1c = _array(patient.t1), _array(patient.t1c)
    usable = np.broadcast_to(found.usable[:, None, None], found.inside.shape).astype(np.float32)
    seen = (_array(restore_map(usable, found.grid, patient.t1)) > YES) & (t1c > 0).any((1, 2), keepdims=True)
    head = brain_region(patient.t1) & seen
    tumour = (_array(patient.tumour) > 0) & seen
    parts = {name: part & seen for name, part in _parts(patient.labels).items()}
    healthy = head & ~tumour
    t1_level, t1c_level = level_in(t1, healthy), level_in(t1c, healthy)
    t1, t1c = t1 / np.float32(t1_level), t1c / np.float32(t1c_level)
    by_rule = figures.enhancing_by_rule(t1, t1c, tumour)
    regions = {"brain": healthy, "tumour": tumour, "enhancing_rule": by_rule} | parts
    return Truth(
        t1,
        t1c,
        t1_level,
        {name: region for name, region in regions.items() if region.any()},
        tumour,
        enhancing=parts.get("enhancing_label", by_rule),
        labelled="enhancing_label" in parts,
        peak=float(np.percentile(t1c[head], 99.5)),
        voxel_ml=float(np.prod(patient.t1.GetSpacing())) / 1000,
    )


@dataclass(frozen=True)
class Judged:
    """An arm's figures of a patient, and the images that they are of, (D, H, W)."""

    row: Row
    calibration: Counts
    predicted: FloatArray
    chance: FloatArray


def judge(truth: Truth, subject: Subject, found: ModelInput, arm: str, answer: Prediction) -> Judged:
    """Return how this answer, brought back to the T1W's own grid, compares with the truth."""
    t1 = subject.patient.t1
    predicted = _array(restore(answer.delta, found.grid, t1, found.t1_level)) / np.float32(truth.t1_level)
    chance, marked = (_array(restore_map(one, found.grid, t1)) for one in (answer.chance, answer.tumour))
    near = figures.box(truth.tumour)
    placed = figures.enhancement(
        predicted[near],
        truth.t1[near],
        truth.t1c[near],
        truth.tumour[near],
        truth.voxel_ml,
        chance[near],
        truth.enhancing[near] if truth.labelled else None,
    )
    regions = {
        name: figures.in_region(predicted, truth.t1c, region, truth.peak)
        for name, region in truth.regions.items()
    }
    yes, drawn = marked > YES, truth.tumour
    others = {
        "map_dice": figures.dice(yes, drawn),
        "tumour_ml": int(drawn.sum()) * truth.voxel_ml,
    }
    return Judged(
        figures.row(subject.exam.name, arm, regions, placed, others, subject.exam.patient),
        figures.calibration(chance[drawn], truth.enhancing[drawn]),
        predicted,
        chance,
    )


def _parts(labels: sitk.Image | None) -> dict[str, BoolArray]:
    """Return core and enhancing part as they were drawn; nothing where only the whole tumour was."""
    if labels is None:
        return {}
    values = sitk.GetArrayViewFromImage(labels)
    if (values == UNKNOWN).any():
        return {}
    return {"core": np.isin(values, (NECROSIS, ENHANCING)), "enhancing_label": values == ENHANCING}


def _checked(patient: Patient, size: int) -> ModelInput:
    """Return the patient on the model grid; refuse him for what `prepare` refuses."""
    if not patient.labelled:
        raise RefusedInput("NOT_SEGMENTED", "Nobody segmented the tumour.")
    found = to_model_grid(patient.t1, patient.flair, size)
    target_on_grid(patient, found)
    facts_of(patient, found)
    return found


def _look(truth: Truth, subject: Subject, flair_level: float, judged: Mapping[str, Judged]) -> Look:
    """Return the slice with most true enhancement where there is some, else with most tumour."""
    first = next(iter(judged.values()))
    matters = truth.tumour if first.row.group is Group.NONE else truth.enhancing
    z = int(matters.sum(axis=(1, 2)).argmax())
    _, rows, columns = figures.box(truth.t1[z : z + 1] > AIR)

    def cut(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return volume[z, rows, columns].copy()  # a view would keep the volumes of all patients

    width, height, _ = subject.patient.t1.GetSpacing()
    return Look(
        subject.exam.name,
        height / width,
        cut(truth.t1),
        np.float32(1 / flair_level) * cut(_array(subject.patient.flair)),
        cut(truth.t1c),
        cut(truth.tumour),
        cut(truth.enhancing),
        {arm: cut(one.predicted) for arm, one in judged.items()},
        cut(first.chance),
    )


def _say(number: int, rows: Sequence[Row]) -> None:
    shown = ("brain_psnr_in_region", "tumour_psnr_in_region", "auc", "recovery", "false_ml")
    for row in rows:
        values = (row.figures.get(column, math.nan) for column in shown)
        log.info(
            "patient %d, %-13s brain %.1f dB, tumour %.1f dB, AUC %.2f, recovery %.2f, false %.1f mL",
            *(number, row.arm, *values),
        )


def _array(image: sitk.Image) -> FloatArray:
    return np.asarray(sitk.GetArrayFromImage(image), dtype=np.float32)


def _plain(means: Mapping[str, Mean]) -> dict[str, dict[str, float | None]]:
    values = {key: asdict(mean) for key, mean in means.items()}
    return {key: {name: _rounded(value) for name, value in mean.items()} for key, mean in values.items()}


def _rounded(value: float) -> float | None:
    """Return what JSON can hold, counts as they are."""
    if isinstance(value, int):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
