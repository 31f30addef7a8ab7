"""What destinations were asked about what they stored, and what they said."""

from __future__ import annotations

import time
from collections.abc import Mapping

from sqlalchemy import insert, select, update

from dicom_node.ledger import schema
from dicom_node.ledger.database import Database
from dicom_node.ledger.rows import ConfirmationRow
from dicom_node.ledger.states import DeliveryState, How


class Confirmations(Database):
    """Queries of confirm, and what receive hears by N-EVENT-REPORT."""

    def open_confirmation(self, transaction_uid: str, job_id: str, destination: str, how: How) -> None:
        """Record a question before it is asked: its answer may overtake the reply to it."""
        with self._write() as sql:
            sql.execute(
                insert(schema.confirmations).values(
                    transaction_uid=transaction_uid,
                    job_id=job_id,
                    destination=destination,
                    how=how,
                    asked=time.time(),
                )
            )

    def confirmations(self, job_id: str, destination: str) -> list[ConfirmationRow]:
        """Return what a destination was asked about a job, the oldest first."""
        table = schema.confirmations
        with self._read() as sql:
            rows = sql.execute(
                select(table)
                .where(table.c.job_id == job_id, table.c.destination == destination)
                .order_by(table.c.asked)
            )
            return [ConfirmationRow(**{**row._mapping, "how": How(row.how)}) for row in rows]

    def end_confirmation(
        self, transaction_uid: str, found: Mapping[str, tuple[DeliveryState, int | None]]
    ) -> bool:
        """Record an answer: by SOP Instance UID, the state and the reason; empty when none came.

        Returns False when nobody asked that question. Of an answer that comes after we gave it up, only
        what it confirms counts: what it misses may have been sent again since.
        """
        asked, rows = schema.confirmations, schema.deliveries
        now = time.time()
        with self._write() as sql:
            question = sql.execute(
                select(asked).where(asked.c.transaction_uid == transaction_uid)
            ).one_or_none()
            if question is None:
                return False
            counts = dict.fromkeys((DeliveryState.COMMITTED, DeliveryState.LOST), 0)
            for uid, (state, reason) in found.items():
                if question.ended is not None and state != DeliveryState.COMMITTED:
                    continue
                changed = sql.execute(
                    update(rows)
                    .where(
                        rows.c.job_id == question.job_id,
                        rows.c.destination == question.destination,
                        rows.c.sop_instance_uid == uid,
                        rows.c.state == DeliveryState.STORED,
                    )
                    .values(state=state, status=reason, at=now)
                ).rowcount
                if state in counts:
                    counts[state] += changed
            sql.execute(
                update(asked)
                .where(asked.c.transaction_uid == transaction_uid)
                .values(
                    ended=question.ended or now,
                    confirmed=asked.c.confirmed + counts[DeliveryState.COMMITTED],
                    lost=asked.c.lost + counts[DeliveryState.LOST],
                )
            )
        return True
