"""What becomes of a job when Redis forgets, workers die, people interfere, and nodes are started again."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from node_bench import (
    Bench,
    Peer,
    RedisProcess,
    StandInWorker,
    answer,
    die,
    hold,
    lose,
    synthesise,
    wait_for,
)
from small_studies import pair

from dicom_node import enqueue
from dicom_node.by_hand import cancel, retry
from dicom_node.errors import IllegalTransition
from dicom_node.ledger import State
from synthesis.job import Job, Outcome

Start = Callable[..., Bench]
IDLE_S = enqueue._IDLE_S


def first(behaviour: Callable[..., None], times: int = 1) -> Callable[..., None]:
    """Return a behaviour that does this so many times, and then what it should."""
    left = [times]

    def do(worker: StandInWorker, job: Job, folder: object) -> None:
        left[0] -= 1
        (behaviour if left[0] >= 0 else synthesise)(worker, job, folder)  # type: ignore[arg-type]

    return do


def test_a_message_that_redis_lost_is_sent_again(bench: Start) -> None:
    flow = bench(do=first(lose))

    flow.send(pair())

    job = flow.wait(State.DELIVERED)
    assert flow.noted(job, "SENT_AGAIN") == "The broker had lost the job; it was sent again."


def test_a_job_whose_worker_vanished_is_queued_again(bench: Start) -> None:
    flow = bench(do=first(die))

    flow.send(pair())

    job = flow.wait(State.DELIVERED)
    assert flow.path(job)[2:6] == ["QUEUED", "RUNNING", "QUEUED", "RUNNING"]
    assert "The worker was lost" in flow.noted(job, "WORKER_LOST") and job.starts == 2


def test_a_job_that_ended_its_worker_three_times_is_poison(bench: Start) -> None:
    flow = bench(do=die)

    flow.send(pair())

    job = flow.wait(State.FAILED, "POISON", seconds=30)
    assert job.starts == 3 and len(flow.worker.took) == 3
    assert job.reason.startswith("The job ended its worker 3 times.")


def test_a_poisoned_job_can_be_tried_again_by_hand(bench: Start) -> None:
    flow = bench(do=first(die, times=3))
    flow.send(pair())
    job = flow.wait(State.FAILED, "POISON", seconds=30)

    retry(flow.node.ledger, flow.node.spool, job)

    assert flow.wait(State.DELIVERED).starts == 1


def test_a_message_that_comes_twice_is_done_once(bench: Start, peer: Peer) -> None:
    flow = bench()
    flow.send(pair())
    job = flow.wait(State.DELIVERED)

    flow.node.broker.send(flow.worker.took[0], 0)
    wait_for("the second message", lambda: len(flow.worker.took) == 2)

    assert flow.node.ledger.job(job.id).state == State.DELIVERED and len(peer.received) == 12


def test_what_the_worker_declines_is_declined_with_its_sentence(bench: Start) -> None:
    flow = bench(do=answer(Outcome.DECLINED, "NOT_A_HEAD", "This is not a head."))

    flow.send(pair())

    job = flow.wait(State.DECLINED, "NOT_A_HEAD")
    assert job.reason == "This is not a head."


def test_what_fails_in_the_worker_is_failed_and_can_be_tried_again(bench: Start) -> None:
    flow = bench(do=first(answer(Outcome.FAILED, "WORKER_ERROR", "The worker failed.")))
    flow.send(pair())
    job = flow.wait(State.FAILED, "WORKER_ERROR")

    retry(flow.node.ledger, flow.node.spool, job)

    assert flow.path(flow.wait(State.DELIVERED))[-5:] == [
        "FAILED",
        "QUEUED",
        "RUNNING",
        "SYNTHESISED",
        "DELIVERED",
    ]


def test_a_running_job_shows_its_step(bench: Start) -> None:
    flow = bench(do=hold)

    flow.send(pair())

    job = flow.wait(State.RUNNING)
    wait_for("the step", lambda: flow.node.ledger.job(job.id).step == "synthesise")
    assert flow.node.ledger.job(job.id).worker == "stand-in"


def test_a_running_job_is_cancelled_and_its_worker_told(bench: Start) -> None:
    flow = bench(do=first(hold))
    flow.send(pair())
    job = flow.wait(State.RUNNING)

    cancel(flow.node.ledger, flow.node.spool, flow.node.ledger.job(job.id))

    assert (flow.node.spool.job(job.id) / "cancelled").exists()
    flow.send(pair())  # the worker is free again
    flow.wait(State.DELIVERED, nth=1)
    assert flow.node.ledger.job(job.id).state == State.CANCELLED


def test_a_cancelled_job_can_be_tried_again(bench: Start) -> None:
    flow = bench(do=first(hold))
    flow.send(pair())
    job = cancel(flow.node.ledger, flow.node.spool, flow.wait(State.RUNNING))
    wait_for("its worker to stop", lambda: not flow.worker.redis.keys("synthesis:heartbeat:*"))

    retry(flow.node.ledger, flow.node.spool, job)

    flow.wait(State.DELIVERED)


def test_a_retry_is_taken_up_within_seconds(bench: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enqueue, "_IDLE_S", IDLE_S)
    flow = bench(do=first(answer(Outcome.FAILED, "WORKER_ERROR", "The worker failed.")))
    flow.send(pair())
    job = flow.wait(State.FAILED)
    time.sleep(1.0)  # the steps have gone to rest

    retry(flow.node.ledger, flow.node.spool, job)

    flow.wait(State.DELIVERED, seconds=5)


def test_what_is_delivered_is_neither_cancelled_nor_tried_again(bench: Start) -> None:
    flow = bench()
    flow.send(pair())
    job = flow.wait(State.DELIVERED)

    with pytest.raises(IllegalTransition, match="is DELIVERED"):
        cancel(flow.node.ledger, flow.node.spool, job)
    with pytest.raises(IllegalTransition, match="is DELIVERED"):
        retry(flow.node.ledger, flow.node.spool, job)


def test_the_more_urgent_rule_is_served_first(bench: Start) -> None:
    rules = [
        {"name": "asked", "called_aet": "TAVIT"},
        {"name": "routed", "called_aet": "AUTO", "priority": 2},
    ]
    flow = bench(do=first(hold), rule=rules)
    flow.send(pair())
    blocking = flow.wait(State.RUNNING)
    routed, asked = pair(), pair()
    flow.send(routed, called="AUTO")
    flow.send(asked)
    wait_for("both to wait", lambda: len(flow.node.broker.waiting()) == 2)

    cancel(flow.node.ledger, flow.node.spool, flow.node.ledger.job(blocking.id))

    wait_for("all", lambda: len(flow.worker.took) == 3)
    studies = {job.id: job.study_uid for job in flow.jobs()}
    order = [studies[job.id] for job in flow.worker.took[1:]]
    assert order == [asked[0].StudyInstanceUID, routed[0].StudyInstanceUID]


def test_while_redis_is_away_jobs_wait_and_then_go_on(bench: Start, broker: RedisProcess) -> None:
    flow = bench()
    broker.stop()
    flow.send(pair())
    job = flow.wait(State.COMPLETE)
    time.sleep(0.5)
    assert flow.node.ledger.job(job.id).state == State.COMPLETE

    broker.start()

    flow.wait(State.DELIVERED)


def test_redis_that_loses_everything_loses_no_study(bench: Start, broker: RedisProcess) -> None:
    flow = bench(do=first(lose, times=0))
    flow.worker.do = lose
    flow.send(pair())
    flow.wait(State.QUEUED)
    broker.stop()
    flow.worker.do = synthesise

    broker.start()

    flow.wait(State.DELIVERED)


@pytest.mark.parametrize("state", [State.WAITING, State.QUEUED, State.RUNNING, State.SYNTHESISED])
def test_a_node_that_is_started_again_goes_on_where_it_was(bench: Start, peer: Peer, state: State) -> None:
    behaviour = {State.QUEUED: lose, State.RUNNING: hold}.get(state, synthesise)
    flow, images = bench(do=first(behaviour) if behaviour is not synthesise else synthesise), pair()
    if state == State.SYNTHESISED:
        peer.stop()
    flow.send(images[:12] if state == State.WAITING else images)
    job = flow.wait(state)

    flow.restart()
    if state == State.WAITING:
        flow.send(images[12:])
    if state == State.RUNNING:
        (flow.node.spool.job(job.id) / "cancelled").touch()  # as if its worker had died
        wait_for("the worker to end", lambda: not flow.worker.redis.keys("synthesis:heartbeat:*"))
        (flow.node.spool.job(job.id) / "cancelled").unlink()
    if state == State.SYNTHESISED:
        peer.start()

    assert flow.wait(State.DELIVERED).id == job.id
    assert len(peer.received) == 12


def test_an_association_that_a_stopped_node_left_open_counts_as_aborted(bench: Start) -> None:
    flow = bench(collect={"quiet_seconds": 60.0})
    number = flow.node.ledger.open_association("PACS", "TAVIT", "127.0.0.1", "pacs")

    flow.restart()

    assert flow.node.ledger.association(number).ending == "ABORTED"
