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

BraTS 2023 also has ``MEN``, ``MET`` and ``SSA`` for ``GLI``; ``PED`` is not read, as its numbers do not
mean the same in all years. Volumes end in ``.nii`` or ``.nii.gz`` and lie in any depth of folders, also in
one of their own (as Kaggle has them, ``F.nii/F.nii``). Files that bear an exam's name may lie in several
folders, as long as none is there twice; others belong together in one folder only. DICOM files end in
``.dcm`` or begin as such. Where two exams have one name, each has its path in the source for a name.

Of UCSF-PDGM the images as acquired are taken, the bias-corrected ones (``_bias``) where the former are
missing; T1W and T1C of one kind, as correcting one of them alone would look like uptake.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from pathlib import Path

from training.prepare.names import Known, hidden_id, institution_of, patient_of, read_tables

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
    #: Whether only one of T1W and T1C is bias-corrected.
    bias_differs: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Naming:
    """How a data set names its files: EXAM, a joint, FILE."""

    #: Regular expression of the exam, with a group for its patient.
    exam: str
    joint: str
    #: Role and rank of each file of use, in lower case; of several the one of the lowest rank is taken.
    files: Mapping[str, tuple[Role, int]]
    scheme: Scheme


_BRATS = {"t1": (Role.T1, 0), "t1ce": (Role.T1C, 0), "flair": (Role.FLAIR, 0), "seg": (Role.SEG, 0)}
_UCSF = {"t1": Role.T1, "t1c": Role.T1C, "t1gad": Role.T1C, "flair": Role.FLAIR}
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
        r"(?P<patient>BraTS-(?:GLI|MEN|MET|SSA)-\d{5})-\d{3}",
        "-",
        {"t1n": (Role.T1, 0), "t1c": (Role.T1C, 0), "t2f": (Role.FLAIR, 0), "seg": (Role.SEG, 0)},
        Scheme.SINCE_2023,
    ),
    _Naming(
        r"(?P<patient>UPENN-GBM-\d{5})_\d\d",
        "_",
        {"t1": (Role.T1, 0), "t1gd": (Role.T1C, 0), "flair": (Role.FLAIR, 0)}
        | {"segm": (Role.SEG, 0), "automated_approx_segm": (Role.SEG, 1)},
        Scheme.UNTIL_2021,
    ),
)
_PLAIN = {"t1": Role.T1, "flair": Role.FLAIR, "t1c": Role.T1C, "seg": Role.SEG, "mask": Role.SEG}
#: The segmentation of BraTS20_Training_355 kept the name that it had before: ``W39_1998.09.19_Segm.nii``.
_STRAY_SEGMENTATION = re.compile(r".*_Segm")
#: What is written before a DICOM file begins, and how it begins (PS3.10 7.1).
_PREAMBLE, _DICM = 128, b"DICM"


@dataclass
class _Found:
    """What was found of an exam so far."""

    folder: Path
    name: str
    #: As the name of a known kind says; "" where exams are patients.
    patient: str = ""
    scheme: Scheme = Scheme.UNNAMED
    dicom: bool = False
    files: dict[tuple[Role, int], list[Path]] = field(default_factory=lambda: defaultdict(list))


_ByPlace = dict[tuple[Path, str], _Found]


def find_exams(source: Path) -> list[Exam]:
    """Return the exams in a folder by name, complete or not.

    A folder of images that belong to no exam stands for one without files, and so does a folder directly in
    `source` that holds nothing: they will be refused with a reason, not left out in silence.

    Raises
    ------
    FileNotFoundError
        When there is no such folder.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"There is no folder {source}.")
    source = source.resolve()
    tables = read_tables(source)
    exams: list[_Found] = []
    by_name: dict[str, list[_Found]] = defaultdict(list)
    for part in _found_in(source):
        by_name[part.name].append(part)
    for parts in by_name.values():
        exams += _together(parts)
    count = Counter(part.name for part in exams)
    named = {part.name if count[part.name] == 1 else _place(part, source): part for part in exams}
    used = Counter(part.name for part in exams if part.files)
    return [
        _exam(name, part.patient or (part.name if used[part.name] < 2 else name), part, tables)
        for name, part in sorted(named.items())
    ]


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files in a folder: those that end in ``.dcm``, else those that begin as DICOM does."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for path in paths if path.suffix == ".dcm"] or list(filter(_is_dicom, paths))


def _found_in(source: Path) -> list[_Found]:
    """Return what is of use in each folder, and each folder of images without any of use."""
    found: _ByPlace = {}
    others: list[Path] = []
    holding: set[Path] = set()
    for here, folders, files in _walk(source):
        series = _dicom_series(here, folders)
        if series:
            found[here, here.name] = _Found(here, here.name, dicom=True, files=series)
            folders[:] = [name for name in folders if name not in {role.value for role, _ in series}]
        paths = [here / name for name in sorted(files) if not name.startswith(".")]  # macOS: ._NAME
        volumes = [path for path in paths if path.name.endswith(SUFFIXES)]
        others += [path for path in volumes if not _put_by_name(path, found)]
        above = found.get((here.parent, here.parent.name))
        if volumes:
            holding.add(_own_folder(volumes[0]))
        elif not (above and above.dicom) and any(map(_is_dicom, paths)):
            holding.add(here)
    for path in others:
        _put_by_folder(path, found)
    used = {folder for folder, _ in found}
    unused = holding - used
    if source not in used:
        full = {folder for path in used | holding for folder in (path, *path.parents)}
        unused |= {path for path in source.iterdir() if path.is_dir()} - full
    return [*found.values(), *(_Found(folder, folder.name) for folder in unused)]


def _walk(source: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield as `os.walk` does, also what links lead to, but no folder twice."""
    seen: set[Path] = set()
    for parent, folders, files in os.walk(source, followlinks=True):
        folders.sort()
        here = Path(parent)
        if here.resolve() in seen:
            folders.clear()
        else:
            seen.add(here.resolve())
            yield here, folders, files


