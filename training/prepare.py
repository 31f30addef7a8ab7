"""`python -m training prepare`: patients and lesions to arrays, by the code that inference uses.

Patients come as folders with ``t1``, ``flair``, ``t1c`` and ``seg`` in DICOM, in one frame of reference (the
layout of `lgg`); lesions as ``.npz`` patches (the layout of `lesions`). A patient that would teach something
wrong is refused, with the reason in ``cases.json``.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk

from synthesis.errors import RefusedInput
from synthesis.preprocess import FloatArray, ModelInput, brain_region, level_in, onto, to_model_grid
from synthesis.series import read_series

log = logging.getLogger(__name__)
Arrays = dict[str, list[npt.NDArray[np.generic]]]

#: T1W and T1C of one patient correlate above this in the brain, whatever the sequence.
LEAST_CORRELATION = 0.15
#: Air shows less than this share of the brain level; more is an offset, and ratios mean nothing.
HIGHEST_PEDESTAL = 0.3
#: A lesion patch is z-scored by its whole brain: value/level = 1 + spread · z. Standard deviation over median
#: as in skull-stripped BraTS brains (one measured: T1W 0.21, FLAIR 0.36, T1C 0.42 with its large rim).
SPREAD = {"t1": 0.22, "flair": 0.32, "t1c": 0.30}
#: What lies outside the brain in a patch: z = 0.
PADDING = 88
#: Slices of 1.21 mm that are averaged to one of a clinical thickness, and the step between them.
THICK, STEP = 4, 2
#: BraTS 2020 numbers its low-grade gliomas so; some come from TCGA-LGG, as the held-out patients do.
SAME_PATIENTS_AS_LGG = range(260, 336)


@dataclass(frozen=True)
class Patient:
    """One patient's four volumes on the T1W's own grid."""

    t1: sitk.Image
    flair: sitk.Image
    t1c: sitk.Image
    #: The FLAIR abnormality, uint8.
    tumour: sitk.Image


@dataclass(frozen=True)
class Case:
    """What became of one patient: slices `first` to `first + count` of the arrays, or the reason why not."""

    patient: str
    first: int
    count: int
    refused: str = ""


def read_patient(folder: Path) -> Patient:
    """Return the volumes of a patient's folder.

    Raises
    ------
    RefusedInput
        When a series cannot be read.
    """
    names = ("t1", "flair", "t1c")
    t1, flair, t1c = (read_series(sorted((folder / name).glob("*.dcm"))).image for name in names)
    flair, t1c = (
        sitk.Resample(other, t1, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32)
        for other in (flair, t1c)
    )
    return Patient(t1, flair, t1c, _read_segment(next((folder / "seg").glob("*.dcm")), t1))


def target_on_grid(patient: Patient, found: ModelInput) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return (T1C / its own brain level, tumour 0–1, brain 0/1) on the model grid, each (D, S, S).

    Raises
    ------
    RefusedInput
        When T1W and T1C do not belong together, or the T1W has an offset.
    """
    region = brain_region(patient.t1)
    marked = sitk.GetArrayViewFromImage(patient.tumour) > 0
    t1c_level = level_in(sitk.GetArrayViewFromImage(patient.t1c), region & ~marked)
    brain = sitk.GetImageFromArray(region.astype(np.float32))
    brain.CopyInformation(patient.t1)
    t1c = onto(patient.t1c, found.grid) / np.float32(t1c_level)
    tumour = onto(sitk.Cast(patient.tumour, sitk.sitkFloat32), found.grid)
    inner = (onto(brain, found.grid) > 0.5).astype(np.float32)
    where = (inner > 0) & found.usable[:, None, None]
    correlation = float(np.corrcoef(found.values[:, 0][where], t1c[where])[0, 1])
    if not correlation > LEAST_CORRELATION:
        raise RefusedInput("PAIR_DIFFERS", f"T1W and T1C correlate by {correlation:.2f} only in the brain.")
    air = found.values[:, 0][~found.inside & (found.values[:, 0] > 0)]
    if air.size and float(np.median(air)) > HIGHEST_PEDESTAL:
        raise RefusedInput("PEDESTAL", f"Air shows {float(np.median(air)):.2f} of the brain in the T1W.")
    return t1c, tumour, inner


