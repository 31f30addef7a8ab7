"""When an answer or a retraction is asked for, and what becomes of it: step by step, without a clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_bench import HOST, Peer, free_port, write_in
from pydicom.uid import (
    ComprehensiveSRStorage,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
)
from small_studies import pair
from small_studies import write as write_files

from dicom_node.answer import Answerer, details
from dicom_node.broker import Broker
from dicom_node.by_hand import is_retracted, retract
from dicom_node.errors import NoSuchThing
from dicom_node.headers import read
from dicom_node.ledger import DeliveryState, DocumentState, JobRow, Ledger, State, Until
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from synthesis.job import Document, Form, Job

#: Later than anything in these tests, whenever this file was read.
ENDED = Until(ended=4e9, failed=4e9)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield opened
    opened.close()


class WorkerAtHand(Broker):
    """A broker whose messages are done before it returns."""

    def __init__(self, spool: Path) -> None:
        super().__init__("redis://unused")
        self._spool = spool
        self.sent: list[Document] = []

    def waiting(self) -> set[str]:
        return set()

    def heartbeat(self, job_id: str) -> None:
        return None

    def send(self, job: Job | Document, priority: int) -> None:
        assert isinstance(job, Document)
        self.sent.append(job)
        write_in(self._spool, job)


def with_worker(ledger: Ledger, spool: Spool, peer: Peer) -> tuple[Answerer, WorkerAtHand]:
    settings = Settings.model_validate(
        {
            "peer": [{"name": "pacs", "ae_title": "PACS", "host": HOST, "port": peer.port}],
            "rule": [{"name": "r", "answer": "sr"}],
        }
    )
    broker = WorkerAtHand(spool.root)
    return Answerer(settings, ledger, spool, broker), broker


def finish(answerer: Answerer, ledger: Ledger) -> None:
    """Let the step work until nothing is under way."""
    answerer.work()
    while ledger.documents_under_way():
        answerer.work()
        time.sleep(0.05)
    answerer.stop()


def arrive(ledger: Ledger, spool: Spool) -> str:
    """Put a T1W and a FLAIR into spool and ledger, as receive and collect do; return the study's UID."""
    association = ledger.open_association("PACS", "TAVIT", HOST, "pacs")
    for path in write_files(pair(), spool.root / "incoming"):
        header = read(path)
        ledger.store_instance(
            association,
            sop_instance_uid=header.sop_instance_uid,
            sop_class_uid=header.sop_class_uid,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            path=spool.relative(path),
            size_bytes=1,
            sha256=header.sop_instance_uid,
        )
        values = {"study_uid": header.study_uid, "series_uid": header.series_uid, "header": header.to_json()}
        ledger.index_instances({header.sop_instance_uid: values})
    return header.study_uid


@pytest.fixture
def archive() -> Iterator[Peer]:
    made = Peer(
        sop_classes=[MRImageStorage, ComprehensiveSRStorage, KeyObjectSelectionDocumentStorage],
        statuses=[0xA700],  # the first attempt finds it short of space
    )
    made.start()
    yield made
    made.stop()


def step(ledger: Ledger, spool: Spool, answer: str = "sr", **rule: object) -> Answerer:
    settings = Settings.model_validate(
        {
            "peer": [{"name": "pacs", "ae_title": "PACS", "host": HOST}],
            "rule": [{"name": "r", "answer": answer, **rule}],
        }
    )
    return Answerer(settings, ledger, spool, Broker(f"redis://{HOST}:{free_port()}/0"))


def declined(
    ledger: Ledger,
    reason: str,
    job: JobRow | None = None,
    peer: str | None = "pacs",
    study_uid: str = "1.2",
) -> JobRow:
    if job is None:
        job = ledger.open_job(study_uid, "r", 1, peer, time.time(), "Arriving.")
    else:
        job = ledger.move(job, State.RECEIVING, "New instances.")
    job = ledger.move(job, State.WAITING, reason, "CODE")
    return ledger.move(job, State.DECLINED, reason, "CODE")


