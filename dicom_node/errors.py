"""The errors of the node, on one screen. Each carries a sentence for people."""

from __future__ import annotations


class NodeError(Exception):
    """What the node can say about something that it could not do."""

    #: Short code, for scripts and metrics.
    code = "NODE"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class SettingsError(NodeError):
    """The settings cannot be used; the sentence names file and key."""

    code = "SETTINGS"


class NoSuchThing(NodeError):
    """A job, peer, rule or folder of that name does not exist."""

    code = "NO_SUCH"


class IllegalTransition(NodeError):
    """A job cannot go from its state to that one: a bug of ours, or a command that came too late."""

    code = "ILLEGAL_TRANSITION"


class SpoolFull(NodeError):
    """No space is left for what a peer sends: DIMSE status A700."""

    code = "DISK_FULL"
    status = 0xA700


class PeerUnreachable(NodeError):
    """The peer does not answer, or refuses the association for now: try again later."""

    code = "PEER_UNREACHABLE"


class PeerRefuses(NodeError):
    """The peer will not take this object, however often it is offered."""

    code = "PEER_REFUSES"


class BrokerUnreachable(NodeError):
    """Redis does not answer: jobs wait in the ledger."""

    code = "BROKER_UNREACHABLE"
