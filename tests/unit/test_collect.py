"""Collect against a real ledger, where what matters is the order in which things become known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from small_studies import new_uid, pair

from dicom_node.collect import Collector
from dicom_node.ledger import Ending, Ledger, State
from dicom_node.settings import Settings
from dicom_node.spool import Spool

SETTINGS = Settings.model_validate({"peer": [{"name": "pacs", "ae_title": "PACS", "host": "localhost"}]})


def test_a_release_does_not_vouch_for_instances_that_are_not_read_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, spool = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}"), Spool(tmp_path)
    association = ledger.open_association("PACS", "TAVIT", "127.0.0.1", "pacs")
    images = pair(new_uid())

    def store(image: Dataset) -> None:
        path = spool.incoming(image.SOPInstanceUID)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save_as(path, enforce_file_format=True)
        ledger.store_instance(
            association,
            sop_instance_uid=image.SOPInstanceUID,
            sop_class_uid=image.SOPClassUID,
            transfer_syntax_uid=image.file_meta.TransferSyntaxUID,
            path=spool.relative(path),
            size_bytes=1,
            sha256=image.SOPInstanceUID,
        )

    for image in images[:-1]:
        store(image)
    look = ledger.associations_of
    meanwhile: list[Callable[[], None]] = [
        lambda: store(images[-1]),
        lambda: ledger.close_association(association, Ending.RELEASED),
    ]

    def associations_of(study_uid: str) -> dict[int, object]:
        while meanwhile:
            meanwhile.pop(0)()
        return look(study_uid)  # type: ignore[return-value]

    monkeypatch.setattr(ledger, "associations_of", associations_of)
    collector = Collector(SETTINGS, ledger, spool)
    while collector.work() == 0.0:
        pass

    jobs = ledger.jobs()
    assert [(job.revision, job.state) for job in jobs] == [(1, State.COMPLETE)]
    assert sum(map(len, (jobs[0].inputs or {}).values())) == len(images)
    ledger.close()
