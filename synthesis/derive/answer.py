"""What a study gets that was declined: the reason as a document, or a page for a PACS that shows none."""

from __future__ import annotations

import datetime
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from highdicom.sc import SCImage
from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    ComprehensiveSR,
    ContainerContentItem,
    ContentSequence,
    RelationshipTypeValues,
    TextContentItem,
)
from PIL import Image, ImageDraw, ImageFont
from pydicom import DataElement, Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from synthesis.derive.mr import no_unknown_keywords
from synthesis.derive.provenance import MANUFACTURER, Maker, stable_uid
from synthesis.derive.report import observer
from synthesis.derive.source import Study

SERIES_DESCRIPTION = "SYNTH T1C not made: why (AI)"
#: No T1W whose number could be continued; behind everything that a scanner counts.
DOCUMENT_NUMBER, PAGE_NUMBER = 9900, 9901
TITLE = "No synthetic T1C was made"
NOTICE = "Written by software, for research only. This is no finding about the patient."
#: The page: pixels, grey levels, characters in a line.
SIDE, PAPER, INK = 512, 16, 235
MARGIN, LETTER, HEADLINE, WIDTH = 24, 18, 24, 50


@dataclass(frozen=True)
class Refusal:
    """Why a study was declined."""

    #: Short code (``NO_FLAIR``) and the sentence that people read.
    code: str
    reason: str
    #: What is there, and what may be done, as sentences.
    details: tuple[str, ...] = ()


def answer_document(
    refusal: Refusal, headers: Sequence[Dataset], maker: Maker, made: datetime.datetime
) -> ComprehensiveSR:
    """Return the reason as a Comprehensive SR (PS3.3 A.35.3).

    Parameters
    ----------
    refusal : Refusal
        What to say.
    headers
        Headers of the study's instances that were looked at, at least one; they are named as evidence.
    maker : Maker
        The model and code that declined.
    made : datetime
        Series, content and creation time.
    """
    study = Study.of(headers[0])
    series_uid = _series_uid("answer document", refusal, headers, maker)
    with no_unknown_keywords():
        document = ComprehensiveSR(
            evidence=[study.evidence(header) for header in headers],
            content=_content(refusal, maker),
            series_instance_uid=series_uid,
            series_number=DOCUMENT_NUMBER,
            sop_instance_uid=stable_uid(series_uid),
            instance_number=1,
            manufacturer=MANUFACTURER,
            is_complete=True,
        )
        study.dress(document, maker, made, SERIES_DESCRIPTION)
    return document


def answer_page(
    refusal: Refusal, headers: Sequence[Dataset], maker: Maker, made: datetime.datetime
) -> SCImage:
    """Return the reason as a page: Secondary Capture (PS3.3 A.8.1); parameters as `answer_document`."""
    study = Study.of(headers[0])
    series_uid = _series_uid("answer page", refusal, headers, maker)
    with no_unknown_keywords():
        page = SCImage(
            pixel_array=_drawn(refusal),
            photometric_interpretation="MONOCHROME2",
            bits_allocated=8,
            coordinate_system="PATIENT",
            study_instance_uid=study.patient_and_study.StudyInstanceUID,
            series_instance_uid=series_uid,
            series_number=PAGE_NUMBER,
            sop_instance_uid=stable_uid(series_uid),
            instance_number=1,
            manufacturer=MANUFACTURER,
            patient_orientation=("L", "P"),
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        study.dress(page, maker, made, SERIES_DESCRIPTION)
        page.Modality, page.ConversionType = "OT", "WSD"
        page.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        for keyword in ("PatientOrientation", "Laterality"):  # type 2: a page has none
            page[keyword] = DataElement(keyword, "CS", None)
        page.BurnedInAnnotation = "YES"
        page.WindowCenter, page.WindowWidth = "128", "256"
    return page


def _series_uid(kind: str, refusal: Refusal, headers: Sequence[Dataset], maker: Maker) -> str:
    """Return an identifier that is the same for the same answer to the same instances."""
    inputs = sorted(str(header.SOPInstanceUID) for header in headers)
    return stable_uid(kind, maker.digest, refusal.code, refusal.reason, *refusal.details, *inputs)


def _content(refusal: Refusal, maker: Maker) -> Dataset:
    """Return the document: a Basic Diagnostic Imaging Report (TID 2000) of one section."""
    root = ContainerContentItem(name=codes.LN.DiagnosticImagingReport, template_id="2000")
    language = CodeContentItem(
        name=codes.DCM.LanguageOfContentItemAndDescendants,
        value=CodedConcept("en", "RFC5646", "English"),
        relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD,
    )
    section = ContainerContentItem(
        name=codes.DCM.Conclusions, relationship_type=RelationshipTypeValues.CONTAINS
    )
    section.ContentSequence = ContentSequence(
        [
            TextContentItem(
                name=codes.DCM.Conclusion, value=one, relationship_type=RelationshipTypeValues.CONTAINS
            )
            for one in (f"{TITLE} ({refusal.code}): {refusal.reason}", *refusal.details, NOTICE)
        ]
    )
    root.ContentSequence = ContentSequence([language, *observer(maker), section])
    return root


def _drawn(refusal: Refusal) -> npt.NDArray[np.uint8]:
    """Return the page, (SIDE, SIDE) uint8."""
    canvas = Image.new("L", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, MARGIN), TITLE, fill=INK, font=ImageFont.load_default(HEADLINE))
    lines: list[str] = []
    for one in (refusal.reason, f"({refusal.code})", NOTICE, *refusal.details):  # the last may not fit
        lines += [*textwrap.wrap(one, WIDTH), ""]
    font = ImageFont.load_default(LETTER)
    draw.multiline_text((MARGIN, 2 * MARGIN + HEADLINE), "\n".join(lines), fill=INK, font=font)
    return np.asarray(canvas, dtype=np.uint8)
