"""Sockets that do not wait: the options that they set, on a real connection; answers that are not lost."""

from __future__ import annotations

import gc
import socket
import threading
import warnings
from collections.abc import Iterator

import pytest
from node_bench import HOST, Peer, free_port
from pynetdicom import evt

from dicom_node.sockets import PromptAE, PromptServer, PromptSocket

VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture
def both() -> Iterator[tuple[PromptSocket, socket.socket]]:
    one, other = socket.create_server((HOST, 0)), socket.socket()
    other.connect(one.getsockname())
    accepted, _ = one.accept()
    prompt = PromptSocket.of(accepted)
    yield prompt, other
    for each in (prompt, other, one):
        each.close()


def test_nagle_is_off(both: tuple[PromptSocket, socket.socket]) -> None:
    assert both[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_prompt_acknowledgements_are_asked_for_again_after_each_call(
    both: tuple[PromptSocket, socket.socket],
) -> None:
    prompt, other = both
    for _ in range(3):
        prompt.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        other.send(b"x")
        prompt.recv(1)
        assert prompt.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)


def test_a_plain_socket_is_taken_over_with_its_timeout() -> None:
    plain = socket.socket()
    plain.settimeout(7.0)

    prompt = PromptSocket.of(plain)

    assert prompt.gettimeout() == 7.0 and plain.fileno() == -1
    prompt.close()


def test_the_end_of_a_connection_is_received_as_such(both: tuple[PromptSocket, socket.socket]) -> None:
    both[1].close()

    assert both[0].recv(10) == b""


def test_server_and_requestor_use_prompt_sockets() -> None:
    kinds: list[type] = []
    opened = [(evt.EVT_CONN_OPEN, lambda event: kinds.append(type(event.assoc.dul.socket.socket)))]
    ae = PromptAE("X")
    ae.add_supported_context(VERIFICATION)
    ae.add_requested_context(VERIFICATION)
    server = ae.make_server((HOST, 0), evt_handlers=opened, server_class=PromptServer)
    ae._servers.append(server)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    association = ae.associate(HOST, server.server_address[1], evt_handlers=opened)
    status = association.send_c_echo()
    association.release()
    server.shutdown()
    server.server_close()

    assert status.Status == 0 and kinds == [PromptSocket, PromptSocket]


def test_a_refused_connection_leaves_no_open_socket() -> None:
    ae = PromptAE("X")
    ae.add_requested_context(VERIFICATION)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)

        association = ae.associate(HOST, free_port())
        assert not association.is_established
        del association
        gc.collect()


def test_an_answer_reaches_who_asked_even_if_the_reactor_looks_first() -> None:
    peer, ae = Peer(), PromptAE("X")
    peer.start()
    ae.add_requested_context(VERIFICATION)
    ae.dimse_timeout = 5
    association = ae.associate(HOST, peer.port, ae_title="PACS")
    messages = association.dimse.msg_queue
    put, seen_by_the_reactor = messages.put, []

    def put_while_the_reactor_looks(item: object) -> None:
        put(item)
        seen_by_the_reactor.append(association.dimse.get_msg(block=False))

    messages.put = put_while_the_reactor_looks  # type: ignore[method-assign]
    statuses = [association.send_c_echo() for _ in range(5)]
    association.release()
    peer.stop()

    assert [status.get("Status") for status in statuses] == [0] * 5
    assert seen_by_the_reactor == [(None, None)] * 5
