"""One attempt to deliver, and what of it stays in the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dicom_node import deliver, send
from dicom_node.deliver import Deliverer
from dicom_node.ledger import DeliveryState, Ledger
from dicom_node.parcels import SUCCESS, Answer, Parcel
from dicom_node.settings import Peer, Settings
from dicom_node.spool import Spool


def test_what_was_answered_before_a_bug_is_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1"}
    settings = Settings.model_validate({"node": {"spool": tmp_path}, "peer": [peer]})
    ledger = Ledger(settings.node.ledger_url)
    job = ledger.open_job("1.2.3", "every study", 1, "pacs", time.time(), "Arriving.")
    ledger.open_deliveries(job, ["pacs"], [(name, "1.2", f"1.1.{name}", "1.3") for name in "123"])

    def breaks_at_the_third(
        aet: str, peer: Peer, parcels: Sequence[Parcel], answered: Callable[[Answer], None]
    ) -> None:
        for parcel in parcels[:2]:
            answered(Answer(parcel, SUCCESS))
        raise ValueError("a bug")

    monkeypatch.setattr(deliver, "parcel", lambda path: Parcel(path, "1.2", f"1.1.{path.name}", "1.4"))
    monkeypatch.setattr(send, "hand_over", breaks_at_the_third)
    deliverer = Deliverer(settings, ledger, Spool(tmp_path))

    deliverer._deliver(job, "pacs")

    states = [row.state for row in ledger.deliveries(job.id)]
    assert states == [DeliveryState.STORED, DeliveryState.STORED, DeliveryState.PENDING]
    deliverer.stop()
    ledger.close()
