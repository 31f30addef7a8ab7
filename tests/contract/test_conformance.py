"""deploy/CONFORMANCE.md says what the code does: services, syntaxes, attributes, statuses, security."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, MRImageStorage
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from attributes import COLUMNS, Made, both_sources, table
from node_bench import HOST, free_port
from small_studies import new_uid, stack, write

from dicom_node import commitment, deliver, find, parcels, receive, send, stow
from dicom_node.errors import NodeError
from dicom_node.ledger import Ledger
from dicom_node.receive import Receiver
from dicom_node.settings import Peer, Settings
from dicom_node.sockets import SERVICE_SYNTAXES
from dicom_node.spool import Spool
from synthesis.job import Kind

STATEMENT = (Path(__file__).resolve().parents[2] / "deploy" / "CONFORMANCE.md").read_text(encoding="utf-8")
#: An identifier of the standard, and the words before it in its row or sentence.
NAMED = re.compile(r"([A-Z][\w/ –-]*?) (1\.2\.840\.10008(?:\.\d+)+)")
STORAGE = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
#: As a peer is told: SOP class and transfer syntax of each context.
Contexts = set[tuple[str, str]]


@pytest.fixture(scope="module")
def made() -> tuple[Made, Made]:
    """Every kind of object, of two sources."""
    return both_sources()


def section(title: str) -> str:
    """Return the text below a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", STATEMENT, re.MULTILINE | re.DOTALL)
    assert found, f"there is no heading {title!r}"
    return found[1]


def uids(text: str) -> set[str]:
    """Return the identifiers of the standard in a text."""
    return {match[2] for match in NAMED.finditer(text)}


def services(role: str) -> str:
    """Return the rows of the table of services that name this role."""
    rows = [row for row in section("Networking").splitlines() if row.startswith("| ")]
    return "\n".join(row for row in rows if re.search(rf"\b{role}\b", row.split("|")[2]))


def statuses(text: str) -> set[int]:
    """Return the DIMSE statuses in the first columns of the tables of a text."""
    return {int(code, 16) for code in re.findall(r"^\| ([0-9A-F]{4}) \|", text, re.MULTILINE)}


def test_every_identifier_stands_behind_its_own_name() -> None:
    found = [(match[1], UID(match[2])) for match in NAMED.finditer(STATEMENT)]
    assert len({uid for _, uid in found}) >= 12

    for words, uid in found:
        name = re.sub(r" Image Compression \(Lossless Only\)| Image Compression", "", uid.name)
        name = name.replace("Retrieve Information Model - FIND", "Retrieve FIND").removesuffix(" SOP Class")
        assert words.endswith(name) or f"{name} Lossless" in words, (words, uid.name)


def test_the_attributes_are_those_of_objects_made_just_now(made: tuple[Made, Made]) -> None:
    found = table(made)

    other = [row for row in found.splitlines() if row not in STATEMENT.splitlines()]
    assert found in STATEMENT, f"python tests/attributes.py prints what belongs there; other rows: {other}"


def test_the_classes_of_the_objects_are_those_that_are_sent(made: tuple[Made, Made]) -> None:
    sent = {str(one.SOPClassUID) for one in made[0].kinds.values()}

    assert sent == (uids(services("SCU")) | uids(section("Answer and retraction"))) & STORAGE


def test_each_series_is_named_and_numbered_as_it_is_made(made: tuple[Made, Made]) -> None:
    rows = [row for row in section("What is made").splitlines() if row.startswith("| `")][1:]
    assert {row.split("`")[1] for row in rows} == {kind.value for kind in Kind}
    computed = [kind for name in ("T1C", "DIFF", "UNC", "ENH", "SEG", "SR") for kind in COLUMNS[name]]
    for kind in computed:
        one, source = made[0].kinds[kind], made[0].sources[kind]
        said = f"`{one.SeriesDescription}` · {one.SeriesNumber - source.SeriesNumber} |"
        assert any(row.endswith(said) for row in rows), said


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """Our SCP with its defaults, listening."""
    settings = Settings.model_validate({"node": {"bind": HOST, "port": free_port(), "spool": tmp_path}})
    ledger = Ledger(settings.node.ledger_url)
    listening = Receiver(settings, ledger, Spool(tmp_path))
    listening.start()
    yield listening
    listening.stop()
    ledger.close()


