"""When an answer or a retraction is asked for, and when not, on a real ledger; no worker is there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_bench import HOST, free_port

from dicom_node.answer import Answerer, details
from dicom_node.broker import Broker
from dicom_node.by_hand import is_retracted, retract
from dicom_node.errors import NoSuchThing
from dicom_node.ledger import DeliveryState, DocumentState, JobRow, Ledger, State, Until
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from synthesis.job import Form

ENDED = Until(ended=time.time() + 60, failed=time.time() + 60)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield opened
    opened.close()


def step(ledger: Ledger, spool: Spool, answer: str = "sr", **rule: object) -> Answerer:
    settings = Settings.model_validate(
        {
            "peer": [{"name": "pacs", "ae_title": "PACS", "host": HOST}],
            "rule": [{"name": "r", "answer": answer, **rule}],
        }
    )
    return Answerer(settings, ledger, spool, Broker(f"redis://{HOST}:{free_port()}/0"))


def declined(ledger: Ledger, reason: str, job: JobRow | None = None, peer: str | None = "pacs") -> JobRow:
    if job is None:
        job = ledger.open_job("1.2", "r", 1, peer, time.time(), "Arriving.")
    else:
        job = ledger.move(job, State.RECEIVING, "New instances.")
    job = ledger.move(job, State.WAITING, reason, "CODE")
    return ledger.move(job, State.DECLINED, reason, "CODE")


def delivered(ledger: Ledger) -> JobRow:
    job = ledger.open_job("1.2", "r", 1, "pacs", time.time(), "Arriving.")
    for state in (State.COMPLETE, State.QUEUED, State.RUNNING, State.SYNTHESISED):
        job = ledger.move(job, state, f"{state}.")
    ledger.open_deliveries(job, ["pacs", "other"], [("jobs/x/1.dcm", "1.2.3", "1.1", "1")])
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
