"""The states of a job and the transitions between them. A transition that is not in the table raises."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a job stands (one study under one rule, one revision)."""

    RECEIVING = "RECEIVING"
    COMPLETE = "COMPLETE"
    WAITING = "WAITING"
    DECLINED = "DECLINED"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SYNTHESISED = "SYNTHESISED"
    DELIVERED = "DELIVERED"
    COMMITTED = "COMMITTED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


S = State

#: From each state, the states that may follow.
TRANSITIONS: dict[State, frozenset[State]] = {
    S.RECEIVING: frozenset({S.COMPLETE, S.WAITING, S.CANCELLED}),
    S.COMPLETE: frozenset({S.QUEUED, S.WAITING, S.DECLINED, S.CANCELLED}),
    # by hand: QUEUED
    S.WAITING: frozenset({S.COMPLETE, S.DECLINED, S.QUEUED, S.CANCELLED}),
    # new instances: RECEIVING; by hand: QUEUED
    S.DECLINED: frozenset({S.RECEIVING, S.QUEUED}),
    S.QUEUED: frozenset({S.RUNNING, S.CANCELLED, S.FAILED}),
    # worker lost: QUEUED; the worker looked at the pixels and refuses them: DECLINED
    S.RUNNING: frozenset({S.SYNTHESISED, S.FAILED, S.QUEUED, S.DECLINED, S.CANCELLED}),
    S.SYNTHESISED: frozenset({S.DELIVERED, S.FAILED, S.CANCELLED}),
    # the peer lost some of it: SYNTHESISED
    S.DELIVERED: frozenset({S.COMMITTED, S.SYNTHESISED}),
    S.COMMITTED: frozenset(),
    S.FAILED: frozenset({S.QUEUED}),
    S.CANCELLED: frozenset({S.QUEUED}),
}

#: States in which new instances are still judged for this revision.
COLLECTING = frozenset({S.RECEIVING, S.WAITING})
#: States from which `queue retry` starts anew.
RETRYABLE = frozenset({S.WAITING, S.DECLINED, S.FAILED, S.CANCELLED})


class Arrival(StrEnum):
    """What a C-STORE brought."""

    NEW = "NEW"
    SAME = "SAME"  # equal bytes under a SOP Instance UID that we have
    OTHER = "OTHER"  # other bytes under it: set aside


class Ending(StrEnum):
    """How an association ended."""

    RELEASED = "RELEASED"
    ABORTED = "ABORTED"  # by either side, or the connection broke


class DeliveryState(StrEnum):
    """Where one instance stands on its way to one destination."""

    PENDING = "PENDING"
    STORED = "STORED"
    REFUSED = "REFUSED"
    NOT_TAKEN = "NOT_TAKEN"  # refused, and the result was delivered without it
    COMMITTED = "COMMITTED"  # the peer said later that it keeps it, or was seen to have it
    UNCONFIRMED = "UNCONFIRMED"  # stored, by a peer that offers no way to ask
    LOST = "LOST"  # stored, and later not there: to be sent again


#: What a destination has, as far as it said.
AT_PEER = frozenset({DeliveryState.STORED, DeliveryState.COMMITTED, DeliveryState.UNCONFIRMED})


#: What a destination does not have, and will not get.
NOT_AT_PEER = frozenset({DeliveryState.REFUSED, DeliveryState.NOT_TAKEN})


class DocumentState(StrEnum):
    """Where a document about a job stands: the answer to a declined study, or a retraction."""

    ASKED = "ASKED"  # a worker is to write it
    WRITTEN = "WRITTEN"  # on its way
    SENT = "SENT"  # every destination has it, or refuses it for good
    FAILED = "FAILED"  # it could not be written
    DROPPED = "DROPPED"  # the study was looked at again before anybody had it


class How(StrEnum):
    """How a destination was asked whether it has what it stored."""

    N_ACTION = "N-ACTION"  # storage commitment, PS3.4 J
    C_FIND = "C-FIND"  # PS3.4 C
    QIDO_RS = "QIDO-RS"  # PS3.18 10.6
