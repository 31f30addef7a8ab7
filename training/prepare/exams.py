"""Which exams a folder holds, and which file of each is what: by the names that the data sets use.

===============  ============================================================  ==============================
data set         files of an exam                                              labels
===============  ============================================================  ==============================
DICOM            folders ``t1``, ``flair``, ``t1c`` and ``seg`` (a SEG)        tumour
UCSF-PDGM        ``UCSF-PDGM-0004_{T1,T1c,FLAIR,tumor_segmentation}``          1 NCR, 2 ED, 4 ET
BraTS 2020       ``BraTS20_Training_001_{t1,t1ce,flair,seg}``                  1 NCR, 2 ED, 4 ET
BraTS 2021       ``BraTS2021_00000_{t1,t1ce,flair,seg}``                       1 NCR, 2 ED, 4 ET
BraTS 2023–2024  ``BraTS-GLI-00000-000-{t1n,t1c,t2f,seg}``                     1 NCR, 2 ED, 3 ET, 4 cavity
UPENN-GBM        ``UPENN-GBM-00001_11_{T1,T1GD,FLAIR,segm}``                   1 NCR, 2 ED, 4 ET
plain            ``t1``, ``flair``, ``t1c``, ``mask`` or ``seg`` in a folder   by the folder's name, or a 3
===============  ============================================================  ==============================

Volumes end in ``.nii`` or ``.nii.gz`` and lie in any depth of folders, also in one of their own (as Kaggle
has them, ``F.nii/F.nii``). Of UCSF-PDGM the images as acquired are taken, the bias-corrected ones (``_bias``)
where the former are missing; T1W and T1C of one kind, as correcting one of them alone would look like uptake.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from pathlib import Path

from training.prepare.names import Known, institution_of, patient_of, read_tables

SUFFIXES = (".nii.gz", ".nii")


class Role(StrEnum):
    """What a file is; the value is also its folder's name in the DICOM layout."""

    T1 = "t1"
    FLAIR = "flair"
    T1C = "t1c"
    SEG = "seg"

    @property
    def spoken(self) -> str:
        """Return how sentences call it."""
        return {"t1": "the T1W", "flair": "the FLAIR", "t1c": "the T1C", "seg": "the segmentation"}[
            self.value
        ]


class Scheme(Enum):
    """What the numbers of a segmentation mean."""

    #: 4 is enhancing tumour (BraTS until 2021, UCSF-PDGM, UPENN-GBM).
    UNTIL_2021 = 2021
    #: 3 is enhancing tumour, 4 the resection cavity (BraTS from 2023).
    SINCE_2023 = 2023
    #: No name says it.
    UNNAMED = 0


@dataclass(frozen=True)
class Exam:
    """One examination of a patient, with the files that there are."""

    name: str
    #: The patient's name in this data set; all his exams have it.
    patient: str
    #: A file each; in DICOM, a folder.
    files: Mapping[Role, Path]
    dicom: bool = False
    #: Whether the data set promises that the volumes of an exam lie on one grid.
    one_grid: bool = False
    scheme: Scheme = Scheme.UNNAMED
    institution: str = ""
    #: Names of the same patient elsewhere.
    also: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Naming:
    """How a data set names its files: EXAM, a joint, FILE."""

    #: Regular expression of the exam, with a group for its patient.
    exam: str
    joint: str
    #: Role and rank of each file of use; of several the one of the lowest rank is taken.
    files: Mapping[str, tuple[Role, int]]
    scheme: Scheme


_BRATS = {"t1": (Role.T1, 0), "t1ce": (Role.T1C, 0), "flair": (Role.FLAIR, 0), "seg": (Role.SEG, 0)}
_UCSF = {"T1": Role.T1, "T1c": Role.T1C, "T1gad": Role.T1C, "FLAIR": Role.FLAIR}
_NAMINGS = (
    _Naming(
        r"(?P<patient>UCSF-PDGM-\d{3,4})(?:_FU\d+d)?",
        "_",
        {name: (role, 0) for name, role in _UCSF.items()}
        | {f"{name}_bias": (role, 1) for name, role in _UCSF.items()}
        | {"tumor_segmentation": (Role.SEG, 0)},
        Scheme.UNTIL_2021,
    ),
    _Naming(r"(?P<patient>BraTS20_(?:Training|Validation)_\d{3})", "_", _BRATS, Scheme.UNTIL_2021),
    _Naming(r"(?P<patient>BraTS2021_\d{5})", "_", _BRATS, Scheme.UNTIL_2021),
    _Naming(
        r"(?P<patient>BraTS-GLI-\d{5})-\d{3}",
        "-",
        {"t1n": (Role.T1, 0), "t1c": (Role.T1C, 0), "t2f": (Role.FLAIR, 0), "seg": (Role.SEG, 0)},
        Scheme.SINCE_2023,
    ),
    _Naming(
        r"(?P<patient>UPENN-GBM-\d{5})_\d\d",
        "_",
        {"T1": (Role.T1, 0), "T1GD": (Role.T1C, 0), "FLAIR": (Role.FLAIR, 0)}
        | {"segm": (Role.SEG, 0), "automated_approx_segm": (Role.SEG, 1)},
        Scheme.UNTIL_2021,
    ),
)
_PLAIN = {"t1": Role.T1, "flair": Role.FLAIR, "t1c": Role.T1C, "seg": Role.SEG, "mask": Role.SEG}
#: The segmentation of BraTS20_Training_355 kept the name that it had before: ``W39_1998.09.19_Segm.nii``.
_STRAY_SEGMENTATION = re.compile(r".*_Segm")


