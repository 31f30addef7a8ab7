"""Every object of a job goes to an Orthanc that forwards all it gets, back to the node, and can be proved."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from bench import ENDED, Node, Orthanc, Redis, Worker, free_port, wait_for
from highdicom.sr import srread
from pydicom import Dataset, dcmread

from dicom_node import provenance
from dicom_node.settings import load
from synthesis.phantom import PhantomStudy, write_study
from synthesis.series import read_series

pytestmark = [pytest.mark.pacs, pytest.mark.slow]

RULE = """
[[rule]]
name = "all of it"
objects = ["t1c", "seg", "difference", "uncertainty", "report"]
t1c = "enhanced"
"""
#: What comes by DICOM goes to the node, as an archive with automatic routing does.
FORWARD = """
function OnStoredInstance(instance, tags, metadata, origin)
  if origin["RequestOrigin"] == "DicomProtocol" then SendToModality(instance, "node") end
end
"""
#: Beginnings of the Series Descriptions, and how many instances each has; None: one a slice.
EXPECTED = {
    "SYNTH T1C": 1,
    "SYNTH SEG": 1,
    "SYNTH REPORT": 1,
    "SYNTH DIFF": None,
    "SYNTH UNCERTAINTY": None,
}
#: A machine that trains networks beside it.
PATIENCE_S = 1500


@dataclass(frozen=True)
class Delivered:
    """What came to Orthanc, by the beginning of its Series Description, and where from."""

    orthanc: Orthanc
    node: Node
    study: PhantomStudy
    job: dict[str, Any]
    files: dict[str, list[Path]]

    def first(self, description: str) -> Path:
        return self.files[description][0]


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivered]:
    """A phantom's study sent by Orthanc, its answer awaited; with servers of their own."""
    folder = tmp_path_factory.mktemp("delivered")
    redis, node_port = Redis(folder / "redis"), free_port()
    (folder / "forward.lua").write_text(FORWARD)
    orthanc = Orthanc(folder / "orthanc", node_port, LuaScripts=[str(folder / "forward.lua")])
    node = Node(folder / "node", redis.url, node_port, more=RULE)
    node.add_peer("pacs", orthanc.ae_title, orthanc.port)
    worker = Worker(node, folder / "worker")
    started = []
    try:
        for server in (redis, orthanc, node, worker):
            server.start(seconds=PATIENCE_S)
            started.append(server)
        study = write_study(folder / "study", seed=600, t2=None, localizer=False)
        orthanc.upload(study.folder)
        orthanc.send_study(study.uid)
        job = node.job(study.uid, ENDED, seconds=PATIENCE_S)
        assert job["state"] in ("DELIVERED", "COMMITTED"), job
        files = {}
        for uid, tags in orthanc.series(study.uid).items():
            for name in EXPECTED:
                if tags["SeriesDescription"].startswith(name):
                    files[name] = orthanc.download(study.uid, uid, folder / "back" / name)
        yield Delivered(orthanc, node, study, job, files)
    finally:
        for server in reversed(started):
            server.stop()


def test_every_object_of_the_rule_is_in_the_study(delivered: Delivered) -> None:
    slices = len(delivered.study.series["t1"].paths)

    assert {name: len(files) for name, files in delivered.files.items()} == {
        name: count or slices for name, count in EXPECTED.items()
    }


def test_what_is_forwarded_to_the_node_begins_nothing(delivered: Delivered) -> None:
    sent = {str(dcmread(path).SOPInstanceUID) for files in delivered.files.values() for path in files}

    def ignored() -> int:
        timeline = delivered.node.json("queue", "show", delivered.job["job"])["timeline"]
        told = [event["sentence"] for event in timeline if event["code"] == "SYNTHETIC_IGNORED"]
        return sum(int(sentence.split()[0]) for sentence in told) >= len(sent)

    wait_for("what Orthanc forwards", ignored, PATIENCE_S, every=2)
    (job,) = delivered.node.json("queue", "list")
    assert job["state"] in ("DELIVERED", "COMMITTED")
    assert len(delivered.orthanc.series(delivered.study.uid)) == 2 + len(EXPECTED)
    told = delivered.node.json("queue", "explain", job["job"])
    assert told["chosen"] == {
        role: delivered.study.series[key].uid for role, key in (("T1W", "t1"), ("FLAIR", "flair"))
    }


def test_highdicom_reads_the_segmentation_where_the_t1w_lies(delivered: Delivered) -> None:
    read = highdicom.seg.segread(delivered.first("SYNTH SEG"))
    t1 = read_series(delivered.study.series["t1"].paths)
    volume = read.get_volume()

    marked = np.argwhere(volume.array[..., 0] > 0)

    assert len(marked) > 0
    for index in marked[:: max(1, len(marked) // 50)]:
        point = (volume.affine @ [*index[:3], 1])[:3]
        nearest = t1.image.TransformPhysicalPointToIndex(point.tolist())
        assert np.abs(point - t1.image.TransformIndexToPhysicalPoint(nearest)).max() < 1e-3
    sources = {
        str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        for path in delivered.study.series["t1"].paths
    }
    named = {str(uid) for uids in read.get_source_image_uids() for uid in uids[2:]}
    assert named <= sources | {
        str(dcmread(path).SOPInstanceUID) for path in delivered.study.series["flair"].paths
    }


def test_highdicom_reads_the_report_and_the_segmentation_it_measured(delivered: Delivered) -> None:
    report = srread(delivered.first("SYNTH REPORT"))

    numbers = [one for one in _items(report) if one.get("ValueType") == "NUM"]
    named = {
        str(one.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for one in _items(report)
        if "ReferencedSOPSequence" in one
    }
    assert [one.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue for one in numbers] == [
        "mL"
    ] * 2
    assert str(dcmread(delivered.first("SYNTH SEG")).SOPInstanceUID) in named


def test_the_segmentation_comes_out_again_from_what_the_node_still_keeps(delivered: Delivered) -> None:
    command = [*delivered.node.program, "provenance", str(delivered.first("SYNTH SEG")), "--reproduce"]

    run = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True, timeout=PATIENCE_S)

    assert run.returncode == 0, run.stdout + run.stderr
    assert "Computed again on the same type (cpu): equal to the bit." in run.stdout


def test_every_kind_of_object_comes_out_again_equal_to_the_bit(delivered: Delivered, tmp_path: Path) -> None:
    found = provenance.read(delivered.first("SYNTH T1C"))
    inputs = provenance.inputs_in_the_spool(load(delivered.node.settings, {}), found)

    again = provenance.computed(tmp_path, found, inputs, "cpu")

    for name, paths in delivered.files.items():
        for path in paths:
            original = dcmread(path)
            compared = provenance.compare(original, dcmread(again[str(original.SOPInstanceUID)]))
            assert compared.same and compared.difference == 0, name
    assert len(again) == sum(len(paths) for paths in delivered.files.values())


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """Yield the content items of a report, whole tree."""
    for item in dataset.get("ContentSequence") or []:
        yield item
        yield from _items(item)
