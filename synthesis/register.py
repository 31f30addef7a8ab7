"""The FLAIR onto the grid of the T1W: rigid, deterministic, and never silently wrong.

Transforms map points of the T1W to points of the FLAIR (LPS, mm), as SimpleITK's resampling wants them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from synthesis.errors import RefusedInput
from synthesis.preprocess import head_mask

#: In-plane voxel of the two levels on which the optimiser works; thick slices stay as they are.
LEVELS_MM = (4.0, 2.0)
#: Steps on each: from 20° and 20 mm a stripped brain takes 90 on the coarse one, then 14 on the fine.
MOST_STEPS = (200, 60)
SEED = 20260711
#: Sums of several threads differ in their last bits from run to run; a second one saves nothing here.
THREADS = 1
BINS = 32
#: Share of the head's voxels that the optimiser looks at, and their number: as many as a head in thick slices
#: has; more of them only take longer.
MOST_SAMPLED, MOST_SAMPLES = 0.4, 70_000
#: Within one Frame of Reference the scanner knows where the slices lie: only the patient can have moved.
FARTHEST_MM = 15.0
#: Less of the T1W's head than this inside the FLAIR's field of view is another region of the body.
LEAST_COVERED = 0.5
#: Information where the FLAIR lies over the highest 8 mm beside it. Measured: the same patient 1.55 (one pair
#: of 43), 1.85–6.6 (the others, skull-stripped too); 25 times another patient, or upside down: 0–1.44.
LEAST_SHARPNESS = 1.5
#: Enough where the scanner's own coordinates say the same and no better place is found.
LEAST_SHARPNESS_SHARED = 1.2
BESIDE_MM = 8.0
SAME_GRID_MM = 0.05
#: Of series on one grid the FLAIR is resampled only for a movement that is worth it and beyond doubt.
#: Measured on the 40 patients of lgg: lying still, the information gains at most 1.03 (at 0.4 mm); of 33
#: movements of 2 to 6 mm made on 11 of them 31 are followed, to 1.3 mm at worst.
LEAST_MOVED_MM = 1.5
LEAST_GAIN = 1.05
#: Information of the mirrored FLAIR over that of the FLAIR itself. A head is not symmetrical: at most 0.83 on
#: the 40 patients of lgg, 0.3 to 0.7 on BRAINIX, FG-6692 and a stripped brain. Mirrored, it is the inverse.
CLEARLY_MIRRORED = 1.1

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Registration:
    """The FLAIR on the T1W's grid, and what was done for it."""

    #: Float32 on the grid of the T1W, linear; 0 where the FLAIR was not acquired.
    flair_on_t1: sitk.Image
    #: From points of the T1W to points of the FLAIR, LPS mm.
    transform: sitk.Euler3DTransform
    #: Mean distance that points of the head were moved, and the angle.
    moved_mm: float
    turned_deg: float
    #: How clearly this place is better than those beside it (1: it is not); 0 where nothing was measured.
    sharpness: float
    sentence: str


