"""The SCP: who may send, what is stored and how, what it answers."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from node_bench import HOST, Bench, associate, store, wait_for
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AE, build_context
from small_studies import new_uid, pair, stack

from dicom_node.ledger import State

Start = Callable[..., Bench]


def spooled(flow: Bench) -> list[Path]:
    return sorted((flow.node.spool.root / "incoming").rglob("*.dcm"))


def test_a_c_echo_is_answered_and_leaves_no_row(bench: Start) -> None:
    flow = bench()
    association = AE("PACS").associate(
        HOST, flow.port, contexts=[build_context("1.2.840.10008.1.1")], ae_title="TAVIT"
    )

    assert association.send_c_echo().Status == 0
    association.release()

    assert flow.node.ledger.totals()["unreadable"] == 0 and flow.jobs() == []


def test_below_the_watermark_nothing_is_taken_and_the_sender_hears_a700(bench: Start) -> None:
    flow, images = bench(retention={"least_free_gb": 1e6}), pair()[:3]
    association = associate(flow.port, images)

    statuses = store(association, images)

    association.release()
    assert statuses == [0xA700] * 3 and spooled(flow) == [] and flow.jobs() == []


@pytest.mark.parametrize(("calling", "called"), [("STRANGER", "TAVIT"), ("PACS", "NOBODY")])
def test_an_unknown_caller_or_called_title_is_rejected(bench: Start, calling: str, called: str) -> None:
    flow = bench()

    assert associate(flow.port, pair(), calling, called).is_rejected


def test_a_known_title_from_another_address_is_rejected(bench: Start) -> None:
    elsewhere = {"name": "pacs", "ae_title": "PACS", "host": "192.0.2.1", "port": 104}
    flow = bench(peer=[elsewhere])

    assert associate(flow.port, pair()).is_rejected


def test_a_peer_that_may_not_send_is_rejected(bench: Start) -> None:
    archive = {"name": "archive", "ae_title": "PACS", "host": HOST, "port": 104, "sends": False}
    flow = bench(peer=[archive])

    assert associate(flow.port, pair()).is_rejected


def test_success_means_that_the_file_is_in_the_spool_and_in_the_ledger(bench: Start) -> None:
    flow, images = bench(), stack(new_uid(), "T1")
    association = associate(flow.port, images)

    for count, ds in enumerate(images, start=1):
        assert association.send_c_store(ds).Status == 0
        assert len(spooled(flow)) == count
        assert flow.node.ledger.digest_of(ds.SOPInstanceUID)
    association.release()


def test_what_is_kept_is_what_was_sent(bench: Start) -> None:
    flow, images = bench(), stack(new_uid(), "T1", slices=1)
    images[0].add_new(0x00090010, "LO", "A VENDOR")
    images[0].add_new(0x00091001, "LO", "kept as it came")

    flow.send(images)

    kept = dcmread(spooled(flow)[0])
    assert kept == images[0] and kept[0x00091001].VR == "LO"
    assert kept.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
    ids=lambda uid: uid.name,
)
def test_every_transfer_syntax_is_stored_as_it_came(bench: Start, syntax: str) -> None:
    large = {"Rows": 64, "Columns": 64, "PixelData": bytes(range(256)) * 32}
    flow, ds = bench(), stack(new_uid(), "T1", slices=1, **large)[0]
    if syntax in {RLELossless, JPEGLSLossless, JPEG2000Lossless}:
        ds.compress(syntax)
    else:
        ds["PixelData"].VR = "OW"
        ds.file_meta.TransferSyntaxUID = syntax

    flow.send([ds])

    kept = dcmread(spooled(flow)[0])
    assert kept.file_meta.TransferSyntaxUID == syntax
    assert (kept.pixel_array == ds.pixel_array).all()


@pytest.mark.parametrize(
    "sop_class",
    [EnhancedMRImageStorage, CTImageStorage, ComprehensiveSRStorage, EncapsulatedPDFStorage],
    ids=lambda uid: uid.name,
)
def test_whatever_comes_with_a_study_is_stored(bench: Start, sop_class: str) -> None:
    flow, ds = bench(), stack(new_uid(), "T1", slices=1, SOPClassUID=sop_class)[0]
    ds.file_meta.MediaStorageSOPClassUID = sop_class

    flow.send([ds])

    assert len(spooled(flow)) == 1


def test_an_unreadable_data_set_is_kept_all_the_same(bench: Start) -> None:
    flow, ds = bench(), stack(new_uid(), "T1", slices=1)[0]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        delattr(ds, keyword)

    flow.send([ds])

    wait_for("it to be read", lambda: flow.node.ledger.totals()["unreadable"] == 1)
    assert len(spooled(flow)) == 1


def test_two_associations_that_bring_the_same_study_at_once_store_it_once(bench: Start) -> None:
    flow, images = bench(), pair()
    senders = [threading.Thread(target=flow.send, args=(images,)) for _ in range(3)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()

    assert len(flow.wait(State.DELIVERED).inputs or {}) == 2
    assert len(spooled(flow)) == 24 and len(flow.worker.took) == 1


def test_many_small_studies_at_once_are_kept_apart(bench: Start) -> None:
    flow = bench()
    senders = [threading.Thread(target=flow.send, args=(pair(),)) for _ in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()

    wait_for("all four", lambda: [job.state for job in flow.jobs()] == [State.DELIVERED] * 4, seconds=30)


def test_a_full_disk_is_answered_with_a700_and_nothing_is_half_there(bench: Start, tmp_path: Path) -> None:
    spool = tmp_path / "spool" / "incoming"
    flow = bench()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(spool)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("A FULL DISK IS NOT TESTED: mounting a small tmpfs is not permitted here")
    try:
        large: list[Dataset] = stack(new_uid(), "T1", Rows=128, Columns=128, PixelData=bytes(32768))
        association = associate(flow.port, large)
        statuses = store(association, large)
        association.release()

        assert statuses[0] == 0x0000 and statuses[-1] == 0xA700
        assert len(spooled(flow)) == statuses.count(0x0000) == flow.node.ledger.totals()["arrivals_new"]
        assert not list(spool.rglob(".*"))
    finally:
        flow.stop()
        subprocess.run(["umount", str(spool)], check=True)
