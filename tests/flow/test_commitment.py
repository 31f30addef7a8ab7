"""After DELIVERED: archives that commit at once, on an association of their own, late, never, or forget."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from archive import Archive
from node_bench import Bench, wait_for
from pynetdicom import AE
from pynetdicom.sop_class import MRImageStorage, StorageCommitmentPushModel, Verification
from small_studies import pair

from dicom_node import commitment, confirm
from dicom_node.by_hand import retry
from dicom_node.ledger import DeliveryState, How, State

#: On a slow machine a pause within the association must not look like its end.
PATIENT = {"quiet_seconds": 20}

Start = Callable[..., Bench]
StartArchive = Callable[..., Archive]


@pytest.fixture
def archive() -> Iterator[StartArchive]:
    """Start an archive that behaves as told."""
    made: list[Archive] = []

    def start(**habits: object) -> Archive:
        made.append(Archive(**habits))  # type: ignore[arg-type]
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.stop()


def delivering(bench: Start, to: Archive, **peer: object) -> Bench:
    """Start a node that delivers to an archive, and send it a study."""
    named = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": to.port, **peer}
    flow = bench(peer=[named], collect=PATIENT)
    to.node_port = flow.port
    flow.send(pair())
    return flow


@pytest.mark.parametrize("reports", ["same", "new"])
def test_a_report_commits_the_job(
    bench: Start, archive: StartArchive, monkeypatch: pytest.MonkeyPatch, reports: str
) -> None:
    monkeypatch.setattr(commitment, "_LINGER_S", 20.0 if reports == "same" else 0.1)
    keeps = archive(reports=reports)
    flow = delivering(bench, keeps)

    job = flow.wait(State.COMMITTED)

    assert flow.path(job)[-2:] == ["DELIVERED", "COMMITTED"] and job.settled
    assert "pacs confirmed every instance" in job.reason
    assert {row.state for row in flow.node.ledger.deliveries(job.id)} == {DeliveryState.COMMITTED}
    assert wait_for("our answer to the report", lambda: keeps.report_statuses) == [0x0000]
    (asked,) = flow.node.ledger.confirmations(job.id, "pacs")
    assert (asked.how, asked.confirmed, asked.lost) == (How.N_ACTION, 12, 0)
    assert asked.transaction_uid == keeps.requests[0].TransactionUID


def test_what_was_lost_is_sent_again_and_nothing_else(bench: Start, archive: StartArchive) -> None:
    forgetful = archive(loses=2)
    flow = delivering(bench, forgetful)

    job = flow.wait(State.COMMITTED)

    assert sorted(forgetful.stores.values()) == [1] * 10 + [2] * 2
    assert "pacs has lost 2 of 12 instances" in flow.noted(job, "LOST_BY_PEER")
    assert flow.path(job)[-4:] == ["DELIVERED", "SYNTHESISED", "DELIVERED", "COMMITTED"]
    assert len(forgetful.requests[1].ReferencedSOPSequence) == 2


def test_an_archive_that_loses_it_every_time_fails_the_job(bench: Start, archive: StartArchive) -> None:
    sieve = archive(loses=2, always=True)
    flow = delivering(bench, sieve)

    job = flow.wait(State.FAILED, "DELIVERY_REFUSED")

    assert "pacs has lost 2 of 12 instances that it had stored, 3 times by now" in job.reason
    assert max(sieve.stores.values()) == 3


def test_what_fails_for_another_reason_is_asked_again_not_sent_again(
    bench: Start, archive: StartArchive
) -> None:
    busy = archive(loses=2, failure=0x0213, finds=True)
    flow = delivering(bench, busy)

    flow.wait(State.SYNTHESISED, "LOST_BY_PEER")  # by C-FIND, when it was asked often enough

    assert len(busy.requests) == 3 and busy.queries == 1


def test_a_silent_archive_is_searched_after_a_while(
    bench: Start, archive: StartArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirm, "_REPORT_WITHIN_S", 1.0)
    silent = archive(reports="never", finds=True)
    flow = delivering(bench, silent)

    job = flow.wait(State.COMMITTED)

    assert flow.noted(job, "C_FIND") == "C-FIND finds 12 of 12 instances in pacs."
    assert (len(silent.requests), silent.queries) == (1, 1)


def test_while_an_archive_has_not_reported_nothing_else_is_asked(bench: Start, archive: StartArchive) -> None:
    silent = archive(reports="never", finds=True)
    flow = delivering(bench, silent)
    job = flow.wait(State.DELIVERED)

    flow.restart()

    assert flow.wait(State.DELIVERED).id == job.id and not job.settled
    assert (len(silent.requests), silent.queries) == (1, 0)


def test_an_archive_without_commitment_is_searched_and_gets_again_what_is_missing(
    bench: Start, archive: StartArchive
) -> None:
    plain = archive(reports=None, finds=True, loses=2)
    flow = delivering(bench, plain)

    flow.wait(State.COMMITTED)

    assert sorted(plain.stores.values()) == [1] * 10 + [2] * 2
    assert plain.queries == 2


def test_a_peer_that_is_set_to_have_no_commitment_is_searched(bench: Start, archive: StartArchive) -> None:
    both = archive(finds=True)
    flow = delivering(bench, both, commitment=False)

    flow.wait(State.COMMITTED)

    assert (len(both.requests), both.queries) == (0, 1)


def test_a_peer_that_cannot_be_asked_is_taken_at_its_word(bench: Start, archive: StartArchive) -> None:
    flow = delivering(bench, archive(reports=None))

    job = flow.wait(State.DELIVERED)

    assert flow.noted(job, "UNCONFIRMED") == "pacs cannot be asked what it keeps: its Success must do."
    assert {row.state for row in flow.node.ledger.deliveries(job.id)} == {DeliveryState.UNCONFIRMED}


def test_of_two_destinations_each_has_its_own_state(bench: Start, archive: StartArchive) -> None:
    keeps, mute = archive(), archive(reports=None)
    peers = [
        {"name": name, "ae_title": "PACS", "host": "127.0.0.1", "port": one.port, "sends": name == "pacs"}
        for name, one in (("pacs", keeps), ("workstation", mute))
    ]
    flow = bench(peer=peers, rule=[{"name": "r", "deliver_to": ["pacs", "workstation"]}])
    keeps.node_port = flow.port

    flow.send(pair())

    job = flow.wait(State.COMMITTED)
    assert job.reason == "pacs confirmed every instance. workstation cannot be asked."
    states = {(row.destination, row.state) for row in flow.node.ledger.deliveries(job.id)}
    assert states == {
        ("pacs", DeliveryState.COMMITTED),
        ("workstation", DeliveryState.UNCONFIRMED),
    }


def test_where_one_destination_refuses_the_other_commits_all_the_same(
    bench: Start, archive: StartArchive
) -> None:
    keeps, unwilling = archive(), archive(reports=None, statuses=[0xC000] * 12)
    peers = [
        {"name": name, "ae_title": "PACS", "host": "127.0.0.1", "port": one.port, "sends": name == "pacs"}
        for name, one in (("pacs", keeps), ("workstation", unwilling))
    ]
    rule = [{"name": "r", "deliver_to": ["pacs", "workstation"]}]
    flow = bench(peer=peers, rule=rule, collect=PATIENT)
    keeps.node_port = flow.port
    flow.send(pair())
    job = flow.wait(State.FAILED, "DELIVERY_REFUSED")

    def states() -> set[tuple[str, DeliveryState]]:
        return {(row.destination, row.state) for row in flow.node.ledger.deliveries(job.id)}

    refused = ("workstation", DeliveryState.REFUSED)
    wait_for("the other to commit", lambda: states() == {("pacs", DeliveryState.COMMITTED), refused})
    wait_for("nobody to be left to ask", lambda: flow.node.ledger.job(job.id).settled)

    retry(flow.node.ledger, flow.node.spool, flow.node.ledger.job(job.id))

    flow.wait(State.COMMITTED)
    assert set(keeps.stores.values()) == {1}, "something was sent twice"


def test_a_peer_that_only_receives_may_report_but_not_store(bench: Start, archive: StartArchive) -> None:
    keeps = archive()
    pacs = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": keeps.port, "sends": False}
    scanner = {"name": "scanner", "ae_title": "SCANNER", "host": "127.0.0.1", "receives": False}
    flow = bench(peer=[pacs, scanner], rule=[{"name": "r", "deliver_to": ["pacs"]}])
    keeps.node_port = flow.port
    ae = AE("PACS")
    for service in (MRImageStorage, StorageCommitmentPushModel, Verification):
        ae.add_requested_context(service)
    association = ae.associate("127.0.0.1", flow.port, ae_title="TAVIT")
    accepted = {context.abstract_syntax for context in association.accepted_contexts}
    association.release()

    flow.send(pair(), calling="SCANNER")

    flow.wait(State.COMMITTED)
    assert accepted == {StorageCommitmentPushModel, Verification}


def test_a_report_about_a_transaction_that_is_not_ours_is_refused(
    bench: Start, archive: StartArchive
) -> None:
    keeps = archive()
    flow = delivering(bench, keeps)
    flow.wait(State.COMMITTED)
    report = keeps.requests[0]
    report.TransactionUID = "2.25.1"

    keeps._call(report, 1)

    assert keeps.report_statuses[-1] == 0x0115
