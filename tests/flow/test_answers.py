"""What a declined study gets, and what becomes of a result that must not be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from node_bench import Bench, Peer, StandInWorker, answer, synthesise, wait_for, write
from pydicom import Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)
from small_studies import PATIENT_ID, pair, stack

from dicom_node.by_hand import retract, retry
from dicom_node.errors import IllegalTransition
from dicom_node.ledger import DeliveryState, DocumentState, State
from dicom_node.overview import details
from synthesis.job import Document, Outcome

Start = Callable[..., Bench]
DOCUMENTS = (ComprehensiveSRStorage, SecondaryCaptureImageStorage, KeyObjectSelectionDocumentStorage)
WRONG = "The outline is wrong."
DECLINE = answer(Outcome.DECLINED, "NOT_A_HEAD", "T1W: this is no head.")
#: To write a document, the first time, a busy machine loads much.
PATIENCE_S = 150.0


@pytest.fixture
def archive() -> Iterator[Peer]:
    """A peer that takes images and documents."""
    made = Peer(sop_classes=[MRImageStorage, *DOCUMENTS])
    made.start()
    yield made
    made.stop()


def rule(form: str) -> dict[str, Any]:
    """Return sections of the settings: a declined study gets this."""
    return {"rule": [{"name": "every study", "answer": form}]}


def texts(document: Dataset) -> str:
    """Return what a document says."""
    return "\n".join(str(one.value) for one in document.iterall() if one.keyword == "TextValue")


def documents(peer: Peer) -> list[Dataset]:
    """Return the documents that a peer was sent."""
    return [ds for ds in peer.received if ds.SOPClassUID in DOCUMENTS]


def rejected(document: Dataset) -> set[str]:
    """Return the instances that a Key Object Selection names."""
    return {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in document.ContentSequence
        if "ReferencedSOPSequence" in item
    }


def test_a_declined_study_gets_a_report_that_says_why_once(bench: Start, archive: Peer) -> None:
    flow = bench(DECLINE, peer_port=archive.port, **rule("sr"))
    images = pair()
    flow.send(images)

    job = flow.wait(State.DECLINED)
    assert flow.noted(job, "ANSWERED", PATIENCE_S) == "The answer is in pacs."
    flow.restart()
    flow.send(stack(images[0].StudyInstanceUID, "T2"))  # looked at again, declined for the same reason
    wait_for("the second look", lambda: flow.path(job).count(State.DECLINED) == 2, PATIENCE_S)
    wait_for("its decision", lambda: flow.node.ledger.job(job.id).answered)

    (document,) = archive.received
    assert document.SOPClassUID == ComprehensiveSRStorage
    assert document.StudyInstanceUID == images[0].StudyInstanceUID
    assert (document.PatientID, document.SyntheticData) == (PATIENT_ID, "YES")
    assert "(NOT_A_HEAD): T1W: this is no head." in texts(document) and "“T1 tra”" in texts(document)
    (shown,) = details(flow.settings, flow.node.ledger, job)["documents"]
    assert (shown["form"], shown["state"], shown["destinations"]) == ("sr", "SENT", {"pacs": "STORED"})


def test_a_result_after_an_answer_says_that_the_answer_stays(bench: Start, archive: Peer) -> None:
    flow = bench(DECLINE, peer_port=archive.port, **rule("sc"))
    images = pair()
    flow.send(images)
    flow.noted(flow.wait(State.DECLINED), "ANSWERED", PATIENCE_S)
    flow.worker.do = synthesise

    flow.send(stack(images[0].StudyInstanceUID, "T2"))

    job = flow.wait(State.DELIVERED)
    (page,) = documents(archive)
    assert page.SOPClassUID == SecondaryCaptureImageStorage
    assert page.pixel_array.shape == (512, 512)
    assert job.reason.endswith("The answer of before, that none could be made, stays in the study.")


def test_without_the_setting_a_declined_study_gets_nothing(bench: Start, archive: Peer) -> None:
    flow = bench(DECLINE, peer_port=archive.port)

    flow.send(pair())

    job = flow.wait(State.DECLINED)
    wait_for("the decision", lambda: flow.node.ledger.job(job.id).answered)
    assert flow.node.ledger.documents(job.id) == []


def test_an_answer_that_is_true_no_more_is_not_sent(bench: Start, archive: Peer) -> None:
    flow = bench(DECLINE, peer_port=archive.port, **rule("sr"))
    archive.stop()
    images = pair()
    flow.send(images)
    job = flow.wait(State.DECLINED)
    wait_for(
        "it to be written", lambda: [d for d in flow.node.ledger.documents(job.id) if d.path], PATIENCE_S
    )
    flow.worker.do = synthesise

    flow.send(stack(images[0].StudyInstanceUID, "T2"))
    flow.noted(job, "ANSWER_DROPPED")
    archive.start()

    assert "stays in the study" not in flow.wait(State.DELIVERED).reason
    assert documents(archive) == []


def test_a_peer_that_was_away_gets_the_answer_when_it_is_up_again(bench: Start, archive: Peer) -> None:
    flow = bench(DECLINE, peer_port=archive.port, **rule("sr"))
    archive.stop()
    flow.send(pair())
    job = flow.wait(State.DECLINED)

    def attempts() -> int:
        ledger = flow.node.ledger
        return sum(one.attempts for d in ledger.documents(job.id) for one in ledger.postings(d.id))

    wait_for("an attempt", attempts, PATIENCE_S)
    flow.restart()

    archive.start()

    flow.noted(job, "ANSWERED")
    assert len(archive.received) == 1


def test_a_peer_that_takes_no_reports_is_said(bench: Start, peer: Peer) -> None:
    flow = bench(DECLINE, **rule("sr"))

    flow.send(pair())

    said = flow.noted(flow.wait(State.DECLINED), "ANSWERED", PATIENCE_S)
    assert "accepts no presentation context" in said and said.endswith("It goes without the answer.")
    assert peer.received == []


def test_an_answer_that_broker_and_worker_lose_is_asked_for_again(bench: Start, archive: Peer) -> None:
    flow = bench(DECLINE, peer_port=archive.port, **rule("sr"))

    def lose_the_first(worker: StandInWorker, document: Document) -> None:
        if len(worker.documents) > 1:
            write(worker, document)

    flow.worker.write = lose_the_first

    flow.send(pair())

    flow.noted(flow.wait(State.DECLINED), "ANSWERED", PATIENCE_S)
    assert len({one.id for one in flow.worker.documents}) == 1
    assert len(archive.received) == 1


def test_a_study_of_nobody_gets_no_answer_and_the_job_says_so(bench: Start, archive: Peer) -> None:
    flow = bench(DECLINE, peer_port=archive.port, **rule("sr"))
    images = pair()
    for ds in images:
        del ds.PatientID, ds.PatientName

    flow.send(images)

    job = flow.wait(State.DECLINED)
    assert flow.noted(job, "NOT_WRITTEN", PATIENCE_S) == (
        "The answer could not be written: No header of the study can be read that says whose it is."
    )
    assert [one.state for one in flow.node.ledger.documents(job.id)] == [DocumentState.FAILED]
    assert archive.received == []


def test_a_retraction_names_all_that_was_delivered_and_is_sent_once(bench: Start, archive: Peer) -> None:
    flow = bench(peer_port=archive.port)
    ledger, spool = flow.node.ledger, flow.node.spool
    flow.send(pair())
    job = flow.wait(State.DELIVERED)
    delivered = {ds.SOPInstanceUID for ds in archive.received}

    assert retract(ledger, spool, job, WRONG)
    assert flow.noted(job, "RETRACTION_SENT", PATIENCE_S) == "The retraction is in pacs."
    assert not retract(ledger, spool, ledger.job(job.id), "Another reason.")
    flow.restart()

    (document,) = documents(archive)
    assert document.ConceptNameCodeSequence[0].CodeMeaning == "Rejected for Quality Reasons"
    assert rejected(document) == delivered
    assert WRONG in texts(document)
    assert (document.PatientID, document.SyntheticData) == (PATIENT_ID, "YES")
    equipment = [one.get("Manufacturer") for one in document.ContributingEquipmentSequence]
    assert equipment == ["Test", "dicom-node"]
    job = flow.node.ledger.job(job.id)
    assert (job.state, job.code, job.reason) == (State.DELIVERED, "RETRACTED", f"Retracted: {WRONG}")
    assert job.settled  # a peer that hides the images is not asked where they are

    flow.send([document])
    assert "ignored" in flow.noted(job, "SYNTHETIC_IGNORED")
    assert len(flow.jobs()) == 1 and len(documents(archive)) == 1


def test_a_result_that_was_delivered_in_part_is_retracted_and_not_made_again(bench: Start) -> None:
    unwilling = Peer(statuses=[0] * 11 + [0xC000], sop_classes=[MRImageStorage, *DOCUMENTS])
    unwilling.start()
    try:
        flow = bench(peer_port=unwilling.port)
        ledger, spool = flow.node.ledger, flow.node.spool
        flow.send(pair())
        job = flow.wait(State.FAILED, "DELIVERY_REFUSED")

        assert retract(ledger, spool, job, WRONG)
        flow.noted(job, "RETRACTION_SENT", PATIENCE_S)

        images = {ds.SOPInstanceUID for ds in unwilling.received} - {documents(unwilling)[0].SOPInstanceUID}
        assert rejected(documents(unwilling)[0]) == images and len(images) == 11
        with pytest.raises(IllegalTransition, match="Made again, its images would have the identifiers"):
            retry(ledger, spool, ledger.job(job.id))
    finally:
        unwilling.stop()


def test_what_nobody_has_cannot_be_retracted(bench: Start, peer: Peer) -> None:
    flow = bench()
    peer.stop()
    flow.send(pair())
    job = flow.wait(State.SYNTHESISED)
    ledger, spool = flow.node.ledger, flow.node.spool
    wait_for("deliveries", lambda: ledger.deliveries(job.id))

    with pytest.raises(IllegalTransition, match="is SYNTHESISED; only CANCELLED, COMMITTED, DELIVERED, FAIL"):
        retract(ledger, spool, job, WRONG)

    cancelled = ledger.move(job, State.CANCELLED, "Cancelled.")
    with pytest.raises(IllegalTransition, match="was delivered: there is nothing to retract"):
        retract(ledger, spool, cancelled, WRONG)
    assert {row.state for row in ledger.deliveries(job.id)} == {DeliveryState.PENDING}
