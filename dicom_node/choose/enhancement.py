"""A look at the pixels of one T1W alone, of which nothing says whether it was acquired after contrast agent.

There is no second series to compare with, so this is weak evidence: it is told, and decides nothing.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from dicom_node.choose.pixels import DEEP_MM, LEAST_VOXELS, Coarse, eroded, head_in, level_of, read

#: In units of the brain's level: vessels, sinuses and mucosa after contrast agent, fat left out by depth.
_BRIGHT = 1.5
#: Added to the share of bright voxels, so that a head without any has a logarithm.
_FEW = 1e-4
#: Percentile of the darker tissue, grey matter and fluid; the agent brings it nearer to the level.
_DARKER = 20
#: Logistic regression of T1 POST against T1 on the 40 patients of lgg: weights of the decimal logarithm of
#: the share of bright voxels, and of the darker tissue; intercept.
_WEIGHTS, _INTERCEPT = (1.97, 11.25), -5.38
#: Margin from which a T1W looks as after contrast agent. Measured on lgg, with weights fitted without the
#: institution that is judged: 22 of 40 T1 POST, 1 of 40 T1. Besides, not fitted to: the T1C of FG-6692 and of
#: BraTS lie at 2.4 and 1.4, five native T1W of other scanners, 2D and 3D, at −0.3 and below.
LOOKS_SO_FROM = 0.6

#: Returns the margin of the series with this UID.
Glance = Callable[[str], float]


def glance_into(files: Mapping[str, tuple[Path, ...]]) -> Glance:
    """Return what looks at one series, given the files of each series UID."""

    def glance(uid: str) -> float:
        return margin(files[uid])

    return glance


@lru_cache(maxsize=32)
def margin(paths: tuple[Path, ...]) -> float:
    """Return how much the files of a T1W look as after contrast agent; what cannot be read does not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a faulty header is normal here
            return margin_of(read(paths))
    except Exception:  # whatever damaged or unknown pixels make a decoder raise: no evidence
        return -math.inf


def margin_of(series: Coarse) -> float:
    """Return how much a T1W looks as after contrast agent: from `LOOKS_SO_FROM` on, it does."""
    inner = eroded(head_in(series.values), DEEP_MM / series.pixel_mm)
    if inner.sum() < LEAST_VOXELS:
        return -math.inf
    values = series.values[inner]
    values = values / level_of(values)
    bright = math.log10(float((values > _BRIGHT).mean()) + _FEW)
    return _WEIGHTS[0] * bright + _WEIGHTS[1] * float(np.percentile(values, _DARKER)) + _INTERCEPT
