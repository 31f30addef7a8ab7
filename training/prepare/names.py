"""Who is who: one patient under the names that several data sets gave him, and the tables that say so."""

from __future__ import annotations

import csv
import hashlib
import logging
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from synthesis.series import DECODING_ERRORS

log = logging.getLogger(__name__)

#: Exams that UCSF-PDGM renamed in version 3, as they are follow-ups: old number, number of the patient.
UCSF_FOLLOW_UPS = {138: 429, 175: 396, 181: 409, 278: 431, 289: 391, 315: 433}
#: Name of an exam as a data set writes it, and the name of its patient. BraTS kept its numbers from 2021 on;
#: should one ever have been given twice, two patients stay on one side of a split for nothing.
_NAMES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"UCSF-PDGM-(\d{3,4})(?:_FU\d+d)?(?:_nifti)?"), lambda match: _ucsf(int(match[1]))),
    (re.compile(r"(?:BraTS2021_|BraTS-GLI-)(\d{5})(?:-\d{3})?"), lambda match: f"BraTS-{match[1]}"),
    (re.compile(r"(BraTS-(?:MEN|MET|SSA)-\d{5})(?:-\d{3})?"), lambda match: match[1]),
    (re.compile(r"(BraTS20_(?:Training|Validation)_\d{3})"), lambda match: match[1]),
    (re.compile(r"(UPENN-GBM-\d{5})(?:_\d\d)?"), lambda match: match[1]),
    (re.compile(r"TCGA[-_](\w\w)[-_](\w{4})(?:[-_].*)?"), lambda match: f"TCGA-{match[1]}-{match[2]}"),
)
#: Patients that UCSF-PDGM and BraTS from 2021 on have in common.
UCSF_IN_BRATS = 298
#: Columns of tables: a bare number in the one is of BraTS 2021; the other says where images were acquired.
_BRATS_2021, _SITE = re.compile(r"BraTS(?:20)?21\W*(?:ID)?"), re.compile(r"Site (?:No|ID)\b.*")


@dataclass(frozen=True)
class Known:
    """What tables say of a patient."""

    #: His names in other data sets.
    also: frozenset[str] = frozenset()
    institution: str = ""


def patient_of(exam: str) -> str:
    """Return the name of the exam's patient that is the same in all exams and versions; "" when unknown."""
    for pattern, name in _NAMES:
        match = pattern.fullmatch(exam.strip())
        if match:
            return name(match)
    return ""


def institution_of(patient: str) -> str:
    """Return where the patient was imaged as far as his name says it; "" otherwise."""
    parts = patient.split("-")
    return {"UCSF": "UCSF", "UPENN": "UPENN", "TCGA": parts[1] if len(parts) > 1 else ""}.get(parts[0], "")


def hidden_id(path: Path) -> str:
    """Return what stands for the PatientID of a DICOM file and does not tell it; "" when it has none."""
    keywords = "IssuerOfPatientID", "PatientID"
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(keywords))
            issuer, number = (str(header.get(keyword) or "").strip() for keyword in keywords)
    except (InvalidDicomError, EOFError, *DECODING_ERRORS):
        return ""  # the exam will be refused for it
    return f"ID {hashlib.sha256(f'{issuer}^{number}'.encode()).hexdigest()[:16]}" if number else ""


def warn_of_twins(exams: Iterable[Iterable[str]]) -> None:
    """Say it aloud when exams of UCSF-PDGM and of BraTS are there, and no table says who is in both.

    Parameters
    ----------
    exams : iterable of iterables of str
        All names of each exam's patient.
    """
    kinds = {frozenset(_kind(name) for name in names) & {"UCSF-PDGM-", "BraTS-"} for names in exams}
    if {"UCSF-PDGM-"} in kinds and {"BraTS-"} in kinds and {"UCSF-PDGM-", "BraTS-"} not in kinds:
        log.warning(
            "NO TABLE SAYS WHO IS IN BOTH UCSF-PDGM AND BRATS, BUT %d PATIENTS ARE: "
            "only equal images are found. "
            'Put the metadata of UCSF-PDGM (with a column "BraTS21 ID") into its folder and prepare again.',
            UCSF_IN_BRATS,
        )


def read_tables(source: Path) -> dict[str, Known]:
    """Return what the CSV files in `source`, at any depth, say, by patient.

    Names of different kinds in one row are one patient's: ``ID`` and ``BraTS21 ID`` of UCSF-PDGM's metadata,
    the columns of BraTS's name mappings of 2020 to 2023. A row with two of one kind is of some other table.
    A table that cannot be read is logged by its number, and left out from there on.
    """
    also: dict[str, set[str]] = defaultdict(set)
    institutions: dict[str, str] = {}
    for number, path in enumerate(sorted(source.rglob("*.csv")), 1):
        for row in _rows(path, number):
            found = {(_kind(cell), name) for column, cell in row if (name := _named(column, cell))}
            names = {name for _, name in found}
            if len({kind for kind, _ in found}) < len(found):
                continue
            site = next((cell.strip() for column, cell in row if _SITE.fullmatch(column)), "")
            for name in names:
                also[name] |= names - {name}
                if site:
                    institutions[name] = f"site {site.removesuffix('.0')}"
    return {name: Known(frozenset(others), institutions.get(name, "")) for name, others in also.items()}


def _ucsf(number: int) -> str:
    return f"UCSF-PDGM-{UCSF_FOLLOW_UPS.get(number, number):04d}"


def _kind(cell: str) -> str:
    return re.sub(r"\d+", "", cell)


def _named(column: str, cell: str) -> str:
    if _BRATS_2021.fullmatch(column) and re.fullmatch(r"\d{5}", cell.strip()):
        return f"BraTS-{cell.strip()}"
    return patient_of(cell)


def _rows(path: Path, number: int) -> Iterator[list[tuple[str, str]]]:
    """Yield the rows as (column, cell); tables of other encodings or without names yield nothing of use."""
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines() or [""]
        delimiter = ";" if lines[0].count(";") > lines[0].count(",") else ","
        reader = csv.reader(lines, delimiter=delimiter, strict=True)  # an open quote would swallow the rest
        columns = [column.strip() for column in next(reader)]
        for cells in reader:
            yield list(zip(columns, cells, strict=False))
    except (OSError, csv.Error) as error:
        log.warning("table %d cannot be read to its end (%s)", number, type(error).__name__)
