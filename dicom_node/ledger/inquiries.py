"""What the senders say they hold: an answer for each study and peer, the newest only."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import and_, delete, func, insert, select, update

from dicom_node.ledger import schema
from dicom_node.ledger.jobs import Jobs
from dicom_node.ledger.rows import Held, Inquiry, JobRow
from dicom_node.ledger.states import COLLECTING, State


class Inquiries(Jobs):
    """Queries of the step that asks the senders, and of collect, which reads the answers."""

    def jobs_to_inquire(self) -> list[tuple[JobRow, float | None]]:
        """Return the collecting jobs whose sender is known, and when it was asked about the study."""
        j, i = schema.jobs, schema.inquiries
        query = (
            select(j, i.c.asked)
            .outerjoin(i, and_(i.c.study_uid == j.c.study_uid, i.c.peer == j.c.peer))
            .where(j.c.state.in_(COLLECTING), j.c.peer.is_not(None))
        )
        with self._read() as sql:
            found = []
            for row in sql.execute(query).all():
                values = dict(row._mapping)
                asked = values.pop("asked")
                found.append((JobRow(**{**values, "state": State(row.state)}), asked))
            return found

    def series_counts(self, study_uid: str) -> dict[str, int]:
        """Return how many readable instances of each series of a study are here."""
        table = schema.instances
        with self._read() as sql:
            rows = sql.execute(
                select(table.c.series_uid, func.count().label("n"))
                .where(table.c.study_uid == study_uid, table.c.header.is_not(None))
                .group_by(table.c.series_uid)
            )
            return {row.series_uid: row.n for row in rows}

    def record_inquiry(self, study_uid: str, inquiry: Inquiry) -> None:
        """Keep an answer instead of an earlier one; the study is to be judged now."""
        i, j = schema.inquiries, schema.jobs
        held = {uid: asdict(one) for uid, one in inquiry.held.items()}
        with self._write() as sql:
            sql.execute(delete(i).where(i.c.study_uid == study_uid, i.c.peer == inquiry.peer))
            sql.execute(
                insert(i).values(study_uid=study_uid, peer=inquiry.peer, asked=inquiry.asked, held=held)
            )
            sql.execute(
                update(j).where(j.c.study_uid == study_uid, j.c.state.in_(COLLECTING)).values(look_again=None)
            )

    def inquiry(self, study_uid: str, peer: str | None) -> Inquiry | None:
        """Return the newest answer of a peer about a study."""
        table = schema.inquiries
        with self._read() as sql:
            row = sql.execute(
                select(table).where(table.c.study_uid == study_uid, table.c.peer == peer)
            ).one_or_none()
            if row is None:
                return None
            return Inquiry(row.peer, row.asked, {uid: Held(**values) for uid, values in row.held.items()})
