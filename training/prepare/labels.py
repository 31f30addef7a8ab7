"""What the numbers of a segmentation mean: 4 is enhancing tumour in one data set, a cavity in another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from synthesis.errors import RefusedInput
from training.prepare.exams import Scheme

#: Values of ``labels.npy``, whatever the source.
NONE, NECROSIS, OEDEMA, ENHANCING, CAVITY = range(5)
#: Tumour of which kind nobody said, and all of an exam that nobody segmented.
UNKNOWN = 255
#: A scale slope that is no power of two leaves labels this far from whole numbers at most.
SLOPE_ERROR = 1e-3
_UNTIL_2021 = {1: NECROSIS, 2: OEDEMA, 4: ENHANCING}
_SINCE_2023 = {1: NECROSIS, 2: OEDEMA, 3: ENHANCING, 4: CAVITY}


def read_labels(values: npt.NDArray[np.floating], scheme: Scheme) -> tuple[npt.NDArray[np.uint8], str]:
    """Return the labels in the words of this module, and a note or "".

    Raises
    ------
    RefusedInput
        ``LABELS_UNEXPECTED`` for values that no data set of this kind has, ``LABELS_UNCLEAR`` for such that
        may mean one thing or another.
    """
    found = np.unique(values)
    if np.abs(found - np.round(found)).max(initial=0) > SLOPE_ERROR:
        raise RefusedInput(
            "LABELS_UNEXPECTED", "The segmentation holds fractions: it was interpolated, its labels are lost."
        )
    values = np.round(values)
    numbers = {round(float(value)) for value in found} - {0}
    meaning, note = _meaning(numbers, scheme)
    labels = np.zeros(values.shape, dtype=np.uint8)
    for number in numbers:
        labels[values == number] = meaning[number]
    return labels, note


def is_tumour(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return where tumour is: all that is labelled but a resection cavity."""
    return np.asarray((labels != NONE) & (labels != CAVITY))


def _meaning(numbers: set[int], scheme: Scheme) -> tuple[Mapping[int, int], str]:
    if scheme is Scheme.UNNAMED and numbers == {4}:
        raise RefusedInput(
            "LABELS_UNCLEAR",
            "The segmentation holds 4 alone, enhancing tumour in one data set and a cavity in another; "
            "please name the files as their data set does.",
        )
    if scheme is Scheme.UNNAMED and len(numbers) == 1:
        return dict.fromkeys(numbers, UNKNOWN), "The segmentation is one of tumour, without its parts."
    if scheme is Scheme.UNTIL_2021 and {3, 4} <= numbers:
        raise RefusedInput(
            "LABELS_UNCLEAR", "The segmentation holds 3 and 4, where only one can be enhancing tumour."
        )
    since_2023 = scheme is Scheme.SINCE_2023 or 3 in numbers
    meaning = _SINCE_2023 if since_2023 else _UNTIL_2021
    if numbers - set(meaning):
        strange = ", ".join(str(number) for number in sorted(numbers - set(meaning))[:5])
        raise RefusedInput(
            "LABELS_UNEXPECTED", f"The segmentation holds {strange}, which stands for nothing known."
        )
    if since_2023 and scheme is Scheme.UNTIL_2021:
        return meaning, "Label 3 was taken for enhancing tumour, as in later versions of this data set."
    if scheme is Scheme.UNNAMED and 4 in numbers and not since_2023:
        return meaning, "Label 4 was taken for enhancing tumour, as there is no 3."
    return meaning, ""
