"""What of a source header goes into a derived object, and what becomes of values that break the standard.

Scanners, archives and de-identifiers write faulty headers; a derived object must not. The table decides for
each attribute. The sentences it leaves never hold a value: they go into logs.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydicom import DataElement, Dataset, config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_description, dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.valuerep import VALIDATORS, PersonName, format_number_as_ds


class Fault(StrEnum):
    """What happens to a faulty value."""

    REPAIRED = "repaired"
    EMPTIED = "emptied"
    DROPPED = "left out"
    #: The archive knows the patient or the study by it: an unchanged fault does less harm than a change.
    KEPT = "kept as it is"


#: Value representations that the Specific Character Set (0008,0005) is about (PS3.5 6.1.2.2).
TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
#: Of IS (PS3.5 6.2).
INTEGER = re.compile("[+-]?[0-9]+")
Repair = Callable[[str], str | None]


@dataclass(frozen=True)
class Rule:
    """One attribute of the derived object that comes from the source."""

    keyword: str
    fault: Fault
    #: Written empty when the source has none (types 2 and 2C of the IOD); others only where it has it empty.
    required: bool = False
    #: Values that the standard allows; empty: whatever the VR allows.
    allowed: frozenset[str] = frozenset()
    #: A length, greater than zero.
    positive: bool = False
    #: Tried on a faulty value, before `fault` is applied.
    repair: Repair | None = None


def _terms(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _shorter(length: int) -> Repair:
    return lambda value: value[:length].rstrip()


def _upper(value: str) -> str:
    return value.strip().upper()


def _decimal(value: str) -> str | None:
    """Return a number as a decimal string of at most 16 characters."""
    try:
        return format_number_as_ds(float(value))
    except ValueError:
        return None


def _integer(value: str) -> str | None:
    """Return a whole number that was written with decimals."""
    try:
        return str(int(float(value))) if float(value).is_integer() else None
    except ValueError:
        return None


#: Patient (PS3.3 C.7.1.1), General and Patient Study (C.7.2.1, C.7.2.2), Clinical Trial (C.7.1.3, C.7.2.3).
PATIENT_AND_STUDY: tuple[Rule, ...] = (
    Rule("PatientName", Fault.KEPT, required=True),
    Rule("PatientID", Fault.KEPT, required=True),
    Rule("IssuerOfPatientID", Fault.DROPPED),
    Rule("TypeOfPatientID", Fault.DROPPED, allowed=_terms("TEXT RFID BARCODE")),
    Rule("PatientBirthDate", Fault.EMPTIED, required=True),
    Rule("PatientBirthTime", Fault.DROPPED),
    Rule("PatientSex", Fault.EMPTIED, required=True, allowed=_terms("M F O"), repair=_upper),
    Rule("QualityControlSubject", Fault.DROPPED, allowed=_terms("YES NO")),
    Rule("OtherPatientNames", Fault.DROPPED),
    Rule("EthnicGroup", Fault.DROPPED),
    Rule("PatientComments", Fault.DROPPED),
    Rule("PatientIdentityRemoved", Fault.DROPPED, allowed=_terms("YES NO")),
    Rule("DeidentificationMethod", Fault.REPAIRED, repair=_shorter(64)),
    Rule("ClinicalTrialSponsorName", Fault.DROPPED),
    Rule("ClinicalTrialProtocolID", Fault.DROPPED),
    Rule("ClinicalTrialProtocolName", Fault.DROPPED),
    Rule("ClinicalTrialSiteID", Fault.DROPPED),
    Rule("ClinicalTrialSiteName", Fault.DROPPED),
    Rule("ClinicalTrialSubjectID", Fault.DROPPED),
    Rule("ClinicalTrialSubjectReadingID", Fault.DROPPED),
    Rule("ClinicalTrialTimePointID", Fault.DROPPED),
    Rule("ClinicalTrialTimePointDescription", Fault.DROPPED),
    Rule("StudyInstanceUID", Fault.KEPT),
    Rule("StudyDate", Fault.EMPTIED, required=True),
    Rule("StudyTime", Fault.EMPTIED, required=True),
    Rule("AccessionNumber", Fault.KEPT, required=True),
    Rule("StudyID", Fault.KEPT, required=True),
    Rule("ReferringPhysicianName", Fault.EMPTIED, required=True),
    Rule("StudyDescription", Fault.REPAIRED, repair=_shorter(64)),
    Rule("PhysiciansOfRecord", Fault.DROPPED),
    Rule("NameOfPhysiciansReadingStudy", Fault.DROPPED),
    Rule("RequestingService", Fault.DROPPED),
    Rule("AdmittingDiagnosesDescription", Fault.DROPPED),
    Rule("PatientAge", Fault.DROPPED),
    Rule("PatientSize", Fault.DROPPED),
    Rule("PatientWeight", Fault.DROPPED),
    Rule("MedicalAlerts", Fault.DROPPED),
    Rule("Allergies", Fault.DROPPED),
    Rule("Occupation", Fault.DROPPED),
    Rule("SmokingStatus", Fault.DROPPED, allowed=_terms("YES NO UNKNOWN")),
    Rule("AdditionalPatientHistory", Fault.DROPPED),
    Rule("PregnancyStatus", Fault.DROPPED, allowed=_terms("1 2 3 4")),
    Rule("LastMenstrualDate", Fault.DROPPED),
    Rule("AdmissionID", Fault.DROPPED),
    Rule("ServiceEpisodeID", Fault.DROPPED),
    Rule("PatientState", Fault.DROPPED),
)

#: General Series, General Image, Image Plane (C.7.6.2) and MR Image (C.8.3.1), of each slice. What only the
#: scanner can vouch for (coil, SAR, k-space, triggers, performed procedure step) is not on the list.
ACQUISITION: tuple[Rule, ...] = (
    Rule("AcquisitionDate", Fault.DROPPED),
    Rule("AcquisitionTime", Fault.DROPPED),
    Rule("AcquisitionNumber", Fault.EMPTIED, repair=_integer),
    Rule(
        "PatientPosition",
        Fault.EMPTIED,
        required=True,
        allowed=_terms("HFP HFS HFDR HFDL FFDR FFDL FFP FFS LFP LFS RFP RFS AFDR AFDL PFDR PFDL"),
        repair=_upper,
    ),
    Rule("ScanningSequence", Fault.DROPPED, allowed=_terms("SE IR GR EP RM")),
    Rule("SequenceVariant", Fault.DROPPED, allowed=_terms("SK MTC SS TRSS SP MP OSP NONE")),
    Rule("ScanOptions", Fault.EMPTIED, required=True),
    Rule("MRAcquisitionType", Fault.EMPTIED, required=True, allowed=_terms("2D 3D")),
    Rule("SequenceName", Fault.DROPPED),
    Rule("RepetitionTime", Fault.EMPTIED, required=True, repair=_decimal),
    Rule("EchoTime", Fault.EMPTIED, required=True, repair=_decimal),
    Rule("EchoTrainLength", Fault.EMPTIED, required=True, repair=_integer),
    Rule("InversionTime", Fault.EMPTIED, repair=_decimal),
    Rule("FlipAngle", Fault.DROPPED, repair=_decimal),
    Rule("NumberOfAverages", Fault.DROPPED, repair=_decimal),
    Rule("ImagingFrequency", Fault.DROPPED, repair=_decimal),
    Rule("ImagedNucleus", Fault.DROPPED),
    Rule("MagneticFieldStrength", Fault.DROPPED, repair=_decimal),
    Rule("PixelBandwidth", Fault.DROPPED, repair=_decimal),
    Rule("SliceThickness", Fault.EMPTIED, required=True, positive=True, repair=_decimal),
    Rule("SpacingBetweenSlices", Fault.DROPPED, positive=True, repair=_decimal),
    Rule("SliceLocation", Fault.DROPPED, repair=_decimal),
    Rule("PositionReferenceIndicator", Fault.EMPTIED, required=True),
    # Geometry goes over to the letter; only a number too long for its VR is written with 16 characters.
    Rule("ImagePositionPatient", Fault.KEPT, repair=_decimal),
    Rule("ImageOrientationPatient", Fault.KEPT, repair=_decimal),
    Rule("PixelSpacing", Fault.KEPT, repair=_decimal),
)

#: The scanner, for the Contributing Equipment Sequence (C.7.5.1).
SCANNER: tuple[Rule, ...] = (
    Rule("Manufacturer", Fault.REPAIRED, repair=_shorter(64)),
    Rule("ManufacturerModelName", Fault.REPAIRED, repair=_shorter(64)),
    Rule("DeviceSerialNumber", Fault.DROPPED),
    Rule("SoftwareVersions", Fault.DROPPED),
    Rule("InstitutionName", Fault.REPAIRED, repair=_shorter(64)),
    Rule("InstitutionalDepartmentName", Fault.DROPPED),
    Rule("InstitutionAddress", Fault.DROPPED),
    Rule("StationName", Fault.DROPPED),
)

#: Sequences of the study that are copied when every item is whole: their leaves, the mandatory ones first.
SEQUENCES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ProcedureCodeSequence": (
        ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"),
        ("CodingSchemeVersion",),
    ),
    "DeidentificationMethodCodeSequence": (("CodeValue", "CodingSchemeDesignator", "CodeMeaning"), ()),
    "ReferencedStudySequence": (("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"), ()),
    "OtherPatientIDsSequence": (("PatientID",), ("IssuerOfPatientID", "TypeOfPatientID")),
    "IssuerOfAccessionNumberSequence": (("LocalNamespaceEntityID",), ()),
}


def sanitise(header: Dataset, rules: Iterable[Rule]) -> tuple[Dataset, tuple[str, ...]]:
    """Return a data set with what the rules take from this header, and a sentence for each fault.

    Elements are copies; decimal strings stay as they were written.
    """
    clean = Dataset()
    said: list[str] = []
    for rule in rules:
        values = _values(header, rule.keyword)
        if not values:
            if rule.required or rule.keyword in header:
                _put(clean, rule.keyword, [])
            continue
        good, fate = _judged(rule, values)
        if good is not None:
            _put(clean, rule.keyword, good)
        if fate:
            tag = tag_for_keyword(rule.keyword)
            assert tag is not None
            said.append(f"{dictionary_description(tag)} of the source breaks the standard: {fate}.")
    return clean, tuple(said)


def without_partial_modules(clean: Dataset) -> Dataset:
    """Return patient and study without a clinical trial or a de-identification that is only half there."""
    trial = [element.tag for element in clean if element.keyword.startswith("ClinicalTrial")]
    whole = clean.get("ClinicalTrialSponsorName") and clean.get("ClinicalTrialProtocolID")
    subject = clean.get("ClinicalTrialSubjectID") or clean.get("ClinicalTrialSubjectReadingID")
    if trial and not (whole and subject):
        for tag in trial:
            del clean[tag]
    elif trial:
        for keyword in ("ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName"):
            if keyword not in clean:
                _put(clean, keyword, [])
    described = clean.get("DeidentificationMethod") or clean.get("DeidentificationMethodCodeSequence")
    if clean.get("PatientIdentityRemoved") == "YES" and not described:
        _put(clean, "DeidentificationMethod", ["UNKNOWN"])
    return clean


def sanitised_sequences(header: Dataset) -> tuple[Dataset, tuple[str, ...]]:
    """Return a data set with those of `SEQUENCES` whose items are whole, and a sentence for each left out."""
    clean = Dataset()
    said: list[str] = []
    for keyword, (mandatory, optional) in SEQUENCES.items():
        items = header.get(keyword)
        if not items:
            continue
        copies = [_leaves(item, mandatory + optional) for item in items]
        tag = tag_for_keyword(keyword)
        assert tag is not None
        if all(name in copy for copy in copies for name in mandatory):
            clean[tag] = DataElement(tag, "SQ", copies)
        else:
            said.append(f"{dictionary_description(tag)} of the source breaks the standard: {Fault.DROPPED}.")
    return clean, tuple(said)


def character_set(header: Dataset, clean: Dataset) -> str:
    """Return the character set to write: the source's where it can hold every text, else UTF-8."""
    named = header.get("SpecificCharacterSet")
    if not isinstance(named, str) or named not in python_encoding or named.startswith("ISO 2022"):
        return "ISO_IR 192"
    try:
        for element in clean.iterall():
            if element.VR in TEXT_VRS:
                str(element.value).encode(python_encoding[named])
    except UnicodeEncodeError:
        return "ISO_IR 192"
    return named


