"""Documents about jobs, the answer to a declined study or a retraction, and who has them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from sqlalchemy import delete, insert, select, update

from dicom_node.ledger import schema
from dicom_node.ledger.jobs import Jobs, leave_event
from dicom_node.ledger.rows import DocumentRow, JobRow, PostingRow
from dicom_node.ledger.states import DeliveryState, DocumentState, State
from synthesis.job import Form

#: Nobody has these: asked for once more, they are begun anew.
_BEGIN_ANEW = frozenset({DocumentState.DROPPED, DocumentState.FAILED})


class Documents(Jobs):
    """Queries of answer, and of a retraction by hand."""

    def jobs_to_answer(self) -> list[JobRow]:
        """Return the declined jobs about whose answer nothing was decided yet, oldest first."""
        table = schema.jobs
        return self._jobs(
            select(table)
            .where(table.c.state == State.DECLINED, table.c.answered.is_(False))
            .order_by(table.c.created)
        )

    def set_answered(self, job: JobRow) -> None:
        """Record that it was decided about the answer to this job, unless it moved on meanwhile."""
        with self._write() as sql:
            sql.execute(_answered(job))

    def open_document(
        self, job: JobRow, identity: str, form: Form, code: str, reason: str, destinations: Iterable[str]
    ) -> bool:
        """Ask for a document about a job, once: False when it is there, or on its way.

        With an answer, it is decided about the job; with a retraction, no destination is asked any more what
        it keeps of the result, and the job says that it is retracted.
        """
        table, postings, jobs = schema.documents, schema.postings, schema.jobs
        names = list(destinations)
        with self._write() as sql:
            known = sql.scalar(select(table.c.state).where(table.c.id == identity))
            if form != Form.KO:
                sql.execute(_answered(job))
            if known is not None and DocumentState(known) not in _BEGIN_ANEW:
                return False
            if form == Form.KO:
                told = f"Retracted: {reason}"
                values: dict[str, Any] = {"settled": True, "code": "RETRACTED", "reason": told}
                sql.execute(update(jobs).where(jobs.c.id == job.id).values(**values))
                sentence = f"{told} To be rejected by {', '.join(names)}."
                leave_event(sql, job.id, job.state, job.state, "RETRACTED", sentence)
            else:
                sentence = f"The study gets an answer ({form.upper()}) that says so, in {', '.join(names)}."
                leave_event(sql, job.id, job.state, job.state, "ANSWER", sentence)
            sql.execute(delete(postings).where(postings.c.document_id == identity))
            sql.execute(delete(table).where(table.c.id == identity))
            sql.execute(
                insert(table).values(
                    id=identity,
                    job_id=job.id,
                    form=form,
                    code=code,
                    reason=reason,
                    state=DocumentState.ASKED,
                    created=time.time(),
                )
            )
            for name in names:
                row = {"document_id": identity, "destination": name, "state": DeliveryState.PENDING}
                sql.execute(insert(postings).values(**row))
        return True

    def documents(self, identity: str) -> list[DocumentRow]:
        """Return the documents about a job, oldest first."""
        table = schema.documents
        return self._documents(select(table).where(table.c.job_id == identity).order_by(table.c.created))

    def documents_under_way(self) -> list[DocumentRow]:
        """Return the documents that are to be written or sent, oldest first."""
        table = schema.documents
        under_way = table.c.state.in_((DocumentState.ASKED, DocumentState.WRITTEN))
        return self._documents(select(table).where(under_way).order_by(table.c.created))

    def _documents(self, query: Any) -> list[DocumentRow]:
        with self._read() as sql:
            return [
                DocumentRow(
                    **{**row._mapping, "form": Form(row.form), "state": DocumentState(row.state)},
                )
                for row in sql.execute(query).all()
            ]

    def move_document(
        self, document: DocumentRow, to: DocumentState, sentence: str = "", code: str = "", path: str = ""
    ) -> None:
        """Move a document to another state; a sentence becomes an event of its job."""
        table, jobs = schema.documents, schema.jobs
        with self._write() as sql:
            sql.execute(
                update(table).where(table.c.id == document.id).values(state=to, path=path or document.path)
            )
            if sentence:
                state = State(
                    sql.execute(select(jobs.c.state).where(jobs.c.id == document.job_id)).scalar_one()
                )
                leave_event(sql, document.job_id, state, state, code, sentence)

    def postings(self, identity: str) -> list[PostingRow]:
        """Return where a document stands on its way to each destination."""
        table = schema.postings
        with self._read() as sql:
            rows = sql.execute(
                select(table).where(table.c.document_id == identity).order_by(table.c.destination)
            )
            return [PostingRow(**{**row._mapping, "state": DeliveryState(row.state)}) for row in rows]

    def set_posting(self, posting: PostingRow, **values: Any) -> None:
        """Record what came of an attempt to send a document."""
        table = schema.postings
        with self._write() as sql:
            sql.execute(
                update(table)
                .where(table.c.document_id == posting.document_id, table.c.destination == posting.destination)
                .values(**values, at=time.time())
            )


def _answered(job: JobRow) -> Any:
    """Return the statement that records the decision about the answer to a job as it stands."""
    table = schema.jobs
    as_it_stands = table.c.state == job.state, table.c.code == job.code, table.c.reason == job.reason
    return update(table).where(table.c.id == job.id, *as_it_stands).values(answered=True)
