"""Has the model seen the like? What a T1W and a FLAIR show together, beside the patients of the training.

A dozen measures of the input, each with a meaning in MR physics, are taken in the upper brain. The model's
card holds how they lie in the patients that it was trained on, and how far from them a patient lies who was
left out. What is further away is said in words; what is far away, as no T1W with its FLAIR is, is declined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from synthesis.errors import RefusedInput
from synthesis.preprocess import BRAIN_DEPTH_MM, BoolArray, FloatArray, ModelInput

Vector = npt.NDArray[np.float64]

#: What lies further below the highest plane has skull base and orbits in it, or, for vessels, the neck.
UPPER_MM, VESSELS_MM = 90.0, 110.0
#: Tissue: fluid and flowing blood are darker, fat is brighter.
DARKEST_TISSUE, BRIGHTEST_TISSUE = 0.6, 2.2
#: What a FLAIR shows of fluid and of flowing blood; less is a place that was not acquired.
NOT_ACQUIRED, VOID = 0.02, 0.6
#: Standard deviation of the smoothing whose removal leaves the fine structures, pixels of the model grid.
COARSE_PIXELS = 6.0
#: Fewer voxels (10 mL in thick slices) say nothing.
LEAST_VOXELS, LEAST_DARK = 500, 50
#: Correlations are compared as Fisher's z; an image with itself has no end.
MOST_CORRELATION = 0.999
#: One measure says so much and no more in the distance.
MOST_DEVIATION = 20.0
#: A sentence names so many measures, and none that deviates less than this.
MOST_NAMED, LEAST_NAMED = 3, 2.0
#: What a careful look at the acquisition tells, not what was acquired: said, never declined.
QUALITY = ("t1_grain", "flair_grain")


@dataclass(frozen=True)
class Measures:
    """What the two images show in the upper brain; NaN where there is nothing to measure."""

    #: Share of the brain that is tissue on both images, neighbours of fluid left out.
    tissue: float = np.nan
    #: Skewness of the tissue's values: lesions are dark on a T1W and bright on a FLAIR.
    t1_tail: float = np.nan
    flair_tail: float = np.nan
    #: The same of the fine structures: shading by the coil has no part in it.
    t1_fine_tail: float = np.nan
    flair_fine_tail: float = np.nan
    #: Correlation of the fine structures in the brain: sulci and ventricles are dark on both.
    match: float = np.nan
    #: The same in the tissue: grey and white matter differ between the weightings.
    likeness: float = np.nan
    #: Value of the FLAIR where the T1W is darkest, and the other way round.
    flair_fluid: float = np.nan
    t1_fluid: float = np.nan
    #: The brightest of the T1W where the FLAIR is dark: vessels, after contrast agent.
    t1_vessels: float = np.nan
    #: Logarithm of second over first differences: noise raises it, blur lowers it.
    t1_grain: float = np.nan
    flair_grain: float = np.nan


NAMES = tuple(field.name for field in fields(Measures))
#: What a technologist is told when a measure is too low, and when it is too high.
WORDS = {
    "tissue": ("hardly any place shows brain tissue in both", "hardly any fluid shows"),
    "t1_tail": ("the T1W has unusually dark tissue", "the T1W has unusually bright tissue"),
    "flair_tail": ("the FLAIR has dark tissue as a T1W has", "the FLAIR has unusually bright tissue"),
    "t1_fine_tail": (
        "the T1W has unusually dark fine structures",
        "the T1W has bright fine structures as a FLAIR, a T2W or ghosts have",
    ),
    "flair_fine_tail": (
        "the FLAIR has dark fine structures as a T1W has",
        "the FLAIR has unusually bright fine structures",
    ),
    "match": (
        "the structures of T1W and FLAIR do not lie on each other, or one of them is inverted",
        "T1W and FLAIR are as alike as one image given twice",
    ),
    "likeness": (
        "grey and white matter are opposed in T1W and FLAIR",
        "grey and white matter look the same in T1W and FLAIR, as in two images of one weighting",
    ),
    "flair_fluid": (
        "fluid is unusually dark on the FLAIR",
        "what is fluid on the T1W is not dark on the FLAIR",
    ),
    "t1_fluid": ("fluid is unusually dark on the T1W", "what is fluid on the FLAIR is not dark on the T1W"),
    "t1_vessels": (
        "the T1W is unusually dark where the FLAIR is",
        "the T1W is bright where the FLAIR is dark, as vessels are after contrast agent",
    ),
    "t1_grain": ("the T1W is unusually smooth", "the T1W is unusually noisy"),
    "flair_grain": ("the FLAIR is unusually smooth", "the FLAIR is unusually noisy"),
}


@dataclass(frozen=True)
class Limits:
    """Distance (root mean square of the deviations) and largest single deviation that are still accepted."""

    distance: float
    deviation: float

    def passed_by(self, deviations: Vector) -> bool:
        """Return whether these deviations, NaN left out, lie beyond."""
        return distance(deviations) > self.distance or largest(deviations) > self.deviation


@dataclass(frozen=True)
class Reference:
    """How the measures lie in the patients of the training, and where the unusual begins."""

    #: Median and spread of each measure, in the order of `NAMES`.
    centre: Vector
    spread: Vector
    #: Beyond this it is said, beyond that declined.
    flag: Limits
    decline: Limits

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Reference | None:
        """Return the reference of a model's card, or None when it holds none for these measures."""
        found = card.get("guard")
        if not found or tuple(found["measures"]) != NAMES:
            return None
        centre, spread = (np.asarray(found[name], dtype=np.float64) for name in ("centre", "spread"))
        return cls(centre, spread, Limits(**found["flag"]), Limits(**found["decline"]))

    def deviations(self, found: Measures) -> Vector:
        """Return how many spreads each measure lies above or below the centre."""
        return (np.array(astuple(found)) - self.centre) / self.spread

    def fits_exchanged(self, found: ModelInput, deviations: Vector) -> bool:
        """Return whether T1W and FLAIR are usual the other way round, and more so than as they were given."""
        exchanged = replace(found, values=np.ascontiguousarray(found.values[:, ::-1]))
        other_way = distance(self.deviations(measure(exchanged)))
        return other_way < min(distance(deviations), self.flag.distance)


