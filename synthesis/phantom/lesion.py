"""One patient's head: the shared map, bent a little, with a tumour in it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from synthesis.phantom.tissue import Fractions, HeadMap, Tissue

#: Centres of white matter where a tumour may lie (LPS, millimetres); the sign of x is drawn.
SITES_MM = ((30.0, -24.0, 26.0), (32.0, 30.0, 30.0), (36.0, 6.0, 32.0), (30.0, 52.0, 22.0))
#: How far a head differs from the map.
BEND_MM = 2.5
#: Heads are a little smaller than the template.
SIZE = 0.96
#: Voxels of the map in one of the bending field.
COARSE = 8


@dataclass(frozen=True)
class Lesion:
    """A tumour: radii of necrosis, enhancing rim and oedema around a centre in the template, LPS."""

    centre_mm: tuple[float, float, float]
    necrosis_mm: float = 8.0
    rim_mm: float = 13.0
    oedema_mm: float = 25.0


def draw_lesion(rng: np.random.Generator) -> Lesion:
    """Return a tumour somewhere in the white matter of one hemisphere."""
    x, y, z = SITES_MM[rng.integers(len(SITES_MM))]
    side = rng.choice([-1.0, 1.0])
    scale = rng.uniform(0.85, 1.2)
    return Lesion(
        centre_mm=(side * x, y + rng.uniform(-4, 4), z + rng.uniform(-3, 3)),
        necrosis_mm=8.0 * scale,
        rim_mm=13.0 * scale,
        oedema_mm=25.0 * scale,
    )


def _noise(rng: np.random.Generator, shape: tuple[int, ...], sigma_voxels: float) -> Fractions:
    """Return smooth noise of unit variance."""
    image = sitk.GetImageFromArray(rng.standard_normal(shape).astype(np.float32))
    array = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(image, sigma_voxels))
    return np.asarray(array / array.std(), dtype=np.float32)


def bend(head: HeadMap, rng: np.random.Generator) -> sitk.Transform:
    """Return the map from a place in another person's head to the same place in the template's, LPS."""
    size = np.array([SIZE + rng.uniform(-0.015, 0.015) for _ in range(3)])
    coarse = tuple(length // COARSE + 2 for length in head.labels.shape)
    field = np.stack([BEND_MM * _noise(rng, coarse, 2.0) for _ in range(3)], axis=-1)
    displacement = sitk.GetImageFromArray(field.astype(np.float64), isVector=True)
    displacement.SetSpacing((head.voxel_mm * COARSE,) * 3)
    displacement.SetOrigin(head.origin_mm)
    scale = sitk.AffineTransform(3)
    scale.Scale((1 / size).tolist())
    return sitk.CompositeTransform([sitk.DisplacementFieldTransform(displacement), scale])


def grow(head: HeadMap, lesion: Lesion, rng: np.random.Generator) -> HeadMap:
    """Return the head with this tumour: necrosis in a ragged rim, oedema that follows the white matter."""
    x, y, z = head.centres_mm()
    cx, cy, cz = lesion.centre_mm
    radius = np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)
    ragged = _noise(rng, head.labels.shape, 4.0)
    fingers = _noise(rng, head.labels.shape, 2.5)
    matter = head.white + head.grey
    brain = matter > 0.5
    core = radius + 1.0 * ragged + 1.8 * fingers
    spread = radius + 3.5 * ragged + 2.0 * fingers + 9.0 * (head.grey / np.clip(matter, 0.1, None))

    labels, white, grey = head.labels.copy(), head.white.copy(), head.grey.copy()
    for where, tissue in (
        (brain & (spread < lesion.oedema_mm), Tissue.OEDEMA),
        (brain & (core < lesion.rim_mm), Tissue.TUMOUR),
        ((radius < lesion.rim_mm) & (core < lesion.necrosis_mm), Tissue.NECROSIS),
    ):
        labels[where] = tissue
        white[where] = 0
        grey[where] = 0
    return replace(head, labels=labels, white=white, grey=grey)
