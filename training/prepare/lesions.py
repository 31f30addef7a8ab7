"""The lesion patches of BraTS 2020 (the layout of `lesions`) as thick slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.prepare.cache import CacheWriter, Case

#: A lesion patch is z-scored by its whole brain: value/level = 1 + spread · z. Standard deviation over median
#: as in skull-stripped BraTS brains (one measured: T1W 0.21, FLAIR 0.36, T1C 0.42 with its large rim).
SPREAD = {"t1": 0.22, "flair": 0.32, "t1c": 0.30}
#: What lies outside the brain in a patch: z = 0.
PADDING = 88
#: Slices of 1.21 mm that are averaged to one of a clinical thickness, and the step between them.
THICK, STEP = 4, 2
#: BraTS 2020 numbers its low-grade gliomas so; some come from TCGA-LGG, as the held-out patients do.
SAME_PATIENTS_AS_LGG = range(260, 336)


def prepare_lesions(source: Path, out: Path) -> list[Case]:
    """Write the lesion patches as thick slices of 32×32 (about 2 mm) to `out`; return what became of each.

    Raises
    ------
    FileNotFoundError
        When `source` holds no usable lesion.
    """
    paths = sorted(source.glob("*.npz"))
    cache = CacheWriter(out, " ".join(path.name for path in paths))
    for path in paths[len(cache.cases) :]:
        if int(path.stem.split("_")[1]) in SAME_PATIENTS_AS_LGG:
            reason = "From the same collection as the held-out patients."
            cache.add(Case(path.stem, cache.rows, 0, reason, "SAME_PATIENTS", exam=path.stem), {})
            continue
        with np.load(path) as arrays:
            patch = {name: _axial(arrays[name]) for name in ("t1", "flair", "t1c", "mask")}
        outside = np.all([patch[name] == PADDING for name in ("t1", "flair", "t1c")], axis=0)
        scaled = {name: 1 + SPREAD[name] * (patch[name] / 25 - 3.5) for name in SPREAD}
        normal = ~outside & (patch["mask"] == 0)
        if normal.sum() > 500:  # the T1C's z-score is shifted by its own enhancement
            scaled["t1c"] -= np.median((scaled["t1c"] - scaled["t1"])[normal])
        thick = {name: _thick(np.where(outside, 0, values)) for name, values in scaled.items()}
        mask, inside = _thick_label(patch["mask"]), _thick((~outside).astype(float)) > 0.5
        shown = (mask > 0).sum(axis=(1, 2)) > 8
        slices = {
            "values": np.stack([thick["t1"], thick["flair"]], axis=1)[shown].astype(np.float16),
            "t1c": thick["t1c"][shown].astype(np.float16),
            "mask": mask[shown],
            "inside": inside[shown].astype(np.uint8),
        }
        cache.add(Case(path.stem, cache.rows, int(shown.sum()), exam=path.stem), slices)
    cache.finish()
    return cache.cases


def _axial(patch: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(patch.transpose(2, 1, 0))  # (x, y, z) to (z, y, x): LPS, as the model grid


def _thick(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    starts = range(0, len(values) - THICK + 1, STEP)
    return np.stack([values[start : start + THICK].mean(axis=0) for start in starts])


def _thick_label(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return 0 normal, 1 tumour, 2 mostly enhancing, of the thick slices."""
    shares = [_thick((mask > 0).astype(float)), _thick((mask == 4).astype(float))]
    return np.asarray(np.sum([share > 0.5 for share in shares], axis=0), dtype=np.uint8)