def delivered(ledger: Ledger, study_uid: str = "1.2") -> JobRow:
    job = ledger.open_job(study_uid, "r", 1, "pacs", time.time(), "Arriving.")
    for state in (State.COMPLETE, State.QUEUED, State.RUNNING, State.SYNTHESISED):
        job = ledger.move(job, state, f"{state}.")
    ledger.open_deliveries(job, ["pacs", "other"], [("jobs/x/1.dcm", MRImageStorage, "1.1", "1")])
    rows = [row for row in ledger.deliveries(job.id) if row.destination == "pacs"]
    ledger.set_deliveries([(row, DeliveryState.STORED, 0) for row in rows])
    return ledger.move(job, State.DELIVERED, "There.")


def test_an_answer_is_asked_for_once_and_again_when_the_reason_changes(ledger: Ledger, spool: Spool) -> None:
    answerer = step(ledger, spool)
    job = declined(ledger, "No FLAIR.")
    for _ in range(2):
        answerer.work()
    (first,) = ledger.documents(job.id)
    assert (first.form, first.reason, first.state) == (Form.SR, "No FLAIR.", DocumentState.ASKED)
    ledger.move_document(first, DocumentState.SENT)

    job = declined(ledger, "No FLAIR.", ledger.job(job.id))
    answerer.work()
    assert len(ledger.documents(job.id)) == 1

    job = declined(ledger, "A slice is missing.", ledger.job(job.id))
    answerer.work()
    assert [(one.reason, one.state) for one in ledger.documents(job.id)] == [
        ("No FLAIR.", DocumentState.SENT),
        ("A slice is missing.", DocumentState.ASKED),
    ]


def test_an_answer_that_was_dropped_is_asked_for_again_when_it_is_true_again(
    ledger: Ledger, spool: Spool
) -> None:
    answerer = step(ledger, spool)
    job = declined(ledger, "No FLAIR.")
    answerer.work()
    receiving = ledger.move(ledger.job(job.id), State.RECEIVING, "New instances.")
    answerer.work()
    assert [one.state for one in ledger.documents(job.id)] == [DocumentState.DROPPED]

    ledger.move(ledger.move(receiving, State.WAITING, "-"), State.DECLINED, "No FLAIR.", "CODE")
    answerer.work()

    assert [one.state for one in ledger.documents(job.id)] == [DocumentState.ASKED]


@pytest.mark.parametrize("answer", ["none", "results"])
def test_a_rule_without_answers_asks_for_none(ledger: Ledger, spool: Spool, answer: str) -> None:
    job = declined(ledger, "No FLAIR.")

    step(ledger, spool, answer).work()

    assert ledger.documents(job.id) == [] and ledger.jobs_to_answer() == []


def test_without_a_destination_there_is_nobody_to_answer(ledger: Ledger, spool: Spool) -> None:
    job = declined(ledger, "No FLAIR.", peer=None)

    step(ledger, spool).work()

    assert ledger.documents(job.id) == [] and ledger.jobs_to_answer() == []


def test_files_stay_until_it_is_decided_and_the_answer_is_sent(ledger: Ledger, spool: Spool) -> None:
    job = declined(ledger, "No FLAIR.")
    assert ledger.jobs_to_purge([job.id], ENDED) == []
    step(ledger, spool).work()
    assert ledger.jobs_to_purge([job.id], ENDED) == []

    ledger.move_document(ledger.documents(job.id)[0], DocumentState.SENT)

    assert ledger.jobs_to_purge([job.id], ENDED) == [job.id]


def test_an_answer_says_what_was_looked_at(ledger: Ledger) -> None:
    job = declined(ledger, "No FLAIR.")
    series = [{"uid": "1", "description": "T1 tra", "role": "T1W", "why": []}]
    ledger.set(job, explanation={"series": series})

    said = details(ledger.job(job.id))

    assert said[0] == "Series that were looked at: “T1 tra” (T1W)."
    assert job.id in said[1]


