"""What a person does to a job, on a real ledger and spool."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from scans import FLAIR_2D, SAGITTAL, T1_SE, headers

from dicom_node.by_hand import cancel, retry
from dicom_node.errors import IllegalTransition, NoSuchThing
from dicom_node.ledger import JobRow, Ledger, State
from dicom_node.spool import Spool

STUDY = "1.2.3"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    association = opened.open_association("PACS", "TAVIT", "127.0.0.1", "pacs")
    members = [
        *headers("T1 tra", uid="1.1", **T1_SE),
        *headers("T1 sag", uid="1.2", cosines=SAGITTAL, **T1_SE),
        *headers("FLAIR", uid="1.3", **FLAIR_2D),
        *[replace(header, synthetic=True) for header in headers("SYNTH", uid="1.4", **T1_SE)],
    ]
    for header in members:
        uid = header.sop_instance_uid
        opened.store_instance(
            association,
            sop_instance_uid=uid,
            sop_class_uid=header.sop_class_uid,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            path=f"incoming/{uid}",
            size_bytes=1,
            sha256=uid,
        )
        values = {"study_uid": STUDY, "series_uid": header.series_uid, "header": header.to_json()}
        opened.index_instances({uid: values})
    yield opened
    opened.close()


def opened(ledger: Ledger, *path: State, code: str = "", **values: object) -> JobRow:
    job = ledger.open_job(STUDY, "every study", 1, "pacs", time.time(), "Arriving.")
    for state in path:
        job = ledger.move(job, state, f"{state}.", code, **values)
    return job


FAILED = (State.COMPLETE, State.QUEUED, State.FAILED)
INPUTS = {"T1W": ["incoming/1.1.1"], "FLAIR": ["incoming/1.3.1"]}


def test_a_failed_job_is_queued_again_with_its_inputs(ledger: Ledger, spool: Spool) -> None:
    job = retry(ledger, spool, opened(ledger, *FAILED, inputs=INPUTS, starts=3))

    assert (job.state, job.to_send, job.starts, job.inputs) == (State.QUEUED, True, 0, INPUTS)


def test_a_retry_forgets_what_workers_made(ledger: Ledger, spool: Spool) -> None:
    job = opened(ledger, *FAILED, inputs=INPUTS)
    (spool.open_job(job.id) / "starts").write_text("1\n1\n1\n")
    (spool.job(job.id) / "result.json").write_text("{}")

    retry(ledger, spool, job)

    assert list(spool.job(job.id).iterdir()) == []


def test_a_retry_of_a_delivery_keeps_the_result(ledger: Ledger, spool: Spool) -> None:
    job = opened(ledger, *FAILED, inputs=INPUTS, code="DELIVERY_REFUSED")
    (spool.open_job(job.id) / "result.json").write_text("{}")

    retry(ledger, spool, job)

    assert (spool.job(job.id) / "result.json").exists()


@pytest.mark.parametrize("state", [State.RECEIVING, State.COMPLETE, State.QUEUED])
def test_what_is_under_way_cannot_be_tried_again(ledger: Ledger, spool: Spool, state: State) -> None:
    path = {State.RECEIVING: (), State.COMPLETE: (State.COMPLETE,), State.QUEUED: FAILED[:2]}[state]

    with pytest.raises(IllegalTransition, match=f"is {state}; only"):
        retry(ledger, spool, opened(ledger, *path, inputs=INPUTS) if path else opened(ledger))


def test_a_person_says_which_series(ledger: Ledger, spool: Spool) -> None:
    job = retry(ledger, spool, opened(ledger, State.WAITING), t1w="1.2", flair="1.3")

    assert job.state == State.QUEUED and job.by_hand
    assert len((job.inputs or {})["T1W"]) == 20
    assert all(path.startswith("incoming/1.2.") for path in (job.inputs or {})["T1W"])
    assert (job.explanation or {})["code"] == "BY_HAND"


def test_a_person_overrules_one_of_two(ledger: Ledger, spool: Spool) -> None:
    before = {"chosen": {"T1W": "1.1", "FLAIR": "1.3"}}

    job = retry(ledger, spool, opened(ledger, *FAILED, inputs=INPUTS, explanation=before), t1w="1.2")

    assert (job.explanation or {})["chosen"] == {"T1W": "1.2", "FLAIR": "1.3"}


@pytest.mark.parametrize(
    ("t1w", "flair", "said"),
    [
        (None, None, "No pair was chosen for job"),
        ("1.1", None, "FLAIR was not chosen before"),
        ("9.9", "1.3", "has no series 9.9"),
        ("1.3", "1.3", "One series cannot be both"),
        ("1.4", "1.3", "made by a network, never an input"),
    ],
)
def test_what_cannot_be_tried_is_said_and_changes_nothing(
    ledger: Ledger, spool: Spool, t1w: str | None, flair: str | None, said: str
) -> None:
    job = opened(ledger, State.WAITING)

    with pytest.raises(NoSuchThing, match=said):
        retry(ledger, spool, job, t1w, flair)

    assert ledger.job(job.id) == job


def test_a_cancelled_job_leaves_a_sign_for_its_worker(ledger: Ledger, spool: Spool) -> None:
    job = cancel(ledger, spool, opened(ledger, State.COMPLETE))

    assert job.state == State.CANCELLED and (spool.job(job.id) / "cancelled").exists()


def test_what_has_ended_cannot_be_cancelled(ledger: Ledger, spool: Spool) -> None:
    with pytest.raises(IllegalTransition, match="cannot be cancelled any more"):
        cancel(ledger, spool, opened(ledger, *FAILED))