def test_what_it_accepts_is_what_the_statement_says(receiver: Receiver) -> None:
    assert receiver._server is not None
    offered = {
        str(one.abstract_syntax): one.transfer_syntax for one in receiver._server.ae.supported_contexts
    }

    assert offered.keys() - STORAGE == {Verification, StorageCommitmentPushModel}
    assert {Verification, StorageCommitmentPushModel} <= uids(STATEMENT)
    assert offered.keys() & STORAGE == STORAGE and f"lists ({len(STORAGE)})" in services("SCP")
    assert offered[MRImageStorage] == receive.TRANSFER_SYNTAXES
    assert [offered[Verification], offered[StorageCommitmentPushModel]] == [SERVICE_SYNTAXES] * 2


@pytest.fixture
def proposed() -> Iterator[tuple[int, Contexts]]:
    """A peer that accepts nothing, its port, and what it was offered."""
    seen: Contexts = set()

    def keep(event: evt.Event) -> None:
        for context in event.assoc.requestor.primitive.presentation_context_definition_list:
            seen.update((str(context.abstract_syntax), str(syntax)) for syntax in context.transfer_syntax)

    ae, port = AE("PACS"), free_port()
    ae.add_supported_context("1.2.3")
    server = ae.make_server((HOST, port), evt_handlers=[(evt.EVT_REQUESTED, keep)])
    ae._servers.append(server)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield port, seen
    server.shutdown()


def test_what_it_proposes_is_what_the_statement_says(
    proposed: tuple[int, Contexts], made: tuple[Made, Made], tmp_path: Path
) -> None:
    port, seen = proposed
    peer = Peer(name="pacs", ae_title="PACS", host=HOST, port=port, compress=True)
    objects: list[Dataset] = []
    for sop_class in {str(one.SOPClassUID) for one in made[0].kinds.values()}:
        (one,) = stack(new_uid(), "T1", slices=1)
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = sop_class
        objects.append(one)
    sent = [parcels.parcel(path) for path in write(objects, tmp_path)]
    asked: list[Callable[[], object]] = [
        lambda: send.echo("TAVIT", peer),
        lambda: send.store("TAVIT", peer, sent, lambda answer: None),
        lambda: find.held("TAVIT", peer, "1.2.3", {}, name_missing=False),
        lambda: commitment.inquire("TAVIT", peer, lambda report: True).__enter__(),
    ]

    for ask in asked:
        with suppress(NodeError):
            ask()

    plain = set(SERVICE_SYNTAXES)
    compressed = set(send.LOSSLESS)
    assert {sop_class for sop_class, _ in seen} == uids(services("SCU")) | uids(
        section("Answer and retraction")
    )
    for sop_class in {sop_class for sop_class, _ in seen}:
        syntaxes = {syntax for one, syntax in seen if one == sop_class}
        assert syntaxes == plain | (compressed if sop_class in send.COMPRESSIBLE else set()), sop_class
    assert compressed <= uids(section("Networking"))


def test_the_statuses_are_those_of_the_code() -> None:
    assert statuses(section("Networking")) == {
        receive.SUCCESS,
        receive.OUT_OF_RESOURCES,
        receive.PROCESSING_FAILURE,
    }
    assert statuses(section("Storage commitment")) == {
        commitment.SUCCESS,
        commitment.NO_SUCH_EVENT_TYPE,
        commitment.INVALID_ARGUMENT,
        commitment.PROCESSING_FAILURE,
    }
    stored = re.search(r"C-STORE as SCU: ([0-9A-F, ]+) count as stored", section("Networking"))
    assert stored and {int(code, 16) for code in stored[1].split(", ")} == parcels.STORED
    transient = [status for status in range(0x10000) if parcels.Answer(None, status).transient]  # type: ignore[arg-type]
    assert transient == [0x0110, *range(0xA700, 0xA800)] and "A7xx, 0110 and a lost" in STATEMENT
    http = re.search(r"^\| ([0-9, ]+), no answer \| tried again", section("DICOMweb"), re.MULTILINE)
    assert http and {int(code) for code in http[1].split(", ")} == stow._TRANSIENT


def test_limits_pauses_and_security_are_those_of_the_code() -> None:
    node = Settings().node
    for said in (
        f"`max_associations` ({node.max_associations})",
        f"`max_pdu` ({node.max_pdu})",
        f"reason {receive._CALLING_AE_UNKNOWN} (calling AE title not",
        f"or {receive._CALLED_AE_UNKNOWN} (called AE title",
        f"again after {deliver._PAUSE_S:.0f}, {2 * deliver._PAUSE_S:.0f}, {3 * deliver._PAUSE_S:.0f} … s",
        f"at most {deliver._LONGEST_PAUSE_S:.0f} s",
    ):
        assert said in re.sub(r"\s+", " ", STATEMENT), said
    assert ("No TLS" in STATEMENT) == ("tls" not in Peer.model_fields)
