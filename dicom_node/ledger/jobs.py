"""Jobs and their timelines. A transition checks the table and leaves an event."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, func, insert, or_, select, update

from dicom_node.errors import IllegalTransition, NoSuchThing
from dicom_node.ledger import schema
from dicom_node.ledger.database import Database
from dicom_node.ledger.rows import EventRow, JobRow, job_id
from dicom_node.ledger.states import COLLECTING, TRANSITIONS, State


class Jobs(Database):
    """Queries about jobs, and every change of one."""

    def open_job(
        self, study_uid: str, rule: str, revision: int, peer: str | None, at: float, sentence: str
    ) -> JobRow:
        """Return the job of this study, rule and revision, made if it is new."""
        identity = job_id(study_uid, rule, revision)
        table = schema.jobs
        with self._write() as sql:
            known = sql.scalar(select(table.c.id).where(table.c.id == identity))
            if known is None:
                now = time.time()
                sql.execute(
                    insert(table).values(
                        id=identity,
                        study_uid=study_uid,
                        rule=rule,
                        revision=revision,
                        peer=peer,
                        state=State.RECEIVING,
                        reason=sentence,
                        created=now,
                        updated=now,
                        last_arrival=at,
                    )
                )
                leave_event(sql, identity, None, State.RECEIVING, "", sentence)
        return self.job(identity)

    def job(self, identity: str) -> JobRow:
        """Return a job by its id or the unambiguous start of it; raises `NoSuchThing`."""
        table = schema.jobs
        found = self._jobs(select(table).where(table.c.id.startswith(identity, autoescape=True)).limit(2))
        if len(found) != 1:
            raise NoSuchThing(
                f"There is no job {identity!r}." if not found else f"Several jobs start with {identity!r}."
            )
        return found[0]

    def jobs_of(self, study_uid: str) -> list[JobRow]:
        """Return all jobs of a study, newest revision of each rule last."""
        table = schema.jobs
        return self._jobs(select(table).where(table.c.study_uid == study_uid).order_by(table.c.revision))

    def jobs_in(self, *states: State) -> list[JobRow]:
        """Return the jobs in these states, oldest first."""
        table = schema.jobs
        return self._jobs(select(table).where(table.c.state.in_(states)).order_by(table.c.created))

    def jobs_to_confirm(self) -> list[JobRow]:
        """Return the jobs of which a destination may have to be asked what it still has, oldest first.

        Where one destination refuses the result, the others are asked all the same.
        """
        table = schema.jobs
        refused_by_one = and_(table.c.state == State.FAILED, table.c.code == "DELIVERY_REFUSED")
        there = or_(table.c.state.in_((State.SYNTHESISED, State.DELIVERED)), refused_by_one)
        return self._jobs(select(table).where(there, table.c.settled.is_(False)).order_by(table.c.created))

    def jobs(
        self, *, states: Sequence[State] = (), since: float | None = None, limit: int = 1000
    ) -> list[JobRow]:
        """Return jobs for a list, newest first."""
        table = schema.jobs
        query = select(table).order_by(table.c.updated.desc()).limit(limit)
        if states:
            query = query.where(table.c.state.in_(states))
        if since is not None:
            query = query.where(table.c.updated >= since)
        return self._jobs(query)

    def _jobs(self, query: Any) -> list[JobRow]:
        with self._read() as sql:
            return [JobRow(**{**row._mapping, "state": State(row.state)}) for row in sql.execute(query).all()]

    def move(
        self, job: JobRow, to: State, sentence: str, code: str = "", at: float | None = None, **values: Any
    ) -> JobRow:
        """Move a job to another state and leave an event; raises `IllegalTransition`.

        The state is compared again inside the transaction: of two that move the same job, one wins.
        """
        table = schema.jobs
        if to == State.DECLINED:  # each time, perhaps for another reason
            values["answered"] = False
        with self._write() as sql:
            current = State(sql.execute(select(table.c.state).where(table.c.id == job.id)).scalar_one())
            if current != job.state or to not in TRANSITIONS[current]:
                raise IllegalTransition(f"Job {job.id} is {current}; it cannot become {to}.")
            sql.execute(
                update(table)
                .where(table.c.id == job.id)
                .values(state=to, code=code, reason=sentence, updated=at or time.time(), **values)
            )
            leave_event(sql, job.id, current, to, code, sentence, at)
        return self.job(job.id)

    def note(self, job: JobRow, sentence: str, code: str = "", **values: Any) -> None:
        """Leave an event that is no transition; `values` are columns of the job to change with it."""
        table = schema.jobs
        with self._write() as sql:
            if values:
                sql.execute(update(table).where(table.c.id == job.id).values(**values))
            leave_event(sql, job.id, job.state, job.state, code, sentence)

    def set(self, job: JobRow, **values: Any) -> None:
        """Change columns of a job that are no event: progress, the next look."""
        with self._write() as sql:
            sql.execute(update(schema.jobs).where(schema.jobs.c.id == job.id).values(**values))

    def touch(self, job: JobRow, at: float) -> None:
        """Record that instances of this job's study arrived, and that it is to be judged now."""
        self.set(job, last_arrival=max(at, job.last_arrival), look_again=None)

    def events(self, identity: str) -> list[EventRow]:
        """Return a job's timeline."""
        table = schema.events
        with self._read() as sql:
            rows = sql.execute(
                select(table.c.at, table.c.before, table.c.after, table.c.code, table.c.sentence)
                .where(table.c.job_id == identity)
                .order_by(table.c.id)
            )
            return [EventRow(**row._mapping) for row in rows]

    def jobs_due(self, now: float) -> list[JobRow]:
        """Return the collecting jobs whose time to be judged again has come."""
        table = schema.jobs
        return self._jobs(
            select(table).where(
                table.c.state.in_(COLLECTING), or_(table.c.look_again.is_(None), table.c.look_again <= now)
            )
        )

    def next_look(self) -> float | None:
        """Return when the next collecting job is due: 0 (long ago) where one is to be judged now."""
        table = schema.jobs
        with self._read() as sql:
            due: float | None = sql.scalar(
                select(func.min(func.coalesce(table.c.look_again, 0.0))).where(table.c.state.in_(COLLECTING))
            )
            return due

    def claim_look(self, job: JobRow, at: float) -> JobRow:
        """Return the job as it is now, to be judged now; due again at `at` if that fails."""
        self.set(job, look_again=at)
        return self.job(job.id)

    def end_look(self, job: JobRow, at: float, **values: Any) -> None:
        """Record when a job that was judged is due again, and columns to change, unless it moved meanwhile.

        What comes while it is judged (the end of an association, a sender's answer) asks for a look at once;
        that look must not be lost: the time is set only where `claim_look` left its own.
        """
        table = schema.jobs
        with self._write() as sql:
            same = (table.c.id == job.id, table.c.state == job.state)
            if values:
                sql.execute(update(table).where(*same).values(**values))
            sql.execute(
                update(table).where(*same, table.c.look_again == job.look_again).values(look_again=at)
            )

    def counts(self) -> dict[State, int]:
        """Return how many jobs are in each state."""
        table = schema.jobs
        with self._read() as sql:
            rows = sql.execute(select(table.c.state, func.count().label("n")).group_by(table.c.state))
            found = {State(row.state): row.n for row in rows}
        return {state: found.get(state, 0) for state in State}

    def oldest(self, *states: State) -> float | None:
        """Return when the oldest job in these states was last changed."""
        table = schema.jobs
        with self._read() as sql:
            updated: float | None = sql.scalar(
                select(func.min(table.c.updated)).where(table.c.state.in_(states))
            )
            return updated


def leave_event(
    sql: Connection,
    identity: str,
    before: State | None,
    after: State,
    code: str,
    sentence: str,
    at: float | None = None,
) -> None:
    """Add a line to a job's timeline, inside a transaction that changes more."""
    sql.execute(
        insert(schema.events).values(
            job_id=identity, at=at or time.time(), before=before, after=after, code=code, sentence=sentence
        )
    )