def _leaves(item: Dataset, keywords: tuple[str, ...]) -> Dataset:
    return sanitise(item, [Rule(keyword, Fault.DROPPED) for keyword in keywords])[0]


def _values(header: Dataset, keyword: str) -> list[Any]:
    """Return the values of an attribute, none when it is absent or empty."""
    value = header.get(keyword)
    if value is None or value == "":
        return []
    if isinstance(value, (str, PersonName)) or not hasattr(value, "__iter__"):
        return [value]
    return [single for single in value if single is not None]


def _judged(rule: Rule, values: list[Any]) -> tuple[list[Any] | None, str]:
    """Return the values to write (None: leave the attribute out) and what was done, empty when nothing."""
    too_many = len(values) > 1 and dictionary_VM(rule.keyword) == "1"
    if all(_holds(rule, value) for value in values) and not too_many:
        return values, ""
    repaired = [rule.repair(str(value)) if rule.repair else None for value in values]
    if all(value and _holds(rule, value) for value in repaired) and not too_many:
        return repaired, str(Fault.REPAIRED)
    if rule.fault is Fault.KEPT:
        return values, str(Fault.KEPT)
    partly = [value for value in values if _holds(rule, value)]
    if rule.allowed and partly and not too_many:
        return partly, str(Fault.REPAIRED)
    if rule.fault is Fault.EMPTIED:
        return [], str(Fault.EMPTIED)
    return None, str(Fault.DROPPED)


