"""Every query of the ledger. A write is one transaction; a transition checks the table and leaves an
event."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, delete, event, func, insert, or_, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from dicom_node.errors import IllegalTransition, NodeError, NoSuchThing, SpoolFull
from dicom_node.ledger import schema
from dicom_node.ledger.states import COLLECTING, TRANSITIONS, Arrival, DeliveryState, Ending, State

#: Seconds that a writer waits for another one.
_BUSY_S = 30


def job_id(study_uid: str, rule: str, revision: int) -> str:
    """Return the short id of a job: stable, and says nothing about the patient."""
    return hashlib.sha256(f"{study_uid}\n{rule}\n{revision}".encode()).hexdigest()[:10]


@dataclass(frozen=True)
class JobRow:
    """One job, as the ledger has it."""

    id: str
    study_uid: str
    rule: str
    revision: int
    peer: str | None
    state: State
    code: str
    reason: str
    created: float
    updated: float
    last_arrival: float
    look_again: float | None
    by_hand: bool
    to_send: bool
    explanation: dict[str, Any] | None
    inputs: dict[str, list[str]] | None
    starts: int
    step: str
    progress: float
    worker: str
    model: dict[str, str] | None
    remarks: list[str] | None
    seconds: dict[str, float] | None


@dataclass(frozen=True)
class EventRow:
    """One line of a job's timeline."""

    at: float
    before: str | None
    after: str
    code: str
    sentence: str


@dataclass(frozen=True)
class AssociationRow:
    """One association, as the ledger has it."""

    id: int
    calling_aet: str
    called_aet: str
    address: str
    peer: str | None
    opened: float
    closed: float | None
    ending: str | None


@dataclass(frozen=True)
class UnseenArrival:
    """One C-STORE that collect has not looked at."""

    id: int
    association_id: int
    sop_instance_uid: str
    at: float
    kind: Arrival
    path: str
    indexed: bool


@dataclass(frozen=True)
class StudyArrival:
    """One C-STORE of a study."""

    series_uid: str
    sop_instance_uid: str
    association_id: int
    at: float
    kind: Arrival


@dataclass(frozen=True)
class Batch:
    """What one association brought of one study and was not told to its jobs yet."""

    study_uid: str
    association: AssociationRow
    last: float
    arrival_ids: tuple[int, ...]
    #: Instances by kind, those of synthetic series left out; and the latter.
    new: int
    same: int
    other: int
    synthetic: int


@dataclass(frozen=True)
class DeliveryRow:
    """One instance on its way to one destination."""

    job_id: str
    destination: str
    sop_instance_uid: str
    sop_class_uid: str
    path: str
    state: DeliveryState
    status: int | None
    at: float | None