def _together(parts: Sequence[_Found]) -> list[_Found]:
    """Return the exams of one name; what bears it as its own is one exam if no file is there twice."""
    others = [part for part in parts if part.scheme is Scheme.UNNAMED]
    named = [part for part in parts if part.scheme is not Scheme.UNNAMED]
    named = [part for part in named if part.files] or named[:1]
    files = {key: paths for part in named for key, paths in part.files.items()}
    if named and len(files) == sum(len(part.files) for part in named):
        named = [replace(named[0], files=files)]
    return [*named, *others]


def _place(part: _Found, source: Path) -> str:
    place = part.folder.relative_to(source)
    return (place if part.folder.name == part.name else place / part.name).as_posix()


def _exam(name: str, patient: str, part: _Found, tables: Mapping[str, Known]) -> Exam:
    person = patient_of(part.name)
    known = tables.get(person, Known())
    files, notes, bias_differs = _chosen(part.files)
    own = hidden_id(dicom_files(files[Role.T1])[0]) if part.dicom and Role.T1 in files else ""
    return Exam(
        name=name,
        patient=patient,
        files=files,
        dicom=part.dicom,
        one_grid=part.scheme is not Scheme.UNNAMED,
        scheme=part.scheme,
        institution=known.institution or institution_of(person),
        also=tuple(sorted(({person, own} | known.also) - {patient, ""})),
        bias_differs=bias_differs,
        notes=notes,
    )


def _dicom_series(folder: Path, folders: Sequence[str]) -> dict[tuple[Role, int], list[Path]]:
    there = {role: folder / role.value for role in Role if role.value in folders}
    return {(role, 0): [path] for role, path in there.items() if dicom_files(path)}


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(_PREAMBLE + len(_DICM))[_PREAMBLE:] == _DICM
    except OSError:
        return False


def _put_by_name(path: Path, found: _ByPlace) -> bool:
    """Put a file to the exam that its name begins with; return whether the name is of a known kind."""
    for naming in _NAMINGS:
        match = re.fullmatch(rf"(?P<exam>{naming.exam}){naming.joint}(?P<file>\w+)", _stem(path))
        if match:
            folder, name, file = _own_folder(path), match["exam"], match["file"].lower()
            exam = found.setdefault((folder, name), _Found(folder, name, match["patient"], naming.scheme))
            if file in naming.files and not exam.dicom:
                exam.files[naming.files[file]].append(path)
            return True
    return False


def _put_by_folder(path: Path, found: _ByPlace) -> None:
    """Put a file to the exam that its folder is named after, if it belongs to one."""
    folder, stem = _own_folder(path), _stem(path)
    place = folder, folder.name
    if place in found and found[place].dicom:
        return
    if stem.lower() in _PLAIN:
        found.setdefault(place, _found_by_folder(folder)).files[_PLAIN[stem.lower()], 0].append(path)
    elif place in found and _STRAY_SEGMENTATION.fullmatch(stem):
        found[place].files[Role.SEG, 0].append(path)


def _found_by_folder(folder: Path) -> _Found:
    for naming in _NAMINGS:
        match = re.fullmatch(naming.exam, folder.name)
        if match:
            return _Found(folder, folder.name, match["patient"], naming.scheme)
    return _Found(folder, folder.name)


def _chosen(found: Mapping[tuple[Role, int], list[Path]]) -> tuple[dict[Role, Path], tuple[str, ...], bool]:
    """Return one file for each role, notes on the choice, and whether T1W and T1C are of two kinds."""
    pair = (Role.T1, Role.T1C)
    second = not all((role, 0) in found for role in pair) and all((role, 1) in found for role in pair)
    files: dict[Role, Path] = {}
    taken: dict[Role, int] = {}
    notes = []
    for role in Role:
        ranks = (1, 0) if second and role in pair else (0, 1)
        rank = next((rank for rank in ranks if (role, rank) in found), None)
        if rank is None:
            continue
        files[role], taken[role] = min(found[role, rank]), rank
        if len(found[role, rank]) > 1:
            notes.append(f"The {role.name} is there {len(found[role, rank])} times: the first was taken.")
        if rank:
            what = (
                "segmentation was made by a machine" if role is Role.SEG else f"{role.name} is bias-corrected"
            )
            notes.append(f"The {what}.")
    return files, tuple(notes), len({taken[role] for role in pair if role in taken}) > 1


def _stem(path: Path) -> str:
    return next(path.name.removesuffix(suffix) for suffix in SUFFIXES if path.name.endswith(suffix))


def _own_folder(path: Path) -> Path:
    """Return the exam's folder of a volume that may lie in a folder of its own, ``F.nii/F.nii``."""
    return path.parent.parent if path.parent.name.endswith(SUFFIXES) else path.parent
