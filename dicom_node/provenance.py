"""What made a derived object: model, weights, code, settings, inputs; and whether it comes out again.

All of it is read from the object itself. To compute again, ``python -m synthesis`` runs as a process of its
own on the same inputs; equal identifiers prove that inputs, weights and arithmetic are the same, and the
content is compared beside them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from dicom_node.errors import NoSuchThing
from dicom_node.settings import Settings
from synthesis.job import Wanted

#: Purpose of Contributing Equipment (0018,A001): synthesizing equipment (PS3.16 CID 7005).
OURS = "109100"
#: Pixels are equal to the bit on the same type of device. On another they may differ by this share of their
#: range (GPUs compute in other orders and in bfloat16), outlines and volumes by this share of theirs.
TOLERANCE = 0.02
ROLES = {"t1w": "T1W", "flair": "FLAIR"}


@dataclass(frozen=True)
class Provenance:
    """What an object says of how it was made."""

    sop_instance_uid: str
    study_uid: str
    description: str
    #: ``YYYYMMDDHHMMSS.ffffff``.
    made: str
    code: str
    model: str
    version: str
    #: SHA-256 of the weights.
    digest: str
    device_uid: str
    #: Type of the device that computed: "cpu", "cuda".
    device: str
    #: Version of the arithmetic that makes pixels.
    pixels: str
    wanted: Wanted
    #: Series UID of each role.
    series: dict[str, str]
    #: SOP instances that this object names as what it was made from.
    instances: tuple[str, ...]


@dataclass(frozen=True)
class Reproduction:
    """What came out when it was computed again."""

    same: bool
    #: In the object's own terms; 0 is equal to the bit.
    difference: float
    device: str
    sentence: str


def read(path: Path) -> Provenance:
    """Return what a derived object says; raises `NoSuchThing` when it is none of ours."""
    return _provenance(_dataset(path))


def lines(found: Provenance) -> list[str]:
    """Return it for people, a fact a line."""
    rows = {
        "object": f"{found.description} {found.sop_instance_uid}",
        "made": found.made,
        "model": f"{found.model} {found.version}",
        "weights": f"SHA-256 {found.digest}",
        "code": f"{found.code}, pixel arithmetic {found.pixels}",
        "device": f"{found.device}, Device UID {found.device_uid}",
        "settings": found.wanted.to_text() if found.wanted.objects else "",
        **{role: f"series {uid}" for role, uid in found.series.items()},
    }
    told = [f"{name:<9} {value}" for name, value in rows.items() if value.strip()]
    return told + [f"{'from':<9} instance {uid}" for uid in found.instances]


def inputs_in_the_spool(settings: Settings, found: Provenance) -> dict[str, list[Path]]:
    """Return the files of each role that the node still keeps.

    Those of the job that made the object, where a job of this node did: its series may have grown since.
    """
    from dicom_node.ledger import Ledger

    ledger = Ledger(settings.node.ledger_url)
    try:
        paths = ledger.series_paths(found.study_uid, found.series)
        for job in ledger.jobs_of(found.study_uid):
            if found.sop_instance_uid in {row.sop_instance_uid for row in ledger.deliveries(job.id)}:
                paths = job.inputs or paths
    finally:
        ledger.close()
    return {role: [settings.node.spool / path for path in several] for role, several in paths.items()}


def inputs_in(folder: Path, found: Provenance) -> dict[str, list[Path]]:
    """Return the files of each role below a folder."""
    paths: dict[str, list[Path]] = {role: [] for role in found.series}
    by_uid = {uid: role for role, uid in found.series.items()}
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        try:
            header = dcmread(path, specific_tags=["SeriesInstanceUID"], stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            continue
        role = by_uid.get(str(header.get("SeriesInstanceUID")))
        if role:
            paths[role].append(path)
    return paths


def reproduce(
    path: Path, found: Provenance, inputs: Mapping[str, list[Path]], device: str = "auto"
) -> Reproduction:
    """Compute an object again from its inputs, in a process of its own, and compare.

    Raises
    ------
    NoSuchThing
        When inputs are gone, or `synthesis` cannot compute here; the sentence says why.
    """
    gone = [
        role
        for role in found.series
        if not inputs.get(role) or not all(one.is_file() for one in inputs[role])
    ]
    if gone:
        raise NoSuchThing(
            f"The {' and the '.join(gone)} is not here any more; name a folder with it: --inputs FOLDER."
        )
    with tempfile.TemporaryDirectory() as name:
        again = computed(Path(name), found, inputs, device).get(found.sop_instance_uid)
        if again is not None:
            return compare(dcmread(path), dcmread(again))
    return Reproduction(
        False,
        1.0,
        "",
        "Other identifiers came out: the inputs, the weights or the version of the code are not the same.",
    )


def computed(
    folder: Path, found: Provenance, inputs: Mapping[str, list[Path]], device: str
) -> dict[str, Path]:
    """Compute all objects of the same job into a folder; return the files by SOP Instance UID.

    Raises `NoSuchThing` when nothing can be computed here; the sentence says why.
    """
    wanted = found.wanted
    if not wanted.objects or not found.series:
        raise NoSuchThing("This object was not computed from images: there is nothing to compute again.")
    for role in ROLES.values():
        (folder / role).mkdir()
        for number, source in enumerate(inputs[role]):
            (folder / role / f"{number:05d}.dcm").symlink_to(source.resolve())
    command = [sys.executable, "-m", "synthesis", *(str(folder / role) for role in ROLES.values())]
    command += [str(folder / "out"), "--model", found.model, "--device", device]
    command += ["--t1c", wanted.t1c, "--seg", wanted.seg]
    command += ["--corner-text"] if wanted.corner_text else []
    command += ["--objects", *wanted.objects]
    # Fixed program; the arguments are our own vocabulary, checked when the object was read.
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["python -m synthesis said nothing."])[-1]
        raise NoSuchThing(f"It could not be computed again here: {last}")
    made = sorted((folder / "out").glob("*.dcm"))
    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in made}


def compare(original: Dataset, again: Dataset) -> Reproduction:
    """Return whether two objects of the same identifier hold the same, as far as their devices allow."""
    before, after = _provenance(original).device, _provenance(again).device
    difference = _difference(original, again)
    if before == after:
        same = difference == 0
        verdict = "equal to the bit" if same else f"different by {difference:.2%}, though it should be equal"
        return Reproduction(same, difference, after, f"Computed again on the same type ({after}): {verdict}.")
    same = difference <= TOLERANCE
    return Reproduction(
        same,
        difference,
        after,
        f"Made on {before or 'an unnamed device'}, computed again on {after}: different by {difference:.2%}; "
        f"up to {TOLERANCE:.0%} counts as the same between types of device.",
    )


def _dataset(path: Path) -> Dataset:
    try:
        return dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, OSError) as error:
        raise NoSuchThing(f"{path} cannot be read as a DICOM file.") from error


def _provenance(dataset: Dataset) -> Provenance:
    for item in dataset.get("ContributingEquipmentSequence") or []:
        codes = item.get("PurposeOfReferenceCodeSequence") or []
        if any(code.get("CodeValue") == OURS for code in codes) and dataset.get("SyntheticData") == "YES":
            return _told(dataset, item)
    raise NoSuchThing("This object was not made by a dicom-node.")


def _told(dataset: Dataset, item: Dataset) -> Provenance:
    _, _, text = str(item.get("ContributionDescription", "")).partition("; ")
    words = dict(word.split("=", 1) for word in text.split() if "=" in word)
    own = {key: words.pop(key, "") for key in ("device", "pixels")}
    series = {role: words.pop(key) for key, role in ROLES.items() if key in words}
    code, digest, model = (*item.SoftwareVersions, "", "", "")[:3]
    try:
        wanted = Wanted.of_text(" ".join(f"{key}={value}" for key, value in words.items()))
    except ValueError:
        wanted = Wanted(())
    name, _, version = str(model).rpartition(" ")
    return Provenance(
        sop_instance_uid=str(dataset.SOPInstanceUID),
        study_uid=str(dataset.StudyInstanceUID),
        description=str(dataset.get("SeriesDescription", "")),
        made=str(item.get("ContributionDateTime", "")),
        code=str(code),
        model=name,
        version=version,
        digest=str(digest),
        device_uid=str(dataset.get("DeviceUID", "")),
        device=own["device"],
        pixels=own["pixels"],
        wanted=wanted,
        series=series,
        instances=tuple(dict.fromkeys(_referenced(dataset))),
    )


def _referenced(dataset: Dataset) -> Iterator[str]:
    """Yield the instances named as sources, or as evidence of a report."""
    for element in dataset:
        if element.VR != "SQ":
            continue
        for item in element.value:
            if element.keyword in ("SourceImageSequence", "ReferencedSOPSequence"):
                yield str(item.get("ReferencedSOPInstanceUID", ""))
            else:
                yield from _referenced(item)


def _difference(original: Dataset, again: Dataset) -> float:
    """Return 0 for equal content, else by which share it differs."""
    if original.get("Modality") == "SEG":
        return _difference_of_segments(original, again)
    if "PixelData" in original:
        before, after = original.pixel_array, again.pixel_array
        if before.shape != after.shape:
            return 1.0
        return _largest(before, after) / max(1.0, float(np.ptp(before)))
    before, after = _numbers(original), _numbers(again)
    if before.shape != after.shape:
        return 1.0
    return _largest(before, after) / max(1e-9, float(np.abs(before).max(initial=0.0)))


def _difference_of_segments(original: Dataset, again: Dataset) -> float:
    """Return the share of an outline that differs, or by how much of certainty a probability does."""
    before, after = _by_place(original), _by_place(again)
    blank = np.zeros_like(next(iter(before.values())))
    if any(frame.shape != blank.shape for frame in after.values()):
        return 1.0
    pairs = [(before.get(place, blank), after.get(place, blank)) for place in {*before, *after}]
    if original.SegmentationType == "FRACTIONAL":
        return max(_largest(*pair) for pair in pairs) / float(original.MaximumFractionalValue)
    marked = sum(int(np.count_nonzero(frame)) for frame in before.values())
    return sum(int(np.count_nonzero(one != other)) for one, other in pairs) / max(1, marked)


def _by_place(dataset: Dataset) -> dict[str, npt.NDArray[np.uint8]]:
    """Return the frames of a segmentation; where there is none, nothing is segmented."""
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    places = [
        str(groups.PlanePositionSequence[0].ImagePositionPatient)
        for groups in dataset.PerFrameFunctionalGroupsSequence
    ]
    return dict(zip(places, frames, strict=True))


def _largest(before: npt.NDArray[np.generic], after: npt.NDArray[np.generic]) -> float:
    return float(np.abs(before.astype(np.float64) - after.astype(np.float64)).max(initial=0.0))


def _numbers(dataset: Dataset) -> npt.NDArray[np.float64]:
    """Return what a report measured, in its order."""
    found = [element.value for element in dataset.iterall() if element.keyword == "NumericValue"]
    return np.array(found, dtype=np.float64)
