"""Known rigid displacements of real volumes, and how well they are found again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from synthesis.preprocess import brain_region
from synthesis.register import Registration
from synthesis.series import read_series

Pair = tuple[sitk.Image, sitk.Image]
#: As far as a displacement must be followed.
FARTHEST_DEG, FARTHEST_MM = 20.0, 20.0


def rigid(
    shift_mm: Sequence[float], turn_deg: Sequence[float], centre: Sequence[float]
) -> sitk.Euler3DTransform:
    """Return a transform by Euler angles."""
    transform = sitk.Euler3DTransform()
    transform.SetCenter(list(centre))
    transform.SetTranslation(list(shift_mm))
    transform.SetRotation(*np.radians(turn_deg).tolist())
    return transform


def farthest(seed: int, centre: Sequence[float]) -> sitk.Euler3DTransform:
    """Return 20° about an axis and 20 mm in a direction that the seed draws."""
    random = np.random.default_rng(seed)
    axis, way = (vector / np.linalg.norm(vector) for vector in random.normal(size=(2, 3)))
    turn = sitk.VersorRigid3DTransform()
    turn.SetRotation(axis.tolist(), np.radians(FARTHEST_DEG))
    transform = sitk.Euler3DTransform()
    transform.SetCenter(list(centre))
    transform.SetMatrix(turn.GetMatrix())
    transform.SetTranslation((FARTHEST_MM * way).tolist())
    return transform


def displaced(image: sitk.Image, transform: sitk.Euler3DTransform) -> sitk.Image:
    """Return the image lying elsewhere: voxels untouched, its place in space moved."""
    turned = np.array(transform.GetMatrix()).reshape(3, 3) @ np.array(image.GetDirection()).reshape(3, 3)
    moved = sitk.Image(image)
    moved.SetOrigin(transform.TransformPoint(image.GetOrigin()))
    moved.SetDirection(turned.ravel().tolist())
    return moved


def brain_points(t1: sitk.Image) -> list[tuple[float, ...]]:
    """Return points all over the brain, LPS mm."""
    index = np.argwhere(brain_region(t1))[:, ::-1]
    chosen = index[np.linspace(0, len(index) - 1, 300).astype(int)]
    return [t1.TransformContinuousIndexToPhysicalPoint(one.astype(float).tolist()) for one in chosen]


def centre_of(points: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(np.mean(points, axis=0).tolist())


def error_mm(found: Registration, truth: sitk.Transform, points: list[tuple[float, ...]]) -> float:
    """Return how far points are from where they belong, on average."""
    there, right = (
        np.array([transform.TransformPoint(point) for point in points])
        for transform in (found.transform, truth)
    )
    return float(np.linalg.norm(there - right, axis=1).mean())


def real_pair(data: Path, name: str) -> Pair:
    """Return T1W and FLAIR of BRAINIX, of a patient of lgg, or of a folder of nifti."""
    if (data / "nifti" / name).is_dir():
        t1, flair = (
            sitk.ReadImage(str(data / "nifti" / name / f"{role}.nii.gz"), sitk.sitkFloat32)
            for role in ("t1", "flair")
        )
        return t1, flair
    folder, roles = (data, ("T1", "FLAIR")) if name == "BRAINIX" else (data / "lgg", ("t1", "flair"))
    t1, flair = (read_series(sorted((folder / name / role).iterdir())).image for role in roles)
    return t1, flair