def register(t1: sitk.Image, flair: sitk.Image, *, same_frame_of_reference: bool) -> Registration:
    """Return the FLAIR on the grid of the T1W.

    Parameters
    ----------
    t1, flair : sitk.Image
        Float32 volumes in patient space (LPS).
    same_frame_of_reference : bool
        The scanner says that both lie in one coordinate system: start there, and do not leave it far.

    Raises
    ------
    RefusedInput
        ``REGISTRATION_FAILED`` when the two do not match or hardly overlap, ``MIRRORED`` when they match
        better with left and right swapped.
    """
    coarse, fine = (_Pair.of(t1, flair, *level) for level in zip(LEVELS_MM, MOST_STEPS, strict=True))
    identity = sitk.Euler3DTransform()
    identity.SetCenter(fine.centre.tolist())
    near = _near(coarse, fine, identity) if same_frame_of_reference else None
    one_grid = same_frame_of_reference and same_grid(t1, flair)
    if near is not None and one_grid and not fine.clearly_better(near, identity):
        _refuse_mirrored(t1, flair, coarse.information(identity))
        return Registration(
            sitk.Cast(flair, sitk.sitkFloat32), sitk.Euler3DTransform(), 0.0, 0.0, 0.0,
            "The FLAIR lies on the T1W's grid already: not resampled.",
        )  # fmt: skip
    if near is not None and fine.sharpness(near) >= LEAST_SHARPNESS:
        best, least = near, LEAST_SHARPNESS
    else:
        starts = [coarse.refined(start) for start in _starts(coarse, identity)]
        best, least = fine.refined(max(starts, key=coarse.information)), LEAST_SHARPNESS
        if near is not None and fine.sharpness(best) < LEAST_SHARPNESS:
            best, least = near, LEAST_SHARPNESS_SHARED
    moved_mm, turned_deg = fine.moved_mm(best), angle_deg(best)
    sharpness = fine.sharpness(best)
    _refuse_bad(fine.covered(best), sharpness, least)
    _refuse_mirrored(t1, flair, coarse.information(best))
    return Registration(
        flair_on_t1=resampled(flair, t1, best),
        transform=best,
        moved_mm=moved_mm,
        turned_deg=turned_deg,
        sharpness=sharpness,
        sentence=_sentence(moved_mm, turned_deg, same_frame_of_reference, best is near, one_grid),
    )


def same_grid(one: sitk.Image, other: sitk.Image) -> bool:
    """Return whether every voxel of the two lies at the same place (within `SAME_GRID_MM`)."""
    if one.GetSize() != other.GetSize():
        return False
    corners = [
        (x, y, z)
        for x in (0, one.GetWidth() - 1)
        for y in (0, one.GetHeight() - 1)
        for z in (0, one.GetDepth() - 1)
    ]
    return all(
        math.dist(one.TransformIndexToPhysicalPoint(corner), other.TransformIndexToPhysicalPoint(corner))
        < SAME_GRID_MM
        for corner in corners
    )


def resampled(flair: sitk.Image, t1: sitk.Image, transform: sitk.Transform) -> sitk.Image:
    """Return the FLAIR on the T1W's grid (linear, 0 outside)."""
    return sitk.Resample(flair, t1, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat32)


def angle_deg(transform: sitk.Euler3DTransform) -> float:
    """Return the rotation angle of a rigid transform."""
    matrix = np.array(transform.GetMatrix()).reshape(3, 3)
    return math.degrees(math.acos(float(np.clip((np.trace(matrix) - 1) / 2, -1.0, 1.0))))


