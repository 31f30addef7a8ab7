"""STOW-RS against a real HTTP server that answers as it is told: 200, 202, 401, 413, 503, and nothing."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from node_bench import HOST, free_port
from small_studies import new_uid, stack, write

from dicom_node import stow
from dicom_node.errors import PeerRefuses, PeerUnreachable
from dicom_node.parcels import Answer, Parcel, parcel
from dicom_node.send import send_folder
from dicom_node.settings import Peer

Say = Callable[[int, bytes], tuple[int, dict[str, Any] | None]]


class Service:
    """An HTTP server; `say` gives status and body to each request, by its number and its own body."""

    def __init__(self, say: Say) -> None:
        self.requests: list[dict[str, str]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.requests.append(dict(self.headers))
                status, told = say(len(service.requests), body)
                answer = json.dumps(told).encode() if told is not None else b""
                self.send_response(status)
                self.send_header("Content-Type", "application/dicom+json; charset=utf-8")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *arguments: Any) -> None:
                return

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        self.peer = Peer(
            name="my pacs",
            ae_title="PACS",
            host=HOST,
            dicomweb=f"http://{HOST}:{self._server.server_port}/dicom-web/",
        )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def service() -> Iterator[Callable[[Say], Service]]:
    made: list[Service] = []

    def start(say: Say) -> Service:
        made.append(Service(say))
        return made[-1]

    yield start
    for one in made:
        one.stop()


@pytest.fixture
def parcels(tmp_path: Path) -> list[Parcel]:
    return [parcel(path) for path in write(stack(new_uid(), "T1", slices=4), tmp_path)]


def sent(to: Service, parcels: list[Parcel]) -> list[Answer]:
    answers: list[Answer] = []
    stow.store(to.peer, parcels, answers.append)
    return answers


def item(parcel: Parcel, **more: int) -> dict[str, Any]:
    tags = {"FailureReason": "00081197", "WarningReason": "00081196"}
    return {
        "00081150": {"vr": "UI", "Value": [parcel.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [parcel.sop_instance_uid]},
        **{tags[keyword]: {"vr": "US", "Value": [value]} for keyword, value in more.items()},
    }


def told(stored: list[dict[str, Any]], failed: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        tag: {"vr": "SQ", "Value": items}
        for tag, items in (("00081199", stored), ("00081198", failed))
        if items
    }


def test_two_hundred_means_that_all_is_stored(
    service: Callable[[Say], Service], parcels: list[Parcel]
) -> None:
    there = service(lambda number, body: (200, None))

    answers = sent(there, parcels)

    assert [answer.status for answer in answers] == [0] * 4
    assert len(there.requests) == 1 and "Content-Length" in there.requests[0]


def test_a_folder_goes_by_stow_rs_to_a_peer_that_is_a_dicomweb_service(
    service: Callable[[Say], Service], parcels: list[Parcel]
) -> None:
    there = service(lambda number, body: (200, None))

    stored = send_folder("TAVIT", there.peer, parcels[0].path.parent, lambda *_: None)

    assert stored == (4, []) and len(there.requests) == 1


def test_of_a_partial_failure_each_instance_has_its_own_status(
    service: Callable[[Say], Service], parcels: list[Parcel]
) -> None:
    body = told(
        [item(parcels[0]), item(parcels[1], WarningReason=0xB006)],
        [item(parcels[2], FailureReason=0xA700), item(parcels[3], FailureReason=0x0122)],
    )

    answers = sent(service(lambda number, _: (202, body)), parcels)

    assert [answer.stored for answer in answers] == [True, True, False, False]
    assert [answer.transient for answer in answers] == [False, False, True, False]
    assert [answer.status for answer in answers][2:] == [0xA700, 0x0122]


def test_what_a_partial_failure_does_not_name_is_sent_again(
    service: Callable[[Say], Service], parcels: list[Parcel]
) -> None:
    answers = sent(service(lambda number, _: (202, told([item(parcels[0])], []))), parcels)

    assert [(answer.stored, answer.transient) for answer in answers] == [(True, False)] + [(False, True)] * 3


def test_a_conflict_says_of_each_instance_why(
    service: Callable[[Say], Service], parcels: list[Parcel]
) -> None:
    body = told([], [item(one, FailureReason=0xA900) for one in parcels])

    answers = sent(service(lambda number, _: (409, body)), parcels)

    assert {answer.status for answer in answers} == {0xA900}


def test_a_request_that_is_too_large_is_halved(
    service: Callable[[Say], Service], parcels: list[Parcel]
) -> None:
    def say(_: int, body: bytes) -> tuple[int, None]:
        return (413 if body.count(b"DICM") > 1 else 200), None

    there = service(say)

    answers = sent(there, parcels)

    assert [answer.stored for answer in answers] == [True] * 4
    assert len(there.requests) == 1 + 2 + 4


def test_one_instance_that_cannot_be_read_does_not_hold_the_others(
    service: Callable[[Say], Service], parcels: list[Parcel]
) -> None:
    bad = parcels[2].sop_instance_uid.encode()
    there = service(lambda _, body: ((400 if bad in body else 200), None))
    answers: list[Answer] = []

    with pytest.raises(PeerRefuses, match="HTTP 400: it cannot read an instance"):
        stow.store(there.peer, parcels, answers.append)

    assert [answer.parcel for answer in answers] == [parcels[0], parcels[1], parcels[3]]


@pytest.mark.parametrize("status", [401, 403, 404, 413, 415])
def test_what_would_be_refused_again_is_not_tried_again(
    service: Callable[[Say], Service], parcels: list[Parcel], status: int
) -> None:
    with pytest.raises(PeerRefuses, match=f"my pacs answered HTTP {status}: "):
        sent(service(lambda number, body: (status, None)), parcels[:1])


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_service_that_cannot_now_is_tried_later(
    service: Callable[[Say], Service], parcels: list[Parcel], status: int
) -> None:
    there = service(lambda number, body: (status, None))

    with pytest.raises(PeerUnreachable, match=rf"my pacs cannot take it now \(HTTP {status}\)"):
        sent(there, parcels)

    assert len(there.requests) == 1, "the pauses are ours"


def test_a_service_that_does_not_listen_is_tried_later(parcels: list[Parcel]) -> None:
    nobody = Peer(name="p", ae_title="P", host=HOST, dicomweb=f"http://{HOST}:{free_port()}/dicom-web")

    with pytest.raises(PeerUnreachable, match="p does not answer at its DICOMweb URL"):
        stow.store(nobody, parcels, lambda answer: None)


def test_many_files_are_several_requests(
    service: Callable[[Say], Service], parcels: list[Parcel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "_REQUEST_BYTES", 2 * parcels[0].path.stat().st_size + 1)
    there = service(lambda number, body: (200, None))

    assert len(sent(there, parcels)) == 4 and len(there.requests) == 2


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({"DICOM_NODE_PEER_MY_PACS_TOKEN": "abc"}, "Bearer abc"),
        (
            {"DICOM_NODE_PEER_MY_PACS_USER": "u", "DICOM_NODE_PEER_MY_PACS_PASSWORD": "p"},
            f"Basic {base64.b64encode(b'u:p').decode()}",
        ),
        ({}, None),
    ],
    ids=["token", "password", "none"],
)
def test_credentials_come_from_the_environment(
    service: Callable[[Say], Service],
    parcels: list[Parcel],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    header: str | None,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    there = service(lambda number, body: (200, None))

    sent(there, parcels[:1])

    assert there.requests[0].get("Authorization") == header
