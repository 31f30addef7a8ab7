"""Documents about a job, written from what is left of its study."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from small_studies import new_uid, stack
from small_studies import write as write_files

from synthesis.derive.provenance import Maker
from synthesis.document import write
from synthesis.errors import RefusedInput
from synthesis.job import Document, Form, Reference

MAKER = Maker("small", "0.1", "ab" * 32)
REJECTED = tuple(
    Reference(sop_class, f"2.25.{number}", f"2.25.{number}0")
    for number, sop_class in enumerate(
        (MRImageStorage, SegmentationStorage, Comprehensive3DSRStorage), start=1
    )
)


def asked(form: Form, study: tuple[str, ...]) -> Document:
    rejected = REJECTED if form == Form.KO else ()
    return Document(
        "job-1", form, "jobs/job/documents/1", "NO_FLAIR", "No FLAIR.", study, ("More.",), rejected
    )


@pytest.fixture
def study(tmp_path: Path) -> tuple[str, ...]:
    return tuple(path.name for path in write_files(stack(new_uid(), "T1", slices=3), tmp_path))


@pytest.mark.parametrize(
    ("form", "sop_class"),
    [
        (Form.SR, ComprehensiveSRStorage),
        (Form.SC, SecondaryCaptureImageStorage),
        (Form.KO, KeyObjectSelectionDocumentStorage),
    ],
)
def test_each_form_is_one_instance_in_the_study_the_same_each_time(
    study: tuple[str, ...], tmp_path: Path, form: Form, sop_class: str
) -> None:
    (made,) = write(asked(form, study), tmp_path, tmp_path / "a", MAKER)
    again = write(asked(form, study), tmp_path, tmp_path / "b", MAKER)

    assert again == (made,)
    read, source = pydicom.dcmread(tmp_path / "a" / made.path), pydicom.dcmread(tmp_path / study[0])
    assert (read.SOPClassUID, read.SOPInstanceUID) == (sop_class, made.sop_instance_uid)
    assert (read.StudyInstanceUID, read.PatientID) == (source.StudyInstanceUID, source.PatientID)
    assert read.SyntheticData == "YES"


def test_a_retraction_names_images_as_images_and_reports_as_reports(
    study: tuple[str, ...], tmp_path: Path
) -> None:
    (made,) = write(asked(Form.KO, study[:1]), tmp_path, tmp_path / "out", MAKER)

    read = pydicom.dcmread(tmp_path / "out" / made.path)
    named = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID: item.ValueType
        for item in read.ContentSequence
        if "ReferencedSOPSequence" in item
    }
    assert named == {"2.25.1": "IMAGE", "2.25.2": "IMAGE", "2.25.3": "COMPOSITE"}
    evidence = read.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert {one.SeriesInstanceUID for one in evidence} == {one.series_instance_uid for one in REJECTED}


def test_what_cannot_be_read_is_left_out_and_whose_it_is_must_be_known(
    study: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "damaged.dcm").write_bytes(b"no DICOM")
    nobody = write_files(
        stack(new_uid(), "T1", slices=1, PatientID=None, PatientName=None), tmp_path / "nobody"
    )
    useless = ("damaged.dcm", "absent.dcm", f"nobody/{nobody[0].name}")

    assert write(asked(Form.SR, (*useless, *study)), tmp_path, tmp_path / "out", MAKER)
    for form in Form:
        with pytest.raises(RefusedInput, match="whose it is") as refused:
            write(asked(form, useless), tmp_path, tmp_path / "out", MAKER)
        assert refused.value.code == "NO_PATIENT"
