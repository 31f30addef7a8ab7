"""A fault of a source header is repaired, emptied or left out, as the table says, and never quoted."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest
from pydicom import Dataset

from synthesis.derive.sanitise import (
    ACQUISITION,
    PATIENT_AND_STUDY,
    SEQUENCES,
    Fault,
    character_set,
    sanitise,
    sanitised_sequences,
    without_partial_modules,
)

RULES = {rule.keyword: rule for rule in (*PATIENT_AND_STUDY, *ACQUISITION)}

FAULTS = [
    ("PatientSex", "CS", "0000", "", Fault.EMPTIED),
    ("PatientSex", "CS", "m", "M", Fault.REPAIRED),
    ("PatientBirthDate", "DA", "19990230", "", Fault.EMPTIED),
    ("PatientBirthDate", "DA", "1999", "", Fault.EMPTIED),
    ("PatientID", "LO", "x" * 70, "x" * 70, Fault.KEPT),
    ("AccessionNumber", "SH", "x" * 17, "x" * 17, Fault.KEPT),
    ("StudyDate", "DA", "00000000", "", Fault.EMPTIED),
    ("StudyTime", "TM", "25:61", "", Fault.EMPTIED),
    ("StudyDescription", "LO", "x" * 70, "x" * 64, Fault.REPAIRED),
    ("PatientAge", "AS", "forty", None, Fault.DROPPED),
    ("PatientWeight", "DS", "heavy", None, Fault.DROPPED),
    ("PregnancyStatus", "US", 7, None, Fault.DROPPED),
    ("EchoTime", "DS", "10.123456789012345678", "10.1234567890123", Fault.REPAIRED),
    ("RepetitionTime", "DS", "n/a", "", Fault.EMPTIED),
    ("ScanningSequence", "CS", ["SE", "XX"], "SE", Fault.REPAIRED),
    ("SequenceVariant", "CS", "FAST", None, Fault.DROPPED),
    ("PatientPosition", "CS", "hfs", "HFS", Fault.REPAIRED),
    ("EchoTrainLength", "IS", "2.0", "2", Fault.REPAIRED),
    ("AcquisitionNumber", "IS", "1.5", "", Fault.EMPTIED),
    ("SliceThickness", "DS", "0", "", Fault.EMPTIED),
    ("SpacingBetweenSlices", "DS", "-6", None, Fault.DROPPED),
    ("FlipAngle", "DS", ["90", "180"], None, Fault.DROPPED),
    ("ReferringPhysicianName", "PN", "x" * 70, "", Fault.EMPTIED),
]


@pytest.mark.parametrize(("keyword", "vr", "faulty", "expected", "fault"), FAULTS)
def test_the_table_decides_what_becomes_of_a_fault(
    keyword: str, vr: str, faulty: object, expected: object, fault: Fault
) -> None:
    header = Dataset()
    with pydicom.config.disable_value_validation():
        if vr in ("DS", "IS") and isinstance(faulty, str):
            header[keyword] = _raw(keyword, vr, faulty)
        else:
            header.add_new(keyword, vr, faulty)
    clean, said = sanitise(header, [RULES[keyword]])
    (sentence,) = said
    assert sentence.endswith(f"breaks the standard: {fault}.")
    assert str(faulty) not in sentence
    if expected is None:
        assert keyword not in clean
    else:
        assert str(clean[keyword].value or "") == expected


def _raw(keyword: str, vr: str, value: str) -> pydicom.DataElement:
    """Return an element whose text no number parser has seen."""
    element = pydicom.DataElement(keyword, "LO", value)
    element.VR = vr
    return element


def test_what_is_missing_and_mandatory_is_written_empty_without_a_word() -> None:
    clean, said = sanitise(Dataset(), PATIENT_AND_STUDY)
    assert said == ()
    assert {element.keyword for element in clean} >= {
        "PatientName",
        "PatientSex",
        "StudyID",
        "AccessionNumber",
    }
    assert all(element.is_empty for element in clean)


def test_sequences_come_along_whole_or_not_at_all() -> None:
    code, half = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99X", "Brain"
    half.CodeValue = "1"
    header = Dataset()
    header.ProcedureCodeSequence = [code]
    assert sanitised_sequences(header)[0].ProcedureCodeSequence[0].CodeMeaning == "Brain"
    header.ProcedureCodeSequence = [code, half]
    clean, said = sanitised_sequences(header)
    assert "ProcedureCodeSequence" not in clean
    assert len(said) == 1
    assert "ProcedureCodeSequence" in SEQUENCES


def test_half_a_clinical_trial_is_left_out() -> None:
    half = Dataset()
    half.ClinicalTrialProtocolID = "P"
    assert len(without_partial_modules(half)) == 0
    whole = Dataset()
    whole.ClinicalTrialSponsorName, whole.ClinicalTrialProtocolID, whole.ClinicalTrialSubjectID = (
        "S",
        "P",
        "1",
    )
    assert "ClinicalTrialSiteName" in without_partial_modules(whole)


@pytest.mark.filterwarnings("ignore:Unknown encoding")
@pytest.mark.parametrize(
    ("named", "name", "expected"),
    [
        ("ISO_IR 100", "Müller^Jörg", "ISO_IR 100"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小东", "ISO_IR 192"),
        (None, "Müller^Jörg", "ISO_IR 192"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "ISO_IR 192"),
        ("ISO_IR 100", "Wang^XiaoDong=王^小东", "ISO_IR 192"),
        ("ISO_IR 999", "Doe^John", "ISO_IR 192"),
    ],
)
def test_names_survive_in_a_character_set_that_holds_them(named: object, name: str, expected: str) -> None:
    header, clean = Dataset(), Dataset()
    if named is not None:
        header.SpecificCharacterSet = named
    clean.PatientName = name
    clean.SpecificCharacterSet = character_set(header, clean)
    assert clean.SpecificCharacterSet == expected
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, clean, implicit_vr=False, little_endian=True)
    buffer.seek(0)
    assert pydicom.dcmread(buffer, force=True).PatientName == name
