"""C-STORE rates on loopback, side by side in one run: ours, storescu's, Orthanc's, pynetdicom as it comes.

The receivers are as their packages install them. Run alone for figures: ``pytest -s tests/benchmarks``.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench import HOST, Node, Orthanc, Redis, StoreSCP, free_port, tool
from pydicom import dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE

from dicom_node.send import send_folder
from dicom_node.settings import Peer
from synthesis.phantom import write_study

pytestmark = [pytest.mark.pacs, pytest.mark.slow]

INSTANCES = 60
MR = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = "1.2.840.10008.1.2.1"
#: Sends a folder to an AE title at a port.
Sender = Callable[[Path, str, int], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of equal MR instances of 132 kB, each with a UID of its own."""
    study = write_study(tmp_path_factory.mktemp("phantom"), seed=77)
    dataset = dcmread(study.series["t1"].paths[0])
    target = tmp_path_factory.mktemp("instances")
    for number in range(INSTANCES):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.InstanceNumber = number + 1
        dataset.save_as(target / f"{number:03d}.dcm")
    return target


def ours(folder: Path, ae_title: str, port: int) -> None:
    stored, complaints = send_folder(
        "ORTHANC", Peer(name="peer", ae_title=ae_title, host=HOST, port=port), folder, lambda *_: None
    )
    assert (stored, complaints) == (INSTANCES, [])


def storescu(folder: Path, ae_title: str, port: int) -> None:
    command = [tool("storescu"), "-aet", "ORTHANC", "-aec", ae_title, "+sd", HOST, str(port), str(folder)]
    assert subprocess.run(command, capture_output=True).returncode == 0


def plain_pynetdicom(folder: Path, ae_title: str, port: int) -> None:
    ae = AE("ORTHANC")
    ae.add_requested_context(MR, EXPLICIT)
    association = ae.associate(HOST, port, ae_title=ae_title)
    assert association.is_established
    for path in sorted(folder.iterdir()):
        if "Status" not in association.send_c_store(path):
            return  # on a busy machine its reactor takes an answer away: it waits for 30 s, and that counts
    association.release()


@pytest.fixture(scope="module")
def archive(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An Orthanc that has the instances, to send them."""
    server = Orthanc(tmp_path_factory.mktemp("archive"), free_port())
    server.start()
    server.upload(folder)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def senders(archive: Orthanc) -> dict[str, Sender]:
    """Who sends a folder, by name."""

    def orthanc(folder: Path, ae_title: str, port: int) -> None:
        archive.add_modality("receiver", ae_title, port)
        study = dcmread(next(folder.iterdir()), stop_before_pixels=True).StudyInstanceUID
        archive.send_study(str(study), "receiver")

    return {
        "storescu": storescu,
        "Orthanc's own": orthanc,
        "pynetdicom": plain_pynetdicom,
        "dicom-node": ours,
    }


def rates(
    senders: dict[str, Sender], folder: Path, ae_title: str, port: int, empty: Callable[[], None]
) -> dict[str, float]:
    """Return instances per second of each sender into an empty receiver, the best of two in turn."""
    best = dict.fromkeys(senders, 0.0)
    for _ in range(2):
        for name, send in senders.items():
            empty()
            began = time.monotonic()
            send(folder, ae_title, port)
            best[name] = max(best[name], INSTANCES / (time.monotonic() - began))
    return best


def is_ahead(receiver: str, found: dict[str, float]) -> bool:
    """Print the rates; return whether ours is the highest."""
    print(f"\nto {receiver}: " + ", ".join(f"{name} {rate:.0f}/s" for name, rate in found.items()))
    for name, rate in found.items():
        if name != "dicom-node":
            print(f"  dicom-node : {name} = {found['dicom-node'] / rate:.1f}")
    return max(found, key=lambda name: found[name]) == "dicom-node"


def test_sending_to_stock_storescp(folder: Path, senders: dict[str, Sender], storescp: StoreSCP) -> None:
    def empty() -> None:
        for path in storescp.received.iterdir():
            path.unlink()

    found = rates(senders, folder, "ANY-SCP", storescp.port, empty)

    assert len(list(storescp.received.iterdir())) == INSTANCES
    assert is_ahead("storescp", found)


def test_sending_to_stock_orthanc(folder: Path, senders: dict[str, Sender], tmp_path: Path) -> None:
    server = Orthanc(tmp_path / "orthanc", free_port())
    server.start()

    def empty() -> None:
        for study in server.get("/studies"):
            server.call("DELETE", f"/studies/{study}")

    try:
        found = rates(senders, folder, server.ae_title, server.port, empty)
        assert server.get("/statistics")["CountInstances"] == INSTANCES
    finally:
        server.stop()
    assert is_ahead("Orthanc", found)


def test_receiving_from_stock_storescu(folder: Path, tmp_path: Path, storescp: StoreSCP) -> None:
    redis = Redis(tmp_path / "redis")
    node = Node(tmp_path / "node", redis.url)
    node.add_peer("pacs", "ORTHANC", free_port())
    node.start()
    try:
        found = {}
        for name, ae_title, port in (
            ("dicom-node", "TAVIT", node.port),
            ("storescp", "ANY-SCP", storescp.port),
        ):
            began = time.monotonic()
            storescu(folder, ae_title, port)
            found[name] = INSTANCES / (time.monotonic() - began)
        print(
            f"\nfrom storescu: into dicom-node (durable) {found['dicom-node']:.0f}/s, "
            f"into storescp {found['storescp']:.0f}/s, ratio {found['dicom-node'] / found['storescp']:.1f}"
        )
        assert len(list((node.spool / "incoming").rglob("*.dcm"))) == INSTANCES
    finally:
        node.stop()
