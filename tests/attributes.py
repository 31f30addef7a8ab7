"""The table of attributes in deploy/CONFORMANCE.md, read off objects that were made just now.

``python tests/attributes.py`` prints it. Every kind of object is made of two pairs of series that have
nothing in common, with two sets of weights, at two times: what equals the T1W's both times is the source's,
what is the same both times is fixed, all else is made. Items of sequences are not opened: the other tables of
the statement say what they hold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from objects import every_object
from pydicom import Dataset
from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.tag import Tag
from slices import AXIAL, SAGITTAL, write_series

from synthesis.derive.sanitise import ACQUISITION, PATIENT_AND_STUDY, SCANNER, SEQUENCES, Fault, Rule
from synthesis.series import LossyCompression, Series, read_series

#: Columns, and the objects that each is about.
COLUMNS = {
    "T1C": ("classic: SYNTH T1C (AI, no Gd)",),
    "DIFF": ("classic: SYNTH DIFF (AI, predicted change)",),
    "UNC": ("classic: SYNTH UNCERTAINTY (AI, spread)",),
    "ENH": ("enhanced: SYNTH T1C (AI, no Gd)",),
    "SEG": ("classic: SYNTH SEG (AI, predicted tumour)", "enhanced: SYNTH SEG (AI, predicted tumour)"),
    "SR": ("classic: SYNTH REPORT (AI)", "enhanced: SYNTH REPORT (AI)"),
    "ANS": ("document",),
    "SC": ("page",),
    "KO": ("retraction",),
}
SOURCE, FIXED, MADE = "S", "F", "M"
#: The same both times by chance: today; the black of a corner text; as many slices with tumour.
BY_CHANCE = {"DateOfSecondaryCapture", "SmallestImagePixelValue", "NumberOfFrames"}

#: Values of the two sources, where not any value does.
PAIRS: dict[str, tuple[object, object]] = {
    "ScanningSequence": (["SE", "IR"], ["GR", "IR"]),
    "StudyInstanceUID": ("2.25.11", "2.25.12"),
    "ImagedNucleus": ("1H", "3HE"),
    "SoftwareVersions": (["A", "B"], ["C"]),
}
#: By value representation.
VALUES: dict[str, tuple[object, object]] = {
    "AS": ("041Y", "042Y"),
    "CS": ("ONE", "TWO"),
    "DA": ("20260101", "20260102"),
    "DS": ("1.5", "2.5"),
    "IS": (1, 2),
    "PN": ("Nobody^Known", "Somebody^Else"),
    "TM": ("120000", "130000"),
    "UI": ("2.25.21", "2.25.22"),
    "US": (1, 2),
}
TEXTS = ("One", "Two")
#: What `write_series` sets itself.
GEOMETRY = {"ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"}


@dataclass(frozen=True)
class Made:
    """One object of each kind, and for each the T1W's header of its slice."""

    kinds: dict[str, Dataset]
    sources: dict[str, Dataset]


def both_sources() -> tuple[Made, Made]:
    """Return one object of each kind, of both sources."""
    with tempfile.TemporaryDirectory() as name:
        return _made(Path(name) / "0", 0), _made(Path(name) / "1", 1)


def table(both: tuple[Made, Made]) -> str:
    """Return the table as Markdown."""
    keywords = {
        element.tag: element.keyword for made in both for one in made.kinds.values() for element in one
    }
    lines = [
        f"| attribute | {' | '.join(COLUMNS)} |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    for tag in sorted(keywords):
        cells = [_cell(keywords[tag], kinds, both) for kinds in COLUMNS.values()]
        label = f"{dictionary_description(tag)} ({tag.group:04X},{tag.element:04X})"
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(keyword: str, kinds: Sequence[str], both: Sequence[Made]) -> str:
    letters = [_origin(keyword, kind, both) for kind in kinds]
    said = "/".join(dict.fromkeys(letter for letter in letters if letter))
    there = [keyword in made.kinds[kind] for made in both for kind in kinds]
    return said if all(there) else f"({said})" if said else ""


def _origin(keyword: str, kind: str, both: Sequence[Made]) -> str:
    """Return where the value of an attribute of this kind of object comes from; empty where it has none."""
    found = [(made.kinds[kind][keyword].value, made) for made in both if keyword in made.kinds[kind]]
    if not found:
        return ""
    if len(found) == len(both) and found[0][0] == found[1][0]:
        return MADE if keyword in BY_CHANCE else FIXED
    from_source = (
        keyword in made.sources[kind] and made.sources[kind][keyword].value == value for value, made in found
    )
    return SOURCE if all(from_source) else MADE


def _made(folder: Path, nth: int) -> Made:
    t1, flair = (_series(folder / name, nth, name) for name in ("1", "2"))
    if nth:  # what is written only where pixels lost something
        flair = replace(flair, lossy=LossyCompression(10.0, "ISO_10918_1"))
    found = every_object(t1, flair, nth)
    middle = {kind: len(instances) // 2 for kind, instances in found.items()}
    return Made(
        {kind: found[kind][index] for kind, index in middle.items()},
        {kind: t1.headers[index] for kind, index in middle.items()},
    )


def _series(folder: Path, nth: int, name: str) -> Series:
    def edit(header: Dataset, index: int) -> None:
        header.SpecificCharacterSet = ("ISO_IR 100", "ISO_IR 192")[nth]
        header.FrameOfReferenceUID = f"2.25.3{nth}"
        header.SeriesInstanceUID, header.SeriesNumber = f"2.25.4{nth}{name}", 3 + nth
        header.SOPInstanceUID = f"2.25.5{nth}{name}.{index}"
        header.BodyPartExamined = ("BRAIN", "HEAD")[nth]
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        for rule in (*PATIENT_AND_STUDY, *ACQUISITION, *SCANNER):
            if rule.keyword not in GEOMETRY:
                setattr(header, rule.keyword, _value(rule, nth))
        for sequence, leaves in SEQUENCES.items():
            setattr(header, sequence, [_item([leaf for several in leaves for leaf in several], nth)])

    rows, columns, slices = (36, 40)[nth], (40, 44)[nth], (6, 10)[nth]
    values = np.arange(slices * rows * columns, dtype=np.uint16).reshape(slices, rows, columns)
    return read_series(
        write_series(
            folder,
            values // 5 + 50 if nth == 0 else values * 3 + 50,
            axes=(AXIAL, SAGITTAL)[nth],
            origin_mm=(1.0 + nth, 2.0 + nth, 3.0 + nth),
            spacing_mm=(1.0 + nth / 4, 1.0 + nth / 4, 5.0 + nth),
            bits=(12, 16)[nth],
            order=range(slices)[::-1],  # not as we number them
            series=name,
            edit=edit,
        )
    )


def _value(rule: Rule, nth: int) -> object:
    if rule.keyword in PAIRS:
        return PAIRS[rule.keyword][nth]
    tag = tag_for_keyword(rule.keyword)
    assert tag is not None
    representation = dictionary_VR(Tag(tag))
    if rule.allowed:
        value = sorted(rule.allowed)[nth]
        return int(value) if representation == "US" else value
    return VALUES.get(representation, TEXTS)[nth]


def _item(keywords: Iterable[str], nth: int) -> Dataset:
    item = Dataset()
    for keyword in keywords:
        setattr(item, keyword, _value(Rule(keyword, Fault.DROPPED), nth))
    return item


if __name__ == "__main__":
    print(table(both_sources()))
