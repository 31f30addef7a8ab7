"""A study that left the spool, and comes again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from node_bench import Bench, Peer, wait_for
from small_studies import pair, stack

from dicom_node.ledger import State
from dicom_node.retention import purge

Start = Callable[..., Bench]


def files(flow: Bench, below: str) -> list[Path]:
    return [path for path in (flow.node.spool.root / below).rglob("*") if path.is_file()]


def finished(bench: Start) -> tuple[Bench, list[object]]:
    """Return a node whose only study has come back and left the spool."""
    flow, images = bench(retention={"hours": 0}), pair()
    flow.send(images)
    job = flow.wait(State.DELIVERED)
    wait_for("the peer to be taken at its word", lambda: flow.node.ledger.job(job.id).settled)
    purge(flow.settings, flow.node.ledger, flow.node.spool)
    return flow, list(images)


def test_after_the_answer_is_delivered_nothing_stays_in_the_spool(bench: Start) -> None:
    flow, _ = finished(bench)

    assert files(flow, "incoming") == files(flow, "jobs") == []
    assert (flow.wait(State.DELIVERED).explanation or {})["series"], "why is still explained"


def test_the_same_study_sent_again_is_stored_and_not_answered_again(bench: Start, peer: Peer) -> None:
    flow, images = finished(bench)

    flow.send(images)

    wait_for("the files", lambda: len(files(flow, "incoming")) == 24)
    wait_for(
        "collect", lambda: not flow.node.ledger.untold_batches() and not flow.node.ledger.unseen_arrivals()
    )
    assert [(job.state, job.revision) for job in flow.jobs()] == [(State.DELIVERED, 1)]
    assert len(peer.received) == 12


def test_a_series_that_comes_after_the_study_left_opens_no_revision(bench: Start) -> None:
    flow, images = finished(bench)

    flow.send(stack(images[0].StudyInstanceUID, "T2"))

    wait_for(
        "collect", lambda: not flow.node.ledger.untold_batches() and not flow.node.ledger.unseen_arrivals()
    )
    assert [(job.state, job.revision) for job in flow.jobs()] == [(State.DELIVERED, 1)]
