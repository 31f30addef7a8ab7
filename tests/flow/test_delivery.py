"""Results on their way to peers that are away, that refuse, that are short of space, that are old."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
from node_bench import HOST, Bench, Peer, wait_for, with_a_segmentation
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, MRImageStorage, SegmentationStorage
from small_studies import pair

from dicom_node import deliver, send
from dicom_node.by_hand import retry
from dicom_node.ledger import AT_PEER, DeliveryState, State
from dicom_node.overview import details

Start = Callable[..., Bench]
StartPeer = Callable[..., Peer]


@pytest.fixture
def other_peer() -> Iterator[StartPeer]:
    """Start a peer that answers as told."""
    made: list[Peer] = []

    def start(**habits: object) -> Peer:
        made.append(Peer(**habits))  # type: ignore[arg-type]
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.stop()


def test_a_peer_that_is_down_gets_it_when_it_is_up_again(bench: Start, peer: Peer) -> None:
    flow = bench()
    peer.stop()
    flow.send(pair())
    job = flow.wait(State.SYNTHESISED)
    assert "does not answer" in flow.noted(job, "DELIVERY_POSTPONED")

    peer.start()

    flow.wait(State.DELIVERED)
    assert len(peer.received) == 12


def test_a_peer_that_is_short_of_space_gets_the_rest_later(bench: Start, other_peer: StartPeer) -> None:
    full = other_peer(statuses=[0, 0, 0xA700, 0xA700])
    flow = bench(peer_port=full.port)

    flow.send(pair())

    job = flow.wait(State.DELIVERED)
    assert "answered status 0xA700" in flow.noted(job, "DELIVERY_POSTPONED")
    assert len(full.received) == len({ds.SOPInstanceUID for ds in full.received}) == 12


def test_a_peer_that_refuses_for_good_fails_the_job_with_its_status(
    bench: Start, other_peer: StartPeer
) -> None:
    unwilling = other_peer(statuses=[0xC000] * 12)
    flow = bench(peer_port=unwilling.port)

    flow.send(pair())

    job = flow.wait(State.FAILED, "DELIVERY_REFUSED")
    assert "pacs does not take the result" in job.reason and "0xC000" in job.reason


def test_a_refused_delivery_is_tried_again_without_computing_again(
    bench: Start, other_peer: StartPeer
) -> None:
    unwilling = other_peer(statuses=[0] * 11 + [0xC000])
    flow = bench(peer_port=unwilling.port)
    flow.send(pair())
    job = flow.wait(State.FAILED, "DELIVERY_REFUSED")

    retry(flow.node.ledger, flow.node.spool, job)

    flow.wait(State.DELIVERED)
    assert len({ds.SOPInstanceUID for ds in unwilling.received}) == 12
    assert flow.node.spool.starts(job.id) == 1


@pytest.mark.parametrize("status", [0xB000, 0x0111], ids=["warning", "duplicate"])
def test_a_warning_of_the_peer_and_what_it_has_already_count_as_stored(
    bench: Start, other_peer: StartPeer, status: int
) -> None:
    other = other_peer(statuses=[status] * 12)
    flow = bench(peer_port=other.port)

    flow.send(pair())

    job = flow.wait(State.DELIVERED)
    assert {row.status for row in flow.node.ledger.deliveries(job.id)} == {status}


def test_a_peer_that_knows_only_implicit_vr_gets_implicit_vr(bench: Start, other_peer: StartPeer) -> None:
    old = other_peer(syntaxes=[ImplicitVRLittleEndian])
    flow = bench(peer_port=old.port)

    flow.send(pair())

    flow.wait(State.DELIVERED)
    assert {ds.file_meta.TransferSyntaxUID for ds in old.received} == {ImplicitVRLittleEndian}
    assert {ds.SyntheticData for ds in old.received} == {"YES"}


@pytest.mark.parametrize("syntaxes", [[JPEG2000Lossless], []], ids=["no common syntax", "no MR at all"])
def test_a_peer_that_takes_no_such_object_is_not_asked_for_days(
    bench: Start, other_peer: StartPeer, syntaxes: list[str]
) -> None:
    flow = bench(peer_port=other_peer(syntaxes=syntaxes).port)

    flow.send(pair())

    assert "pacs" in flow.wait(State.FAILED, "DELIVERY_REFUSED").reason


def test_a_peer_that_aborts_in_the_middle_gets_the_rest_later(bench: Start, other_peer: StartPeer) -> None:
    moody = other_peer(aborts_after=5)
    flow = bench(peer_port=moody.port)

    flow.send(pair())

    job = flow.wait(State.DELIVERED)
    assert "pacs" in flow.noted(job, "DELIVERY_POSTPONED")
    assert len(moody.received) == len({ds.SOPInstanceUID for ds in moody.received}) == 12


def test_a_peer_that_never_answers_a_c_store_is_tried_again(
    bench: Start, other_peer: StartPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "_ANSWER_TIMEOUT_S", 3)
    mute = other_peer(hangs=1)
    flow = bench(peer_port=mute.port)

    flow.send(pair())

    job = flow.wait(State.DELIVERED)
    assert "did not answer in time" in flow.noted(job, "DELIVERY_POSTPONED")
    assert len(mute.received) == 12


def test_a_host_that_takes_the_connection_and_says_nothing_is_said(
    bench: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "_ANSWER_TIMEOUT_S", 1)
    with socket.create_server((HOST, 0)) as mute:
        flow = bench(peer_port=mute.getsockname()[1])
        flow.send(pair())

        sentence = flow.noted(flow.wait(State.SYNTHESISED), "DELIVERY_POSTPONED")

    assert "takes the connection but does not answer" in sentence


def test_a_peer_that_refuses_seg_gets_the_images_and_the_job_says_so(bench: Start, peer: Peer) -> None:
    flow = bench(with_a_segmentation)

    flow.send(pair())

    job = flow.wait(State.DELIVERED)
    assert len(peer.received) == 11
    assert job.reason.startswith(
        "11 instances are in pacs. pacs has the result without 1 Segmentation Storage"
    )
    assert "accepts no presentation context for 1 of 12 objects (Segmentation Storage in " in job.reason
    assert details(flow.settings, flow.node.ledger, job)["deliveries"][0]["refused"] == 1


def test_what_a_peer_does_not_take_is_not_offered_again(bench: Start, peer: Peer) -> None:
    flow = bench(with_a_segmentation)
    flow.send(pair())
    job = flow.wait(State.DELIVERED)

    wait_for("confirm to settle the job", lambda: flow.node.ledger.job(job.id).settled)

    assert flow.path(job).count(State.SYNTHESISED) == 1
    assert len(peer.received) == 11
    states = [row.state for row in flow.node.ledger.deliveries(job.id)]
    assert sorted(states) == [DeliveryState.NOT_TAKEN, *[DeliveryState.UNCONFIRMED] * 11]


def test_a_peer_that_takes_the_segmentation_and_no_image_fails_the_job(
    bench: Start, other_peer: StartPeer
) -> None:
    odd = other_peer(sop_classes=[SegmentationStorage])
    flow = bench(with_a_segmentation, peer_port=odd.port)

    flow.send(pair())

    job = flow.wait(State.FAILED, "DELIVERY_REFUSED")
    assert job.reason.endswith("1 of 12 instances are delivered.")


def test_two_peers_one_of_which_takes_all(bench: Start, peer: Peer, other_peer: StartPeer) -> None:
    able = other_peer(sop_classes=[MRImageStorage, SegmentationStorage])
    flow = bench(
        with_a_segmentation,
        peer=[
            {"name": "pacs", "ae_title": "PACS", "host": HOST, "port": peer.port},
            {"name": "able", "ae_title": "ABLE", "host": HOST, "port": able.port},
        ],
        rule=[{"name": "both", "deliver_to": ["pacs", "able"]}],
    )

    flow.send(pair())

    job = flow.wait(State.DELIVERED)
    assert (len(peer.received), len(able.received)) == (11, 12)
    assert job.reason.startswith("12 instances are in able. 11 instances are in pacs. pacs has the result")


def test_what_is_short_of_space_is_not_refused_with_what_is(bench: Start, other_peer: StartPeer) -> None:
    full = other_peer(statuses=[0xA700] * 11)
    flow = bench(with_a_segmentation, peer_port=full.port)

    flow.send(pair())

    job = flow.wait(State.DELIVERED)
    states = [row.state for row in flow.node.ledger.deliveries(job.id)]
    assert states.count(DeliveryState.NOT_TAKEN) == 1
    assert sum(state in AT_PEER for state in states) == 11


def test_the_status_of_what_is_tried_again_is_kept(bench: Start, other_peer: StartPeer) -> None:
    full = other_peer(statuses=[0] * 11 + [0xA700] * 100)
    flow = bench(peer_port=full.port)

    flow.send(pair())

    job = flow.wait(State.SYNTHESISED)
    flow.noted(job, "DELIVERY_POSTPONED")
    assert {row.status for row in flow.node.ledger.deliveries(job.id)} == {0x0000, 0xA700}


def test_one_peer_that_refuses_does_not_hold_the_other(
    bench: Start, peer: Peer, other_peer: StartPeer
) -> None:
    unwilling = other_peer(statuses=[0xC000] * 12)
    peers = [
        {"name": name, "ae_title": "PACS", "host": "127.0.0.1", "port": port, "sends": name == "pacs"}
        for name, port in (("pacs", peer.port), ("unwilling", unwilling.port))
    ]
    flow = bench(peer=peers, rule=[{"name": "r", "deliver_to": ["pacs", "unwilling"]}])

    flow.send(pair())

    job = flow.wait(State.FAILED, "DELIVERY_REFUSED")
    rows = flow.node.ledger.deliveries(job.id)
    assert {row.state for row in rows if row.destination == "pacs"} <= AT_PEER
    assert job.reason.startswith("unwilling does not take the result")


def test_one_peer_that_never_answers_holds_no_other(
    bench: Start, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "_AT_ONCE", 1)
    with socket.create_server((HOST, 0)) as mute:
        ports = {"mute": mute.getsockname()[1], "pacs": peer.port}
        peers = [
            {"name": name, "ae_title": "PACS", "host": HOST, "port": port, "sends": name == "pacs"}
            for name, port in ports.items()
        ]
        flow = bench(peer=peers, rule=[{"name": "r", "deliver_to": ["mute", "pacs"]}])

        flow.send(pair())

        wait_for("what the other gets", lambda: len(peer.received) == 12, seconds=50)  # mute has 60


def test_a_sender_that_does_not_receive_leaves_nobody_to_send_to(bench: Start) -> None:
    scanner = {"name": "scanner", "ae_title": "PACS", "host": "127.0.0.1", "receives": False}
    flow = bench(peer=[scanner])

    flow.send(pair())

    assert "nobody to send the result to" in flow.wait(State.DECLINED, "NO_DESTINATION").reason


def test_an_unknown_sender_that_may_send_gets_no_answer_but_a_reason(bench: Start) -> None:
    flow = bench(node={"accept_unknown_peers": True}, peer=[])

    flow.send(pair(), calling="STRANGER")

    flow.wait(State.DECLINED, "NO_DESTINATION")


def test_a_destination_that_was_taken_out_of_the_settings_is_said(bench: Start, peer: Peer) -> None:
    flow = bench()
    peer.stop()
    flow.send(pair())
    job = flow.wait(State.SYNTHESISED)
    flow.noted(job, "DELIVERY_POSTPONED")

    flow.settings = flow.settings.model_copy(update={"peer": ()})
    flow.restart()

    assert "There is no [[peer]] named 'pacs'" in flow.wait(State.FAILED, "DELIVERY_REFUSED").reason
