"""An exam of NIfTI volumes: whole files, three dimensions, true numbers, one grid."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from synthesis.errors import RefusedInput
from training.prepare.exams import Exam, Role
from training.prepare.labels import is_tumour, read_labels
from training.prepare.patient import Patient

FEWEST_VOXELS = 5
#: Values below zero come from interpolation in 1 voxel of 100; in z-scored volumes they are half of them.
MOST_NEGATIVE = 0.05
#: Headers that place corners less than this share of a voxel apart mean the same grid.
SAME_GRID = 0.5
#: Share of the T1W's volume that another volume must cover to be of the same frame of reference.
LEAST_COVERED = 0.5
#: Codes of the data types that have values which are no numbers; first field of the header in NIfTI-1 and 2.
FLOATS = {"16": "f4", "64": "f8"}
HEADER_SIZES = (348, 540)


def read_nifti(exam: Exam) -> Patient:
    """Return the volumes of an exam that has all three images, on the T1W's grid.

    Raises
    ------
    RefusedInput
        ``UNREADABLE_FILE``, ``WRONG_SHAPE``, ``NO_POSITION``, ``NOT_FINITE``, ``NEGATIVE_VALUES``,
        ``GRIDS_DISAGREE``, ``LABELS_UNEXPECTED`` or ``LABELS_UNCLEAR``.
    """
    notes = list(exam.notes)
    t1 = _read_image(exam, Role.T1)
    others = {}
    for role in (Role.FLAIR, Role.T1C):
        others[role], note = _onto(t1, _read_image(exam, role), role, exam.one_grid, sitk.sitkLinear)
        notes.append(note)
    labels, note = sitk.Image(t1.GetSize(), sitk.sitkUInt8), ""
    if Role.SEG in exam.files:
        drawn = read_volume(exam.files[Role.SEG], Role.SEG.spoken)
        drawn, note = _onto(t1, drawn, Role.SEG, exam.one_grid, sitk.sitkNearestNeighbor)
        notes.append(note)
        values, note = read_labels(sitk.GetArrayViewFromImage(drawn), exam.scheme)
        labels = sitk.GetImageFromArray(values)
        notes.append(note)
    labels.CopyInformation(t1)
    tumour = sitk.GetImageFromArray(is_tumour(sitk.GetArrayViewFromImage(labels)).astype(np.uint8))
    tumour.CopyInformation(t1)
    return Patient(
        t1=t1,
        flair=others[Role.FLAIR],
        t1c=others[Role.T1C],
        tumour=tumour,
        labels=labels if Role.SEG in exam.files else None,
        labelled=Role.SEG in exam.files,
        notes=tuple(note for note in notes if note),
    )


def read_volume(path: Path, what: str) -> sitk.Image:
    """Return a NIfTI volume, float32, slope and intercept applied; `what` is how sentences call it.

    Raises
    ------
    RefusedInput
        ``UNREADABLE_FILE``, ``WRONG_SHAPE``, ``NO_POSITION`` or ``NOT_FINITE``.
    """
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NiftiImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        _refuse_shape(reader, what)
        _refuse_damaged(reader, path, what)
        reader.SetOutputPixelType(sitk.sitkFloat32)
        return reader.Execute()
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        raise RefusedInput("UNREADABLE_FILE", f"The file of {what} is damaged or no NIfTI.") from error


def _read_image(exam: Exam, role: Role) -> sitk.Image:
    image = read_volume(exam.files[role], role.spoken)
    values = sitk.GetArrayViewFromImage(image)
    negative = float((values < 0).mean())
    if negative > MOST_NEGATIVE:
        raise RefusedInput(
            "NEGATIVE_VALUES",
            f"{negative:.0%} of {role.spoken} lies below zero: it was normalised before, and ratios to the "
            "brain's level mean nothing.",
        )
    return image


def _refuse_shape(reader: sitk.ImageFileReader, what: str) -> None:
    size = reader.GetSize()
    if len(size) != 3 or reader.GetNumberOfComponents() != 1:
        raise RefusedInput("WRONG_SHAPE", f"The file of {what} is no single volume ({_times(size)}).")
    if min(size) < FEWEST_VOXELS:
        raise RefusedInput("WRONG_SHAPE", f"The file of {what} has {_times(size)} voxels only.")
    if reader.GetMetaData("qform_code") == reader.GetMetaData("sform_code") == "0":
        raise RefusedInput("NO_POSITION", f"The header of {what} does not say how it lies in the patient.")


def _refuse_damaged(reader: sitk.ImageFileReader, path: Path, what: str) -> None:
    """Refuse what ITK reads as zeros without a word: the missing end of a file, and what is no number."""
    data = path.read_bytes()
    if path.name.endswith(".gz"):
        data = gzip.decompress(data)  # looks at the checksum, which ITK does not
    begin, count = int(float(reader.GetMetaData("vox_offset"))), int(np.prod(reader.GetSize()))
    if len(data) < begin + count * int(reader.GetMetaData("bitpix")) // 8:
        raise RefusedInput("UNREADABLE_FILE", f"The file of {what} is cut short.")
    kind = FLOATS.get(reader.GetMetaData("datatype"))
    if kind is None:
        return
    order = "<" if int.from_bytes(data[:4], "little") in HEADER_SIZES else ">"
    strange = int((~np.isfinite(np.frombuffer(data, order + kind, count, begin))).sum())
    if strange:
        raise RefusedInput("NOT_FINITE", f"{strange} voxels of {what} hold no number (NaN or infinity).")


def _onto(
    t1: sitk.Image, image: sitk.Image, role: Role, one_grid: bool, interpolation: int
) -> tuple[sitk.Image, str]:
    """Return the image on the T1W's grid, and a note or ""; refuse headers that cannot both be true."""
    what = role.spoken
    same_size = image.GetSize() == t1.GetSize()
    apart = _apart(t1, image) if same_size else np.inf
    if apart < SAME_GRID:
        image.CopyInformation(t1)
        return image, ""
    if same_size and one_grid:
        raise RefusedInput(
            "GRIDS_DISAGREE",
            f"The headers place {what} {apart:.1f} voxels away from the T1W, in a data set of one grid.",
        )
    if _covered(t1, image) < LEAST_COVERED:
        raise RefusedInput("GRIDS_DISAGREE", f"By the headers, {what} shows another place than the T1W.")
    there = sitk.Resample(image, t1, sitk.Transform(), interpolation, 0.0, image.GetPixelID())
    return there, f"{what[0].upper()}{what[1:]} lay on a grid of its own ({_times(image.GetSize())})."


def _apart(first: sitk.Image, second: sitk.Image) -> float:
    """Return how far apart two headers of one size place their corners at most, in voxels."""
    ends = [(0, size - 1) for size in first.GetSize()]
    corners = [(x, y, z) for x in ends[0] for y in ends[1] for z in ends[2]]
    one, other = (
        np.asarray([image.TransformIndexToPhysicalPoint(corner) for corner in corners])
        for image in (first, second)
    )
    return float(np.linalg.norm(one - other, axis=1).max() / min(first.GetSpacing()))


def _covered(t1: sitk.Image, image: sitk.Image) -> float:
    """Return the share of the T1W's volume that the image covers, by a lattice of points."""
    axes = [np.linspace(0, size - 1, 9) for size in t1.GetSize()]
    points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 3)
    inside = [
        image.TransformPhysicalPointToContinuousIndex(
            t1.TransformContinuousIndexToPhysicalPoint(point.tolist())
        )
        for point in points
    ]
    index = np.asarray(inside)
    return float(((index >= -0.5) & (index <= np.asarray(image.GetSize()) - 0.5)).all(axis=1).mean())


def _times(size: tuple[int, ...]) -> str:
    return "×".join(str(count) for count in size)
