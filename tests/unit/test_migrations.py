"""A ledger of an older version is brought up to date, with what it knew."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dicom_node.ledger import DeliveryState, Ledger, State
from dicom_node.ledger.migrations import STEPS
from dicom_node.ledger.schema import VERSION

#: As versions 1 and 2 made it.
SCHEMA_1, SCHEMA_2 = (Path(__file__).with_name(f"ledger_v{version}.sql") for version in (1, 2))
JOB = """INSERT INTO jobs (id, study_uid, rule, revision, state, code, reason, created, updated, last_arrival,
    by_hand, to_send, starts, step, progress, worker)
    VALUES (?, ?, 'r', 1, ?, '', '', 1, 1, 1, 0, 0, 1, '', 1, '')"""
DELIVERY = "INSERT INTO deliveries VALUES (?, 'pacs', '1.1.1', '1.2', 'jobs/x/1.dcm', 'STORED', 0, 1)"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as sql:
        sql.executescript(SCHEMA_1.read_text())
        sql.execute("INSERT INTO schema_version VALUES (1)")
        for name, state in (("done", "DELIVERED"), ("under-way", "SYNTHESISED")):
            sql.execute(JOB, (name, f"study of {name}", state))
            sql.execute(DELIVERY, (name,))
    sql.close()
    return path


@pytest.fixture
def second(tmp_path: Path) -> Path:
    path = tmp_path / "second.sqlite"
    with sqlite3.connect(path) as sql:
        sql.executescript(SCHEMA_2.read_text())
        sql.execute("INSERT INTO schema_version VALUES (2)")
        for name, state in (("declined", "DECLINED"), ("waiting", "WAITING")):
            sql.execute(
                JOB.replace("worker)", "worker, settled)").replace("'')", "'', 0)"), (name, name, state)
            )
    sql.close()
    return path


def shape(path: Path) -> dict[str, set[tuple[object, ...]]]:
    """Return columns (name, type, obligatory) and indexes (name, partial) of each table."""
    with sqlite3.connect(path) as sql:
        tables = [name for (name,) in sql.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {
            table: {row[1:4] for row in sql.execute(f"PRAGMA table_info({table})")}
            | {(row[1], row[4]) for row in sql.execute(f"PRAGMA index_list({table})")}
            for table in tables
        }
    sql.close()
    return found


def test_every_version_has_its_step() -> None:
    assert sorted(STEPS) == list(range(1, VERSION))


def test_an_old_ledger_gets_the_tables_of_a_new_one(old: Path, second: Path, tmp_path: Path) -> None:
    for path in (old, second, tmp_path / "new.sqlite"):
        Ledger(f"sqlite:///{path}").close()

    assert shape(old) == shape(second) == shape(tmp_path / "new.sqlite")


def test_what_was_declined_before_there_were_answers_gets_none(second: Path) -> None:
    ledger = Ledger(f"sqlite:///{second}")
    assert ledger.jobs_to_answer() == []

    ledger.move(ledger.job("waiting"), State.DECLINED, "Declined since.")

    assert [job.id for job in ledger.jobs_to_answer()] == ["waiting"]
    ledger.close()


def test_what_it_knew_is_still_there_and_nobody_is_asked_about_it(old: Path) -> None:
    ledger = Ledger(f"sqlite:///{old}")

    assert ledger.job("done").state == State.DELIVERED and ledger.job("done").settled
    assert [row.state for row in ledger.deliveries("done")] == [DeliveryState.STORED]
    assert [job.id for job in ledger.jobs_to_confirm()] == ["under-way"]
    ledger.close()


def test_a_delivery_under_way_begins_anew_with_the_series_of_each_instance(old: Path) -> None:
    ledger = Ledger(f"sqlite:///{old}")

    assert ledger.deliveries("under-way") == []
    ledger.close()


def test_it_is_brought_up_to_date_once(old: Path) -> None:
    Ledger(f"sqlite:///{old}").close()

    Ledger(f"sqlite:///{old}").close()