def test_a_retraction_goes_to_those_who_have_something_and_ends_the_questions(
    ledger: Ledger, spool: Spool
) -> None:
    job = delivered(ledger)
    spool.open_job("x").joinpath("1.dcm").touch()

    assert retract(ledger, spool, job, "Wrong.")

    (document,) = ledger.documents(job.id)
    assert [one.destination for one in ledger.postings(document.id)] == ["pacs"]
    assert ledger.jobs_to_confirm() == []
    assert ledger.events(job.id)[-1].sentence == "Retracted: Wrong. To be rejected by pacs."
    assert ledger.jobs_to_purge([job.id], ENDED) == []


def test_a_retraction_that_could_not_be_written_may_be_asked_for_again(ledger: Ledger, spool: Spool) -> None:
    job = delivered(ledger)
    spool.open_job("x").joinpath("1.dcm").touch()
    retract(ledger, spool, job, "Wrong.")
    ledger.move_document(ledger.documents(job.id)[0], DocumentState.FAILED, "Not written.")
    assert not is_retracted(ledger, job)

    assert retract(ledger, spool, job, "Wrong.")

    assert [one.state for one in ledger.documents(job.id)] == [DocumentState.ASKED]


def test_a_retraction_needs_a_file_that_names_the_patient(ledger: Ledger, spool: Spool) -> None:
    with pytest.raises(NoSuchThing, match="have left the spool"):
        retract(ledger, spool, delivered(ledger), "Wrong.")


def test_an_answer_is_written_and_sent_once_when_there_is_space(
    ledger: Ledger, spool: Spool, archive: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.answer._PAUSE_S", 0.1)
    study_uid = arrive(ledger, spool)
    job = declined(ledger, "No FLAIR.", study_uid=study_uid)
    answerer, broker = with_worker(ledger, spool, archive)

    finish(answerer, ledger)

    (document,) = archive.received
    assert (document.SOPClassUID, document.StudyInstanceUID) == (ComprehensiveSRStorage, study_uid)
    assert ledger.events(job.id)[-1].sentence == "The answer is in pacs."
    (asked,) = broker.sent
    assert len(asked.study) == 24 and asked.rejected == ()
    (posting,) = ledger.postings(asked.id)
    assert (posting.state, posting.status, posting.attempts) == (DeliveryState.STORED, 0, 1)


def test_a_retraction_names_the_patient_by_what_was_acquired(
    ledger: Ledger, spool: Spool, archive: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.answer._PAUSE_S", 0.1)
    job = delivered(ledger, arrive(ledger, spool))
    retract(ledger, spool, job, "Wrong.")
    answerer, broker = with_worker(ledger, spool, archive)

    finish(answerer, ledger)

    (document,) = archive.received
    assert document.SOPClassUID == KeyObjectSelectionDocumentStorage
    assert [one.sop_instance_uid for one in broker.sent[0].rejected] == ["1.1"]
    equipment = [one.get("Manufacturer") for one in document.ContributingEquipmentSequence]
    assert equipment == ["Test", "dicom-node"]
    assert ledger.events(job.id)[-1].sentence == "The retraction is in pacs."


def test_a_document_that_cannot_be_written_fails_with_a_sentence(
    ledger: Ledger, spool: Spool, archive: Peer
) -> None:
    job = declined(ledger, "No FLAIR.")  # nothing of the study is in the spool
    answerer, _ = with_worker(ledger, spool, archive)

    finish(answerer, ledger)

    assert [one.state for one in ledger.documents(job.id)] == [DocumentState.FAILED]
    assert ledger.events(job.id)[-1].sentence == (
        "The answer could not be written: No header of the study can be read that says whose it is."
    )
    assert not spool.document(job.id, ledger.documents(job.id)[0].id).exists()
