"""What may leave the spool, and that it left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, exists, or_, select, update

from dicom_node.ledger import schema
from dicom_node.ledger.database import Database
from dicom_node.ledger.states import DocumentState, State

#: So many rows are looked at in one statement, and so many files leave in one transaction.
_AT_ONCE = 500


@dataclass(frozen=True)
class Until:
    """What ended before these times may leave the spool."""

    #: A study that was done, declined or cancelled, and what no job wants.
    ended: float
    #: A study whose job failed: a person should see it.
    failed: float


class Keeping(Database):
    """Queries of retention.

    Files leave inside the transaction that records it: nobody is told that we have what just went.
    """

    def instances_to_purge(self, until: Until) -> list[tuple[str, int]]:
        """Return (path, bytes) of the instances that may leave."""
        with self._read() as sql:
            return [(row.path, row.bytes) for row in sql.execute(_instances(until))]

    def purge_instances(self, until: Until, remove: Callable[[str], None]) -> int:
        """Remove some of the instances that may leave; return how many, 0 when none is left.

        What was read of them leaves the ledger too: to collect it is as if they had never come.
        """
        table = schema.instances
        with self._write() as sql:
            rows = sql.execute(_instances(until).limit(_AT_ONCE)).all()
            for row in rows:
                remove(row.path)
            sql.execute(
                update(table)
                .where(table.c.sop_instance_uid.in_([row.sop_instance_uid for row in rows]))
                .values(purged=time.time(), study_uid=None, series_uid=None, header=None)
            )
        return len(rows)

    def has_purged(self, paths: Sequence[str]) -> bool:
        """Return whether one of these files has left the spool."""
        table = schema.instances
        if not paths:
            return False
        with self._read() as sql:
            gone = table.c.path.in_(paths), table.c.purged.is_not(None)
            return sql.scalar(select(table.c.path).where(*gone).limit(1)) is not None

    def jobs_to_purge(self, identities: Sequence[str], until: Until) -> list[str]:
        """Return those of these jobs whose folders may leave."""
        found: list[str] = []
        for begin in range(0, len(identities), _AT_ONCE):
            with self._read() as sql:
                found += sql.scalars(_jobs(identities[begin : begin + _AT_ONCE], until))
        return found

    def purge_job(self, identity: str, until: Until, remove: Callable[[str], None]) -> None:
        """Remove the folder of a job, unless somebody has begun with it again."""
        with self._write() as sql:
            for still in sql.scalars(_jobs([identity], until)).all():
                remove(still)


def _over(until: Until) -> Any:
    """Return the condition that a job needs its files no more."""
    table, documents = schema.jobs, schema.documents
    done = or_(
        table.c.state.in_((State.COMMITTED, State.CANCELLED)),
        and_(table.c.state == State.DELIVERED, table.c.settled.is_(True)),
        and_(table.c.state == State.DECLINED, table.c.answered.is_(True)),
    )
    under_way = documents.c.state.in_((DocumentState.ASKED, DocumentState.WRITTEN))
    document = exists().where(documents.c.job_id == table.c.id, under_way).correlate(table)
    return and_(
        ~document,
        or_(
            and_(done, table.c.updated < until.ended),
            and_(table.c.state == State.FAILED, table.c.updated < until.failed),
        ),
    )


def _jobs(identities: Sequence[str], until: Until) -> Any:
    return select(schema.jobs.c.id).where(schema.jobs.c.id.in_(identities), _over(until))


def _instances(until: Until) -> Any:
    i, a, j = schema.instances, schema.arrivals, schema.jobs
    unseen = exists().where(a.c.sop_instance_uid == i.c.sop_instance_uid, a.c.seen.is_(False))
    wanted = exists().where(j.c.study_uid == i.c.study_uid, ~_over(until))
    return (
        select(i.c.sop_instance_uid, i.c.path, i.c.bytes)
        .where(i.c.purged.is_(None), i.c.received < until.ended, ~unseen, ~wanted)
        .order_by(i.c.received)
    )