@dataclass(frozen=True)
class _Pair:
    """Both volumes, smoothed and thinned, and their heads."""

    t1: sitk.Image
    flair: sitk.Image
    t1_head: sitk.Image
    flair_head: sitk.Image
    #: (N, 3) points of the T1W's head.
    points: Points
    most_steps: int

    @classmethod
    def of(cls, t1: sitk.Image, flair: sitk.Image, voxel_mm: float, most_steps: int) -> _Pair:
        t1, flair = _thinned(t1, voxel_mm), _thinned(flair, voxel_mm)
        t1_head, flair_head = head_mask(t1), head_mask(flair)
        inside = np.argwhere(sitk.GetArrayViewFromImage(t1_head) > 0)
        inside = inside[:: max(1, len(inside) // 40000)]
        axes = np.array(t1.GetDirection()).reshape(3, 3)
        points = np.array(t1.GetOrigin()) + (inside[:, ::-1] * np.array(t1.GetSpacing())) @ axes.T
        return cls(t1, flair, t1_head, flair_head, points, most_steps)

    @property
    def centre(self) -> Points:
        return np.asarray(self.points.mean(axis=0))

    def refined(self, start: sitk.Euler3DTransform) -> sitk.Euler3DTransform:
        """Return the rigid transform of highest mutual information near `start`."""
        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfThreads(THREADS)
        method.SetNumberOfWorkUnits(THREADS)
        method.SetMetricAsMattesMutualInformation(BINS)
        mask = sitk.BinaryDilate(self.t1_head, (2, 2, 0))
        voxels = int(np.count_nonzero(sitk.GetArrayViewFromImage(mask)))
        method.SetMetricFixedMask(mask)
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(min(MOST_SAMPLED, MOST_SAMPLES / max(1, voxels)), SEED)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=2.0, minStep=0.01, numberOfIterations=self.most_steps, relaxationFactor=0.6
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(sitk.Euler3DTransform(start), inPlace=False)
        try:
            found = method.Execute(self.t1, self.flair)
        except RuntimeError:  # the volumes do not overlap from here
            return start
        return sitk.Euler3DTransform(sitk.CompositeTransform(found).GetBackTransform())

    def information(self, transform: sitk.Transform) -> float:
        """Return the normalised mutual information of the T1W's head with the FLAIR."""
        there = resampled(self.flair, self.t1, transform)
        mask = sitk.GetArrayViewFromImage(self.t1_head) > 0
        return normalised_information(
            sitk.GetArrayViewFromImage(self.t1)[mask], sitk.GetArrayViewFromImage(there)[mask]
        )

    def moved_mm(self, transform: sitk.Transform) -> float:
        """Return how far the points of the head go on average."""
        return float(np.linalg.norm(_mapped(self.points, transform) - self.points, axis=1).mean())

    def clearly_better(self, found: sitk.Transform, here: sitk.Transform) -> bool:
        """Return whether the patient evidently moved from here to there."""
        gain = self.information(found) / max(self.information(here), 1e-6)
        return self.moved_mm(found) >= LEAST_MOVED_MM and gain >= LEAST_GAIN

    def covered(self, transform: sitk.Transform) -> float:
        """Return the share of the T1W's head inside the FLAIR's field of view."""
        axes = np.array(self.flair.GetDirection()).reshape(3, 3)
        there = (_mapped(self.points, transform) - np.array(self.flair.GetOrigin())) @ axes
        index = there / np.array(self.flair.GetSpacing())
        return float(((index > -0.5) & (index < np.array(self.flair.GetSize()) - 0.5)).all(axis=1).mean())

    def sharpness(self, transform: sitk.Euler3DTransform) -> float:
        """Return the information here over the highest one `BESIDE_MM` beside, in the T1W's planes."""
        axes = np.array(self.t1.GetDirection()).reshape(3, 3)
        beside = []
        for step in (axes[:, 0], -axes[:, 0], axes[:, 1], -axes[:, 1]):
            other = sitk.Euler3DTransform(transform)
            other.SetTranslation((np.array(transform.GetTranslation()) + BESIDE_MM * step).tolist())
            beside.append(self.information(other))
        return self.information(transform) / max(*beside, 1e-6)


def normalised_information(one: Points, other: Points) -> float:
    """Return the mutual information of paired values over the smaller of their entropies, 0–1."""
    one, other = (np.clip(values, *np.percentile(values, (1, 99))) for values in (one, other))
    joint = np.histogram2d(one, other, bins=BINS)[0]
    joint /= max(1.0, float(joint.sum()))
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    entropies = [_entropy(part) for part in (rows, columns, joint.ravel())]
    return float((entropies[0] + entropies[1] - entropies[2]) / max(min(entropies[:2]), 1e-9))


def _entropy(shares: Points) -> float:
    used = shares[shares > 0]
    return float(-(used * np.log(used)).sum())


def _mapped(points: Points, transform: sitk.Transform) -> Points:
    rigid = sitk.Euler3DTransform(transform)
    matrix = np.array(rigid.GetMatrix()).reshape(3, 3)
    centre = np.array(rigid.GetCenter())
    return np.asarray((points - centre) @ matrix.T + centre + np.array(rigid.GetTranslation()))


def _thinned(image: sitk.Image, voxel_mm: float) -> sitk.Image:
    factors = [
        max(1, min(round(voxel_mm / spacing), count // 2))
        for spacing, count in zip(image.GetSpacing(), image.GetSize(), strict=True)
    ]
    return sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factors)


def _near(coarse: _Pair, fine: _Pair, identity: sitk.Euler3DTransform) -> sitk.Euler3DTransform:
    """Return the better of the scanner's coordinates and the optimum near them."""
    found = fine.refined(coarse.refined(identity))
    near = [identity] if fine.moved_mm(found) > FARTHEST_MM else [identity, found]
    return max(near, key=fine.information)


def _starts(pair: _Pair, identity: sitk.Euler3DTransform) -> list[sitk.Euler3DTransform]:
    """Return where to start when coordinates say nothing: as they are, by the centres, by the heads."""
    starts = [identity]
    for how, one, other in (
        (sitk.CenteredTransformInitializerFilter.GEOMETRY, pair.t1, pair.flair),
        (sitk.CenteredTransformInitializerFilter.MOMENTS, pair.t1_head, pair.flair_head),
    ):
        start = sitk.CenteredTransformInitializer(
            sitk.Cast(one, sitk.sitkFloat32), sitk.Cast(other, sitk.sitkFloat32), sitk.Euler3DTransform(), how
        )
        starts.append(sitk.Euler3DTransform(start))
    return starts


def _refuse_bad(covered: float, sharpness: float, least: float) -> None:
    if covered < LEAST_COVERED:
        raise RefusedInput(
            "REGISTRATION_FAILED",
            f"Only {covered:.0%} of the head on the T1W lies in the FLAIR's field of view.",
        )
    if sharpness < least:
        raise RefusedInput(
            "REGISTRATION_FAILED",
            "The FLAIR could not be aligned with the T1W: they do not seem to show the same head "
            f"(agreement {sharpness:.1f}, at least {least} is needed).",
        )


def _refuse_mirrored(t1: sitk.Image, flair: sitk.Image, information: float) -> None:
    """Refuse a FLAIR whose mirror image shares more with the T1W than itself does (`information`)."""
    to_the_left = int(np.argmax(np.abs(np.array(flair.GetDirection()).reshape(3, 3)[0])))
    swapped = sitk.Flip(flair, [axis == to_the_left for axis in range(3)])
    swapped.CopyInformation(flair)
    pair = _Pair.of(t1, swapped, LEVELS_MM[0], MOST_STEPS[1])
    identity = sitk.Euler3DTransform()
    identity.SetCenter(pair.centre.tolist())
    best = max(pair.information(pair.refined(start)) for start in _starts(pair, identity))
    if best > CLEARLY_MIRRORED * information:
        raise RefusedInput(
            "MIRRORED",
            "Left and right seem to be swapped in the FLAIR or the T1W: mirrored, the two fit better "
            f"({best:.2f} instead of {information:.2f}).",
        )


def _sentence(moved_mm: float, turned_deg: float, same_frame: bool, trusted: bool, one_grid: bool) -> str:
    moved = f"moved by {moved_mm:.1f} mm and {turned_deg:.1f}°"
    if one_grid:
        return (
            f"The patient moved between T1W and FLAIR, which share one grid; the FLAIR was aligned: {moved}."
        )
    if not same_frame:
        return f"The FLAIR was aligned to the T1W without common coordinates: {moved}."
    if not trusted:
        return f"The scanner's coordinates of FLAIR and T1W do not fit; the FLAIR was aligned: {moved}."
    if moved_mm == 0:
        return "The FLAIR was resampled to the T1W's grid by the scanner's coordinates."
    return f"The FLAIR was aligned to the T1W from the scanner's coordinates: {moved}."
