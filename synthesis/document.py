"""A document about a job: why a study was declined, or that a result must not be used."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage, SegmentationStorage

from synthesis.derive.answer import Refusal, answer_document, answer_page
from synthesis.derive.objects import save
from synthesis.derive.provenance import Maker
from synthesis.derive.retraction import retract
from synthesis.errors import RefusedInput
from synthesis.job import DerivedInstance, Document, Form, Reference

_IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
#: What has pixels, of all that a job can make.
_IMAGES = frozenset({MRImageStorage, EnhancedMRImageStorage, SegmentationStorage})


def write(document: Document, spool: Path, out: Path, maker: Maker) -> tuple[DerivedInstance, ...]:
    """Write a document; return what was written, with paths relative to `out`.

    Parameters
    ----------
    document : Document
        What to write.
    spool : Path
        Where the instances of the study lie.
    out : Path
        Folder for the document; made when absent.
    maker : Maker
        The model and code that declined, or made what is rejected.

    Raises
    ------
    RefusedInput
        ``NO_PATIENT`` when no header of the study can be read that says whose it is.
    """
    headers = _headers(spool / path for path in document.study)
    first = next(headers, None)
    if first is None:
        raise RefusedInput("NO_PATIENT", "No header of the study can be read that says whose it is.")
    made = datetime.datetime.now()
    if document.form == Form.KO:
        rejected = [_stand_in(first, one) for one in document.rejected]
        return save([retract(rejected, first, document.reason, maker, made)], out)
    refusal = Refusal(document.code, document.reason, document.details)
    build = answer_page if document.form == Form.SC else answer_document
    return save([build(refusal, [first, *headers], maker, made)], out)


def _headers(paths: Iterable[Path]) -> Iterator[Dataset]:
    """Yield the headers that can be read and name patient and study."""
    for path in paths:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, NotImplementedError):
            continue
        named = "PatientID" in header or "PatientName" in header
        if named and all(keyword in header for keyword in _IDENTIFIERS):
            yield header


def _stand_in(header: Dataset, rejected: Reference) -> Dataset:
    """Return what a retraction refers to of an instance, whose file may have left the spool."""
    found = Dataset()
    found.StudyInstanceUID = header.StudyInstanceUID
    found.SOPClassUID = rejected.sop_class_uid
    found.SOPInstanceUID = rejected.sop_instance_uid
    found.SeriesInstanceUID = rejected.series_instance_uid
    if rejected.sop_class_uid in _IMAGES:
        found.Rows = found.Columns = 1  # any: there are some
    return found