class Ledger:
    """The ledger of one installation; safe to use from several threads and processes.

    Parameters
    ----------
    url : str
        ``sqlite:///PATH``.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        with self._write() as sql:
            schema.metadata.create_all(sql)
            version = sql.scalar(select(schema.versions.c.version))
            if version is None:
                sql.execute(insert(schema.versions).values(version=schema.VERSION))
            elif version != schema.VERSION:
                raise NodeError(
                    f"The ledger has version {version}, this program knows version {schema.VERSION}. "
                    "Use the program that made it, or start with a new spool."
                )

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        try:
            with self._engine.connect().execution_options(immediate=True) as sql, sql.begin():
                yield sql
        except OperationalError as error:
            if isinstance(error.orig, sqlite3.Error) and error.orig.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise SpoolFull("No space is left on the disk of the ledger.") from error
            raise

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._engine.connect() as sql:
            yield sql

    # --- receive ---------------------------------------------------------------------------------

    def open_association(self, calling_aet: str, called_aet: str, address: str, peer: str | None) -> int:
        """Record that an association was accepted; return its number."""
        with self._write() as sql:
            row = sql.execute(
                insert(schema.associations).values(
                    calling_aet=calling_aet,
                    called_aet=called_aet,
                    address=address,
                    peer=peer,
                    opened=time.time(),
                )
            )
            assert row.inserted_primary_key is not None
            return int(row.inserted_primary_key[0])

    def close_association(self, association_id: int, ending: Ending) -> None:
        """Record how an association ended (the first ending counts); its studies are to be judged now."""
        a, i, j = schema.arrivals, schema.instances, schema.jobs
        studies = (
            select(i.c.study_uid)
            .join(a, a.c.sop_instance_uid == i.c.sop_instance_uid)
            .where(a.c.association_id == association_id)
        )
        with self._write() as sql:
            sql.execute(
                update(schema.associations)
                .where(schema.associations.c.id == association_id, schema.associations.c.closed.is_(None))
                .values(closed=time.time(), ending=ending)
            )
            sql.execute(
                update(j).where(j.c.study_uid.in_(studies), j.c.state.in_(COLLECTING)).values(look_again=None)
            )

    def close_lost_associations(self) -> int:
        """Mark the associations that a killed node left open as aborted; return their number."""
        with self._write() as sql:
            return sql.execute(
                update(schema.associations)
                .where(schema.associations.c.closed.is_(None))
                .values(closed=time.time(), ending=Ending.ABORTED)
            ).rowcount

    def digest_of(self, sop_instance_uid: str) -> str | None:
        """Return the SHA-256 of the instance that we hold under this UID."""
        table = schema.instances
        with self._read() as sql:
            return sql.scalar(select(table.c.sha256).where(table.c.sop_instance_uid == sop_instance_uid))

    def store_instance(
        self,
        association_id: int,
        *,
        sop_instance_uid: str,
        sop_class_uid: str,
        transfer_syntax_uid: str,
        path: str,
        size_bytes: int,
        sha256: str,
    ) -> None:
        """Record a new instance and its arrival, in one transaction."""
        now = time.time()
        with self._write() as sql:
            sql.execute(
                insert(schema.instances).values(
                    sop_instance_uid=sop_instance_uid,
                    sop_class_uid=sop_class_uid,
                    transfer_syntax_uid=transfer_syntax_uid,
                    path=path,
                    bytes=size_bytes,
                    sha256=sha256,
                    received=now,
                )
            )
            _arrive(sql, association_id, sop_instance_uid, now, Arrival.NEW)

    def store_repeat(self, association_id: int, sop_instance_uid: str, kind: Arrival) -> None:
        """Record that an instance came again, with equal or with other bytes."""
        with self._write() as sql:
            _arrive(sql, association_id, sop_instance_uid, time.time(), kind)

    # --- collect ---------------------------------------------------------------------------------

    def unseen_arrivals(self, limit: int = 500) -> list[UnseenArrival]:
        """Return the C-STOREs that collect has not looked at, in their order."""
        a, i = schema.arrivals, schema.instances
        with self._read() as sql:
            rows = sql.execute(
                select(
                    a.c.id,
                    a.c.association_id,
                    a.c.sop_instance_uid,
                    a.c.at,
                    a.c.kind,
                    i.c.path,
                    i.c.study_uid,
                    i.c.problem,
                )
                .join(i, i.c.sop_instance_uid == a.c.sop_instance_uid)
                .where(a.c.seen.is_(False))
                .order_by(a.c.id)
                .limit(limit)
            )
            return [
                UnseenArrival(
                    r.id,
                    r.association_id,
                    r.sop_instance_uid,
                    r.at,
                    Arrival(r.kind),
                    r.path,
                    indexed=r.study_uid is not None or r.problem is not None,
                )
                for r in rows
            ]

    def index_instances(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Write what was read of new instances, by UID: study_uid, series_uid, header, or problem."""
        with self._write() as sql:
            for uid, values in found.items():
                sql.execute(
                    update(schema.instances)
                    .where(schema.instances.c.sop_instance_uid == uid)
                    .values(**values)
                )

    def mark_seen(self, arrival_ids: Iterable[int]) -> None:
        """Record that collect has looked at these arrivals."""
        with self._write() as sql:
            sql.execute(
                update(schema.arrivals).where(schema.arrivals.c.id.in_(list(arrival_ids))).values(seen=True)
            )

    def untold_batches(self) -> list[Batch]:
        """Return what arrived and is not summed up in a timeline, by association and study."""
        a, i = schema.arrivals, schema.instances
        with self._read() as sql:
            rows = sql.execute(
                select(a.c.id, a.c.association_id, a.c.at, a.c.kind, i.c.study_uid, i.c.header["synthetic"])
                .join(i, i.c.sop_instance_uid == a.c.sop_instance_uid)
                .where(a.c.told.is_(False), a.c.seen.is_(True), i.c.study_uid.is_not(None))
                .order_by(a.c.id)
            ).all()

        def count(members: list[Any], kind: Arrival) -> int:
            return sum(row.kind == kind and not row[5] for row in members)

        groups: dict[tuple[int, str], list[Any]] = {}
        for row in rows:
            groups.setdefault((row.association_id, row.study_uid), []).append(row)
        return [
            Batch(
                study_uid,
                self.association(association_id),
                max(row.at for row in members),
                tuple(row.id for row in members),
                new=count(members, Arrival.NEW),
                same=count(members, Arrival.SAME),
                other=count(members, Arrival.OTHER),
                synthetic=sum(bool(row[5]) for row in members),
            )
            for (association_id, study_uid), members in groups.items()
        ]

    def mark_told(self, arrival_ids: Iterable[int]) -> None:
        """Record that these arrivals are summed up."""
        with self._write() as sql:
            sql.execute(
                update(schema.arrivals).where(schema.arrivals.c.id.in_(list(arrival_ids))).values(told=True)
            )

    def header_of(self, sop_instance_uid: str) -> dict[str, Any] | None:
        """Return the stored header of an instance."""
        table = schema.instances
        with self._read() as sql:
            return sql.scalar(select(table.c.header).where(table.c.sop_instance_uid == sop_instance_uid))

    def association(self, association_id: int) -> AssociationRow:
        """Return one association."""
        with self._read() as sql:
            row = sql.execute(
                select(schema.associations).where(schema.associations.c.id == association_id)
            ).one()
            return AssociationRow(**row._mapping)

    def study_headers(self, study_uid: str) -> list[tuple[str, dict[str, Any]]]:
        """Return (path, header) of all readable instances of a study."""
        table = schema.instances
        with self._read() as sql:
            rows = sql.execute(
                select(table.c.path, table.c.header)
                .where(table.c.study_uid == study_uid, table.c.header.is_not(None))
                .order_by(table.c.received)
            )
            return [(row.path, row.header) for row in rows]

    def study_arrivals(self, study_uid: str) -> list[StudyArrival]:
        """Return each C-STORE of this study."""
        a, i = schema.arrivals, schema.instances
        with self._read() as sql:
            rows = sql.execute(
                select(i.c.series_uid, i.c.sop_instance_uid, a.c.association_id, a.c.at, a.c.kind)
                .join(i, i.c.sop_instance_uid == a.c.sop_instance_uid)
                .where(i.c.study_uid == study_uid)
            )
            return [StudyArrival(**{**row._mapping, "kind": Arrival(row.kind)}) for row in rows]

    def associations_of(self, study_uid: str) -> dict[int, AssociationRow]:
        """Return the associations that brought instances of this study."""
        a, i = schema.arrivals, schema.instances
        ids = (
            select(a.c.association_id)
            .join(i, i.c.sop_instance_uid == a.c.sop_instance_uid)
            .where(i.c.study_uid == study_uid)
        )
        with self._read() as sql:
            rows = sql.execute(select(schema.associations).where(schema.associations.c.id.in_(ids)))
            return {row.id: AssociationRow(**row._mapping) for row in rows}

    def unreadable_beside(self, study_uid: str) -> int:
        """Return how many unreadable instances came by the associations that brought this study."""
        a, i = schema.arrivals, schema.instances
        associations = (
            select(a.c.association_id)
            .join(i, i.c.sop_instance_uid == a.c.sop_instance_uid)
            .where(i.c.study_uid == study_uid)
        )
        with self._read() as sql:
            return int(
                sql.scalar(
                    select(func.count(func.distinct(i.c.sop_instance_uid)))
                    .join(a, i.c.sop_instance_uid == a.c.sop_instance_uid)
                    .where(i.c.problem.is_not(None), a.c.association_id.in_(associations))
                )
                or 0
            )

    def jobs_due(self, now: float) -> list[JobRow]:
        """Return the collecting jobs whose time to be judged again has come."""
        table = schema.jobs
        return self._jobs(
            select(table).where(
                table.c.state.in_(COLLECTING), or_(table.c.look_again.is_(None), table.c.look_again <= now)
            )
        )

    def next_look(self) -> float | None:
        """Return when the next collecting job is due."""
        table = schema.jobs
        with self._read() as sql:
            due: float | None = sql.scalar(
                select(func.min(table.c.look_again)).where(table.c.state.in_(COLLECTING))
            )
            return due

    # --- jobs ------------------------------------------------------------------------------------

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
                _leave_event(sql, identity, None, State.RECEIVING, "", sentence)
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
        with self._write() as sql:
            current = State(sql.execute(select(table.c.state).where(table.c.id == job.id)).scalar_one())
            if current != job.state or to not in TRANSITIONS[current]:
                raise IllegalTransition(f"Job {job.id} is {current}; it cannot become {to}.")
            sql.execute(
                update(table)
                .where(table.c.id == job.id)
                .values(state=to, code=code, reason=sentence, updated=at or time.time(), **values)
            )
            _leave_event(sql, job.id, current, to, code, sentence, at)
        return self.job(job.id)

    def note(self, job: JobRow, sentence: str, code: str = "", **values: Any) -> None:
        """Leave an event that is no transition; `values` are columns of the job to change with it."""
        table = schema.jobs
        with self._write() as sql:
            if values:
                sql.execute(update(table).where(table.c.id == job.id).values(**values))
            _leave_event(sql, job.id, job.state, job.state, code, sentence)

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

    # --- deliver ---------------------------------------------------------------------------------

    def open_deliveries(
        self, job: JobRow, destinations: Iterable[str], objects: Iterable[tuple[str, str, str]]
    ) -> None:
        """Make a row for each (path, SOP class, SOP instance) and destination; rows that exist stay."""
        table = schema.deliveries
        with self._write() as sql:
            known = {
                (row.destination, row.sop_instance_uid)
                for row in sql.execute(
                    select(table.c.destination, table.c.sop_instance_uid).where(table.c.job_id == job.id)
                )
            }
            objects = list(objects)
            rows = [
                {
                    "job_id": job.id,
                    "destination": destination,
                    "sop_instance_uid": instance,
                    "sop_class_uid": sop_class,
                    "path": path,
                    "state": DeliveryState.PENDING,
                }
                for destination in destinations
                for path, sop_class, instance in objects
                if (destination, instance) not in known
            ]
            if rows:
                sql.execute(insert(table), rows)

    def deliveries(self, identity: str) -> list[DeliveryRow]:
        """Return the deliveries of a job."""
        table = schema.deliveries
        with self._read() as sql:
            rows = sql.execute(
                select(table).where(table.c.job_id == identity).order_by(table.c.destination, table.c.path)
            )
            return [DeliveryRow(**{**row._mapping, "state": DeliveryState(row.state)}) for row in rows]

    def set_delivery(self, row: DeliveryRow, state: DeliveryState, status: int | None) -> None:
        """Record what a destination answered for one instance."""
        table = schema.deliveries
        with self._write() as sql:
            sql.execute(
                update(table)
                .where(
                    table.c.job_id == row.job_id,
                    table.c.destination == row.destination,
                    table.c.sop_instance_uid == row.sop_instance_uid,
                )
                .values(state=state, status=status, at=time.time())
            )

    def forget_deliveries(self, job: JobRow) -> None:
        """Drop what is not stored yet, before a job is delivered again."""
        table = schema.deliveries
        with self._write() as sql:
            sql.execute(delete(table).where(table.c.job_id == job.id, table.c.state != DeliveryState.STORED))
            sql.execute(delete(schema.attempts).where(schema.attempts.c.job_id == job.id))

    def attempt(self, identity: str, destination: str) -> tuple[int, float, str]:
        """Return (attempts that did not do, earliest time of the next, why the last did not)."""
        table = schema.attempts
        with self._read() as sql:
            row = sql.execute(
                select(table.c.count, table.c.next_at, table.c.sentence).where(
                    table.c.job_id == identity, table.c.destination == destination
                )
            ).one_or_none()
            return (row[0], row[1], row[2]) if row else (0, 0.0, "")

    def set_attempt(self, identity: str, destination: str, count: int, next_at: float, sentence: str) -> None:
        """Record an attempt to deliver that did not do."""
        table = schema.attempts
        with self._write() as sql:
            sql.execute(delete(table).where(table.c.job_id == identity, table.c.destination == destination))
            sql.execute(
                insert(table).values(
                    job_id=identity, destination=destination, count=count, next_at=next_at, sentence=sentence
                )
            )

    # --- monitor ---------------------------------------------------------------------------------

    def counts(self) -> dict[State, int]:
        """Return how many jobs are in each state."""
        table = schema.jobs
        with self._read() as sql:
            rows = sql.execute(select(table.c.state, func.count().label("n")).group_by(table.c.state))
            found = {State(row.state): row.n for row in rows}
        return {state: found.get(state, 0) for state in State}

    def totals(self) -> dict[str, int]:
        """Return counters that only grow: arrivals by kind, associations by ending, unreadable instances."""
        a, s, i = schema.arrivals, schema.associations, schema.instances
        with self._read() as sql:
            arrived = sql.execute(select(a.c.kind, func.count().label("n")).group_by(a.c.kind))
            totals = {f"arrivals_{row.kind.lower()}": row.n for row in arrived}
            ended = sql.execute(
                select(s.c.ending, func.count().label("n"))
                .where(s.c.ending.is_not(None))
                .group_by(s.c.ending)
            )
            totals |= {f"associations_{row.ending.lower()}": row.n for row in ended}
            totals["unreadable"] = int(
                sql.scalar(select(func.count()).select_from(i).where(i.c.problem.is_not(None))) or 0
            )
        return totals

    def oldest(self, *states: State) -> float | None:
        """Return when the oldest job in these states was last changed."""
        table = schema.jobs
        with self._read() as sql:
            updated: float | None = sql.scalar(
                select(func.min(table.c.updated)).where(table.c.state.in_(states))
            )
            return updated


def _arrive(sql: Connection, association_id: int, sop_instance_uid: str, now: float, kind: Arrival) -> None:
    sql.execute(
        insert(schema.arrivals).values(
            association_id=association_id,
            sop_instance_uid=sop_instance_uid,
            at=now,
            kind=kind,
            seen=False,
            told=False,
        )
    )


def _leave_event(
    sql: Connection,
    identity: str,
    before: State | None,
    after: State,
    code: str,
    sentence: str,
    at: float | None = None,
) -> None:
    sql.execute(
        insert(schema.events).values(
            job_id=identity, at=at or time.time(), before=before, after=after, code=code, sentence=sentence
        )
    )


def _engine(url: str) -> Engine:
    path = Path(url.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = create_engine(url, connect_args={"timeout": _BUSY_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we write BEGIN ourselves, below
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a row is on the disk before 0x0000
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(sql: Connection) -> None:
        immediate = sql.get_execution_options().get("immediate", False)
        sql.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine
