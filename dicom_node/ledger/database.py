"""The database behind the ledger: one connection at a time reads, one writes; a write is one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, insert, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from dicom_node.errors import NodeError, SpoolFull
from dicom_node.ledger import schema
from dicom_node.ledger.migrations import migrate

#: Seconds that a writer waits for another one.
_BUSY_S = 30


class Database:
    """The tables of one installation; safe to use from several threads and processes.

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
            elif version > schema.VERSION:
                raise NodeError(
                    f"The ledger has version {version}, this program knows version {schema.VERSION}. "
                    "Use the program that made it, or start with a new spool."
                )
            elif version < schema.VERSION:
                migrate(sql, version, schema.VERSION)
                sql.execute(update(schema.versions).values(version=schema.VERSION))

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
