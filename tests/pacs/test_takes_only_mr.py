"""An archive that takes MR images and nothing else: DCMTK's storescp, by its association profiles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from bench import HOST, Redis, StoreSCP, tool
from node_bench import Bench, StandInWorker, settings_for, with_a_segmentation
from pydicom.uid import MRImageStorage
from small_studies import pair

from dicom_node.ledger import DeliveryState, State

pytestmark = [pytest.mark.pacs, pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")]

#: A machine that is busy with other things.
PATIENCE_S = 240.0


@pytest.fixture
def only_mr(tmp_path: Path) -> Iterator[StoreSCP]:
    """A receiver that refuses every context but MR Image Storage."""
    tool("storescp")
    server = StoreSCP(tmp_path / "storescp", only="MRImageStorage")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def flow(tmp_path: Path, only_mr: StoreSCP) -> Iterator[Bench]:
    """A node whose one peer is that receiver; the last object of each job is a Segmentation."""
    redis = Redis(tmp_path / "redis")
    redis.start()
    peer = {"name": "pacs", "ae_title": "PACS", "host": HOST, "port": only_mr.port}
    settings = settings_for(
        tmp_path / "spool", redis.url, only_mr.port, peer=[peer], collect={"quiet_seconds": 20}
    )
    made = Bench(settings, StandInWorker(redis.url, tmp_path / "spool", with_a_segmentation))
    made.start()
    yield made
    made.stop()
    redis.stop()


def test_it_has_the_images_and_the_job_says_what_was_not_taken(flow: Bench, only_mr: StoreSCP) -> None:
    flow.send(pair())

    job = flow.wait(State.DELIVERED, seconds=PATIENCE_S)
    assert job.reason.startswith(
        "11 instances are in pacs. pacs has the result without 1 Segmentation Storage"
    )
    kinds = [pydicom.dcmread(path).file_meta.MediaStorageSOPClassUID for path in only_mr.received.iterdir()]
    assert kinds == [MRImageStorage] * 11
    states = [row.state for row in flow.node.ledger.deliveries(job.id)]
    assert states.count(DeliveryState.NOT_TAKEN) == 1
