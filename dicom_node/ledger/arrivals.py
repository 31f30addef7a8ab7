"""What came in: associations, instances, and each C-STORE."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from dicom_node.ledger import schema
from dicom_node.ledger.database import Database
from dicom_node.ledger.rows import AssociationRow, Batch, StudyArrival, UnseenArrival
from dicom_node.ledger.states import COLLECTING, Arrival, Ending


class Arrivals(Database):
    """Queries of receive and collect."""

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
        """Return the SHA-256 of the instance that we hold under this UID; None also when it was purged."""
        table = schema.instances
        with self._read() as sql:
            return sql.scalar(
                select(table.c.sha256).where(
                    table.c.sop_instance_uid == sop_instance_uid, table.c.purged.is_(None)
                )
            )

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
        """Record an instance that is new, or back after it was purged, and its arrival at once."""
        table = schema.instances
        now = time.time()
        values = {
            "sop_class_uid": sop_class_uid,
            "transfer_syntax_uid": transfer_syntax_uid,
            "path": path,
            "bytes": size_bytes,
            "sha256": sha256,
            "received": now,
        }
        with self._write() as sql:
            back = sql.execute(
                update(table)
                .where(table.c.sop_instance_uid == sop_instance_uid, table.c.purged.is_not(None))
                .values(**values, purged=None, problem=None)
            ).rowcount
            if not back:
                sql.execute(insert(table).values(sop_instance_uid=sop_instance_uid, **values))
            _arrive(sql, association_id, sop_instance_uid, now, Arrival.NEW)

    def store_repeat(self, association_id: int, sop_instance_uid: str, kind: Arrival) -> None:
        """Record that an instance came again, with equal or with other bytes."""
        with self._write() as sql:
            _arrive(sql, association_id, sop_instance_uid, time.time(), kind)

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

    def has_unseen(self, association_ids: Iterable[int]) -> bool:
        """Return whether collect has yet to look at something that these associations brought."""
        a = schema.arrivals
        with self._read() as sql:
            found = sql.scalar(
                select(a.c.id)
                .where(a.c.seen.is_(False), a.c.association_id.in_(list(association_ids)))
                .limit(1)
            )
        return found is not None

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

    def series_paths(self, study_uid: str, chosen: Mapping[str, str]) -> dict[str, list[str]]:
        """Return the paths of the chosen series, {role: series UID}, by role."""
        rows = self.study_headers(study_uid)
        return {
            role: [path for path, values in rows if values["series_uid"] == uid]
            for role, uid in chosen.items()
        }

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
