"""Make ``tissue.npz`` from the ICBM152 maps in nilearn's wheel: ``python -m synthesis.phantom.build``.

Run once by whoever changes the phantom; what it writes is shipped. The template is a brain without a skull:
skull, scalp, face and vessels are built around it from simple shapes. Coordinates are those of the template:
millimetres, x to the left, y to the back, z up (LPS), origin at the anterior commissure.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from synthesis.phantom.tissue import MAP_FILE, Tissue

VOXEL_MM = 1.5
#: First and last voxel centre, LPS.
LOWER_MM = (-90.0, -111.0, -76.5)
UPPER_MM = (90.0, 124.5, 102.0)
#: Steps of a fraction. Few steps compress well, and noise hides them.
DEPTH = 47
#: How much steeper than the template's (an average of 152 heads) the borders of the tissues are.
SHARPNESS = 1.8

Volume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Point = tuple[float, float, float]


class Shapes:
    """Signed distances (negative inside, about millimetres) to simple shapes, on the grid of the phantom."""

    def __init__(self) -> None:
        sides = [np.arange(a, b + 0.01, VOXEL_MM) for a, b in zip(LOWER_MM, UPPER_MM, strict=True)]
        self.x, self.y, self.z = (side.astype(np.float32) for side in sides)
        self.x, self.y, self.z = self.x[None, None, :], self.y[None, :, None], self.z[:, None, None]
        self.shape = (self.z.size, self.y.size, self.x.size)

    def ellipsoid(self, centre: Point, semi_mm: Point, mirror: bool = False) -> Volume:
        """Return the distance to an ellipsoid; `mirror`: and to its twin on the other side."""
        x = np.abs(self.x) if mirror else self.x
        offsets = ((x - centre[0]), (self.y - centre[1]), (self.z - centre[2]))
        radius = np.sqrt(sum((o / s) ** 2 for o, s in zip(offsets, semi_mm, strict=True)))
        return np.asarray((radius - 1) * min(semi_mm), dtype=np.float32)

    def tube(self, start: Point, end: Point, radius_mm: float, mirror: bool = False) -> Volume:
        """Return the distance to a straight tube with round ends."""
        x = np.abs(self.x) if mirror else self.x
        axis = np.subtract(end, start)
        length2 = float(axis @ axis)
        along = (
            (x - start[0]) * axis[0] + (self.y - start[1]) * axis[1] + (self.z - start[2]) * axis[2]
        ) / length2
        along = np.clip(along, 0, 1)
        squares = sum(
            (side - s - along * a) ** 2 for side, s, a in zip((x, self.y, self.z), start, axis, strict=True)
        )
        return np.asarray(np.sqrt(squares) - radius_mm, dtype=np.float32)


def _image(array: npt.NDArray[np.generic]) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((VOXEL_MM,) * 3)
    image.SetOrigin(LOWER_MM)
    return image


def _smooth(volume: Volume, sigma_mm: float) -> Volume:
    return np.asarray(sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(_image(volume), sigma_mm)))


def _distance(mask: Mask) -> Volume:
    image = sitk.SignedMaurerDistanceMap(
        _image(mask.astype(np.uint8)), insideIsPositive=False, squaredDistance=False, useImageSpacing=True
    )
    return np.asarray(sitk.GetArrayFromImage(image))


def _template(name: str, shape: tuple[int, ...]) -> Volume:
    package = importlib.util.find_spec("nilearn")
    if package is None or package.origin is None:
        raise SystemExit("The template is in nilearn's wheel: pip install nilearn")
    folder = Path(package.origin).parent / "datasets" / "data"
    image = sitk.ReadImage(
        str(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"), sitk.sitkFloat32
    )
    grid = _image(np.zeros(shape, np.float32))
    array = sitk.GetArrayFromImage(sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear))
    return np.asarray(array / 255, dtype=np.float32)


def _brain(shapes: Shapes) -> tuple[Volume, Volume, Mask]:
    """Return white and grey matter, sharpened, and the hull of the brain."""
    white, grey, t1 = (_template(name, shapes.shape) for name in ("wm", "gm", "t1"))
    # The grey of an average of many heads fills the sulci; its T1 still shows them as dark.
    sulcus = np.clip((0.66 - t1) / 0.3, 0, 1)
    grey *= 1 - sulcus
    powers = [np.power(np.clip(part, 0, 1), SHARPNESS) for part in (white, grey, 1 - white - grey)]
    total = sum(powers)
    matter = (white + grey) > 0.3
    hull = sitk.BinaryMorphologicalClosing(_image(matter.astype(np.uint8)), (13, 13, 13), sitk.sitkBall)
    hull = sitk.BinaryFillhole(hull)
    shares = [np.asarray(power / total, dtype=np.float32) for power in powers]
    return shares[0], shares[1], sitk.GetArrayFromImage(hull).astype(bool)


def _noise(shape: tuple[int, ...], sigma_mm: float, seed: int) -> Volume:
    noise = _smooth(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), sigma_mm)
    return np.asarray(noise / noise.std())


Paint = Callable[[Mask, Tissue], None]


def _paint_face(s: Shapes, paint: Paint, depth: Volume, wobble: Volume) -> None:
    """Orbits with their globes, nasal cavity, maxillary sinuses; all under the skin."""
    under = depth > 3.5
    orbit = s.ellipsoid((29, -50, -36), (18, 27, 17), mirror=True)
    paint(under & (orbit < 2.0), Tissue.BONE)
    paint(under & (orbit < 0), Tissue.FAT)
    for side in (17.0, 43.0):
        paint(under & (s.tube((24, -27, -34), (side, -58, -37), 2.0, mirror=True) < 0), Tissue.MUSCLE)
    paint(s.tube((29, -52, -37), (12, -20, -32), 1.8, mirror=True) < 0, Tissue.NERVE)
    globe = s.ellipsoid((31, -62, -37), (12.5, 12.5, 12.5), mirror=True)
    paint(globe < 0, Tissue.MUSCLE)
    paint(globe < -1.3, Tissue.VITREOUS)
    paint(s.ellipsoid((31, -71.5, -37), (4.5, 2.2, 4.5), mirror=True) < 0, Tissue.NERVE)

    nose = s.ellipsoid((0, -56, -52), (12, 27, 25))
    maxillary = s.ellipsoid((29, -46, -70), (14, 18, 16), mirror=True)
    for cavity in (nose + wobble, maxillary + wobble):
        paint(under & (cavity < 1.5), Tissue.BONE)
        paint(under & (cavity < 0), Tissue.MUCOSA)
        paint(under & (cavity < -1.6), Tissue.AIR)
    cells = (
        under
        & (nose < -1.6)
        & ((np.abs(np.sin(s.y / 3.1 + wobble)) < 0.22) | (np.abs(s.x + 0.4 * wobble) < 1.2))
    )
    paint(cells, Tissue.MUCOSA)


def _paint_skull(paint: Paint, from_brain: Volume, thickness: Volume, depth: Volume) -> None:
    """The vault: two dark tables with marrow between them."""
    inner = 1.8
    vault = (from_brain >= inner) & (from_brain < inner + thickness) & (depth > 3.0)
    paint(vault, Tissue.BONE)
    diploe = (from_brain >= inner + 1.6) & (from_brain < inner + thickness - 1.6)
    paint(vault & diploe, Tissue.MARROW)


def _paint_skull_base(s: Shapes, paint: Paint, brain: Mask, marbling: Volume, wobble: Volume) -> None:
    """Petrous bones, clivus, mastoid cells, sphenoid and frontal sinuses: outside the brain only."""
    free = ~brain
    paint(free & (s.tube((56, 26, -44), (14, 8, -40), 8.0, mirror=True) < 0), Tissue.BONE)
    paint(free & (s.tube((0, 6, -36), (0, 20, -66), 6.5) < 0), Tissue.BONE)
    paint(free & (s.tube((0, 4, -36), (0, 18, -66), 4.5) < 0), Tissue.MARROW)
    mastoid = s.ellipsoid((56, 36, -46), (9, 14, 16), mirror=True)
    paint(free & (mastoid < 0), Tissue.BONE)
    paint(free & (mastoid < -1) & (marbling > 0.2), Tissue.AIR)
    for cavity in (
        s.ellipsoid((0, -18, -40), (12, 12, 9)),
        s.ellipsoid((9, -78, -6), (10, 4.5, 11), mirror=True),
    ):
        paint(free & (cavity + wobble < 1.5), Tissue.BONE)
        paint(free & (cavity + wobble < 0), Tissue.MUCOSA)
        paint(free & (cavity + wobble < -1.2), Tissue.AIR)


def _paint_vessels(s: Shapes, paint: Paint, from_brain: Volume, brain: Mask) -> None:
    """Sagittal and transverse sinuses along the inner table, carotids and basilar artery."""
    rim = (from_brain < 2.2) & (from_brain > -4.5)
    midline = (np.abs(s.x) < 3.2) & ((s.y > 0) | (s.z > 20)) & (s.z > -15)
    paint(rim & midline, Tissue.BLOOD)
    bend = 30 + 0.42 * (s.y - 25)
    transverse = (np.abs(s.z + 22 + 0.02 * (s.y - 60)) < 3.5) & (s.y > bend) & (s.y > 35)
    paint(rim & transverse & ~brain, Tissue.BLOOD)
    paint(~brain & (s.tube((13, 2, -60), (13, -4, -22), 2.5, mirror=True) < 0), Tissue.BLOOD)
    paint(~brain & (s.tube((10, -4, -20), (38, -6, -16), 1.5, mirror=True) < 0), Tissue.BLOOD)
    paint(~brain & (s.tube((0, 22, -55), (0, 14, -14), 1.8) < 0), Tissue.BLOOD)
    paint(~brain & (s.tube((0, -6, -16), (0, -30, 18), 1.4) < 0), Tissue.BLOOD)


def head() -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays of ``tissue.npz``."""
    s = Shapes()
    white, grey, hull = _brain(s)
    brain = (white + grey) > 0.25
    from_brain = _distance(hull)
    rough = from_brain
    from_brain = _smooth(from_brain, 3.0)
    thickness = 7.0 + 0.8 * _noise(s.shape, 18.0, seed=1)

    from_skin = from_brain - 14.5
    for shape in (
        s.ellipsoid((0, -28, -72), (66, 58, 76)),  # face
        s.ellipsoid((0, 45, -92), (60, 58, 66)),  # neck
        s.ellipsoid((50, -8, -28), (23, 42, 42), mirror=True),  # temporalis
        s.ellipsoid((0, -84, -58), (13, 18, 22)),  # nose
        s.ellipsoid((78, 24, -30), (5, 15, 24), mirror=True),  # ears
    ):
        from_skin = np.minimum(from_skin, shape)
    from_skin = _distance(_smooth(from_skin, 2.5) < 0)
    from_skin = _smooth(from_skin, 1.2)
    depth = -from_skin
    fat = 4.2 + 1.0 * _noise(s.shape, 15.0, seed=2)
    marbling = _noise(s.shape, 2.2, seed=3)
    wobble = 1.6 * _noise(s.shape, 5.0, seed=4)

    labels = np.full(s.shape, Tissue.AIR, np.uint8)

    def paint(where: Mask, tissue: Tissue) -> None:
        labels[where] = tissue

    inside = depth > 0
    paint(inside, Tissue.MUSCLE)
    paint(inside & (marbling > 1.5), Tissue.FAT)
    paint(inside & (depth < 1.8 + fat), Tissue.FAT)
    paint(inside & (depth < 1.8), Tissue.SKIN)
    _paint_face(s, paint, depth, wobble)
    _paint_skull(paint, from_brain, thickness, depth)
    paint(from_brain < 1.8, Tissue.CSF)
    paint(rough < 0, Tissue.CSF)
    _paint_skull_base(s, paint, brain, marbling, wobble)
    _paint_vessels(s, paint, from_brain, brain)
    deep = s.ellipsoid((16, 30, 10), (15, 24, 18), mirror=True) < 0
    csf = 1 - white - grey
    ventricle = deep & (_smooth(csf, 1.0) > 0.5)
    plexus = s.tube((13, 16, 16), (24, 36, 8), 3.0, mirror=True) < 0
    paint(ventricle & plexus, Tissue.CHOROID)

    return {
        "labels": labels,
        "white": np.round(white * DEPTH).astype(np.uint8),
        "grey": np.round(grey * DEPTH).astype(np.uint8),
        "depth": np.array(DEPTH),
        "origin_mm": np.array(LOWER_MM),
        "voxel_mm": np.array(VOXEL_MM),
    }


def main() -> None:
    """Write the map and say how large it is."""
    np.savez_compressed(MAP_FILE, **head())  # type: ignore[arg-type]
    print(f"{MAP_FILE.name}: {MAP_FILE.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
