"""The SCU against real peers on the loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from node_bench import HOST, Peer, free_port
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    SegmentationStorage,
)
from small_studies import new_uid, pair, stack, write

from dicom_node.errors import NoSuchThing, PeerRefuses, PeerUnreachable
from dicom_node.parcels import Answer, Parcel, parcel
from dicom_node.send import LOSSLESS, echo, forms, send_folder, store
from dicom_node.settings import Peer as PeerSettings

StartPeer = Callable[..., Peer]


@pytest.fixture
def start() -> Iterator[StartPeer]:
    """Start a peer that answers as told."""
    made: list[Peer] = []

    def one(**habits: object) -> Peer:
        made.append(Peer(**habits))  # type: ignore[arg-type]
        made[-1].start()
        return made[-1]

    yield one
    for each in made:
        each.stop()


def known(port: int, ae_title: str = "PACS", host: str = HOST, *, compress: bool = False) -> PeerSettings:
    return PeerSettings(name="pacs", ae_title=ae_title, host=host, port=port, compress=compress)


def sent(peer: Peer, parcels: list[Parcel], *, compress: bool = False) -> list[Answer]:
    answers: list[Answer] = []
    store("TAVIT", known(peer.port, compress=compress), parcels, answers.append)
    return answers


def test_an_echo_is_timed(start: StartPeer) -> None:
    assert 0 < echo("TAVIT", known(start().port)) < 5


def test_a_peer_that_does_not_listen_is_said() -> None:
    with pytest.raises(PeerUnreachable, match=r"pacs .* does not answer: nothing listens there"):
        echo("TAVIT", known(free_port()))


def test_a_host_that_does_not_exist_is_said() -> None:
    with pytest.raises(PeerUnreachable, match=r"cannot be found|does not answer"):
        echo("TAVIT", known(free_port(), host="no-such-host.invalid"))


def test_a_peer_that_rejects_us_is_said(start: StartPeer) -> None:
    peer = start()
    peer._server.ae.require_called_aet = True

    with pytest.raises(PeerUnreachable, match=r"rejects our association as TAVIT: Called AE title"):
        echo("TAVIT", known(peer.port, ae_title="OTHER"))


def test_each_file_has_its_answer(start: StartPeer, tmp_path: Path) -> None:
    peer = start(statuses=[0, 0xB000, 0xA700, 0xC000])
    parcels = [parcel(path) for path in write(stack(new_uid(), "T1", slices=4), tmp_path)]

    answers = sent(peer, parcels)

    assert [answer.status for answer in answers] == [0, 0xB000, 0xA700, 0xC000]
    assert [answer.stored for answer in answers] == [True, True, False, False]
    assert [answer.transient for answer in answers] == [False, False, True, False]


def test_what_arrives_is_what_lay_on_the_disk(start: StartPeer, tmp_path: Path) -> None:
    peer, images = start(), stack(new_uid(), "T1", slices=2)

    sent(peer, [parcel(path) for path in write(images, tmp_path)])

    assert peer.received == images


def test_an_old_peer_gets_the_same_in_implicit_vr(start: StartPeer, tmp_path: Path) -> None:
    peer, images = start(syntaxes=[ImplicitVRLittleEndian]), stack(new_uid(), "T1", slices=2)
    reference = Dataset()
    reference.ReferencedSOPInstanceUID = images[1].SOPInstanceUID
    images[0].SourceImageSequence = [reference]

    sent(peer, [parcel(path) for path in write(images, tmp_path)])

    assert peer.received == images
    assert {ds.file_meta.TransferSyntaxUID for ds in peer.received} == {ImplicitVRLittleEndian}


PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


@pytest.mark.parametrize(
    ("sop_class", "syntax", "compress", "expected"),
    [
        (MRImageStorage, ExplicitVRLittleEndian, False, PLAIN),
        (MRImageStorage, ExplicitVRLittleEndian, True, (*LOSSLESS, *PLAIN)),
        (EnhancedMRImageStorage, ExplicitVRLittleEndian, True, (*LOSSLESS, *PLAIN)),
        (SegmentationStorage, ExplicitVRLittleEndian, True, PLAIN),
        (CTImageStorage, RLELossless, True, (RLELossless,)),
        (MRImageStorage, JPEG2000Lossless, True, (JPEG2000Lossless,)),
    ],
)
def test_the_forms_in_which_an_object_may_go(
    sop_class: str, syntax: str, compress: bool, expected: tuple[str, ...]
) -> None:
    assert forms(sop_class, syntax, compress=compress) == expected


@pytest.mark.parametrize(
    ("takes", "compress", "used"),
    [
        ((*PLAIN, RLELossless, JPEG2000Lossless, JPEGLSLossless), True, JPEGLSLossless),
        ((*PLAIN, RLELossless, JPEG2000Lossless), True, JPEG2000Lossless),
        ((*PLAIN, RLELossless), True, RLELossless),
        ((JPEG2000Lossless,), True, JPEG2000Lossless),
        (PLAIN, True, ExplicitVRLittleEndian),
        ((ImplicitVRLittleEndian,), True, ImplicitVRLittleEndian),
        ((*PLAIN, JPEGLSLossless), False, ExplicitVRLittleEndian),
    ],
)
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_the_best_that_a_peer_takes_is_used_and_the_pixels_stay(
    start: StartPeer, tmp_path: Path, takes: tuple[str, ...], compress: bool, used: str, signed: bool
) -> None:
    peer, images = start(syntaxes=takes), stack(new_uid(), "T1", slices=2)
    for image in images:
        image.Rows = image.Columns = 64  # JPEG 2000 halves it five times
        image.PixelData = np.arange(4096, dtype="<u2").tobytes()
        if signed:
            image.PixelRepresentation, image.BitsStored, image.HighBit = 1, 16, 15
            image.PixelData = (np.arange(4096, dtype="<i2") - 2048).tobytes()

    answers = sent(peer, [parcel(path) for path in write(images, tmp_path)], compress=compress)

    assert [answer.status for answer in answers] == [0, 0]
    assert {image.file_meta.TransferSyntaxUID for image in peer.received} == {used}
    for before, after in zip(images, peer.received, strict=True):
        assert after.SOPInstanceUID == before.SOPInstanceUID
        np.testing.assert_array_equal(after.pixel_array, before.pixel_array)
        for image in (before, after):
            del image.PixelData
        assert after == before


def test_pixels_that_no_coder_takes_go_as_they_lie(start: StartPeer, tmp_path: Path) -> None:
    peer, images = start(syntaxes=[*PLAIN, JPEGLSLossless]), stack(new_uid(), "T1", slices=2)
    images[0].PixelData = images[0].PixelData[:100]

    answers = sent(peer, [parcel(path) for path in write(images, tmp_path)], compress=True)

    assert [answer.stored for answer in answers] == [True, True]
    used = [image.file_meta.TransferSyntaxUID for image in peer.received]
    assert used == [ExplicitVRLittleEndian, JPEGLSLossless]
    assert peer.received[0] == images[0]


def test_a_peer_that_takes_one_of_two_classes_gets_that_one(start: StartPeer, tmp_path: Path) -> None:
    peer, images = start(), stack(new_uid(), "T1", slices=2)
    images[1].SOPClassUID = images[1].file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    parcels = [parcel(path) for path in write(images, tmp_path)]

    with pytest.raises(PeerRefuses, match="accepts no presentation context for 1 of 2 objects"):
        sent(peer, parcels)

    assert len(peer.received) == 1


def test_a_peer_that_takes_nothing_of_it_refuses(start: StartPeer, tmp_path: Path) -> None:
    peer = start(syntaxes=[JPEG2000Lossless])
    parcels = [parcel(path) for path in write(stack(new_uid(), "T1", slices=1), tmp_path)]

    with pytest.raises(PeerRefuses):
        sent(peer, parcels)


def test_the_kind_of_a_file_is_read_from_its_meta_information(tmp_path: Path) -> None:
    images = stack(new_uid(), "T1", slices=1)
    path = write(images, tmp_path)[0]

    found = parcel(path)

    assert (found.sop_instance_uid, found.transfer_syntax_uid) == (
        images[0].SOPInstanceUID,
        ExplicitVRLittleEndian,
    )


def test_a_folder_is_sent_with_progress(start: StartPeer, tmp_path: Path) -> None:
    peer, steps = start(), []
    write(pair(), tmp_path / "a")
    (tmp_path / "a" / "readme.txt").write_text("x")

    stored, complaints = send_folder("TAVIT", known(peer.port), tmp_path, lambda *step: steps.append(step))

    assert stored == 24 and complaints == ["readme.txt: not a DICOM file, left out"]
    assert steps[0] == (1, 24) and steps[-1] == (24, 24)


def test_a_refused_file_is_a_complaint(start: StartPeer, tmp_path: Path) -> None:
    peer = start(statuses=[0xC000])
    write(stack(new_uid(), "T1", slices=2), tmp_path)

    stored, complaints = send_folder("TAVIT", known(peer.port), tmp_path, lambda *_: None)

    assert stored == 1 and complaints == ["0000.dcm: refused with status 0xC000"]


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_dicom_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(NoSuchThing, match="There is no "):
        send_folder("TAVIT", known(free_port()), tmp_path / name, lambda *_: None)
