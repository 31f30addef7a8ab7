"""Which objects a job makes of its volumes: T1C, segmentation, difference, uncertainty, report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset

from synthesis.confidence import ENHANCING, TUMOUR
from synthesis.derive.enhanced_mr import derive_enhanced
from synthesis.derive.mr import derive_series, difference_volume, t1c_volume, uncertainty_volume
from synthesis.derive.report import Summary, derive_report
from synthesis.derive.seg import derive_seg
from synthesis.derive.source import Source
from synthesis.job import DerivedInstance, Kind, Wanted, fsync_folder

NO_TUMOUR_NO_SEG = "No tumour was found: there is no segmentation."
NO_SPREAD = "All that answered agree to the bit, or there is only one: no uncertainty map was made."
MM3_PER_ML = 1000.0


@dataclass(frozen=True)
class Volumes:
    """What was computed, float32 on the T1W's grid."""

    #: In the T1W's values.
    t1c: sitk.Image
    #: Probability of tumour, 0–1.
    tumour: sitk.Image
    #: Standard deviation of the T1C among members and mirror images, in the T1W's values.
    spread: sitk.Image


@dataclass(frozen=True)
class Derived:
    """The objects of a job, and what a reader should know of how they came about."""

    instances: tuple[Dataset, ...]
    remarks: tuple[str, ...]


def derive(wanted: Wanted, source: Source, volumes: Volumes, sentences: Sequence[str]) -> Derived:
    """Return the objects that are wanted.

    Parameters
    ----------
    wanted : Wanted
        Which, and in which form.
    source : Source
        What they are made from.
    volumes : Volumes
        What they show.
    sentences
        What the report says of the result.
    """
    images: list[Dataset] = []
    remarks: list[str] = []
    seg = None
    if Kind.T1C in wanted.objects:
        t1c, said = t1c_volume(source, volumes.t1c, corner_text=wanted.corner_text)
        images += [derive_enhanced(source, t1c)] if wanted.t1c == "enhanced" else derive_series(source, t1c)
        remarks += said
    if Kind.DIFFERENCE in wanted.objects:
        difference, said = difference_volume(source, volumes.t1c)
        images += derive_series(source, difference)
        remarks += said
    if Kind.UNCERTAINTY in wanted.objects:
        if sitk.GetArrayViewFromImage(volumes.spread).any():
            images += derive_series(source, uncertainty_volume(source, volumes.spread))
        else:
            remarks.append(NO_SPREAD)
    if Kind.SEG in wanted.objects:
        seg = derive_seg(source, volumes.tumour, fractional=wanted.seg == "fractional")
        if seg is None:
            remarks.append(NO_TUMOUR_NO_SEG)
    instances = [*images, *([seg] if seg is not None else [])]
    if Kind.REPORT in wanted.objects:
        summary = summary_of(source, volumes, tuple(dict.fromkeys([*sentences, *remarks])))
        instances.append(derive_report(source, summary, images, seg))
    return Derived(tuple(instances), tuple(remarks))


def summary_of(source: Source, volumes: Volumes, sentences: tuple[str, ...]) -> Summary:
    """Return the volumes of the predicted tumour and of what enhances in it, with what is to be said."""
    t1, t1c, tumour = (
        sitk.GetArrayViewFromImage(image) for image in (source.t1.image, volumes.t1c, volumes.tumour)
    )
    marked = tumour > TUMOUR
    enhancing = marked & (t1c - t1 > ENHANCING * source.level)
    voxel_ml = float(np.prod(source.t1.image.GetSpacing())) / MM3_PER_ML
    return Summary(int(marked.sum()) * voxel_ml, int(enhancing.sum()) * voxel_ml, sentences)


def save(instances: Sequence[Dataset], out: Path) -> tuple[DerivedInstance, ...]:
    """Write each instance durably: temporary name, fsync, rename; then the folder."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for instance in instances:
        name = f"{instance.SeriesNumber}-{instance.InstanceNumber:04d}.dcm"
        partial = out / f".{name}"
        with partial.open("wb") as file:
            instance.save_as(file, enforce_file_format=True)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(out / name)
        written.append(
            DerivedInstance(
                path=name,
                sop_class_uid=str(instance.SOPClassUID),
                sop_instance_uid=str(instance.SOPInstanceUID),
                series_instance_uid=str(instance.SeriesInstanceUID),
            )
        )
    fsync_folder(out)
    return tuple(written)
