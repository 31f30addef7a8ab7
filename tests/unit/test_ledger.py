"""The ledger on a real disk: transactions, threads, processes, kill -9, a full disk."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from dicom_node.errors import IllegalTransition, NodeError, NoSuchThing, SpoolFull
from dicom_node.ledger import Arrival, DeliveryState, Ending, Held, Inquiry, JobRow, Ledger, State, job_id
from dicom_node.spool import Spool

STUDY = "1.2.840.4711"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{path}")
    yield opened
    opened.close()


def opened(ledger: Ledger, study: str = STUDY, rule: str = "every study", revision: int = 1) -> JobRow:
    return ledger.open_job(study, rule, revision, "pacs", time.time(), "Arriving.")


def synthesised(ledger: Ledger) -> JobRow:
    job = opened(ledger)
    for state in (State.COMPLETE, State.QUEUED, State.RUNNING, State.SYNTHESISED):
        job = ledger.move(job, state, f"{state}.")
    return job


def stored(
    ledger: Ledger, association: int, uid: str, study: str | None = STUDY, series: str = "1.1"
) -> None:
    ledger.store_instance(
        association,
        sop_instance_uid=uid,
        sop_class_uid="1.2",
        transfer_syntax_uid="1.2.1",
        path=f"incoming/{uid}.dcm",
        size_bytes=10,
        sha256=f"digest of {uid}",
    )
    if study:
        ledger.index_instances(
            {uid: {"study_uid": study, "series_uid": series, "header": {"modality": "MR"}}}
        )


# --- jobs ----------------------------------------------------------------------------------------


def test_the_id_is_short_stable_and_tells_nothing() -> None:
    assert job_id(STUDY, "r", 1) == job_id(STUDY, "r", 1) != job_id(STUDY, "r", 2)
    assert len(job_id(STUDY, "r", 1)) == 10 and STUDY not in job_id(STUDY, "r", 1)


def test_opening_a_job_twice_opens_one(ledger: Ledger) -> None:
    first, second = opened(ledger), opened(ledger)

    assert first.id == second.id and len(ledger.events(first.id)) == 1


def test_a_revision_is_a_job_of_its_own(ledger: Ledger) -> None:
    opened(ledger)
    opened(ledger, revision=2)

    assert [job.revision for job in ledger.jobs_of(STUDY)] == [1, 2]


def test_a_transition_changes_state_code_reason_and_columns_at_once(ledger: Ledger) -> None:
    job = ledger.move(opened(ledger), State.WAITING, "No FLAIR.", "NO_FLAIR", look_again=5.0)

    assert (job.state, job.code, job.reason, job.look_again) == (State.WAITING, "NO_FLAIR", "No FLAIR.", 5.0)


def test_each_transition_leaves_an_event(ledger: Ledger) -> None:
    job = ledger.move(opened(ledger), State.WAITING, "No FLAIR.", "NO_FLAIR")

    last = ledger.events(job.id)[-1]
    assert (last.before, last.after, last.code, last.sentence) == (
        "RECEIVING",
        "WAITING",
        "NO_FLAIR",
        "No FLAIR.",
    )


def test_an_illegal_transition_raises_and_changes_nothing(ledger: Ledger) -> None:
    job = opened(ledger)

    with pytest.raises(IllegalTransition, match="cannot become DELIVERED"):
        ledger.move(job, State.DELIVERED, "No.")

    assert ledger.job(job.id) == job and len(ledger.events(job.id)) == 1


def test_a_remark_is_an_event_that_is_no_transition(ledger: Ledger) -> None:
    job = opened(ledger)

    ledger.note(job, "Came again.", "SENT_AGAIN", step="x")

    last = ledger.events(job.id)[-1]
    assert (last.before, last.after, last.code) == ("RECEIVING", "RECEIVING", "SENT_AGAIN")
    assert ledger.job(job.id).step == "x"


def test_of_two_threads_that_move_one_job_one_wins(ledger: Ledger) -> None:
    job, won, lost = opened(ledger), [], []
    start = threading.Barrier(8)

    def move() -> None:
        start.wait()
        try:
            won.append(ledger.move(job, State.CANCELLED, "Mine."))
        except IllegalTransition:
            lost.append(1)

    threads = [threading.Thread(target=move) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(won), len(lost)) == (1, 7)
    assert len(ledger.events(job.id)) == 2


def test_a_job_is_found_by_the_start_of_its_id(ledger: Ledger) -> None:
    job = opened(ledger)

    assert ledger.job(job.id[:6]).id == job.id


def test_an_unknown_or_ambiguous_id_is_said(ledger: Ledger) -> None:
    opened(ledger)
    opened(ledger, revision=2)

    with pytest.raises(NoSuchThing, match="There is no job 'zz'"):
        ledger.job("zz")
    with pytest.raises(NoSuchThing, match="Several jobs"):
        ledger.job("")


def test_a_percent_sign_is_no_wildcard(ledger: Ledger) -> None:
    opened(ledger)

    with pytest.raises(NoSuchThing):
        ledger.job("%")


def test_lists_are_filtered_by_state_and_time(ledger: Ledger) -> None:
    waiting = ledger.move(opened(ledger, "1"), State.WAITING, "W.", at=100.0)
    other = opened(ledger, "2")

    assert [job.id for job in ledger.jobs(states=[State.WAITING])] == [waiting.id]
    assert [job.id for job in ledger.jobs(since=time.time() - 60)] == [other.id]
    assert [job.id for job in ledger.jobs_in(State.RECEIVING, State.WAITING)] == [waiting.id, other.id]
    assert (ledger.counts()[State.WAITING], ledger.counts()[State.FAILED]) == (1, 0)


def test_a_collecting_job_is_due_at_its_time(ledger: Ledger) -> None:
    job = opened(ledger)
    ledger.set(job, look_again=1000.0)

    assert not ledger.jobs_due(999.0) and [one.id for one in ledger.jobs_due(1000.0)] == [job.id]
    assert ledger.next_look() == 1000.0


def test_an_arrival_makes_a_job_due_now(ledger: Ledger) -> None:
    job = opened(ledger)
    ledger.set(job, look_again=1e12)

    ledger.touch(job, at=5e9)

    assert ledger.jobs_due(1.0) and ledger.job(job.id).last_arrival == 5e9


# --- arrivals ------------------------------------------------------------------------------------


def association(ledger: Ledger) -> int:
    return ledger.open_association("SCANNER", "TAVIT", "127.0.0.1", "pacs")


def test_the_first_ending_of_an_association_counts(ledger: Ledger) -> None:
    number = association(ledger)

    ledger.close_association(number, Ending.RELEASED)
    ledger.close_association(number, Ending.ABORTED)

    assert ledger.association(number).ending == Ending.RELEASED


def test_associations_that_a_killed_node_left_open_count_as_aborted(ledger: Ledger) -> None:
    left, ended = association(ledger), association(ledger)
    ledger.close_association(ended, Ending.RELEASED)

    assert ledger.close_lost_associations() == 1
    assert ledger.association(left).ending == Ending.ABORTED
    assert ledger.association(ended).ending == Ending.RELEASED


def test_an_instance_and_its_arrival_are_one_transaction(ledger: Ledger) -> None:
    number = association(ledger)
    stored(ledger, number, "1.1.1", study=None)

    with pytest.raises(IntegrityError):
        stored(ledger, number, "1.1.1", study=None)

    assert len(ledger.unseen_arrivals()) == 1


def test_arrivals_are_seen_once(ledger: Ledger) -> None:
    number = association(ledger)
    stored(ledger, number, "1.1.1", study=None)
    ledger.store_repeat(number, "1.1.1", Arrival.SAME)

    arrived = ledger.unseen_arrivals()
    ledger.mark_seen(arrival.id for arrival in arrived)

    assert [arrival.kind for arrival in arrived] == [Arrival.NEW, Arrival.SAME]
    assert ledger.unseen_arrivals() == []


def test_an_unreadable_instance_is_counted_beside_the_study_it_came_with(ledger: Ledger) -> None:
    here, elsewhere = association(ledger), association(ledger)
    stored(ledger, here, "1.1.1")
    stored(ledger, here, "1.1.2", study=None)
    stored(ledger, elsewhere, "1.1.3", study=None)
    ledger.index_instances({uid: {"problem": "Cannot be read."} for uid in ("1.1.2", "1.1.3")})

    assert ledger.unreadable_beside(STUDY) == 1
    assert ledger.totals()["unreadable"] == 2


def test_a_batch_sums_up_what_an_association_brought(ledger: Ledger) -> None:
    number = association(ledger)
    stored(ledger, number, "1.1.1")
    stored(ledger, number, "1.1.2")
    ledger.store_repeat(number, "1.1.1", Arrival.SAME)
    ledger.store_repeat(number, "1.1.2", Arrival.OTHER)
    ledger.mark_seen(arrival.id for arrival in ledger.unseen_arrivals())

    (batch,) = ledger.untold_batches()
    ledger.mark_told(batch.arrival_ids)

    assert (batch.new, batch.same, batch.other, batch.synthetic) == (2, 1, 1, 0)
    assert ledger.untold_batches() == []


def test_many_thousand_arrivals_are_marked_at_once(ledger: Ledger) -> None:
    ledger.mark_seen(range(40_000))
    ledger.mark_told(range(40_000))


# --- deliveries ----------------------------------------------------------------------------------

OBJECTS = [("jobs/x/1.dcm", "1.2", "1.1.1", "1.1"), ("jobs/x/2.dcm", "1.2", "1.1.2", "1.1")]


def test_a_delivery_row_for_each_destination_and_instance(ledger: Ledger) -> None:
    job = synthesised(ledger)

    ledger.open_deliveries(job, ["pacs", "archive"], OBJECTS)
    ledger.open_deliveries(job, ["pacs", "archive"], OBJECTS)

    assert len(ledger.deliveries(job.id)) == 4


def test_a_delivery_that_is_forgotten_can_be_opened_again(ledger: Ledger) -> None:
    job = synthesised(ledger)
    ledger.open_deliveries(job, ["pacs"], OBJECTS)
    ledger.set_deliveries([(ledger.deliveries(job.id)[0], DeliveryState.REFUSED, 0xC000)])
    ledger.set_attempt(job.id, "pacs", 3, 9.0, "Refused.")

    ledger.forget_deliveries(job)
    ledger.open_deliveries(job, ["pacs"], OBJECTS)

    assert [row.state for row in ledger.deliveries(job.id)] == [DeliveryState.PENDING] * 2
    assert ledger.attempt(job.id, "pacs") == (0, 0.0, "")


def test_what_is_stored_stays_so_when_the_rest_is_tried_again(ledger: Ledger) -> None:
    job = synthesised(ledger)
    ledger.open_deliveries(job, ["pacs"], OBJECTS)
    first, second = ledger.deliveries(job.id)
    ledger.set_deliveries([(first, DeliveryState.STORED, 0x0000), (second, DeliveryState.REFUSED, 0xC000)])

    ledger.reopen_deliveries(job)

    states = [row.state for row in ledger.deliveries(job.id)]
    assert states == [DeliveryState.STORED, DeliveryState.PENDING]


def test_the_last_attempt_is_kept(ledger: Ledger) -> None:
    job = synthesised(ledger)

    ledger.set_attempt(job.id, "pacs", 1, 9.0, "Once.")
    ledger.set_attempt(job.id, "pacs", 2, 19.0, "Twice.")

    assert ledger.attempt(job.id, "pacs") == (2, 19.0, "Twice.")


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_ledger_of_a_newer_program_is_refused(path: Path) -> None:
    Ledger(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as sql:
        sql.execute("UPDATE schema_version SET version = 99")
    sql.close()

    with pytest.raises(NodeError, match="The ledger has version 99"):
        Ledger(f"sqlite:///{path}")


def test_what_is_written_is_there_for_the_next_one_who_opens_it(path: Path) -> None:
    first = Ledger(f"sqlite:///{path}")
    job = opened(first)
    first.close()

    second = Ledger(f"sqlite:///{path}")

    assert second.job(job.id) == job
    second.close()


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start another process that uses the ledger."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


WRITER = """
    import itertools, sys
    from pathlib import Path
    from dicom_node.ledger import Ledger
    from dicom_node.spool import Spool
    root, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    spool, ledger = Spool(root), Ledger(f"sqlite:///{root / 'ledger.sqlite'}")
    association = ledger.open_association(name, "TAVIT", "127.0.0.1", None)
    for number in range(count):
        uid = f"1.2.{int(name)}.{number + 1}"
        path = spool.incoming(uid)
        spool.write(path, (b"x" * 1000,))
        ledger.store_instance(association, sop_instance_uid=uid, sop_class_uid="1.2",
            transfer_syntax_uid="1.2", path=spool.relative(path), size_bytes=1000, sha256="0")
        print(uid, flush=True)
