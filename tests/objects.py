"""Every kind of object that we make, from any pair of series: what their tests share."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from pydicom import Dataset

from synthesis.derive.answer import Refusal, answer_document, answer_page
from synthesis.derive.objects import Volumes, derive
from synthesis.derive.provenance import Maker
from synthesis.derive.retraction import retract
from synthesis.derive.sanitise import TEXT_VRS
from synthesis.derive.source import Source
from synthesis.job import Kind, Wanted
from synthesis.series import Series

MADE = datetime.datetime(2026, 5, 4, 3, 2, 1)
#: Two that may make them, of which all tests but one know the first: model, version, weights, caveat.
MAKERS = (("small", "0.1", "ab" * 32, "A caveat."), ("large", "0.2", "cd" * 32, "Another caveat."))
ALL = tuple(kind.value for kind in Kind)


def maker(wanted: Wanted, nth: int = 0) -> Maker:
    """Return who made it."""
    return Maker(*MAKERS[nth], device="cpu", parameters=wanted.to_text())


def blob(t1: Series) -> npt.NDArray[np.float32]:
    """Return a probability (D, H, W) with a tumour off the middle, no two sides of it alike."""
    shape = sitk.GetArrayViewFromImage(t1.image).shape
    z, y, x = (index / size for index, size in zip(np.indices(shape), shape, strict=True))
    distance = ((z - 0.55) / 0.15) ** 2 + ((y - 0.4) / 0.12) ** 2 + ((x - 0.3) / 0.08) ** 2
    return np.exp(-distance).astype(np.float32)


def like(t1: Series, values: npt.NDArray[Any]) -> sitk.Image:
    """Return values (D, H, W) as a volume on the T1W's grid."""
    image = sitk.GetImageFromArray(values.astype(np.float32))
    image.CopyInformation(t1.image)
    return image


def volumes(t1: Series, level: float, nth: int = 0) -> Volumes:
    """Return what a model might have said."""
    tumour, own = blob(t1), sitk.GetArrayFromImage(t1.image)
    change = level * (0.5 * tumour if nth == 0 else 0.4 * tumour + 0.02)
    return Volumes(like(t1, own + change), like(t1, tumour), like(t1, 0.1 * change))


def source(t1: Series, flair: Series, wanted: Wanted, nth: int = 0) -> Source:
    """Return what the objects are made from."""
    level = float(np.percentile(sitk.GetArrayViewFromImage(t1.image), 80))
    by, made = maker(wanted, nth), MADE + nth * datetime.timedelta(days=1, seconds=1)
    return Source.of(t1, flair, sitk.Euler3DTransform(), level, by, made=made, notes=("A note.",))


def every_object(t1: Series, flair: Series, nth: int = 0) -> dict[str, list[Dataset]]:
    """Return the objects of each kind: those of a job in both forms, of an answer and of a retraction.

    `nth` says which of two makers made them, and when; what it says of them differs as well.
    """
    found: dict[str, list[Dataset]] = {}
    for wanted in (Wanted(ALL, corner_text=True), Wanted(("t1c", "seg", "report"), "enhanced", "fractional")):
        given = source(t1, flair, wanted, nth)
        for instance in derive(
            wanted, given, volumes(t1, given.level, nth), ("One.", "Another one.")
        ).instances:
            found.setdefault(f"{wanted.t1c}: {instance.SeriesDescription}", []).append(instance)
    refusal = Refusal(
        "NO_FLAIR", ("The FLAIR was not sent.", "There is no FLAIR.")[nth], ("The T1W is there: 22 slices.",)
    )
    made_by, made = maker(Wanted(), nth), MADE + nth * datetime.timedelta(days=1, seconds=1)
    results = [instance for instances in found.values() for instance in instances]
    found["document"] = [answer_document(refusal, t1.headers, made_by, made)]
    found["page"] = [answer_page(refusal, t1.headers, made_by, made)]
    found["retraction"] = [retract(results, t1.headers[0], "The outline is wrong.", made_by, made)]
    return found


def texts(dataset: Dataset) -> str:
    """Return every text of an object, whole: `str` of a data set cuts long ones."""
    return "\n".join(str(element.value) for element in dataset.iterall() if element.VR in TEXT_VRS)


def save_all(instances: Iterable[Dataset], folder: Path) -> list[Path]:
    """Write objects as files; return them in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, instance in enumerate(instances):
        paths.append(folder / f"{number:04d}.dcm")
        instance.save_as(paths[-1], enforce_file_format=True)
    return paths


def spread_out(paths: Sequence[Path], most: int = 4) -> list[Path]:
    """Return a few of many, the first among them."""
    return list(paths[:: max(1, len(paths) // most)])