def check(found: ModelInput, card: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what to say of an input that is unlike what the model of this card was trained on.

    Raises
    ------
    RefusedInput
        ``UNLIKE_TRAINING`` when it is far from any T1W with its FLAIR, the two are exchanged, or the skull
        was taken off for a model that only knows heads, or the other way round.
    """
    shown = "stripped" if found.stripped else "kept"
    if shown not in str(card.get("skull", shown)):
        raise RefusedInput(
            "UNLIKE_TRAINING", f"The skull is {shown} in these images; the model knows it {card['skull']}."
        )
    reference = Reference.of_card(card)
    if reference is None:
        return ("It could not be checked whether the model has seen such images: its card does not say.",)
    deviations = reference.deviations(measure(found))
    if not reference.flag.passed_by(deviations):
        return ()
    if reference.fits_exchanged(found, deviations):
        raise RefusedInput(
            "UNLIKE_TRAINING", "T1W and FLAIR seem to be exchanged: they fit better the other way round."
        )
    if reference.decline.passed_by(deviations[KIND]):
        raise RefusedInput(
            "UNLIKE_TRAINING",
            f"The images are unlike a T1W with its FLAIR as the model knows them: {_named(deviations)}.",
        )
    return (f"Unlike what the model was trained on, so trust the result less: {_named(deviations)}.",)


def measure(found: ModelInput) -> Measures:
    """Return what a patient on the model grid shows. Deterministic; a fraction of a second."""
    depth = _depth_mm(found)
    deep = depth > min(BRAIN_DEPTH_MM, 0.5 * float(depth.max()))
    planes = _highest(found, UPPER_MM)
    values, inner = found.values[planes], deep[planes]
    if int(inner.sum()) < LEAST_VOXELS:
        return Measures(tissue=0.0)
    t1, flair = (np.ascontiguousarray(values[:, channel]) for channel in (0, 1))
    tissue = inner & _between(values, DARKEST_TISSUE, BRIGHTEST_TISSUE)
    share = float(tissue.sum() / inner.sum())
    if int(tissue.sum()) < LEAST_VOXELS:
        return Measures(tissue=share)
    fine = [_without_shading(image, inner) for image in (t1, flair)]
    return Measures(
        tissue=share,
        t1_tail=_skewness(t1[tissue]),
        flair_tail=_skewness(flair[tissue]),
        t1_fine_tail=_skewness(fine[0][tissue]),
        flair_fine_tail=_skewness(fine[1][tissue]),
        match=_fisher(fine[0][inner], fine[1][inner]),
        likeness=_fisher(fine[0][tissue], fine[1][tissue]),
        flair_fluid=float(np.median(flair[inner & (t1 <= np.percentile(t1[inner], 5))])),
        t1_fluid=float(np.median(t1[inner & (flair <= np.percentile(flair[inner], 5))])),
        t1_vessels=_vessels(found, deep & _highest(found, VESSELS_MM)[:, None, None]),
        t1_grain=_grain(t1, inner),
        flair_grain=_grain(flair, inner),
    )


def distance(deviations: Vector) -> float:
    """Return the root mean square of the deviations, NaN left out; 0 when there is none."""
    known = np.minimum(np.abs(deviations[np.isfinite(deviations)]), MOST_DEVIATION)
    return float(np.sqrt(np.mean(known**2))) if known.size else 0.0


KIND = np.array([name not in QUALITY for name in NAMES])


def largest(deviations: Vector) -> float:
    return float(np.nan_to_num(np.abs(deviations)).max(initial=0.0))


def _named(deviations: Vector) -> str:
    """Return in words what deviates most."""
    size = np.nan_to_num(np.abs(deviations))
    order = [int(index) for index in np.argsort(-size, kind="stable")[:MOST_NAMED]]
    named = [index for index in order if size[index] >= LEAST_NAMED] or order[:1]
    return "; ".join(WORDS[NAMES[index]][int(deviations[index] > 0)] for index in named)


def _depth_mm(found: ModelInput) -> FloatArray:
    """Return the distance from the skin, (D, S, S), positive inside."""
    head = sitk.GetImageFromArray(found.inside.astype(np.uint8))
    head.CopyInformation(found.grid)
    inwards = sitk.SignedMaurerDistanceMap(
        head, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
    )
    return np.asarray(sitk.GetArrayFromImage(inwards), dtype=np.float32)


def _highest(found: ModelInput, height_mm: float) -> BoolArray:
    """Return the highest planes, (D,), as far as both images show them."""
    planes = np.arange(len(found.inside))
    vertex = max(np.flatnonzero(found.inside.any(axis=(1, 2))), default=0)
    return np.asarray(found.usable & ((vertex - planes) * found.grid.GetSpacing()[2] < height_mm))


def _vessels(found: ModelInput, where: BoolArray) -> float:
    t1, flair = found.values[:, 0], found.values[:, 1]
    dark = t1[where & (flair > NOT_ACQUIRED) & (flair < VOID)]
    return float(np.percentile(dark, 95)) if dark.size >= LEAST_DARK else float("nan")


def _between(values: FloatArray, low: float, high: float) -> BoolArray:
    """Return the voxels, (D, S, S), around which both images (D, 2, S, S) lie between two values in-plane."""
    found = ((values > low) & (values < high)).all(axis=1)
    for axis in (1, 2):
        found = found & np.roll(found, 1, axis) & np.roll(found, -1, axis)  # at the edges there is air
    return np.asarray(found)


def _without_shading(image: FloatArray, inner: BoolArray) -> FloatArray:
    """Return the image less its smoothed copy; what lies outside has no part in the smoothing."""
    weight = _smoothed(inner.astype(np.float32))
    shading = _smoothed(image * inner) / np.maximum(weight, np.float32(1e-3))
    return np.asarray(image - shading, dtype=np.float32)


def _smoothed(image: FloatArray) -> FloatArray:
    along_rows = sitk.RecursiveGaussian(sitk.GetImageFromArray(image), COARSE_PIXELS, False, 0, 0)
    both = sitk.RecursiveGaussian(along_rows, COARSE_PIXELS, False, 0, 1)
    return np.asarray(sitk.GetArrayFromImage(both), dtype=np.float32)


def _skewness(values: FloatArray) -> float:
    """Return by how much the upper tail is the longer one, −1 to 1 (Bowley, of the outer twentieths)."""
    low, middle, high = np.percentile(values, (5, 50, 95))
    return float((high + low - 2 * middle) / max(high - low, 1e-6))


def _fisher(one: FloatArray, other: FloatArray) -> float:
    if one.std() == 0 or other.std() == 0:
        return float("nan")
    correlation = float(np.corrcoef(one, other)[0, 1])
    return float(np.arctanh(np.clip(correlation, -MOST_CORRELATION, MOST_CORRELATION)))


def _grain(image: FloatArray, inner: BoolArray) -> float:
    middle, inside = image[:, 1:-1, 1:-1], inner[:, 1:-1, 1:-1]
    up, down, left, right = image[:, :-2, 1:-1], image[:, 2:, 1:-1], image[:, 1:-1, :-2], image[:, 1:-1, 2:]
    second = np.median(np.abs(4 * middle - up - down - left - right)[inside])
    first = np.median(np.hypot(down - up, right - left)[inside]) / 2
    return float(np.log(max(float(second), 1e-6) / max(float(first), 1e-6)))
