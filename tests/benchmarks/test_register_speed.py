"""Seconds of processor time for the registration of 1 mm volumes, whatever else the machine does.

One thread does the work, so that on an idle machine it takes as long. Only the answers are asserted:
``pytest -s tests/benchmarks/test_register_speed.py``.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import SimpleITK as sitk
from rigid import brain_points, centre_of, displaced, error_mm, farthest, real_pair

from synthesis.register import register

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

#: Seed of the displacement, 20° and 20 mm.
SEED = 3
#: A whole head, which was acquired in thick slices, and a stripped brain at 1 mm.
NAMES = ("TCGA-FG-6692_native", "BraTS-GLI-00000-000")


def at_1_mm(image: sitk.Image) -> sitk.Image:
    """Return the image on a grid of 1 mm over the same place."""
    size = [round(n * mm) for n, mm in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    return sitk.Resample(
        image,
        size,
        sitk.Transform(),
        sitk.sitkLinear,
        image.GetOrigin(),
        (1.0, 1.0, 1.0),
        image.GetDirection(),
        0.0,
        sitk.sitkFloat32,
    )


@pytest.mark.parametrize("name", NAMES)
def test_how_long_volumes_of_1_mm_take(name: str, shared_data: Path) -> None:
    t1, flair = (at_1_mm(image) for image in real_pair(shared_data, name))
    points = brain_points(t1)
    displacement = farthest(SEED, centre_of(points))
    print(f"\n{name}: {'×'.join(map(str, t1.GetSize()))} and {'×'.join(map(str, flair.GetSize()))} voxels")
    began = time.process_time()
    unmoved = register(t1, flair, same_frame_of_reference=False)
    print(f"  as scanned:         {time.process_time() - began:5.1f} s CPU")
    for same in (True, False):
        began = time.process_time()
        found = register(t1, displaced(flair, displacement), same_frame_of_reference=same)
        took = time.process_time() - began
        error = error_mm(found, sitk.CompositeTransform([displacement, unmoved.transform]), points)
        how = "one" if same else "no "
        print(f"  20° and 20 mm, {how} frame: {took:5.1f} s CPU, {error:.2f} mm from the truth")
        assert error < 1.0
