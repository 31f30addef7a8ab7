"""How far a result can be trusted: two questions a reader has, answered as often as they came true before.

Is the tumour outlined as an expert would? Is it right where the picture shows clear enhancement, or none? For
each, one number of the prediction is turned into a probability by a logistic curve, fitted to patients whom
the network that judged them had not seen. Where that number told nothing about them, this is what is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthesis.preprocess import BoolArray, FloatArray

#: A voxel is tumour above this probability.
TUMOUR = 0.5
#: Change over the brain level above this is enhancement; a tumour with this share of it clearly enhances.
ENHANCING, CLEAR_SHARE = 0.2, 0.1
#: The overlap from which an outline counts as right (Zijdenbos 1994).
GOOD_DICE = 0.7
#: From which probability on confidence is called moderate, and high.
MODERATE, HIGH = 0.6, 0.8
#: Probabilities are kept this far from 0 and 1 before their odds are taken.
EDGE = 1e-3
NOTHING_KNOWN = "How far the result can be trusted was not calibrated: the model's card does not say."
NO_TUMOUR = (
    "No tumour was found. How often one is missed is not known: every patient of the calibration had one."
)


@dataclass(frozen=True)
class Curve:
    """Probability of yes to a question: logistic in the log odds of a number of the prediction."""

    slope: float
    offset: float
    #: Held-out patients that it was fitted to, and in how many of them the answer was yes.
    patients: int
    yes: int
    #: Whether it does better than the bare share of yes, on patients left out of the fit.
    informative: bool

    @classmethod
    def of_card(cls, card: Mapping[str, Any], question: str) -> Curve | None:
        """Return the curve of a model's card for a question, or None."""
        found = card.get("confidence", {}).get(question)
        return None if found is None else cls(**{name: found[name] for name in cls.__dataclass_fields__})

    def probability(self, number: float) -> float:
        """Return the probability of yes, given a number between 0 and 1."""
        return 1 / (1 + math.exp(-(self.slope * log_odds(number) + self.offset)))


def sentences(
    delta: FloatArray, chance: FloatArray, tumour: FloatArray, card: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return what a reader should know of a prediction, all three (D, S, S) on the model grid."""
    outline, clear = (Curve.of_card(card, question) for question in ("outline", "enhancement"))
    if outline is None or clear is None:
        return (NOTHING_KNOWN,)
    if not (tumour > TUMOUR).any():
        return (NO_TUMOUR,)
    return _outline(outline, tumour), _enhancement(clear, delta, chance, tumour)


def expected_dice(tumour: FloatArray) -> float:
    """Return the overlap of a map with the truth if its probabilities are right; 0 for an empty one."""
    marked = tumour > TUMOUR
    both = float(tumour[marked].sum(dtype=np.float64))
    return 2 * both / (float(tumour.sum(dtype=np.float64)) + int(marked.sum())) if both else 0.0


def expected_share(chance: FloatArray, tumour: FloatArray) -> float:
    """Return the share of the tumour that is expected to enhance; 0 where there is none."""
    marked = tumour > TUMOUR
    return float(chance[marked].mean(dtype=np.float64)) if marked.any() else 0.0


def clearly_enhances(delta: FloatArray, tumour: BoolArray) -> bool:
    """Return whether `CLEAR_SHARE` of the tumour changes by more than `ENHANCING`."""
    return bool(tumour.any()) and float((delta[tumour] > ENHANCING).mean()) >= CLEAR_SHARE


def log_odds(probability: float) -> float:
    """Return ln p/(1 − p), p kept off 0 and 1."""
    kept = min(max(probability, EDGE), 1 - EDGE)
    return math.log(kept / (1 - kept))


def level(probability: float) -> str:
    """Return the word for a probability of being right."""
    return "high" if probability >= HIGH else "moderate" if probability >= MODERATE else "low"


def _outline(curve: Curve, tumour: FloatArray) -> str:
    if not curve.informative:
        return (
            f"Confidence in the outline of the tumour: none. It was right (Dice {GOOD_DICE} or more) in "
            f"{curve.yes} of {curve.patients} held-out patients, and the model could not tell in which."
        )
    right = curve.probability(expected_dice(tumour))
    return (
        f"Confidence in the outline of the tumour: {level(right)}. {right:.0%} of such outlines are right "
        f"(Dice {GOOD_DICE} or more), by {curve.patients} held-out patients."
    )


def _enhancement(curve: Curve, delta: FloatArray, chance: FloatArray, tumour: FloatArray) -> str:
    if not curve.informative:
        return (
            f"Confidence in enhancement, shown or not: none. {curve.yes} of {curve.patients} held-out "
            "tumours clearly enhanced, and the model could not tell which."
        )
    shown = clearly_enhances(delta, tumour > TUMOUR)
    enhances = curve.probability(expected_share(chance, tumour))
    right = enhances if shown else 1 - enhances
    return (
        f"Confidence that the tumour {'clearly enhances' if shown else 'does not clearly enhance'}, as the "
        f"picture shows: {level(right)}. {right:.0%} of such pictures are right, by {curve.patients} "
        "held-out patients."
    )
