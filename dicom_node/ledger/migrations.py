"""From one version of the ledger to the next, in one transaction each; a new ledger needs none of it."""

from __future__ import annotations

from sqlalchemy import Connection

#: What makes of version N the version N + 1. New tables are made before, from `schema`.
STEPS: dict[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE instances ADD COLUMN purged FLOAT",
        "CREATE INDEX instances_kept ON instances (received) WHERE purged IS NULL",
        "ALTER TABLE jobs ADD COLUMN settled BOOLEAN NOT NULL DEFAULT 0",
        "CREATE INDEX jobs_unsettled ON jobs (state, settled)",
        "ALTER TABLE deliveries ADD COLUMN series_instance_uid VARCHAR NOT NULL DEFAULT ''",
        # What version 1 delivered is not asked about.
        "UPDATE jobs SET settled = 1 WHERE state = 'DELIVERED'",
        # What it was about to deliver is opened again, with the series of each instance.
        "DELETE FROM deliveries WHERE job_id IN (SELECT id FROM jobs WHERE state <> 'DELIVERED')",
    ),
    2: (
        "ALTER TABLE jobs ADD COLUMN answered BOOLEAN NOT NULL DEFAULT 0",
        "CREATE INDEX jobs_unanswered ON jobs (state, answered)",
        # What version 2 declined is long looked at: no answer comes after the event.
        "UPDATE jobs SET answered = 1 WHERE state = 'DECLINED'",
    ),
}


def migrate(sql: Connection, before: int, after: int) -> None:
    """Bring the tables of version `before` to version `after`."""
    for version in range(before, after):
        for statement in STEPS[version]:
            sql.exec_driver_sql(statement)