@dataclass
class _Found:
    """What was found of an exam so far."""

    patient: str
    scheme: Scheme
    one_grid: bool = True
    files: dict[tuple[Role, int], list[Path]] = field(default_factory=lambda: defaultdict(list))


def find_exams(source: Path) -> list[Exam]:
    """Return the exams in a folder by name, complete or not.

    A folder directly in `source` that holds no exam stands for one without files: it will be refused with a
    reason, not left out in silence.

    Raises
    ------
    FileNotFoundError
        When there is no such folder.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"There is no folder {source}.")
    source = source.resolve()
    tables = read_tables(source)
    dicom: dict[str, dict[Role, Path]] = {}
    found: dict[str, _Found] = {}
    others: list[Path] = []
    used: set[Path] = set()
    for parent, folders, files in os.walk(source):
        here = Path(parent)
        series = _dicom_series(here, folders)
        if series:
            dicom[here.name] = series
            used.add(here)
            folders.clear()
        for path in (here / file for file in sorted(files) if file.endswith(SUFFIXES)):
            if path.name.startswith("."):
                continue  # what macOS puts beside files in archives
            if _put_by_name(path, found):
                used.add(here)
            else:
                others.append(path)
        folders.sort()
    used |= {path.parent for path in others if _put_by_folder(path, found)}
    exams = {name: _exam(name, name, files, tables, dicom=True) for name, files in dicom.items()}
    for name, parts in found.items():
        chosen, notes = _chosen(parts.files)
        exams[name] = _exam(
            name, parts.patient, chosen, tables, one_grid=parts.one_grid, scheme=parts.scheme, notes=notes
        )
    for folder in (path for path in source.iterdir() if path.is_dir() and source not in used):
        if not any(folder == path or folder in path.parents for path in used):
            exams.setdefault(folder.name, _exam(folder.name, folder.name, {}, tables))
    return [exams[name] for name in sorted(exams)]


def _exam(
    name: str,
    patient: str,
    files: Mapping[Role, Path],
    tables: Mapping[str, Known],
    *,
    dicom: bool = False,
    one_grid: bool = False,
    scheme: Scheme = Scheme.UNNAMED,
    notes: tuple[str, ...] = (),
) -> Exam:
    person = patient_of(name)
    known = tables.get(person, Known())
    return Exam(
        name=name,
        patient=patient,
        files=files,
        dicom=dicom,
        one_grid=one_grid,
        scheme=scheme,
        institution=known.institution or institution_of(person),
        also=tuple(sorted(({person} | known.also) - {patient, ""})),
        notes=notes,
    )


def _dicom_series(folder: Path, folders: list[str]) -> dict[Role, Path]:
    there = {role: folder / role.value for role in Role if role.value in folders}
    return {role: path for role, path in there.items() if any(path.glob("*.dcm"))}


def _put_by_name(path: Path, found: dict[str, _Found]) -> bool:
    """Put a file to the exam that its name begins with; return whether the name is of a known kind."""
    for naming in _NAMINGS:
        match = re.fullmatch(rf"(?P<exam>{naming.exam}){naming.joint}(?P<file>\w+)", _stem(path))
        if match:
            exam = found.setdefault(match["exam"], _Found(match["patient"], naming.scheme))
            if match["file"] in naming.files:
                exam.files[naming.files[match["file"]]].append(path)
            return True
    return False


def _put_by_folder(path: Path, found: dict[str, _Found]) -> bool:
    """Put a file to the exam that its folder is named after; return whether it belongs to one."""
    folder, stem = _own_folder(path).name, _stem(path)
    if stem in _PLAIN:
        found.setdefault(folder, _found_by_folder(folder)).files[_PLAIN[stem], 0].append(path)
    elif folder in found and _STRAY_SEGMENTATION.fullmatch(stem):
        found[folder].files[Role.SEG, 0].append(path)
    return folder in found


def _found_by_folder(folder: str) -> _Found:
    for naming in _NAMINGS:
        match = re.fullmatch(naming.exam, folder)
        if match:
            return _Found(match["patient"], naming.scheme)
    return _Found(folder, Scheme.UNNAMED, one_grid=False)


def _chosen(found: Mapping[tuple[Role, int], list[Path]]) -> tuple[dict[Role, Path], tuple[str, ...]]:
    """Return one file for each role, and what is to be said of the choice."""
    pair = (Role.T1, Role.T1C)
    second = not all((role, 0) in found for role in pair) and all((role, 1) in found for role in pair)
    files: dict[Role, Path] = {}
    notes = []
    for role in Role:
        ranks = (1, 0) if second and role in pair else (0, 1)
        rank = next((rank for rank in ranks if (role, rank) in found), None)
        if rank is None:
            continue
        files[role] = sorted(found[role, rank])[0]
        if len(found[role, rank]) > 1:
            notes.append(f"The {role.name} is there {len(found[role, rank])} times: the first was taken.")
        if rank:
            what = (
                "segmentation was made by a machine" if role is Role.SEG else f"{role.name} is bias-corrected"
            )
            notes.append(f"The {what}.")
    return files, tuple(notes)


def _stem(path: Path) -> str:
    return next(path.name.removesuffix(suffix) for suffix in SUFFIXES if path.name.endswith(suffix))


def _own_folder(path: Path) -> Path:
    """Return the exam's folder of a volume that may lie in a folder of its own, ``F.nii/F.nii``."""
    return path.parent.parent if path.parent.name.endswith(SUFFIXES) else path.parent
