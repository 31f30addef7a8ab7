"""All exams of a folder into one cache, several at a time: each is read, checked and converted on its own."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from rich.console import Console
from rich.progress import track

from synthesis.errors import RefusedInput
from synthesis.preprocess import to_model_grid
from synthesis.quality import check_head
from synthesis.series import DECODING_ERRORS
from synthesis.threads import given_threads
from training.prepare.cache import CacheWriter, Case
from training.prepare.dicom import read_dicom
from training.prepare.exams import Exam, Role, dicom_files, find_exams
from training.prepare.names import warn_of_twins
from training.prepare.nifti import read_nifti
from training.prepare.patient import Patient, facts_of, labels_on_grid, target_on_grid

log = logging.getLogger(__name__)

#: T1C/level above this is kept as this: vessels and mucosa reach 5.
HIGHEST_T1C = 8.0
#: A plane is blank where nothing in the head is brighter than this share of the brain.
BLANK = 0.05
#: Exams that may wait for their turn in the cache, for each process.
AHEAD = 2
#: Exams that the summary numbers for one reason.
NAMED = 8


@dataclass(frozen=True)
class Converted:
    """What became of an exam, before its place in the arrays is known."""

    case: Case
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    #: Where code failed in a way that nobody foresaw; without the words, which may name the patient.
    trace: str = ""


def read_patient(folder: Path) -> Patient:
    """Return the volumes of the one exam in a folder, whatever its layout.

    Raises
    ------
    RefusedInput
        When something is missing or cannot be read.
    """
    exams = find_exams(folder)
    if len(exams) != 1:
        raise RefusedInput("NO_EXAM", f"The folder holds {len(exams)} exams; one is expected.")
    return read_exam(exams[0])


def read_exam(exam: Exam) -> Patient:
    """Return the volumes of an exam on the T1W's grid. Without segmentation there is no tumour in them.

    Raises
    ------
    RefusedInput
        ``NO_T1``, ``NO_FLAIR``, ``NO_T1C``, ``BIAS_DIFFERS``, and what `read_dicom` and `read_nifti` raise.
    """
    for role in (Role.T1, Role.FLAIR, Role.T1C):
        if role not in exam.files:
            raise RefusedInput(
                f"NO_{role.name}", f"No file is named as {role.spoken}, in any way known here."
            )
    if exam.bias_differs:
        raise RefusedInput(
            "BIAS_DIFFERS",
            "Only one of T1W and T1C is corrected for uneven brightness (bias): their difference would look "
            "like contrast uptake. Please supply both as acquired, or both corrected.",
        )
    return read_dicom(exam) if exam.dicom else read_nifti(exam)


def prepare_patients(source: Path, out: Path, size: int = 120) -> list[Case]:
    """Write the arrays of all exams in `source` and ``cases.json`` to `out`; return what became of each.

    Parameters
    ----------
    source : Path
        Folder of exams, in any of the layouts of `training.prepare.exams`. Tables (``*.csv``) that say who is
        who lie somewhere in it.
    out : Path
        Folder of the cache. ``values.npy`` (N, 2, S, S) float16: T1W and FLAIR, each over its brain level;
        ``t1c.npy`` float16; ``tumour.npy`` uint8, 255 is tumour; ``brain.npy``, ``inside.npy`` uint8, 0 or 1;
        unless all exams are DICOM, ``labels.npy`` uint8 (`training.prepare.labels`); each (N, S, S).
    size : int
        Rows and columns of the model grid.

    Raises
    ------
    FileNotFoundError
        When `source` does not exist or holds no usable exam.
    """
    # Of two exams with the same images the first is kept: one that somebody segmented.
    exams = sorted(find_exams(source), key=lambda exam: Role.SEG not in exam.files)
    warn_of_twins((exam.patient, *exam.also) for exam in exams)
    with_labels = any(not exam.dicom for exam in exams)
    cache = CacheWriter(out, _plan(exams, size))
    if cache.cases:
        log.info("%d exams were in already", len(cache.cases))
    seen = {case.fingerprint: number for number, case in enumerate(cache.cases, 1) if case.count}
    todo = exams[len(cache.cases) :]
    bar = Console(stderr=True)
    done = _each(todo, size, with_labels)
    for one in track(done, "prepare", len(todo), console=bar, disable=not bar.is_terminal):
        case, arrays, number = one.case, one.arrays, len(cache.cases) + 1
        if case.count and case.fingerprint in seen:
            reason = f"Its T1W is that of exam {seen[case.fingerprint]}: the same images under another name."
            case, arrays = replace(case, count=0, refused=reason, code="SAME_IMAGES"), {}
        if case.count:
            seen[case.fingerprint] = number
        cache.add(replace(case, first=cache.rows), arrays)
        log.info("exam %d: %s", number, case.refused or f"{case.count} slices")
        if one.trace:
            log.error("exam %d failed in\n%s", number, one.trace)
    if not cache.rows:
        log.error("%s", summary(cache.cases))
    cache.finish()
    return cache.cases


def summary(cases: Sequence[Case]) -> str:
    """Return what was kept and what was refused, why, and which: by number, not by name."""
    kept = [case for case in cases if case.count]
    lines = [f"{len(kept)} of {len(cases)} exams kept, {sum(case.count for case in kept)} slices"]
    unlabelled = sum(not case.labelled for case in kept)
    if unlabelled:
        lines[0] += f", {unlabelled} without segmentation"
    numbers: dict[str, list[int]] = {}
    for number, case in enumerate(cases, 1):
        if case.code:
            numbers.setdefault(case.code, []).append(number)
    for code, found in sorted(numbers.items(), key=lambda item: -len(item[1])):
        which = ", ".join(str(number) for number in found[:NAMED]) + (", …" if len(found) > NAMED else "")
        lines.append(f"  {code:<18} {len(found):>4}  exam {which}: {cases[found[0] - 1].refused}")
    return "\n".join(lines)


def convert(exam: Exam, size: int, with_labels: bool) -> Converted:
    """Return what becomes of an exam. Nothing that is wrong with it gets past this."""
    case = Case(
        exam.patient,
        0,
        0,
        exam=exam.name,
        institution=exam.institution,
        labelled=Role.SEG in exam.files,
        also=exam.also,
    )
    try:
        return _converted(case, read_exam(exam), size, with_labels)
    except RefusedInput as error:
        return Converted(replace(case, refused=error.sentence, code=error.code))
    except (MemoryError, *DECODING_ERRORS) as error:
        sentence = f"It cannot be converted ({type(error).__name__})."
        trace = "".join(traceback.format_tb(error.__traceback__))
        return Converted(replace(case, refused=sentence, code="NOT_FORESEEN"), trace=trace)


def _converted(case: Case, patient: Patient, size: int, with_labels: bool) -> Converted:
    for role, image in ((Role.T1, patient.t1), (Role.FLAIR, patient.flair)):
        _check_head(image, role)
    if not np.ptp(sitk.GetArrayViewFromImage(patient.t1c)):
        raise RefusedInput("BLANK_VOLUME", f"{Role.T1C.spoken}: The images are blank.")
    found = to_model_grid(patient.t1, patient.flair, size)
    t1c, tumour, brain = target_on_grid(patient, found)
    shown = found.usable & ((t1c > BLANK) & found.inside).any(axis=(1, 2))
    if not shown.any():
        raise RefusedInput("NO_PLANES", "No plane shows the head in all three images.")
    arrays: dict[str, npt.NDArray[Any]] = {
        "values": found.values[shown].astype(np.float16),
        "t1c": np.clip(t1c[shown], 0, HIGHEST_T1C).astype(np.float16),
        "tumour": np.round(255 * tumour[shown]).astype(np.uint8),
        "brain": (brain[shown] > 0).astype(np.uint8),
        "inside": found.inside[shown].astype(np.uint8),
    }
    if with_labels:
        arrays["labels"] = labels_on_grid(patient, found.grid)[shown]
    notes, left_out = list(patient.notes), int((found.inside.any(axis=(1, 2)) & ~shown).sum())
    if left_out:
        notes.append(f"Planes of the head left out, as an image is blank there: {left_out}.")
    case = replace(
        case,
        count=int(shown.sum()),
        left_out=left_out,
        fingerprint=hashlib.sha256(sitk.GetArrayFromImage(patient.t1).tobytes()).hexdigest()[:16],
    )
    if not patient.labelled:
        return Converted(replace(case, notes=(*notes, "Nobody segmented the tumour.")), arrays)
    facts = facts_of(patient, found)
    if not facts.tumour_ml:
        cavity = patient.labels is not None and sitk.GetArrayViewFromImage(patient.labels).any()
        notes.append(f"The segmentation {'holds a cavity and no tumour' if cavity else 'is empty'}.")
    case = replace(
        case,
        notes=tuple(notes),
        tumour_ml=facts.tumour_ml,
        enhancing_ml=facts.enhancing_ml,
        group=facts.group.value,
    )
    return Converted(case, arrays)


def _check_head(image: sitk.Image, role: Role) -> None:
    """Refuse what inference refuses, and say of which image."""
    try:
        check_head(image)
    except RefusedInput as error:
        raise RefusedInput(error.code, f"{role.spoken}: {error.sentence}") from error


def _each(exams: Sequence[Exam], size: int, with_labels: bool) -> Iterator[Converted]:
    """Yield what becomes of each exam, in order; as many at a time as there are processors to use."""
    count = min(given_threads(), len(exams))
    if count < 2:
        yield from (convert(exam, size, with_labels) for exam in exams)
        return
    clean = multiprocessing.get_context("spawn")  # a fork of a process with threads of ITK may hang
    with ProcessPoolExecutor(count, clean, _one_thread) as pool:
        waiting: deque[Future[Converted]] = deque()
        try:
            for exam in exams:
                waiting.append(pool.submit(convert, exam, size, with_labels))
                if len(waiting) > AHEAD * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _plan(exams: Sequence[Exam], size: int) -> str:
    """Return a digest of what is to be done: it changes when a file does."""
    digest = hashlib.sha256(str(size).encode())
    for exam in exams:
        digest.update(repr((exam.name, exam.scheme, exam.institution, exam.also)).encode())
        for role, path in exam.files.items():
            for file in dicom_files(path) if exam.dicom else [path]:
                digest.update(repr((role.value, file.name, *_state(file))).encode())
    return digest.hexdigest()


def _state(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:
        return 0, 0  # it will be refused when it is read
    return stat.st_size, stat.st_mtime_ns
