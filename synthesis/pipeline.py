"""The whole way of one job: read, register, normalise, segment, synthesise, restore, derive."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import SimpleITK as sitk
from pydicom import Dataset

from synthesis import confidence, guard
from synthesis.derive.objects import Volumes, derive, save
from synthesis.derive.provenance import Maker
from synthesis.derive.source import Source, refuse_synthetic
from synthesis.errors import RefusedInput
from synthesis.job import ONLY_T1C, DerivedInstance, Wanted
from synthesis.preprocess import REFORMAT_MM, ModelInput, to_model_grid
from synthesis.quality import measure, remarks, why_no_head
from synthesis.register import register
from synthesis.restore import restore, restore_map, restore_spread
from synthesis.series import Series, read_series
from synthesis.threads import limit_threads

if TYPE_CHECKING:
    from synthesis.models.load import LoadedModel

#: Share of the whole that is done when a step begins (BRAINIX on two cores).
STEPS = {
    "read": 0.0,
    "register": 0.1,
    "normalise": 0.25,
    "segment": 0.3,
    "synthesise": 0.6,
    "restore": 0.9,
    "derive": 0.95,
}
#: Of the head on the planes in use: in whole series at most 0.037 (BRAINIX, FG-6692, 7 patients of lgg), and
#: 0.076 where a quarter of the field of view is cut away.
MOST_WITHOUT_FLAIR = 0.06
Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Pictures:
    """The volumes of a job on the T1W's grid, float32."""

    t1: sitk.Image
    flair: sitk.Image
    #: Probability of tumour, 0–1.
    tumour: sitk.Image
    t1c: sitk.Image


@dataclass(frozen=True)
class Made:
    """What a job wrote. Paths are relative to its folder."""

    instances: tuple[DerivedInstance, ...]
    #: Seconds of each step, in their order.
    seconds: dict[str, float]
    remarks: tuple[str, ...]
    pictures: Pictures


def run(
    t1_paths: Sequence[Path],
    flair_paths: Sequence[Path],
    out: Path,
    model: LoadedModel,
    report: Report,
    wanted: Wanted = ONLY_T1C,
    remarks_before: Sequence[str] = (),
) -> Made:
    """Make the synthetic T1C series of a pre-contrast T1W and a FLAIR, and what else is wanted.

    Parameters
    ----------
    t1_paths, flair_paths
        DICOM files of the two series, in any order.
    out : Path
        Folder for the instances; made when absent.
    model : LoadedModel
        The networks.
    report
        Is told each step and the share of the whole that is done, 0–1.
    wanted : Wanted
        Which objects to make, and in which form.
    remarks_before
        What is known of the two series and has to be said with the result, as sentences.

    Raises
    ------
    RefusedInput
        With a sentence that says why the input cannot be used.
    """
    limit_threads()
    clock = _Clock(report)
    with clock.step("read"):
        t1, flair = read_series(t1_paths), read_series(flair_paths)
        _refuse_unfit(t1, flair)
        said = [model.caveat, *remarks_before]
        said += [*_quality_of("T1W", t1), *_quality_of("FLAIR", flair)]
    with clock.step("register"):
        same_frame = t1.frame_of_reference_uid == flair.frame_of_reference_uid != ""
        placed = register(t1.image, flair.image, same_frame_of_reference=same_frame)
        said.append(placed.sentence)
    with clock.step("normalise"):
        found = to_model_grid(t1.image, placed.flair_on_t1, model.size)
        said += _left_out(found)
        unusual = guard.check(found, model.card)
    with clock.step("segment") as part:
        tumour = model.segment(found, part)
    with clock.step("synthesise") as part:
        made = model.synthesise(found, tumour, part)
        trust = confidence.sentences(made.delta, made.chance, tumour, model.card)
        said += [*unusual, *trust]
    with clock.step("restore"):
        volumes = Volumes(
            t1c=restore(made.delta, found.grid, t1.image, found.t1_level),
            tumour=restore_map(tumour, found.grid, t1.image),
            spread=restore_spread(made.spread, found.grid, t1.image, found.t1_level),
        )
    with clock.step("derive"):
        source = Source.of(
            t1,
            flair,
            placed.transform,
            found.t1_level,
            Maker(
                model.name,
                model.version,
                model.digest,
                model.caveat,
                device=str(model.device).partition(":")[0],
                parameters=wanted.to_text(),
            ),
            made=datetime.datetime.now(),
            notes=(*remarks_before, *unusual, *trust),
        )
        said += source.remarks
        derived = derive(wanted, source, volumes, said)
        if not derived.instances:
            raise RefusedInput("NOTHING_TO_SHOW", " ".join(derived.remarks))
        said += derived.remarks
        instances = save(derived.instances, out)
    report("derive", 1.0)
    return Made(
        instances=instances,
        seconds=clock.seconds,
        remarks=tuple(dict.fromkeys(said)),
        pictures=Pictures(t1.image, placed.flair_on_t1, volumes.tumour, volumes.t1c),
    )


@dataclass
class _Clock:
    """Times the steps, and tells where the job stands."""

    report: Report
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[float], None]]:
        """Time a step; yield what a step reports its own share to."""
        begin = STEPS[name]
        end = min((share for share in STEPS.values() if share > begin), default=1.0)
        self.report(name, begin)
        started = time.monotonic()
        yield lambda share: self.report(name, begin + (end - begin) * share)
        self.seconds[name] = time.monotonic() - started


def _refuse_unfit(t1: Series, flair: Series) -> None:
    refuse_synthetic(t1)
    refuse_synthetic(flair)
    if t1.series_instance_uid == flair.series_instance_uid:
        raise RefusedInput("SAME_SERIES", "T1W and FLAIR are the same series.")
    if _patient(t1.headers[0]) != _patient(flair.headers[0]):
        raise RefusedInput("DIFFERENT_PATIENTS", "T1W and FLAIR belong to different patients.")


def _patient(header: Dataset) -> str:
    return str(header.get("PatientID") or "")


def _quality_of(name: str, series: Series) -> tuple[str, ...]:
    measured = measure(series.image)
    reason = why_no_head(measured)
    if reason:
        raise RefusedInput("NOT_A_HEAD", f"{name}: {reason}")
    return (*(f"{name}: {remark}" for remark in series.remarks), *remarks(name, measured))


def _left_out(found: ModelInput) -> tuple[str, ...]:
    """Return what to say of the parts of the head for which something was missing."""
    said = []
    shown = found.inside.any(axis=(1, 2))
    missing = int((shown & ~found.usable).sum())
    if missing:
        said.append(
            f"The FLAIR shows too little of the head in {missing} of {int(shown.sum())} planes: "
            "nothing was synthesised there, the result is the T1W."
        )
    if found.without_flair > MOST_WITHOUT_FLAIR:
        said.append(
            f"The FLAIR shows nothing in {found.without_flair:.0%} of the head on the other planes: "
            "there the result rests on the T1W alone."
        )
    if found.below_mm > REFORMAT_MM:
        said.append(
            f"Nothing was synthesised in the lowest {found.below_mm:.0f} mm (neck): the result is the T1W."
        )
    return tuple(said)
