"""Where each instance of a result stands on its way to each destination."""

from __future__ import annotations

import time
from collections.abc import Iterable

from sqlalchemy import delete, insert, select, update

from dicom_node.ledger import schema
from dicom_node.ledger.database import Database
from dicom_node.ledger.rows import DeliveryRow, JobRow
from dicom_node.ledger.states import AT_PEER, DeliveryState


class Deliveries(Database):
    """Queries of deliver."""

    def open_deliveries(
        self, job: JobRow, destinations: Iterable[str], objects: Iterable[tuple[str, str, str, str]]
    ) -> None:
        """Make a row for each (path, SOP class, instance, series) and destination; rows that exist stay."""
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
                    "series_instance_uid": series,
                    "path": path,
                    "state": DeliveryState.PENDING,
                }
                for destination in destinations
                for path, sop_class, instance, series in objects
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

    def made_for(self, study_uids: Iterable[str]) -> set[str]:
        """Return the SOP Instance UIDs of what was made for these studies."""
        deliveries, jobs = schema.deliveries, schema.jobs
        with self._read() as sql:
            made = select(deliveries.c.sop_instance_uid).join(jobs, jobs.c.id == deliveries.c.job_id)
            return set(sql.scalars(made.where(jobs.c.study_uid.in_(list(study_uids))).distinct()))

    def set_deliveries(self, changes: Iterable[tuple[DeliveryRow, DeliveryState, int | None]]) -> None:
        """Record what destinations answered for some instances, in one transaction."""
        table = schema.deliveries
        now = time.time()
        with self._write() as sql:
            for row, state, status in changes:
                sql.execute(
                    update(table)
                    .where(
                        table.c.job_id == row.job_id,
                        table.c.destination == row.destination,
                        table.c.sop_instance_uid == row.sop_instance_uid,
                    )
                    .values(state=state, status=status, at=now)
                )

    def forget_deliveries(self, job: JobRow) -> None:
        """Drop the deliveries of a job that is computed again."""
        with self._write() as sql:
            for table in (schema.deliveries, schema.attempts, schema.confirmations):
                sql.execute(delete(table).where(table.c.job_id == job.id))

    def reopen_deliveries(self, job: JobRow) -> None:
        """Try again what destinations do not have yet; what was asked of them before counts no more."""
        table = schema.deliveries
        with self._write() as sql:
            sql.execute(
                update(table)
                .where(table.c.job_id == job.id, table.c.state.not_in(AT_PEER))
                .values(state=DeliveryState.PENDING)
            )
            for asked in (schema.attempts, schema.confirmations):
                sql.execute(delete(asked).where(asked.c.job_id == job.id))

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