"""


def test_a_process_killed_amid_its_writes_leaves_a_ledger_without_a_lie(tmp_path: Path) -> None:
    Spool(tmp_path)
    for attempt in range(3):
        writer = python(WRITER, tmp_path, attempt + 1, 100_000)
        assert writer.stdout is not None
        told = [writer.stdout.readline().strip() for _ in range(20 + 7 * attempt)]
        os.kill(writer.pid, signal.SIGKILL)
        told += writer.communicate()[0].split()

        ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
        arrived = {one.sop_instance_uid: one.path for one in ledger.unseen_arrivals(limit=1_000_000)}
        assert set(told) <= set(arrived), "said to be stored, but not in the ledger"
        assert all((tmp_path / one).stat().st_size == 1000 for one in arrived.values())
        assert ledger.close_lost_associations() == 1
        ledger.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as sql:
        assert sql.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    sql.close()


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    Spool(tmp_path)
    writers = [python(WRITER, tmp_path, number, 60) for number in (1, 2, 3)]
    for writer in writers:
        writer.communicate()

    assert [writer.returncode for writer in writers] == [0, 0, 0]
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    assert len(ledger.unseen_arrivals()) == 180
    ledger.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte, where mounting is permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("A FULL DISK IS NOT TESTED: mounting a small tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_under_the_spool_is_said(small_disk: Path) -> None:
    spool = Spool(small_disk)

    with pytest.raises(SpoolFull, match="No space is left on the disk of the spool"):
        for number in range(100):
            spool.write(spool.incoming(str(number)), (b"x" * 100_000,))

    assert not list(small_disk.rglob(".*"))


def test_a_full_disk_under_the_ledger_is_said_and_what_was_written_stays(small_disk: Path) -> None:
    ledger = Ledger(f"sqlite:///{small_disk / 'ledger.sqlite'}")
    job = opened(ledger)

    with pytest.raises(SpoolFull, match="No space is left on the disk of the ledger"):
        for _ in range(10_000):
            ledger.note(job, "x" * 1000)

    assert ledger.job(job.id) == job
    ledger.close()


# --- what the senders hold -----------------------------------------------------------------------


def test_the_newest_answer_of_a_sender_is_kept_and_its_study_is_due(ledger: Ledger) -> None:
    job = opened(ledger)
    ledger.set(job, look_again=time.time() + 60)
    assert [(one.id, asked) for one, asked in ledger.jobs_to_inquire()] == [(job.id, None)]

    ledger.record_inquiry(STUDY, Inquiry("pacs", 1.0, {"1.1": Held(24)}))
    ledger.record_inquiry(STUDY, Inquiry("pacs", 2.0, {"1.1": Held(24, {"a": 1, "b": None})}))

    assert ledger.inquiry(STUDY, "pacs") == Inquiry("pacs", 2.0, {"1.1": Held(24, {"a": 1, "b": None})})
    assert ledger.inquiry(STUDY, "another") is None and ledger.inquiry(STUDY, None) is None
    assert [asked for _, asked in ledger.jobs_to_inquire()] == [2.0]
    assert [due.id for due in ledger.jobs_due(time.time())] == [job.id]


def test_a_ledger_from_before_the_senders_were_asked_goes_on(path: Path) -> None:
    before = Ledger(f"sqlite:///{path}")
    opened(before)
    before.close()
    with sqlite3.connect(path) as sql:
        sql.execute("DROP TABLE inquiries")
    sql.close()

    after = Ledger(f"sqlite:///{path}")
    after.record_inquiry(STUDY, Inquiry("pacs", 1.0, {}))

    assert after.inquiry(STUDY, "pacs") is not None
    after.close()
