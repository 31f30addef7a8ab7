"""What leaves the spool when, and what happens to those who ask for it later."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_node.by_hand import retry
from dicom_node.errors import NoSuchThing, SpoolFull
from dicom_node.ledger import Arrival, JobRow, Ledger, State
from dicom_node.retention import purge
from dicom_node.settings import Settings
from dicom_node.spool import Spool

STUDY = "1.2.840.4711"
HOUR = 3600.0
DAY = 24 * HOUR
WAYS = {
    State.RECEIVING: [],
    State.DECLINED: [State.WAITING, State.DECLINED],
    State.CANCELLED: [State.CANCELLED],
    State.RUNNING: [State.COMPLETE, State.QUEUED, State.RUNNING],
    State.FAILED: [State.COMPLETE, State.QUEUED, State.FAILED],
    State.DELIVERED: [State.COMPLETE, State.QUEUED, State.RUNNING, State.SYNTHESISED, State.DELIVERED],
}
WAYS[State.COMMITTED] = [*WAYS[State.DELIVERED], State.COMMITTED]


@dataclass
class Place:
    """A spool, its ledger, and 24 hours of retention."""

    spool: Spool
    ledger: Ledger
    settings: Settings

    def instance(
        self, uid: str = "1.1.1", study: str | None = STUDY, *, ago: float, seen: bool = True
    ) -> Path:
        """Receive an instance so many seconds ago."""
        path = self.spool.incoming(uid)
        self.spool.write(path, (b"x" * 1000,))
        association = self.ledger.open_association("PACS", "TAVIT", "127.0.0.1", "pacs")
        relative = self.spool.relative(path)
        self.ledger.store_instance(
            association,
            sop_instance_uid=uid,
            sop_class_uid="1.2",
            transfer_syntax_uid="1.2.1",
            path=relative,
            size_bytes=1000,
            sha256="digest",
        )
        found = (
            {"study_uid": study, "series_uid": "1.1", "header": {}} if study else {"problem": "Unreadable."}
        )
        self.ledger.index_instances({uid: {**found, "received": time.time() - ago}})
        if seen:
            self.ledger.mark_seen(one.id for one in self.ledger.unseen_arrivals())
        return path

    def job(self, state: State, *, ago: float, settled: bool = False, **values: object) -> JobRow:
        """Make a job that came into a state so many seconds ago, with a result."""
        job = self.ledger.open_job(STUDY, "r", 1, "pacs", time.time(), "Arriving.")
        for to in WAYS[state]:
            job = self.ledger.move(job, to, "Moved.", at=time.time() - ago, **values)
        self.ledger.set(job, settled=settled, answered=True, updated=time.time() - ago)
        (self.spool.open_job(job.id) / "result.json").write_text("{}")
        return self.ledger.job(job.id)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    settings = Settings.model_validate({"node": {"spool": tmp_path}, "retention": {"hours": 24}})
    yield Place(Spool(tmp_path, fsync=False), ledger, settings)
    ledger.close()


@pytest.mark.parametrize(
    ("state", "settled", "days", "leaves"),
    [
        (State.COMMITTED, True, 2, True),
        (State.COMMITTED, True, 0.5, False),
        (State.DELIVERED, False, 30, False),
        (State.DELIVERED, True, 2, True),
        (State.DECLINED, False, 2, True),
        (State.CANCELLED, False, 2, True),
        (State.FAILED, False, 2, False),
        (State.FAILED, False, 8, True),
        (State.RUNNING, False, 30, False),
        (State.RECEIVING, False, 30, False),
    ],
)
def test_input_and_output_leave_when_nobody_needs_them_any_more(
    place: Place, state: State, settled: bool, days: float, leaves: bool
) -> None:
    path = place.instance(ago=days * DAY)
    job = place.job(state, ago=days * DAY, settled=settled)

    left = purge(place.settings, place.ledger, place.spool)

    assert path.exists() is not leaves and place.spool.job(job.id).exists() is not leaves
    assert (left.instances, left.jobs) == ((1, (job.id,)) if leaves else (0, ()))


def test_a_dry_run_says_the_same_and_removes_nothing(place: Place) -> None:
    path = place.instance(ago=2 * DAY)
    job = place.job(State.COMMITTED, ago=2 * DAY, settled=True)

    would = purge(place.settings, place.ledger, place.spool, dry_run=True)

    assert path.exists() and place.spool.job(job.id).exists()
    assert would == purge(place.settings, place.ledger, place.spool)
    assert would.bytes == 1000 + 2


def test_an_instance_that_came_late_stays_when_its_study_leaves(place: Place) -> None:
    place.job(State.COMMITTED, ago=2 * DAY, settled=True)
    old, new = place.instance("1.1.1", ago=2 * DAY), place.instance("1.1.2", ago=HOUR)

    purge(place.settings, place.ledger, place.spool)

    assert (old.exists(), new.exists()) == (False, True)


def test_a_study_that_another_rule_still_wants_stays(place: Place) -> None:
    path = place.instance(ago=2 * DAY)
    place.job(State.COMMITTED, ago=2 * DAY, settled=True)
    place.ledger.open_job(STUDY, "another rule", 1, "pacs", time.time(), "Arriving.")

    purge(place.settings, place.ledger, place.spool)

    assert path.exists()


@pytest.mark.parametrize("study", [STUDY, None], ids=["no rule wanted it", "unreadable"])
def test_what_has_no_job_leaves_too(place: Place, study: str | None) -> None:
    path = place.instance(study=study, ago=2 * DAY)

    assert purge(place.settings, place.ledger, place.spool).instances == 1 and not path.exists()


def test_what_collect_has_not_seen_stays(place: Place) -> None:
    path = place.instance(ago=2 * DAY, seen=False)

    purge(place.settings, place.ledger, place.spool)

    assert path.exists()


def test_what_was_set_aside_stays_for_a_week(place: Place) -> None:
    paths = [place.spool.conflict("1.1.1", digest) for digest in ("a" * 12, "b" * 12)]
    for path, days in zip(paths, (2, 8), strict=True):
        path.write_bytes(b"x")
        os.utime(path, (time.time() - days * DAY,) * 2)

    purge(place.settings, place.ledger, place.spool)

    assert [path.exists() for path in paths] == [True, False]


def test_many_instances_leave_in_several_transactions(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.ledger.keeping._AT_ONCE", 2)
    paths = [place.instance(f"1.1.{number}", ago=2 * DAY) for number in range(1, 6)]

    assert purge(place.settings, place.ledger, place.spool).instances == 5
    assert not any(path.exists() for path in paths)
    assert purge(place.settings, place.ledger, place.spool).instances == 0


def test_what_comes_back_after_it_left_is_new_again(place: Place) -> None:
    place.instance(ago=2 * DAY)
    purge(place.settings, place.ledger, place.spool)
    assert place.ledger.digest_of("1.1.1") is None and place.ledger.study_headers(STUDY) == []

    path = place.instance(ago=0, seen=False)

    (arrival,) = place.ledger.unseen_arrivals()
    assert (arrival.kind, place.ledger.digest_of("1.1.1"), path.exists()) == (Arrival.NEW, "digest", True)


def test_a_retry_of_what_left_says_that_it_must_be_sent_again(place: Place) -> None:
    path = place.instance(ago=8 * DAY)
    inputs = {"T1W": [place.spool.relative(path)], "FLAIR": []}
    job = place.job(State.FAILED, ago=8 * DAY, inputs=inputs)
    purge(place.settings, place.ledger, place.spool)

    with pytest.raises(NoSuchThing, match="have left the spool"):
        retry(place.ledger, place.spool, job)


def test_below_the_watermark_nothing_is_taken(place: Place) -> None:
    free = place.spool.free_bytes()

    place.spool.check_space(free // 2)
    with pytest.raises(SpoolFull, match=r"GB are free .* less than retention.least_free_gb"):
        place.spool.check_space(2 * free)
