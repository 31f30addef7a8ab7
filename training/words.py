"""What a card says that no run knows: what was learnt from, under which licence, what it is not for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Words:
    """Of one data set."""

    dataset: str
    licence: str
    intended: str
    #: The first is said with every image.
    limits: tuple[str, ...]
    #: Slope and offset of the log odds of enhancement in tumour, for what is shown.
    shown: tuple[float, float] = (1.0, 0.0)


#: Of the weights that ship. Half of the batches show tumour, and lesions that enhance are learnt from: more
#: enhances there than in patients. What is shown was chosen, cross-validated, between recovery and false
#: enhancement: LOG.md.
OURS = Words(
    dataset="lgg (patients with T1, FLAIR, T1C and SEG; DICOM, 8 bit, skull kept), and lesions of BraTS 2020 "
    "(`lesions`; patients 260–335 left out: low-grade, some of the same collection; every eighth held out), "
    "as they are and transplanted into the brains of lgg",
    licence="Non-commercial research only. Learnt from the LGG MRI segmentation set (Buda 2019; TCGA-LGG: "
    "TCIA says CC BY 3.0, the derived set is believed CC BY-NC-SA 4.0) and from patches of BraTS 2020 "
    "(research, citation: Menze 2015, Bakas 2017 and 2018). No image of either is contained.",
    intended="Research on synthetic post-contrast T1 from a pre-contrast T1W and a FLAIR of adult brains "
    "with glioma, and trying out the node. Not for diagnosis, treatment, or any decision about a patient or "
    "an injection.",
    limits=(
        "Contrast enhancement is NOT predicted reliably: a tumour that enhances may stay dark in the "
        "synthetic image, and one that does not may light up. Absence of enhancement in it means nothing.",
        "Few patients, from a handful of institutions; metastases, meningiomas, strokes, children, and "
        "brains after an operation were not seen.",
        "Trained on 8-bit images with the skull kept (a share of them with the skull masked away), each "
        "channel scaled by its own maximum: the true scale between pre- and post-contrast was lost, and T1C "
        "is scaled by its own brain level.",
        "The difference that is added to the T1W was learnt on 2 mm pixels: vessels, rims and small lesions "
        "are blurred or missed. Scalp and other fat are not meant to change.",
        "The segmentation shows FLAIR abnormality, not enhancing tumour; in some patients it misses it.",
        "The maps that condition the synthesis were predicted out of fold; a map of a training patient may "
        "come from a network that saw a patient of the held-out fold.",
    ),
    shown=(0.5, -1.0),
)


def read_words(path: Path) -> Words:
    """Return the words of a JSON file, an object with the fields of `Words`.

    Raises
    ------
    ValueError
        When one that must be there is missing, or one is unknown.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        pairs = {key: tuple(values[key]) for key in ("limits", "shown") if key in values}
        return Words(**{**values, **pairs})
    except TypeError as error:
        raise ValueError(f"{path.name} does not say what a card needs: {error}") from error
