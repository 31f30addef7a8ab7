"""What the sender itself holds: a count that speeds up, holds back, names what is missing, or is silent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from node_bench import HOST, Bench, Peer, associate, free_port, store, wait_for
from small_studies import new_uid, pair, stack

from dicom_node import find, inquire
from dicom_node.ledger import State

Start = Callable[..., Bench]

#: Long enough that no decision of these tests comes from the timer; a busy machine has time to answer.
QUIET_S = 600.0
PATIENT = {"quiet_seconds": QUIET_S}


@pytest.fixture(autouse=True)
def patient_with_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the answers more time: what is tested here is what they mean."""
    monkeypatch.setattr(find, "_ANSWER_S", 60.0)
    monkeypatch.setattr(find, "_WHOLE_S", 60.0)


@pytest.fixture
def archive() -> Iterator[Callable[..., Peer]]:
    """Start a peer that answers C-FIND about what it holds."""
    made: list[Peer] = []

    def start(*images: Any, **options: Any) -> Peer:
        made.append(Peer(holds=list(images), **options))
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.stop()


@pytest.mark.parametrize("counts", [True, False], ids=["counted", "image by image"])
def test_one_association_per_image_is_whole_when_the_sender_holds_no_more(
    bench: Start, archive: Callable[..., Peer], counts: bool
) -> None:
    images = pair()
    flow = bench(peer_port=archive(*images, counts=counts).port, collect=PATIENT)

    for ds in images:
        flow.send([ds])

    job = flow.wait(State.DELIVERED)
    assert (job.seconds or {})["decide"] < QUIET_S / 2
    complete = next(event for event in flow.node.ledger.events(job.id) if event.after == State.COMPLETE)
    assert complete.sentence.endswith("The sender holds no more images of both than are here.")


def test_an_aborted_transfer_that_is_resumed_is_whole_when_the_sender_holds_no_more(
    bench: Start, archive: Callable[..., Peer]
) -> None:
    images = pair()
    flow = bench(peer_port=archive(*images).port, collect=PATIENT)
    aborted = associate(flow.port, images)
    store(aborted, images[:17])
    aborted.abort()

    flow.send(images[17:])

    assert (flow.wait(State.DELIVERED).seconds or {})["decide"] < QUIET_S / 2


def test_end_slices_that_were_never_sent_are_waited_for_by_number(
    bench: Start, archive: Callable[..., Peer]
) -> None:
    study = new_uid()
    t1, flair = stack(study, "T1", slices=15), stack(study, "FLAIR")
    peer = archive(*t1, *flair)
    flow = bench(peer_port=peer.port, collect=PATIENT)
    sender = associate(flow.port, [*t1, *flair])
    store(sender, [*t1[:12], *flair])
    wait_for("the sender to be asked", lambda: peer.asked and flow.node.ledger.inquiry(study, "pacs"))
    sender.release()
    flow.wait(State.WAITING, "SLICE_MISSING")
    named = "3 images of the 15 that the sender holds did not arrive (instance numbers 13 to 15)."
    wait_for("their numbers", lambda: named in flow.jobs()[0].reason)

    flow.send(t1[12:])

    assert flow.path(flow.wait(State.DELIVERED))[:3] == ["RECEIVING", "WAITING", "COMPLETE"]
    assert len(flow.worker.took) == 1 and len(flow.worker.took[0].t1w) == 15


def test_what_never_comes_is_declined_with_its_numbers(bench: Start, archive: Callable[..., Peer]) -> None:
    study = new_uid()
    t1, flair = stack(study, "T1", slices=13), stack(study, "FLAIR")
    peer = archive(*t1, *flair)
    flow = bench(peer_port=peer.port, collect={"quiet_seconds": 1.5, "wait_minutes": 0.3})

    for ds in [*t1[:12], *flair]:
        flow.send([ds])

    job = flow.wait(State.DECLINED, "SLICE_MISSING")
    assert "1 image of the 13 that the sender holds did not arrive (instance number 13)." in job.reason


def test_an_answer_that_comes_after_the_decision_is_said(bench: Start, archive: Callable[..., Peer]) -> None:
    study = new_uid()
    t1, flair = stack(study, "T1", slices=15), stack(study, "FLAIR")
    peer = archive(*t1, *flair)
    peer.find_takes_s = 3.0
    flow = bench(peer_port=peer.port, collect=PATIENT)

    flow.send([*t1[:12], *flair])

    job = flow.wait(State.DELIVERED)
    assert "3 images of the 15" in flow.noted(job, "SLICE_MISSING")


@pytest.fixture
def mute() -> Iterator[int]:
    """The port of a peer that takes connections and never says a word."""
    listening = socket.create_server((HOST, 0))
    taken: list[socket.socket] = []

    def take() -> None:
        while True:
            try:
                taken.append(listening.accept()[0])
            except OSError:
                return

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    yield int(listening.getsockname()[1])
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()
    for one in taken:
        one.close()


def test_a_mute_sender_delays_neither_decision_nor_receiving(
    bench: Start, mute: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "_ANSWER_S", 20.0)
    flow = bench(peer_port=mute, collect=PATIENT)

    for _ in range(2):
        flow.send(pair())

    wait_for("both decisions", lambda: len([job for job in flow.jobs() if job.inputs]) == 2)
    assert not [record for record in caplog.records if record.name == inquire.__name__], "it is still asked"


def test_a_sender_that_does_not_answer_is_asked_once(
    bench: Start, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    flow = bench(collect=PATIENT)

    for _ in range(3):
        flow.send(pair())
    wait_for("all three", lambda: [job.state for job in flow.jobs()] == [State.DELIVERED] * 3)

    said = [record.message for record in caplog.records if record.name == inquire.__name__]
    assert said == [
        "pacs accepts no association for C-FIND. Series are judged without its counts; "
        "it is asked again in 15 min."
    ]


def test_a_sender_of_which_only_the_title_is_known_is_asked_nothing(bench: Start) -> None:
    flow = bench(node={"accept_unknown_peers": True}, peer=[], rule=[{"name": "all"}])

    flow.send(pair())

    flow.wait(State.DECLINED, "NO_DESTINATION")
    assert flow.node.ledger.jobs_to_inquire() == []


def test_a_count_of_another_series_means_nothing(bench: Start, archive: Callable[..., Peer]) -> None:
    flow = bench(peer_port=archive(*stack(new_uid(), "T1", slices=40)).port, collect=PATIENT)

    flow.send(pair())

    flow.wait(State.DELIVERED)


def test_a_port_where_nobody_listens_costs_nothing(bench: Start) -> None:
    flow = bench(peer_port=free_port(), collect=PATIENT)

    flow.send(pair())

    assert wait_for("a decision", lambda: [job for job in flow.jobs() if job.inputs])
