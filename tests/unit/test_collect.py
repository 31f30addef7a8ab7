"""Collect against a real ledger, where what matters is the order in which things become known."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from small_studies import new_uid, pair, stack

from dicom_node.collect import Collector
from dicom_node.ledger import Ending, Inquiry, JobRow, Ledger, State
from dicom_node.settings import Settings
from dicom_node.spool import Spool

SETTINGS = Settings.model_validate({"peer": [{"name": "pacs", "ae_title": "PACS", "host": "localhost"}]})


@dataclass
class Arriving:
    """A collector that is driven step by step, and what arrives for it."""

    ledger: Ledger
    spool: Spool
    collector: Collector

    def open(self) -> int:
        return self.ledger.open_association("PACS", "TAVIT", "127.0.0.1", "pacs")

    def store(self, association: int, images: Iterable[Dataset]) -> None:
        for image in images:
            path = self.spool.incoming(image.SOPInstanceUID)
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save_as(path, enforce_file_format=True)
            self.ledger.store_instance(
                association,
                sop_instance_uid=image.SOPInstanceUID,
                sop_class_uid=image.SOPClassUID,
                transfer_syntax_uid=image.file_meta.TransferSyntaxUID,
                path=self.spool.relative(path),
                size_bytes=1,
                sha256=image.SOPInstanceUID,
            )

    def release(self, association: int) -> None:
        self.ledger.close_association(association, Ending.RELEASED)

    def send(self, images: Iterable[Dataset]) -> None:
        association = self.open()
        self.store(association, images)
        self.release(association)

    def work(self) -> float:
        """Let collect work until it wants to sleep; return for how long."""
        while (pause := self.collector.work()) == 0.0:
            pass
        return pause

    def job(self) -> JobRow:
        return self.ledger.jobs()[0]

    def deliver(self) -> None:
        """Take the only job to where a new input can only open another revision."""
        job = self.job()
        for state in (State.QUEUED, State.RUNNING, State.SYNTHESISED, State.DELIVERED):
            job = self.ledger.move(job, state, "On its way.")


@pytest.fixture
def arriving(tmp_path: Path) -> Iterator[Arriving]:
    ledger, spool = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}"), Spool(tmp_path)
    yield Arriving(ledger, spool, Collector(SETTINGS, ledger, spool))
    ledger.close()


def test_a_release_does_not_vouch_for_instances_that_are_not_read_yet(
    arriving: Arriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    association, images = arriving.open(), pair(new_uid())
    arriving.store(association, images[:-1])
    look = arriving.ledger.associations_of
    meanwhile: list[Callable[[], None]] = [
        lambda: arriving.store(association, images[-1:]),
        lambda: arriving.release(association),
    ]

    def associations_of(study_uid: str) -> dict[int, object]:
        while meanwhile:
            meanwhile.pop(0)()
        return look(study_uid)  # type: ignore[return-value]

    monkeypatch.setattr(arriving.ledger, "associations_of", associations_of)
    arriving.work()

    jobs = arriving.ledger.jobs()
    assert [(job.revision, job.state) for job in jobs] == [(1, State.COMPLETE)]
    assert sum(map(len, (jobs[0].inputs or {}).values())) == len(images)


def test_a_revision_that_a_release_opens_is_judged_before_collect_sleeps(arriving: Arriving) -> None:
    study = new_uid()
    arriving.send([*stack(study, "T1"), *stack(study, "FLAIR")])
    arriving.work()
    arriving.deliver()
    association = arriving.open()
    arriving.store(association, stack(study, "T1"))
    arriving.work()
    arriving.release(association)

    pause = arriving.collector.work()

    assert arriving.job().revision == 2
    assert pause < 0.1, "collect sleeps over a job that is due"
    arriving.work()
    assert (arriving.job().state, arriving.job().code) == (State.WAITING, "TWO_T1W")


def test_an_answer_that_comes_while_a_study_is_judged_is_not_slept_over(
    arriving: Arriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = new_uid()
    arriving.send(stack(study, "T1"))
    read = arriving.ledger.inquiry
    judged: list[int] = []

    def inquiry(study_uid: str, peer: str | None) -> Inquiry | None:
        found = read(study_uid, peer)
        if not judged:  # it comes when this judgement has looked for it
            arriving.ledger.record_inquiry(study, Inquiry("pacs", time.time(), {}))
        judged.append(1)
        return found

    monkeypatch.setattr(arriving.ledger, "inquiry", inquiry)
    arriving.work()

    assert arriving.job().code == "NO_FLAIR"
    assert len(judged) == 2


def test_what_a_person_did_while_a_study_was_judged_stands(
    arriving: Arriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = new_uid()
    arriving.send(stack(study, "T1"))
    arriving.work()
    arriving.ledger.set(arriving.job(), look_again=None)
    look = arriving.ledger.associations_of

    def associations_of(study_uid: str) -> dict[int, object]:
        arriving.ledger.move(arriving.job(), State.CANCELLED, "Cancelled by hand.")
        return look(study_uid)  # type: ignore[return-value]

    monkeypatch.setattr(arriving.ledger, "associations_of", associations_of)
    arriving.work()

    assert (arriving.job().state, arriving.job().reason) == (State.CANCELLED, "Cancelled by hand.")
