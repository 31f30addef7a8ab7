"""Objects on their way to peers that take them compressed, and to peers that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from bench import HOST, Orthanc, StoreSCP
from objects import every_object, save_all
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from slices import write_series

from dicom_node.parcels import Answer, parcel
from dicom_node.send import COMPRESSIBLE, store
from dicom_node.settings import Peer
from synthesis.series import read_series

pytestmark = pytest.mark.pacs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every kind of object that we make: unsigned and signed, multi-frame, segments, documents."""
    folder = tmp_path_factory.mktemp("made")
    values = (np.arange(6 * 36 * 40, dtype=np.uint16).reshape(6, 36, 40) // 5) + 50
    t1 = read_series(write_series(folder / "t1", values))
    flair = read_series(write_series(folder / "flair", values, series="2"))
    objects = [one for several in every_object(t1, flair).values() for one in several]
    return save_all(objects, folder / "out")


def sent(port: int, ae_title: str, paths: list[Path]) -> None:
    peer = Peer(name="pacs", ae_title=ae_title, host=HOST, port=port, compress=True)
    answers: list[Answer] = []
    store("TAVIT", peer, [parcel(path) for path in paths], answers.append)
    assert [answer.status for answer in answers] == [0] * len(paths)


def is_the_same(before: Dataset, after: Dataset) -> None:
    """Compare all but the encoding: identifiers, provenance, every value, every pixel."""
    if "PixelData" in before:
        np.testing.assert_array_equal(after.pixel_array, before.pixel_array)
        del before.PixelData, after.PixelData
    assert after == before


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Callable[..., StoreSCP]]:
    """Start DCMTK's receiver with options: `receiver("+xt")`."""
    started: list[StoreSCP] = []

    def start(*options: str) -> StoreSCP:
        started.append(StoreSCP(tmp_path / "storescp", options))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.mark.parametrize(
    ("option", "used"),
    [
        ("+xt", JPEGLSLossless),
        ("+xv", JPEG2000Lossless),
        ("+xr", RLELossless),
        ("+x=", ExplicitVRLittleEndian),
        ("+xi", ImplicitVRLittleEndian),
    ],
    ids=["JPEG-LS", "JPEG 2000", "RLE", "only uncompressed", "only Implicit VR"],
)
def test_dcmtk_gets_what_it_takes_and_the_same_pixels(
    receiver: Callable[..., StoreSCP], made: list[Path], option: str, used: str
) -> None:
    there = receiver(option)

    sent(there.port, "STORESCP", made)

    before = {one.SOPInstanceUID: one for one in map(dcmread, made)}
    after = {one.SOPInstanceUID: one for one in map(dcmread, there.received.iterdir())}
    assert set(after) == set(before)
    plain = ImplicitVRLittleEndian if used == ImplicitVRLittleEndian else ExplicitVRLittleEndian
    for uid, one in after.items():
        expected = used if one.SOPClassUID in COMPRESSIBLE else plain
        assert one.file_meta.TransferSyntaxUID == expected, one.SOPClassUID.name
        is_the_same(before[uid], one)


def test_orthanc_keeps_it_compressed_and_its_own_decoder_sees_the_same_pixels(
    orthanc: Orthanc, made: list[Path]
) -> None:
    sent(orthanc.port, orthanc.ae_title, made)

    for path in made:
        before = dcmread(path)
        (found,) = orthanc.post("/tools/lookup", str(before.SOPInstanceUID).encode())
        syntax = orthanc.call("GET", f"/instances/{found['ID']}/metadata/TransferSyntax").decode()
        grey = before.SOPClassUID in COMPRESSIBLE
        assert syntax == (JPEGLSLossless if grey else ExplicitVRLittleEndian), before.SOPClassUID.name
        if grey:
            form = "image-int16" if before.PixelRepresentation else "image-uint16"
            frames = before.pixel_array.reshape(-1, before.Rows, before.Columns)
            for number, frame in enumerate(frames):
                png = orthanc.call("GET", f"/instances/{found['ID']}/frames/{number}/{form}")
                shown = np.asarray(Image.open(BytesIO(png)))
                np.testing.assert_array_equal(shown.astype(np.uint16), frame.astype(np.uint16))
        is_the_same(before, dcmread(BytesIO(orthanc.call("GET", f"/instances/{found['ID']}/file"))))
