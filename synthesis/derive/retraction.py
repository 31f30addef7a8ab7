"""A result that must not be used: Key Object Selection "Rejected for Quality Reasons" (IHE IOCM).

An Image Manager that knows IOCM hides the instances named here; others show the document beside them.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import CodeContentItem, RelationshipTypeValues
from pydicom import Dataset
from pydicom.sr.codedict import codes

from synthesis.derive.mr import no_unknown_keywords
from synthesis.derive.provenance import MANUFACTURER, Maker, stable_uid
from synthesis.derive.report import observer
from synthesis.derive.source import Study

SERIES_DESCRIPTION = "SYNTH T1C retracted (AI)"
SERIES_NUMBER = 9902


def retract(
    rejected: Sequence[Dataset], header: Dataset, reason: str, maker: Maker, made: datetime.datetime
) -> KeyObjectSelectionDocument:
    """Return the document that rejects these instances (PS3.3 A.35.4, PS3.16 TID 2010).

    Parameters
    ----------
    rejected
        Headers of all instances of the result, at least one, of one study. Their UIDs will do, and for images
        Rows and Columns, by which highdicom knows an image.
    header : Dataset
        Of any instance of the study: it says whose it is, and from which scanner.
    reason : str
        Why they must not be used, as a sentence.
    maker : Maker
        The model and code that made them.
    made : datetime
        Series, content and creation time.

    Raises
    ------
    ValueError
        When there is nothing to reject, or it belongs to several studies.
    """
    if {str(one.StudyInstanceUID) for one in rejected} != {str(header.StudyInstanceUID)}:
        raise ValueError("A retraction is about the instances of one study.")
    study = Study.of(header)
    stands = [study.evidence(one) for one in rejected]
    uids = sorted(str(one.SOPInstanceUID) for one in rejected)
    series_uid = stable_uid("retraction", reason, *uids)
    with no_unknown_keywords():
        content = KeyObjectSelection(
            document_title=codes.DCM.RejectedForQualityReasons,
            referenced_objects=stands,
            observer_device_context=observer(maker),
            description=reason,
        )
        # TID 2010 row 2: this title needs a reason of CID 7011.
        content[0].ContentSequence.insert(
            0,
            CodeContentItem(
                name=codes.DCM.DocumentTitleModifier,
                value=codes.DCM.InappropriateImageProcessing,
                relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD,
            ),
        )
        document = KeyObjectSelectionDocument(
            evidence=stands,
            content=content,
            series_instance_uid=series_uid,
            series_number=SERIES_NUMBER,
            sop_instance_uid=stable_uid(series_uid),
            instance_number=1,
            manufacturer=MANUFACTURER,
        )
        study.dress(document, maker, made, SERIES_DESCRIPTION)
    return document
