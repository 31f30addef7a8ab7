"""The tables. Times are seconds since 1970 (UTC); JSON columns hold what only people and one step read."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

VERSION = 3

metadata = MetaData()

versions = Table("schema_version", metadata, Column("version", Integer, nullable=False))

associations = Table(
    "associations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("calling_aet", String, nullable=False),
    Column("called_aet", String, nullable=False),
    Column("address", String, nullable=False),
    Column("peer", String),  # name in the settings, if it is known
    Column("opened", Float, nullable=False),
    Column("closed", Float),
    Column("ending", String),  # Ending
)

instances = Table(
    "instances",
    metadata,
    Column("sop_instance_uid", String, primary_key=True),
    Column("sop_class_uid", String, nullable=False),
    Column("transfer_syntax_uid", String, nullable=False),
    Column("path", String, nullable=False),  # relative to the spool
    Column("bytes", Integer, nullable=False),
    Column("sha256", String, nullable=False),
    Column("received", Float, nullable=False),
    # filled by collect, once it has read the header
    Column("study_uid", String),
    Column("series_uid", String),
    Column("header", JSON),  # headers.Header
    Column("problem", String),  # sentence: why this instance cannot be read
    Column("purged", Float),  # when the file left the spool; what was read of it went with it
    Index("instances_by_study", "study_uid"),
)
Index("instances_kept", instances.c.received, sqlite_where=instances.c.purged.is_(None))

arrivals = Table(
    "arrivals",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("association_id", ForeignKey("associations.id"), nullable=False),
    Column("sop_instance_uid", ForeignKey("instances.sop_instance_uid"), nullable=False),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),  # Arrival
    Column("seen", Boolean, nullable=False, default=False),  # its header was read, its job knows
    Column("told", Boolean, nullable=False, default=False),  # summed up in the jobs' timelines
    Index("arrivals_unseen", "seen"),
    Index("arrivals_untold", "told"),
    Index("arrivals_by_instance", "sop_instance_uid"),
    Index("arrivals_by_association", "association_id"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String, primary_key=True),
    Column("study_uid", String, nullable=False),
    Column("rule", String, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("peer", String),  # name of the peer that sent the study
    Column("state", String, nullable=False),  # State
    Column("code", String, nullable=False, default=""),
    Column("reason", String, nullable=False, default=""),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Column("last_arrival", Float, nullable=False),
    Column("look_again", Float),  # when collect should judge again, even if nothing arrives
    Column("by_hand", Boolean, nullable=False, default=False),  # a person chose the series
    Column("explanation", JSON),  # choose.Choice, as `queue explain` prints it
    Column("to_send", Boolean, nullable=False, default=False),  # QUEUED by hand, not yet handed to the broker
    Column("inputs", JSON),  # {"T1W": [paths], "FLAIR": [paths]}
    Column("starts", Integer, nullable=False, default=0),
    Column("step", String, nullable=False, default=""),
    Column("progress", Float, nullable=False, default=0.0),
    Column("worker", String, nullable=False, default=""),
    Column("model", JSON),
    Column("remarks", JSON),
    Column("seconds", JSON),
    Column("settled", Boolean, nullable=False, default=False),  # no destination is left to be asked
    Column("answered", Boolean, nullable=False, default=False),  # DECLINED, and its answer was decided on
    UniqueConstraint("study_uid", "rule", "revision"),
    Index("jobs_by_state", "state"),
    Index("jobs_unsettled", "state", "settled"),
    Index("jobs_unanswered", "state", "answered"),
    Index("jobs_by_update", "updated"),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("at", Float, nullable=False),
    Column("before", String),  # State; NULL for the first, equal to `after` for a remark
    Column("after", String, nullable=False),
    Column("code", String, nullable=False, default=""),
    Column("sentence", String, nullable=False),
    Index("events_by_job", "job_id"),
)

inquiries = Table(
    "inquiries",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("peer", String, primary_key=True),  # name in the settings
    Column("asked", Float, nullable=False),
    Column("held", JSON, nullable=False),  # {series UID: rows.Held}
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("destination", String, primary_key=True),
    Column("sop_instance_uid", String, primary_key=True),
    Column("sop_class_uid", String, nullable=False),
    Column("series_instance_uid", String, nullable=False),
    Column("path", String, nullable=False),  # relative to the spool
    Column("state", String, nullable=False),  # DeliveryState
    Column("status", Integer),  # DIMSE status of the last attempt, or reason of a failed commitment
    Column("at", Float),
)

attempts = Table(
    "delivery_attempts",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("destination", String, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("next_at", Float, nullable=False),
    Column("sentence", String, nullable=False),  # why the last one did not do
)

confirmations = Table(
    "confirmations",
    metadata,
    Column("transaction_uid", String, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("destination", String, nullable=False),
    Column("how", String, nullable=False),  # How
    Column("asked", Float, nullable=False),  # before the question leaves
    Column("ended", Float),  # answered, or given up
    Column("confirmed", Integer, nullable=False, default=0),
    Column("lost", Integer, nullable=False, default=0),
    Index("confirmations_by_job", "job_id", "destination"),
)

documents = Table(
    "documents",
    metadata,
    Column("id", String, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("form", String, nullable=False),  # synthesis.job.Form
    Column("code", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("state", String, nullable=False),  # DocumentState
    Column("created", Float, nullable=False),
    Column("path", String, nullable=False, default=""),  # relative to the spool, once it is written
    Index("documents_by_job", "job_id"),
    Index("documents_by_state", "state"),
)

postings = Table(
    "postings",
    metadata,
    Column("document_id", ForeignKey("documents.id"), primary_key=True),
    Column("destination", String, primary_key=True),
    Column("state", String, nullable=False),  # DeliveryState
    Column("status", Integer),  # DIMSE status of the last attempt
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_at", Float, nullable=False, default=0.0),
    Column("sentence", String, nullable=False, default=""),  # why the last attempt did not do
    Column("at", Float),
)
