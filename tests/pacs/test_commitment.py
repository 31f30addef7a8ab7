"""Delivery to a real Orthanc until it confirmed: restarts, losses, STOW-RS. The worker computes nothing."""

from __future__ import annotations

import json
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from bench import HOST, Orthanc, Redis, free_port
from pydicom import dcmread
from pydicom.uid import JPEGLSLossless

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from node_bench import Behaviour, Bench, StandInWorker, settings_for, synthesise, wait_for
from small_studies import new_uid, pair, stack, write

from dicom_node import confirm, deliver, stow
from dicom_node.by_hand import retry
from dicom_node.errors import PeerRefuses
from dicom_node.ledger import DeliveryState, How, JobRow, State
from dicom_node.parcels import Answer, parcel
from dicom_node.settings import Peer
from synthesis.job import Job

pytestmark = [pytest.mark.pacs, pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")]

DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
SLICES = 12
#: A machine that is busy with other things.
PATIENCE_S = 120.0

Start = Callable[..., Bench]
StartOrthanc = Callable[..., Orthanc]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """Start a Redis of their own: the worker of the other tests would take what lies in theirs."""
    server = Redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def start(tmp_path: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a node that delivers to an Orthanc: `start(orthanc, **keys of its [[peer]])`."""
    for step in (deliver, confirm):
        monkeypatch.setattr(step, "_PAUSE_S", 0.5)
        monkeypatch.setattr(step, "_IDLE_S", 0.3)
    made: list[Bench] = []

    def one(
        server: Orthanc,
        node_port: int,
        do: Behaviour = synthesise,
        rule: Sequence[dict[str, str]] = ({"name": "every study"},),
        **more: Any,
    ) -> Bench:
        named = {"name": "pacs", "ae_title": server.ae_title, "host": HOST, "port": server.port, **more}
        settings = settings_for(
            tmp_path / "spool",
            redis.url,
            server.port,
            peer=[named],
            rule=rule,
            node={"port": node_port},
            collect={"quiet_seconds": 20},  # on a slow machine a pause must not look like the end
        )
        made.append(Bench(settings, StandInWorker(redis.url, tmp_path / "spool", do)))
        made[-1].start()
        return made[-1]

    yield one
    for each in made:
        each.stop()


@pytest.fixture
def node_port() -> int:
    """The port of the node, which Orthanc must know first."""
    return free_port()


@pytest.fixture
def archive(tmp_path: Path, node_port: int) -> Iterator[StartOrthanc]:
    """Start an Orthanc of its own: `archive(**keys of its configuration)`."""
    made: list[Orthanc] = []

    def one(**more: object) -> Orthanc:
        # It reports once, and gives up a node that does not answer by then.
        more = {"DicomScuTimeout": int(PATIENCE_S)} | more
        made.append(Orthanc(tmp_path / f"orthanc-{len(made)}", node_port, **more))
        made[-1].start()
        return made[-1]

    yield one
    for each in made:
        each.stop()


def committed(flow: Bench) -> JobRow:
    return flow.wait(State.COMMITTED, seconds=PATIENCE_S)


def stored(server: Orthanc) -> list[str]:
    """Return the ids of the instances that an Orthanc has."""
    return list(server.get("/instances"))


def store_events(server: Orthanc) -> int:
    """Return how often an Orthanc has taken in what it has."""
    changes = server.get("/changes?limit=10000")["Changes"]
    return sum(change["ChangeType"] == "NewInstance" for change in changes)


def test_orthanc_commits_on_an_association_of_its_own(
    start: Start, archive: StartOrthanc, node_port: int
) -> None:
    orthanc = archive()
    flow = start(orthanc, node_port)

    flow.send(pair(), calling="ORTHANC")

    job = committed(flow)
    (asked,) = flow.node.ledger.confirmations(job.id, "pacs")
    assert (asked.how, asked.confirmed, asked.lost) == (How.N_ACTION, SLICES, 0)
    assert {row.state for row in flow.node.ledger.deliveries(job.id)} == {DeliveryState.COMMITTED}
    assert len(stored(orthanc)) == store_events(orthanc) == SLICES


def test_orthanc_gets_it_compressed_where_its_peer_says_so_and_commits(
    start: Start, archive: StartOrthanc, node_port: int
) -> None:
    orthanc = archive()
    flow = start(orthanc, node_port, compress=True)

    flow.send(pair(), calling="ORTHANC")

    committed(flow)
    assert len(stored(orthanc)) == SLICES
    for identity in stored(orthanc):
        syntax = orthanc.call("GET", f"/instances/{identity}/metadata/TransferSyntax").decode()
        assert syntax == JPEGLSLossless


def test_orthanc_that_is_away_during_the_delivery_gets_it_when_it_is_back(
    start: Start, archive: StartOrthanc, node_port: int
) -> None:
    orthanc = archive()
    orthanc.stop()
    flow = start(orthanc, node_port)
    flow.send(pair(), calling="ORTHANC")
    job = flow.wait(State.SYNTHESISED, seconds=PATIENCE_S)
    assert "does not answer" in flow.noted(job, "DELIVERY_POSTPONED", seconds=PATIENCE_S)

    orthanc.start()

    committed(flow)
    assert len(stored(orthanc)) == store_events(orthanc) == SLICES


def test_two_instances_that_orthanc_loses_before_it_commits_are_sent_again(
    start: Start, archive: StartOrthanc, node_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    orthanc = archive()
    flow = start(orthanc, node_port)
    plain, add = confirm.Confirmer._ask_peer, deliver._Answers.add
    deleted: list[str] = []
    sendings: Counter[str] = Counter()

    def counted(self: deliver._Answers, answer: Answer) -> None:
        sendings[answer.parcel.sop_instance_uid] += 1
        add(self, answer)

    def lose_first(self: confirm.Confirmer, *arguments: Any) -> None:
        if not deleted:
            for identity in stored(orthanc)[:2]:
                orthanc.call("DELETE", f"/instances/{identity}")
                deleted.append(identity)
        plain(self, *arguments)

    monkeypatch.setattr(confirm.Confirmer, "_ask_peer", lose_first)
    monkeypatch.setattr(deliver._Answers, "add", counted)

    flow.send(pair(), calling="ORTHANC")

    job = committed(flow)
    first, second = flow.node.ledger.confirmations(job.id, "pacs")
    assert (first.confirmed, first.lost) == (SLICES - 2, 2)
    assert (second.confirmed, second.lost) == (2, 0)
    assert set(deleted) <= set(stored(orthanc)) and len(stored(orthanc)) == SLICES
    assert sorted(sendings.values()) == [1] * (SLICES - 2) + [2] * 2, "something was sent twice"


def test_one_study_in_the_hands_of_two_workers_is_one_set_of_objects(
    start: Start, archive: StartOrthanc, node_port: int, tmp_path: Path, redis: Redis
) -> None:
    orthanc = archive()
    both_at_work = threading.Barrier(2, timeout=PATIENCE_S)

    def together(worker: StandInWorker, job: Job, folder: Path) -> None:
        both_at_work.wait()
        synthesise(worker, job, folder)

    rules = [{"name": "asked", "called_aet": "TAVIT"}, {"name": "routed", "called_aet": "AUTO"}]
    flow = start(orthanc, node_port, do=together, rule=rules)
    second = StandInWorker(redis.url, tmp_path / "spool", together)
    second.start()
    study = pair()

    flow.send(study, calling="ORTHANC")
    flow.send(study, calling="ORTHANC", called="AUTO")

    def committed_rules() -> bool:
        return {job.rule for job in flow.jobs() if job.state == State.COMMITTED} == {"asked", "routed"}

    try:
        wait_for("both jobs to be committed", committed_rules, seconds=PATIENCE_S)
    finally:
        second.stop()
    assert len(stored(orthanc)) == store_events(orthanc) == SLICES


def test_without_commitment_orthanc_is_searched(start: Start, archive: StartOrthanc, node_port: int) -> None:
    orthanc = archive()
    flow = start(orthanc, node_port, commitment=False)

    flow.send(pair(), calling="ORTHANC")

    job = committed(flow)
    assert flow.noted(job, "C_FIND") == f"C-FIND finds {SLICES} of {SLICES} instances in pacs."


def web(archive: StartOrthanc, **more: object) -> tuple[Orthanc, dict[str, str]]:
    """Return an Orthanc with its DICOMweb plugin, and what a [[peer]] says of it."""
    if not DICOMWEB_PLUGIN.is_file():
        pytest.skip("THE DICOMWEB PLUGIN OF ORTHANC IS MISSING: this test needs the real one")
    orthanc = archive(Plugins=[str(DICOMWEB_PLUGIN)], **more)
    return orthanc, {"dicomweb": f"http://{HOST}:{orthanc.http_port}/dicom-web"}


def test_orthanc_gets_it_by_stow_rs_and_is_searched_by_qido_rs(
    start: Start, archive: StartOrthanc, node_port: int
) -> None:
    orthanc, named = web(archive)
    flow = start(orthanc, node_port, **named)

    flow.send(pair(), calling="ORTHANC")

    job = committed(flow)
    assert flow.noted(job, "QIDO_RS") == f"QIDO-RS finds {SLICES} of {SLICES} instances in pacs."
    assert len(stored(orthanc)) == store_events(orthanc) == SLICES


def test_orthanc_with_a_password_takes_it_with_the_one_from_the_environment(
    start: Start, archive: StartOrthanc, node_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    orthanc, named = web(archive, AuthenticationEnabled=True, RegisteredUsers={"node": "secret"})
    flow = start(orthanc, node_port, **named)
    flow.send(pair(), calling="ORTHANC")
    refused = flow.wait(State.FAILED, "DELIVERY_REFUSED", seconds=PATIENCE_S)
    assert "HTTP 401: it does not accept our credentials" in refused.reason
    monkeypatch.setenv("DICOM_NODE_PEER_PACS_USER", "node")
    monkeypatch.setenv("DICOM_NODE_PEER_PACS_PASSWORD", "secret")

    retry(flow.node.ledger, flow.node.spool, refused)

    job = committed(flow)
    assert flow.noted(job, "QIDO_RS") == f"QIDO-RS finds {SLICES} of {SLICES} instances in pacs."


def test_what_orthanc_cannot_store_is_told_from_what_it_stored(archive: StartOrthanc, tmp_path: Path) -> None:
    orthanc, named = web(archive)
    peer = Peer(name="pacs", ae_title="ORTHANC", host=HOST, port=orthanc.port, **named)
    images = stack(new_uid(), "T1", slices=3)
    del images[1].SeriesInstanceUID
    answers: list[Answer] = []

    parcels = [parcel(path) for path in write(images, tmp_path / "images")]
    with pytest.raises(PeerRefuses, match="answered HTTP 400: it cannot read an instance"):
        stow.store(peer, parcels, answers.append)

    assert [answer.parcel for answer in answers if answer.stored] == [parcels[0], parcels[2]]
    assert len(stored(orthanc)) == 2


def test_what_orthanc_only_says_that_it_stored_is_found_out(
    start: Start, archive: StartOrthanc, node_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirm, "_INDEXED_WITHIN_S", 0.0)
    drops_the_second = tmp_path / "filter.lua"
    drops_the_second.write_text(
        'function ReceivedInstanceFilter(dicom, origin)\n return dicom.InstanceNumber ~= "2"\nend\n'
    )
    orthanc, named = web(archive, LuaScripts=[str(drops_the_second)])
    flow = start(orthanc, node_port, **named)

    flow.send(pair(), calling="ORTHANC")

    job = flow.wait(State.FAILED, "DELIVERY_REFUSED", seconds=PATIENCE_S)
    assert f"pacs has lost 1 of {SLICES} instances that it had stored, 3 times by now" in job.reason
    assert len(stored(orthanc)) == SLICES - 1


class Front:
    """What may stand before an archive: away at first, short in what it takes, and it loses one instance.

    The first request is answered with 503, one of more than `_MOST` instances with 413, and of the first that
    fits one instance is held back: the archive's own answer is told as 202, with that one failed (A700).
    """

    _MOST = 4

    def __init__(self, archive: Orthanc) -> None:
        self.answered: list[int] = []
        front = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, told = front._store(body, dict(self.headers), self._forward)
                front.answered.append(status)
                self._say(status, told)

            def do_GET(self) -> None:
                self._say(200, self._forward(None))

            def _forward(self, body: bytes | None) -> bytes:
                headers = {
                    key: self.headers[key] for key in ("Accept", "Content-Type") if key in self.headers
                }
                url = f"http://{HOST}:{archive.http_port}{self.path}"
                with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
                    return bytes(answer.read())

            def _say(self, status: int, told: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/dicom+json")
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, format: str, *arguments: Any) -> None:
                return

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{HOST}:{self._server.server_port}/dicom-web"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _store(
        self, body: bytes, headers: dict[str, str], forward: Callable[[bytes], bytes]
    ) -> tuple[int, bytes]:
        if not self.answered:
            return 503, b""
        boundary = b"--" + headers["Content-Type"].split("boundary=")[1].split(";")[0].strip('"').encode()
        parts = body.split(boundary)
        if len(parts) - 2 > self._MOST:  # before the first, and after the last
            return 413, b""
        if {200, 202} & set(self.answered):
            return 200, forward(body)
        told = json.loads(forward(boundary.join([*parts[:1], *parts[2:]])))
        held_back = dcmread(BytesIO(parts[1].split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")))
        told["00081198"] = {
            "vr": "SQ",
            "Value": [
                {
                    "00081150": {"vr": "UI", "Value": [held_back.SOPClassUID]},
                    "00081155": {"vr": "UI", "Value": [held_back.SOPInstanceUID]},
                    "00081197": {"vr": "US", "Value": [0xA700]},
                }
            ],
        }
        return 202, json.dumps(told).encode()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def test_behind_a_front_that_is_away_then_short_then_loses_one_orthanc_gets_each_once(
    start: Start, archive: StartOrthanc, node_port: int
) -> None:
    orthanc, _ = web(archive)
    front = Front(orthanc)
    try:
        flow = start(orthanc, node_port, dicomweb=front.url)

        flow.send(pair(), calling="ORTHANC")

        job = committed(flow)
    finally:
        front.stop()
    assert front.answered == [503, 413, 413, 202, 200, 413, 200, 200, 200]
    assert flow.noted(job, "DELIVERY_POSTPONED").startswith("pacs answered status 0xA700.")
    assert len(stored(orthanc)) == store_events(orthanc) == SLICES
