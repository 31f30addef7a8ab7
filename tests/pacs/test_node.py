"""The node as its peers and its administrator see it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from bench import HOST, Node, Redis, echo, tool
from pydicom import dcmread
from pynetdicom import AE, build_context

from synthesis.phantom import write_study

pytestmark = pytest.mark.pacs

OUT_OF_RESOURCES = 0xA700


def echoscu(node: Node, calling: str, called: str) -> int:
    command = [tool("echoscu"), "-aet", calling, "-aec", called, HOST, str(node.port)]
    return subprocess.run(command, capture_output=True).returncode


def test_echoscu_of_a_known_peer_is_answered(node: Node) -> None:
    assert echoscu(node, "ORTHANC", "TAVIT") == 0


@pytest.mark.parametrize(("calling", "called"), [("STRANGER", "TAVIT"), ("ORTHANC", "NOBODY")])
def test_an_unknown_ae_title_is_refused(node: Node, calling: str, called: str) -> None:
    assert echoscu(node, calling, called) != 0
    assert not echo(node.port, called, calling)


def test_a_node_is_ready_quickly_and_small(tmp_path: Path, redis: Redis) -> None:
    own = Node(tmp_path, redis.url)
    own.start()
    own.stop()  # the first start compiles and fills the disk cache
    seconds = own.start()
    try:
        resident = psutil.Process(own.pid).memory_info().rss / 2**20
        loaded = Path(f"/proc/{own.pid}/maps").read_text()
        print(f"\nready in {seconds:.2f} s (to hold: 1), {resident:.0f} MB resident (to hold: 120)")
        assert resident < 150
        assert "libtorch" not in loaded
    finally:
        own.stop()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mount.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_answered_with_a700_and_the_node_lives_on(
    tiny_disk: Path, tmp_path: Path, redis: Redis
) -> None:
    no_mark = "[retention]\nleast_free_gb = 0"
    own = Node(tmp_path / "node", redis.url, spool=tiny_disk / "spool", more=no_mark)
    own.add_peer("pacs", "ORTHANC", 1)
    own.start()
    study = write_study(tmp_path / "study", seed=500, localizer=False)
    image = dcmread(study.paths[0])
    association = AE("ORTHANC").associate(
        HOST,
        own.port,
        ae_title=own.ae_title,
        contexts=[build_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)],
    )
    try:
        statuses = [association.send_c_store(path).get("Status") for path in study.paths]
        association.release()
        print(
            f"\nanswers on a full disk: {sorted({hex(status) for status in statuses if status is not None})}"
        )
        assert statuses[0] == 0
        assert statuses[-1] == OUT_OF_RESOURCES
        assert set(statuses) == {0, OUT_OF_RESOURCES}
        assert echo(own.port, own.ae_title)
    finally:
        own.stop()
