"""Sockets that do not wait for each other, and answers that reach who asked.

DCMTK and Orthanc answer a C-STORE in two small writes. Nagle's algorithm holds the second until our
acknowledgement, which Linux delays by 40 ms: 15–20 instances per second, whatever the network. TCP_NODELAY
keeps our own small writes from the same fate; TCP_QUICKACK, which Linux forgets, is set again after every
call.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.transport import AddressInformation, AssociationSocket, ThreadedAssociationServer

if TYPE_CHECKING:
    from pynetdicom.association import Association


#: In what everything but storage is said, both ways: what all know (PS3.5 10.1), and its explicit twin.
SERVICE_SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian]


class PromptSocket(socket.socket):
    """A TCP socket that sends at once and acknowledges at once."""

    @classmethod
    def of(cls, plain: socket.socket) -> PromptSocket:
        """Take over a plain socket."""
        timeout = plain.gettimeout()
        prompt = cls(plain.family, plain.type, plain.proto, fileno=plain.detach())
        prompt.settimeout(timeout)
        prompt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        prompt._acknowledge_at_once()
        return prompt

    def _acknowledge_at_once(self) -> None:
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def recv(self, *arguments: Any) -> bytes:
        """Receive, then ask again for prompt acknowledgements."""
        received = super().recv(*arguments)
        if received:
            self._acknowledge_at_once()
        return received

    def send(self, *arguments: Any) -> int:
        """Send, then ask again for prompt acknowledgements."""
        sent = super().send(*arguments)
        self._acknowledge_at_once()
        return sent

    def shutdown(self, how: int) -> None:
        """End the connection, if there is one: pynetdicom closes only what it could shut down."""
        with contextlib.suppress(OSError):
            super().shutdown(how)


class PromptServer(ThreadedAssociationServer):  # type: ignore[misc]
    """pynetdicom's server on prompt sockets."""

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        accepted, address = super().get_request()
        return PromptSocket.of(accepted), address


class PromptAE(AE):  # type: ignore[misc]
    """pynetdicom's application entity, requesting associations on prompt sockets."""

    def associate(self, *arguments: Any, **keywords: Any) -> Association:
        """Return an association whose answers go to who asked."""
        association = super().associate(*arguments, **keywords)
        _leave_answers_to_who_asked(association.dimse)
        return association

    def _create_socket(
        self, assoc: Association, address: AddressInformation, *rest: Any
    ) -> AssociationSocket:
        wrapper = super()._create_socket(assoc, address, *rest)
        assert wrapper.socket is not None
        wrapper.socket = PromptSocket.of(wrapper.socket)
        return wrapper


def _leave_answers_to_who_asked(dimse: Any) -> None:
    """Keep pynetdicom's reactor, which serves requests, from taking an answer off the queue and dropping it.

    It is paused while somebody waits for an answer, but on a busy machine the pause may begin too late.
    """
    take = dimse.get_msg

    def get_msg(block: bool = False) -> Any:
        if not block:  # so asks the reactor, and nobody else
            _, message = dimse.peek_msg()
            if getattr(message, "MessageIDBeingRespondedTo", None) is not None:
                return None, None
        return take(block)

    dimse.get_msg = get_msg