def prepare_patients(source: Path, out: Path, size: int = 120) -> list[Case]:
    """Write the patients' arrays and ``cases.json`` to `out`; return what became of each."""
    cases: list[Case] = []
    kept: Arrays = {name: [] for name in ("values", "t1c", "tumour", "brain", "inside")}
    first = 0
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        try:
            patient = read_patient(folder)
            found = to_model_grid(patient.t1, patient.flair, size)
            t1c, tumour, brain = target_on_grid(patient, found)
        except (RefusedInput, StopIteration) as error:
            cases.append(Case(folder.name, first, 0, str(error) or "A file is missing."))
            log.warning("patient %d refused: %s", len(cases), cases[-1].refused)
            continue
        shown = found.usable & ((t1c > 0.05) & found.inside).any(axis=(1, 2))
        kept["values"].append(found.values[shown].astype(np.float16))
        kept["t1c"].append(np.clip(t1c[shown], 0, 8).astype(np.float16))
        kept["tumour"].append(np.round(255 * tumour[shown]).astype(np.uint8))
        kept["brain"].append((brain[shown] > 0).astype(np.uint8))
        kept["inside"].append(found.inside[shown].astype(np.uint8))
        cases.append(Case(folder.name, first, int(shown.sum())))
        first += int(shown.sum())
        log.info("patient %d: %d slices", len(cases), cases[-1].count)
    _write(out, kept, cases)
    return cases


def prepare_lesions(source: Path, out: Path) -> list[Case]:
    """Write the lesion patches as thick slices of 32×32 (about 2 mm) to `out`; return what became of each."""
    cases: list[Case] = []
    kept: Arrays = {name: [] for name in ("values", "t1c", "mask", "inside")}
    first = 0
    for path in sorted(source.glob("*.npz")):
        if int(path.stem.split("_")[1]) in SAME_PATIENTS_AS_LGG:
            cases.append(Case(path.stem, first, 0, "From the same collection as the held-out patients."))
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
        kept["values"].append(np.stack([thick["t1"], thick["flair"]], axis=1)[shown].astype(np.float16))
        kept["t1c"].append(thick["t1c"][shown].astype(np.float16))
        kept["mask"].append(mask[shown])
        kept["inside"].append(inside[shown].astype(np.uint8))
        cases.append(Case(path.stem, first, int(shown.sum())))
        first += int(shown.sum())
    _write(out, kept, cases)
    return cases


def _read_segment(path: Path, t1: sitk.Image) -> sitk.Image:
    """Return the first segment of a DICOM SEG on the T1W's grid. Frames lie on the T1W's planes."""
    dataset = pydicom.dcmread(path)
    frames = np.asarray(dataset.pixel_array).reshape(-1, dataset.Rows, dataset.Columns)
    marked = np.zeros(t1.GetSize()[::-1], dtype=np.uint8)
    for frame, groups in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        position = [float(value) for value in groups.PlanePositionSequence[0].ImagePositionPatient]
        marked[round(t1.TransformPhysicalPointToContinuousIndex(position)[2])] |= frame > 0
    image = sitk.GetImageFromArray(marked)
    image.CopyInformation(t1)
    return image


def _axial(patch: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(patch.transpose(2, 1, 0))  # (x, y, z) to (z, y, x): LPS, as the model grid


def _thick(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    starts = range(0, len(values) - THICK + 1, STEP)
    return np.stack([values[start : start + THICK].mean(axis=0) for start in starts])


def _thick_label(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return 0 normal, 1 tumour, 2 mostly enhancing, of the thick slices."""
    shares = [_thick((mask > 0).astype(float)), _thick((mask == 4).astype(float))]
    return np.asarray(np.sum([share > 0.5 for share in shares], axis=0), dtype=np.uint8)


def _write(out: Path, kept: Arrays, cases: list[Case]) -> None:
    if not any(case.count for case in cases):
        raise FileNotFoundError(f"No usable patient in the source of {out.name}.")
    out.mkdir(parents=True, exist_ok=True)
    for name, parts in kept.items():
        np.save(out / f"{name}.npy", np.concatenate(parts))
    (out / "cases.json").write_text(json.dumps([asdict(case) for case in cases], indent=1), encoding="utf-8")
