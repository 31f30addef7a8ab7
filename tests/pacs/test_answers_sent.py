"""A declined study gets its answer in a real Orthanc, and a result that is retracted is named there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from bench import DONE, Node, Orthanc, Redis, Worker, free_port, tool, wait_for
from node_bench import StandInWorker, synthesise

from synthesis.phantom import PhantomStudy

pytestmark = [pytest.mark.pacs, pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")]

RULES = """
[[rule]]
name = "a page"
called_aet = "PAGE"
answer = "sc"
[[rule]]
name = "a report"
answer = "sr"
"""
#: dciodvfy of 2022 does not know Synthetic Data, which came in 2024.
TOO_NEW_FOR_DCIODVFY = "(0x0008,0x001c)"
#: dcentvfy looks for these attributes of the study in the series of documents (SR, KO), and for images not.
FILED_ELSEWHERE = "IE <Series> versus <Study>"
#: A machine that is busy with other things.
PATIENCE_S = 240.0

Phantom = Callable[..., PhantomStudy]


@dataclass
class Place:
    """A node that answers, and the Orthanc that sends to it and gets what it makes."""

    node: Node
    orthanc: Orthanc

    def send(self, files: list[Path], to: str = "node") -> str:
        """Have Orthanc send these files of a study; return its UID."""
        for path in files:
            self.orthanc.post("/instances", path.read_bytes())
        study_uid = str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
        self.orthanc.send_study(study_uid, to)
        return study_uid

    def event(self, study_uid: str, code: str) -> str:
        """Return the sentence of an event in the timeline of a study's job, as soon as it is there."""

        def look() -> list[str]:
            timelines = [self.node.json("queue", "show", job["job"]) for job in self.node.jobs(study_uid)]
            return [
                one["sentence"] for shown in timelines for one in shown["timeline"] if one["code"] == code
            ]

        return wait_for(f"an event {code}", look, PATIENCE_S, every=0.5)[-1]

    def study(self, study_uid: str, folder: Path) -> dict[str, list[Path]]:
        """Return the files of a study as Orthanc holds them, by modality."""
        found: dict[str, list[Path]] = {}
        for number, (uid, tags) in enumerate(self.orthanc.series(study_uid).items()):
            files = self.orthanc.download(study_uid, uid, folder / str(number))
            found.setdefault(tags["Modality"], []).extend(files)
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Redis, Orthanc and a node of their own; no worker yet."""
    tool("Orthanc")
    redis = Redis(tmp_path_factory.mktemp("redis"))
    node_port = free_port()
    orthanc = Orthanc(tmp_path_factory.mktemp("orthanc"), node_port)
    node = Node(tmp_path_factory.mktemp("node"), redis.url, node_port, more=RULES)
    node.add_peer("pacs", orthanc.ae_title, orthanc.port)
    for server in (redis, orthanc, node):
        server.start(PATIENCE_S)
    orthanc.add_modality("page", "PAGE", node_port)
    yield Place(node, orthanc)
    for server in (node, orthanc, redis):
        server.stop()


@pytest.fixture
def worker(place: Place, tmp_path: Path) -> Iterator[Worker]:
    """The real worker."""
    made = Worker(place.node, tmp_path / "worker")
    made.start(PATIENCE_S)
    yield made
    made.stop()


@pytest.fixture
def stand_in(place: Place) -> Iterator[StandInWorker]:
    """A worker that computes nothing; its documents are real."""
    made = StandInWorker(place.node._redis_url, place.node.spool, synthesise)
    made.start()
    yield made
    made.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "modality", "seed"), [("node", "SR", 904), ("page", "OT", 905)], ids=["SR", "SC"]
)
def test_a_t1w_without_flair_gets_its_answer_in_the_study(
    place: Place, worker: Worker, phantom: Phantom, tmp_path: Path, to: str, modality: str, seed: int
) -> None:
    sources = list(phantom(seed, t2=None, localizer=False).series["t1"].paths)

    study_uid = place.send(sources, to)

    assert place.event(study_uid, "ANSWERED") == "The answer is in pacs."
    (job,) = place.node.jobs(study_uid)
    assert job["state"] == "DECLINED"
    found = place.study(study_uid, tmp_path / "study")
    (answer,) = found[modality]
    assert len(found["MR"]) == len(sources)
    if modality == "SR":
        assert job["reason"] in _texts(answer)
    assert _errors(answer) == []
    assert _disagreements([*found["MR"], answer]) <= _disagreements(found["MR"])


def test_a_retracted_result_is_named_instance_by_instance(
    place: Place, stand_in: StandInWorker, phantom: Phantom, tmp_path: Path
) -> None:
    study = phantom(910, t2=None, localizer=False)
    sources = [path for role in ("t1", "flair") for path in study.series[role].paths]
    study_uid = place.send(sources)
    job = place.node.job(study_uid, DONE, PATIENCE_S)
    own = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in sources}

    said = place.node.run("queue", "retract", job["job"], "--reason", "The wrong series was used.")
    again = place.node.run("queue", "retract", job["job"])

    assert (said.returncode, said.stdout) == (0, f"{job['job']}: retracted\n"), said.stderr
    assert (again.returncode, again.stdout) == (
        0,
        f"{job['job']}: was retracted before, nothing new is sent\n",
    )
    assert place.event(study_uid, "RETRACTION_SENT") == "The retraction is in pacs."
    found = place.study(study_uid, tmp_path / "study")
    (document,) = found["KO"]
    read = pydicom.dcmread(document)
    named = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in read.ContentSequence
        if "ReferencedSOPSequence" in item
    }
    held = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in found["MR"]}
    assert named == held - own and len(named) == len(study.series["t1"].paths)
    assert "The wrong series was used." in _texts(document)
    assert _errors(document) == []
    assert _disagreements([*found["MR"], document]) <= _disagreements(found["MR"])
    (job,) = place.node.jobs(study_uid)
    assert (job["code"], job["reason"]) == ("RETRACTED", "Retracted: The wrong series was used.")
    shown = place.node.run("queue", "show", job["job"]).stdout
    assert "retraction (KO)" in shown and "pacs STORED" in shown


def _texts(path: Path) -> str:
    values: list[Any] = [one.value for one in pydicom.dcmread(path).iterall() if one.keyword == "TextValue"]
    return "\n".join(str(value) for value in values)


def _errors(path: Path) -> list[str]:
    said = subprocess.run([tool("dciodvfy"), str(path)], capture_output=True, text=True, errors="replace")
    errors = [line for line in said.stderr.splitlines() if line.startswith("Error")]
    return [line for line in errors if TOO_NEW_FOR_DCIODVFY not in line.lower()]


def _disagreements(paths: list[Path]) -> set[str]:
    """Return what dcentvfy finds between the instances of a study, without the names of files."""
    said = subprocess.run(
        [tool("dcentvfy"), *map(str, paths)], capture_output=True, text=True, errors="replace"
    )
    lines = {line.split(" for file ")[0] for line in (said.stdout + said.stderr).splitlines() if line.strip()}
    return {line for line in lines if FILED_ELSEWHERE not in line}
