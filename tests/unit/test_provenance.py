"""What made an object is read from the object, and it comes out again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from objects import ALL, every_object, maker, save_all
from slices import write_series
from typer.testing import CliRunner

from dicom_node import provenance
from dicom_node.cli import app
from dicom_node.errors import NoSuchThing
from dicom_node.ledger import Ledger
from dicom_node.settings import Settings
from synthesis.job import Wanted
from synthesis.series import read_series


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs below ``in``, one object of each kind below ``out``, named by kind."""
    root = tmp_path_factory.mktemp("provenance")
    values = (np.arange(6 * 36 * 40, dtype=np.uint16).reshape(6, 36, 40) // 5) + 50
    t1 = read_series(write_series(root / "in" / "t1", values))
    flair = read_series(write_series(root / "in" / "flair", values, series="2"))
    for kind, instances in every_object(t1, flair).items():
        save_all(instances[:1], root / "out" / kind.replace(":", ""))
    return root


def kinds(folder: Path) -> list[Path]:
    return sorted((folder / "out").rglob("*.dcm"))


def test_every_object_says_who_made_it(folder: Path) -> None:
    for path in kinds(folder):
        found = provenance.read(path)
        assert (found.model, found.version, found.digest) == ("small", "0.1", "ab" * 32), path
        assert found.code.startswith("dicom-node ")
        assert (found.device, found.pixels) == ("cpu", "1")
        assert found.device_uid == maker(Wanted()).device_uid
        assert f"SHA-256 {'ab' * 32}" in "\n".join(provenance.lines(found))


def test_every_computed_object_names_its_settings_and_both_input_series(folder: Path) -> None:
    computed = [path for path in kinds(folder) if "SYNTH" in str(path.parent)]
    assert len(computed) == 8
    for path in computed:
        found = provenance.read(path)
        assert set(found.series) == {"T1W", "FLAIR"}
        assert found.wanted.objects in (ALL, ("t1c", "seg", "report"))
        sources = provenance.inputs_in(folder / "in", found)
        assert [len(sources[role]) for role in ("T1W", "FLAIR")] == [6, 6]
        uids = {str(pydicom.dcmread(one).SOPInstanceUID) for several in sources.values() for one in several}
        assert uids & set(found.instances), path


def test_the_command_prints_it_for_people_and_for_scripts(folder: Path) -> None:
    path = next(path for path in kinds(folder) if path.parent.name.startswith("classic SYNTH T1C"))
    for option, said in (([], f"SHA-256 {'ab' * 32}"), (["--json"], f'"digest": "{"ab" * 32}"')):
        run = CliRunner().invoke(app, ["provenance", str(path), *option])
        assert run.exit_code == 0
        assert said in run.output


def test_a_scanners_image_is_none_of_ours(folder: Path) -> None:
    with pytest.raises(NoSuchThing, match="not made by"):
        provenance.read(next((folder / "in").rglob("*.dcm")))


def test_inputs_that_are_gone_are_named(folder: Path, tmp_path: Path) -> None:
    path = kinds(folder)[0]
    found = provenance.read(path)
    with pytest.raises(NoSuchThing, match="T1W and the FLAIR"):
        provenance.reproduce(path, found, provenance.inputs_in(tmp_path, found))


def test_in_the_spool_the_inputs_are_those_of_the_job_that_made_it(folder: Path, tmp_path: Path) -> None:
    """A slice came late and opened revision two: the first answer is still made of what the first job had."""
    path = kinds(folder)[0]
    found = provenance.read(path)
    settings = Settings.model_validate({"node": {"spool": tmp_path}})
    ledger = Ledger(settings.node.ledger_url)
    for revision, inputs in ((1, {"T1W": ["a"], "FLAIR": ["b"]}), (2, {"T1W": ["a", "c"], "FLAIR": ["b"]})):
        job = ledger.open_job(found.study_uid, "every study", revision, "pacs", 0.0, "Arriving.")
        ledger.set(job, inputs=inputs)
        uid = found.sop_instance_uid if revision == 1 else "1.2.3"
        ledger.open_deliveries(job, ["pacs"], [("made", "1.2", uid, "1.2.4")])
    ledger.close()

    sources = provenance.inputs_in_the_spool(settings, found)

    assert sources == {"T1W": [tmp_path / "a"], "FLAIR": [tmp_path / "b"]}
    (tmp_path / "a").touch()
    with pytest.raises(NoSuchThing, match="The FLAIR is not here any more"):
        provenance.reproduce(path, found, sources)


def test_settings_that_are_not_ours_are_not_run(folder: Path, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(kinds(folder)[0])
    dataset.ContributingEquipmentSequence[-1].ContributionDescription = "x; objects=--montage t1w=1 flair=2"
    dataset.save_as(tmp_path / "x.dcm")
    found = provenance.read(tmp_path / "x.dcm")
    assert found.wanted.objects == ()
    sources = {"T1W": [tmp_path / "x.dcm"], "FLAIR": [tmp_path / "x.dcm"]}
    with pytest.raises(NoSuchThing, match="nothing to compute"):
        provenance.reproduce(tmp_path / "x.dcm", found, sources)


@pytest.mark.parametrize("kind", ["classic SYNTH T1C", "classic SYNTH SEG", "classic SYNTH REPORT"])
def test_a_changed_copy_is_told_from_an_equal_one(kind: str, folder: Path) -> None:
    path = next(path for path in kinds(folder) if path.parent.name.startswith(kind))
    original, again = pydicom.dcmread(path), pydicom.dcmread(path)
    assert provenance.compare(original, again).same
    if "PixelData" in again:
        pixels = bytearray(again.PixelData)
        pixels[0] ^= 1
        again.PixelData = bytes(pixels)
    else:
        number = next(one for one in again.iterall() if one.keyword == "NumericValue")
        number.value = float(number.value) * 1.001
    changed = provenance.compare(original, again)
    assert not changed.same
    assert changed.difference > 0
    assert "should be equal" in changed.sentence
    on_a_gpu(again)
    assert provenance.compare(original, again).same == (changed.difference <= provenance.TOLERANCE)


def on_a_gpu(dataset: pydicom.Dataset) -> pydicom.Dataset:
    for item in dataset.ContributingEquipmentSequence:
        item.ContributionDescription = str(item.get("ContributionDescription", "")).replace("=cpu", "=cuda")
    return dataset


def segmentation(folder: Path, form: str) -> Path:
    return next(path for path in kinds(folder) if path.parent.name.startswith(f"{form} SYNTH SEG"))


def test_of_a_probability_one_step_everywhere_is_one_step(folder: Path) -> None:
    path = segmentation(folder, "enhanced")
    original, again = pydicom.dcmread(path), on_a_gpu(pydicom.dcmread(path))
    again.PixelData = (again.pixel_array.clip(1) - 1).tobytes()

    found = provenance.compare(original, again)

    assert found.same and found.difference == pytest.approx(1 / 255)


def test_a_tumour_that_reaches_a_slice_less_far_differs_by_that_slice(folder: Path) -> None:
    path = segmentation(folder, "classic")
    original, again = pydicom.dcmread(path), on_a_gpu(pydicom.dcmread(path))
    frames = original.pixel_array
    assert len(frames) > 1
    again.PerFrameFunctionalGroupsSequence = again.PerFrameFunctionalGroupsSequence[:-1]
    again.NumberOfFrames = len(frames) - 1
    again.PixelData = np.packbits(frames[:-1], bitorder="little").tobytes()

    found = provenance.compare(original, again)

    assert found.difference == pytest.approx(frames[-1].sum() / frames.sum())


def test_the_process_is_asked_for_what_the_object_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next(path for path in kinds(folder) if "enhanced SYNTH SEG" in str(path))
    asked: list[Sequence[str]] = []

    def computed(command: Sequence[str], **_: Any) -> Any:
        asked.append(command)
        out = Path(command[5])
        out.mkdir()
        (out / "1.dcm").write_bytes(path.read_bytes())
        return type("Run", (), {"returncode": 0})

    monkeypatch.setattr("dicom_node.provenance.subprocess.run", computed)
    found = provenance.read(path)
    sources = provenance.inputs_in(folder / "in", found)
    assert provenance.reproduce(path, found, sources).same
    words = " ".join(asked[0][6:])
    assert words == ("--model small --device auto --t1c enhanced --seg fractional --objects t1c seg report")
    other = replace(found, sop_instance_uid="1.2.3")
    assert "Other identifiers" in provenance.reproduce(path, other, sources).sentence