def _holds(rule: Rule, value: Any) -> bool:
    """Return whether a value obeys its VR (PS3.5 6.2) and is one of the allowed ones."""
    vr = dictionary_VR(rule.keyword)
    if rule.allowed:
        return str(value) in rule.allowed
    if vr in ("DS", "IS"):
        whole = vr == "DS" or INTEGER.fullmatch(_as_written(value))
        return _is_number(value) and bool(whole) and (float(value) > 0 or not rule.positive)
    validator: Callable[[str, Any], tuple[bool, str]] | None = VALIDATORS.get(vr)
    # Of a name as pydicom reads it nothing is checked, of its text all is.
    if validator is not None and not validator(vr, str(value) if vr == "PN" else value)[0]:
        return False
    return vr != "DA" or _is_date(str(value))


def _is_number(value: Any) -> bool:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return False
    return number == number and abs(number) != float("inf") and len(_as_written(value)) <= 16


def _as_written(value: Any) -> str:
    return str(getattr(value, "original_string", value)).strip()


def _is_date(value: str) -> bool:
    try:
        return datetime.datetime.strptime(value, "%Y%m%d").year >= 1850
    except ValueError:
        return False


def _put(clean: Dataset, keyword: str, values: list[Any]) -> None:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    value: Any = None if not values else values[0] if len(values) == 1 else values
    with config.disable_value_validation():
        clean[tag] = DataElement(tag, dictionary_VR(tag), value)
