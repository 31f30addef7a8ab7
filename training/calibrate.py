"""What the card says of the unusual and of trust: measured on patients by the member that did not see them.

`fit_chance` and then `calibrate` are a pass over the patients each. The guard's limits come from leaving each
patient out of the statistics; what it catches is tried on the same patients, given wrongly. The curves of
`confidence` are fitted to all of them, and judged by leaving each out.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from synthesis import confidence, guard
from synthesis.errors import RefusedInput
from synthesis.guard import NAMES, Limits, Measures, Reference
from synthesis.models.load import AIR, SURE, Prediction
from synthesis.preprocess import BoolArray, FloatArray, ModelInput, to_model_grid
from training.arms import YES, Arm, Subject
from training.figures import ENHANCING, auc
from training.prepare import Exam, Patient, read_exam, target_on_grid

log = logging.getLogger(__name__)
Vector = npt.NDArray[np.float64]
Table = npt.NDArray[np.float64]

#: Fewer patients do not say what is usual.
LEAST_PATIENTS = 10
#: Share of the patients, each left out, that stay below each of the two limits of what is said.
USUAL = 0.975
#: What is declined lies this much beyond the farthest of them: scanners differ more than these patients do.
ROOM = 1.25
#: Median absolute deviation to standard deviation of a normal distribution.
SIGMA_PER_MAD = 1.4826
#: Pulls the slope of a curve to 0, as one more patient on each side would: a few dozen patients can be parted
#: by chance.
RIDGE = 1.0
NEWTON_STEPS = 30
#: A chance is taken to be no nearer than this to 0 and 1.
LEAST_CHANCE = 1e-4
#: Pulls the curve of the chance to what was learnt: keeps it finite where no voxel, or every one, enhances.
LEAST_PULL = 1e-4
#: A curve is informative when it beats the bare share in this part of the resampled sets of patients.
CERTAIN, RESAMPLED, SEED = 0.95, 4000, 7
#: How wrong images are made: noise in brain levels, how far a patient moves.
NOISE, MOVED_MM = 0.3, 20.0
DIGITS = 5


@dataclass(frozen=True)
class Observed:
    """One patient, by what never saw him."""

    measures: Measures
    #: The measures of the same patient given wrongly, by what was done.
    wrong: Mapping[str, Measures]
    #: The numbers that the curves start from, and the true answers.
    expected_dice: float
    dice: float
    expected_share: float
    clear: bool


def calibrate(arm: Arm, exams: Sequence[Exam], read: Callable[[Exam], Patient] = read_exam) -> dict[str, Any]:
    """Return the entries ``guard`` and ``confidence`` of a model's card.

    Parameters
    ----------
    arm : Arm
        Answers for each patient by what never saw him: `training.arms.cross_validated`.
    exams : sequence of Exam
        Of the patients of the folds, segmented.
    read : callable
        Reads an exam.
    """
    observed = []
    for subject, found, uptake, drawn in _given(arm, exams, read):
        observed.append(observe(found, arm.answer(subject, found), uptake, drawn))
    return from_observed(observed)


def fit_chance(
    arm: Arm, exams: Sequence[Exam], read: Callable[[Exam], Patient] = read_exam
) -> tuple[float, float]:
    """Return the card's ``calibrated``: how the log odds of enhancement become the chance that comes true.

    A logistic regression over the drawn tumours, each weighing the same.

    Parameters
    ----------
    arm : Arm
        As for `calibrate`, of a model whose card does not correct the chance yet.
    exams, read
        As for `calibrate`.

    Raises
    ------
    ValueError
        When no tumour is drawn in any of them.
    """
    tumours = []
    for subject, found, uptake, drawn in _given(arm, exams, read):
        answer, where = arm.answer(subject, found), drawn & (found.values[:, 0] > AIR)
        if where.any():
            tumours.append((answer.chance[where], answer.tumour[where], uptake[where] > ENHANCING))
    if not tumours:
        raise ValueError("No tumour is drawn that could tell how often the chance of enhancement comes true.")
    return chance_curve(tumours)


def chance_curve(tumours: Sequence[tuple[FloatArray, FloatArray, BoolArray]]) -> tuple[float, float]:
    """Return slope and offset of the log odds; the offset counts where the map shows tumour (`LoadedModel`).

    Parameters
    ----------
    tumours : sequence of (ndarray, ndarray, ndarray)
        Of the N voxels of each: the chance and the tumour map, 0–1, and whether they enhance.
    """
    chance, marked, truth = (np.concatenate(parts).astype(np.float64) for parts in zip(*tumours, strict=True))
    weight = np.concatenate([np.full(len(one[0]), 1 / len(one[0])) for one in tumours])
    chance = np.clip(chance, LEAST_CHANCE, 1 - LEAST_CHANCE)
    design = np.stack([np.log(chance / (1 - chance)), np.clip(marked / SURE, 0, 1)], axis=1)
    found = _logistic_weights(design, truth, weight, np.array([1.0, 0.0]), np.full(2, LEAST_PULL))
    return _round(float(found[0])), _round(float(found[1]))


def _given(
    arm: Arm, exams: Sequence[Exam], read: Callable[[Exam], Patient]
) -> Iterator[tuple[Subject, ModelInput, FloatArray, BoolArray]]:
    """Yield the patients with their uptake and drawn tumour, (D, S, S), nothing in planes left out."""
    bar = Console(stderr=True)
    for number, exam in enumerate(track(exams, "calibrating", console=bar, disable=not bar.is_terminal), 1):
        try:
            patient = read(exam)
            found = to_model_grid(patient.t1, patient.flair, arm.size)
            t1c, drawn, _ = target_on_grid(patient, found)
        except RefusedInput as error:
            log.warning("patient %d refused: %s", number, error.sentence)
            continue
        where = found.inside & found.usable[:, None, None]
        yield Subject(exam, patient), found, (t1c - found.values[:, 0]) * where, (drawn > YES) & where


def observe(found: ModelInput, prediction: Prediction, uptake: FloatArray, drawn: BoolArray) -> Observed:
    """Return what calibration needs of one patient.

    Parameters
    ----------
    found : ModelInput
        The patient on the model grid.
    prediction : Prediction
        By what never saw him.
    uptake : ndarray
        (D, S, S): T1C/level − T1W/level, 0 outside the head and in planes left out.
    drawn : ndarray
        (D, S, S): the tumour as an expert drew it.
    """
    marked = prediction.tumour > confidence.TUMOUR
    return Observed(
        guard.measure(found),
        {name: guard.measure(given) for name, given in given_wrongly(found, uptake).items()},
        confidence.expected_dice(prediction.tumour),
        2 * int((marked & drawn).sum()) / max(1, int(marked.sum()) + int(drawn.sum())),
        confidence.expected_share(prediction.chance, prediction.tumour),
        confidence.clearly_enhances(uptake, drawn),
    )


def from_observed(observed: Sequence[Observed]) -> dict[str, Any]:
    """Return the entries ``guard`` and ``confidence`` of a model's card.

    Raises
    ------
    ValueError
        When there are too few patients to leave each out.
    """
    if len(observed) < LEAST_PATIENTS:
        raise ValueError(f"{len(observed)} patients do not make a guard: {LEAST_PATIENTS} at least.")
    outline = [(one.expected_dice, one.dice >= confidence.GOOD_DICE) for one in observed]
    enhancement = [(one.expected_share, one.clear) for one in observed]
    return {
        "guard": guard_statistics([one.measures for one in observed], [one.wrong for one in observed]),
        "confidence": {"outline": curve(outline), "enhancement": curve(enhancement)},
    }


def given_wrongly(found: ModelInput, uptake: FloatArray) -> dict[str, ModelInput]:
    """Return the patient as he must not be given, by what was done."""
    t1, flair = found.values[:, 0], found.values[:, 1]
    t1c = np.clip(t1 + uptake, 0, None)
    pixels = round(MOVED_MM / found.grid.GetSpacing()[1])
    noisy = _noisy(found.values)
    pairs = {
        "exchanged": (flair, t1),
        "T1W given as FLAIR": (t1, t1),
        "FLAIR given as T1W": (flair, flair),
        "T1C given as T1W": (t1c, flair),
        "T1C given as FLAIR": (t1, t1c),
        "T1W inverted": (_inverted(t1, found.inside), flair),
        "FLAIR inverted": (t1, _inverted(flair, found.inside)),
        f"FLAIR {MOVED_MM:.0f} mm beside": (t1, np.roll(flair, pixels, axis=1)),
        "FLAIR back to front": (t1, flair[:, ::-1]),
        "noise": (noisy[:, 0], noisy[:, 1]),
    }
    return {
        name: replace(found, values=np.ascontiguousarray(np.stack(pair, axis=1), dtype=np.float32))
        for name, pair in pairs.items()
    }


def guard_statistics(
    measures: Sequence[Measures], wrong: Sequence[Mapping[str, Measures]] = ()
) -> dict[str, Any]:
    """Return the entry ``guard`` of the card.

    Parameters
    ----------
    measures : sequence of Measures
        Of the patients that the model was trained on.
    wrong : sequence of mapping
        Of the same patients in the same order, given wrongly; what is caught of it goes into the card.
    """
    table = np.array([astuple(one) for one in measures])
    reference = _reference(table)
    left_out = [_reference(np.delete(table, row, axis=0)) for row in range(len(table))]
    pairs = list(zip(left_out, measures, strict=True))
    caught = {
        name: [_caught(one, given[name]) for one, given in zip(left_out, wrong, strict=True)]
        for name in (wrong[0] if wrong else ())
    }
    return {
        "measures": list(NAMES),
        "centre": _rounded(reference.centre),
        "spread": _rounded(reference.spread),
        "flag": asdict(reference.flag),
        "decline": asdict(reference.decline),
        "patients": len(table),
        "note": "flagged and declined share of the patients, each left out of statistics and limits, given "
        "rightly and wrongly",
        "rightly": _shares([_caught(one, found) for one, found in pairs]),
        "wrongly": {name: _shares(found) for name, found in caught.items()},
    }


def curve(answers: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """Return a question's entry in ``confidence``: its curve, and how it does on patients left out.

    Parameters
    ----------
    answers : sequence of (float, bool)
        Of each held-out patient the number of the prediction, 0–1, and the true answer.
    """
    numbers = np.array([confidence.log_odds(number) for number, _ in answers])
    truth = np.array([yes for _, yes in answers], dtype=np.float64)
    others = [np.arange(len(truth)) != row for row in range(len(truth))]
    fits = [_fit(numbers[rest], truth[rest]) for rest in others]
    said = np.array([_logistic(fit, number) for fit, number in zip(fits, numbers, strict=True)])
    bare = np.array([_share(truth[rest]) for rest in others])
    gain = (bare - truth) ** 2 - (said - truth) ** 2
    draws = np.random.default_rng(SEED).integers(0, len(gain), (RESAMPLED, len(gain)))
    slope, offset = _fit(numbers, truth)
    tells = 0 < truth.sum() < len(truth) and slope > 0
    return {
        "slope": _round(slope),
        "offset": _round(offset),
        "patients": len(truth),
        "yes": int(truth.sum()),
        "informative": bool(tells and float((gain[draws].mean(axis=1) > 0).mean()) >= CERTAIN),
        "brier": _round(float(np.mean((said - truth) ** 2))),
        "brier_of_the_bare_share": _round(float(np.mean((bare - truth) ** 2))),
        "auc": _round(auc(numbers[truth > 0], numbers[truth == 0])),
    }


def _reference(table: Table) -> Reference:
    """Return the statistics of the patients (N, M), and limits from each of them left out."""
    centre, spread = _lie(table)
    kind = guard.KIND
    alone = []
    for row in range(len(table)):
        middle, width = _lie(np.delete(table, row, axis=0))
        deviations = (table[row] - middle) / width
        alone.append([f(d) for d in (deviations, deviations[kind]) for f in (guard.distance, guard.largest)])
    flags, farthest = np.quantile(alone, USUAL, axis=0), np.max(alone, axis=0)
    return Reference(
        centre,
        spread,
        flag=Limits(_round(flags[0]), _round(flags[1])),
        decline=Limits(_round(ROOM * farthest[2]), _round(ROOM * farthest[3])),
    )


def _lie(table: Table) -> tuple[Vector, Vector]:
    """Return median and spread of each measure; outliers widen the spread only as far as they must."""
    centre = np.nanmedian(table, axis=0)
    robust = SIGMA_PER_MAD * np.nanmedian(np.abs(table - centre), axis=0)
    return centre, np.maximum(robust, np.nanstd(table, axis=0))


def _caught(reference: Reference, found: Measures) -> tuple[bool, bool]:
    """Return whether this is flagged at least, and whether it is declined by the limits."""
    deviations = reference.deviations(found)
    declined = reference.decline.passed_by(deviations[guard.KIND])
    return declined or reference.flag.passed_by(deviations), declined


def _shares(caught: Sequence[tuple[bool, bool]]) -> dict[str, float]:
    flagged, declined = np.mean(caught, axis=0)
    return {"flagged": _round(flagged), "declined": _round(declined)}


def _fit(numbers: Vector, truth: Vector) -> tuple[float, float]:
    """Return slope and offset of the logistic curve; the slope of standardised numbers is pulled to 0."""
    middle, width = float(numbers.mean()), max(float(numbers.std()), 1e-6)
    design = np.stack([(numbers - middle) / width, np.ones_like(numbers)], axis=1)
    start = np.array([0.0, confidence.log_odds(_share(truth))])
    weights = _logistic_weights(design, truth, np.ones_like(numbers), start, np.array([RIDGE, 0.0]))
    slope = float(weights[0]) / width
    return slope, float(weights[1]) - slope * middle


def _logistic_weights(design: Table, truth: Vector, weight: Vector, start: Vector, pull: Vector) -> Vector:
    """Return the coefficients of a logistic regression, by Newton's method; each is pulled to its start.

    Parameters
    ----------
    design, truth, weight : ndarray
        (N, M) and twice (N,): the observations.
    start, pull : ndarray
        (M,) each.
    """
    found = start
    for _ in range(NEWTON_STEPS):
        said = 1 / (1 + np.exp(-design @ found))
        gradient = design.T @ (weight * (said - truth)) + pull * (found - start)
        curvature = (design.T * (weight * said * (1 - said))) @ design + np.diag(pull)
        found = found - np.linalg.solve(curvature, gradient)
    return found


def _logistic(fit: tuple[float, float], number: float) -> float:
    return 1 / (1 + math.exp(-(fit[0] * number + fit[1])))


def _share(truth: Vector) -> float:
    """Return the share of yes, one of each added (Laplace)."""
    return (float(truth.sum()) + 1) / (len(truth) + 2)


def _inverted(image: FloatArray, inside: BoolArray) -> FloatArray:
    """Return the image as its negative, brain at 1 again."""
    turned = np.where(inside, np.clip(np.percentile(image[inside], 98) - image, 0, None), 0)
    return np.asarray(turned / np.median(turned[turned > 0]), dtype=np.float32)


def _noisy(values: FloatArray) -> FloatArray:
    """Return the images with the noise of a magnitude image (Rice)."""
    random = np.random.default_rng(SEED)
    real, imaginary = (random.normal(0, NOISE, values.shape) for _ in range(2))
    return np.asarray(np.hypot(values + real, imaginary), dtype=np.float32)


def _rounded(values: Vector) -> list[float]:
    return [_round(float(value)) for value in values]


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
