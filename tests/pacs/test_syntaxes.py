"""Whatever transfer syntax a PACS holds, the node stores it as it came."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from bench import Node, Orthanc, tool, wait_for
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from stand_in_pacs import send
from studies import other_uid

from dicom_node import headers
from synthesis.errors import RefusedInput
from synthesis.phantom import PhantomStudy, write_study
from synthesis.series import Series, read_series

pytestmark = pytest.mark.pacs

DCMTK = {
    ImplicitVRLittleEndian: ("dcmconv", "+ti"),
    ExplicitVRLittleEndian: ("dcmconv", "+te"),
    ExplicitVRBigEndian: ("dcmconv", "+tb"),
    DeflatedExplicitVRLittleEndian: ("dcmconv", "+td"),
    JPEGLosslessSV1: ("dcmcjpeg", "+e1"),
    JPEGLSLossless: ("dcmcjpls",),
    RLELossless: ("dcmcrle",),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> PhantomStudy:
    return write_study(tmp_path_factory.mktemp("syntaxes"), seed=300, t2=None, t1=None, localizer=False)


def encoded(source: Path, syntax: pydicom.uid.UID, number: int, folder: Path) -> Path:
    """Write the image in a transfer syntax, as an instance of a study of its own."""
    image = pydicom.dcmread(source)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(image, keyword, other_uid(f"syntax {number}", image[keyword].value))
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    plain, coded = folder / "plain.dcm", folder / "coded" / "image.dcm"
    coded.parent.mkdir()
    if syntax == JPEG2000Lossless:
        image.compress(syntax, generate_instance_uid=False)
        image.save_as(coded)
    else:
        image.save_as(plain)
        program, *options = DCMTK[syntax]
        more = ["+un"] if program.startswith("dcmcj") else []  # the same UID: it is the same image
        subprocess.run(
            [tool(program), *options, *more, str(plain), str(coded)], check=True, capture_output=True
        )
    assert pydicom.dcmread(coded).file_meta.TransferSyntaxUID == syntax
    return coded


@pytest.mark.parametrize("sender", ["Orthanc", "pynetdicom"])
@pytest.mark.parametrize("syntax", [*DCMTK, JPEG2000Lossless], ids=lambda syntax: syntax.name)
def test_an_image_is_stored_in_the_transfer_syntax_in_which_it_was_sent(
    node: Node, orthanc: Orthanc, study: PhantomStudy, tmp_path: Path, syntax: pydicom.uid.UID, sender: str
) -> None:
    number = 2 * [*DCMTK, JPEG2000Lossless].index(syntax) + (sender == "Orthanc")
    path = encoded(study.paths[number], syntax, number, tmp_path)
    sent = pydicom.dcmread(path)
    if sender == "Orthanc":
        orthanc.upload(path.parent)
        orthanc.send_study(sent.StudyInstanceUID)
    else:
        send(path.parent, node.port, node.ae_title, orthanc.ae_title)

    def stored() -> pydicom.Dataset | None:
        for kept in (node.spool / "incoming").rglob("*.dcm"):
            image = pydicom.dcmread(kept)
            if image.SOPInstanceUID == sent.SOPInstanceUID:
                return image
        return None

    image = wait_for("the file", stored, 10)
    assert image is not None
    assert image.file_meta.TransferSyntaxUID == syntax
    assert image.PixelData == sent.PixelData


#: Beside those of DCMTK: what it cannot write, or another tool writes in another way.
OTHERS = {
    "JPEG Lossless Process 14": (JPEGLossless, ("dcmcjpeg", "+un", "+el")),
    "JPEG 2000 by GDCM": (JPEG2000Lossless, ("gdcmconv", "--j2k")),
    "JPEG-LS by GDCM": (JPEGLSLossless, ("gdcmconv", "--jpegls")),
    "RLE by GDCM": (RLELossless, ("gdcmconv", "--rle")),
}
STORED = {
    **{syntax.name: (syntax, (program, *options)) for syntax, (program, *options) in DCMTK.items()},
    **OTHERS,
}


def converted(paths: list[Path], command: tuple[str, ...], folder: Path) -> list[Path]:
    """Return the files as another program writes them."""
    program, *options = command
    if program.startswith("dcmcj") and "+un" not in options:
        options.insert(0, "+un")  # the same UID: it is the same image
    made = []
    for number, path in enumerate(paths):
        made.append(folder / f"{number}.dcm")
        subprocess.run([tool(program), *options, str(path), str(made[-1])], check=True, capture_output=True)
    return made


def values(series: Series) -> np.ndarray:
    return sitk.GetArrayFromImage(series.image)


@pytest.mark.parametrize("name", STORED)
def test_a_series_is_the_same_volume_in_every_transfer_syntax(
    study: PhantomStudy, tmp_path: Path, name: str
) -> None:
    syntax, command = STORED[name]
    plain = read_series(study.paths[:6])

    paths = converted(study.paths[:6], command, tmp_path)

    assert {pydicom.dcmread(path).file_meta.TransferSyntaxUID for path in paths} == {syntax}
    series = read_series(paths)
    np.testing.assert_array_equal(values(series), values(plain))
    assert series.image.GetDirection() == plain.image.GetDirection()
    assert series.image.GetOrigin() == plain.image.GetOrigin()
    assert series.lossy is None


@pytest.mark.parametrize("option", ["+e1", "+el", "+ee"], ids=["lossless SV1", "lossless", "lossy"])
def test_a_jpeg_that_is_cut_is_refused_and_not_filled_up(
    study: PhantomStudy, tmp_path: Path, option: str
) -> None:
    paths = converted(study.paths[:6], ("dcmcjpeg", "+un", option), tmp_path)
    image = pydicom.dcmread(paths[2])
    stream = next(generate_frames(image.PixelData, number_of_frames=1))
    image.PixelData = encapsulate([stream[: 2 * len(stream) // 3]])
    image.save_as(paths[2])

    with pytest.raises(RefusedInput, match="cut short or damaged") as refused:
        read_series(paths)
    assert refused.value.code == "UNREADABLE_PIXELS"


def test_jpeg_with_loss_is_accepted_and_marked(study: PhantomStudy, tmp_path: Path) -> None:
    plain = read_series(study.paths[:6])

    paths = converted(study.paths[:6], ("dcmcjpeg", "+un", "+ee"), tmp_path)

    series = read_series(paths)
    assert series.lossy is not None
    assert series.lossy.method == "ISO_10918_1" and series.lossy.ratio > 1
    for after, before in zip(values(series), values(plain), strict=True):  # DCMTK shifts and stretches values
        assert 0.99 < np.corrcoef(after.ravel(), before.ravel())[0, 1] < 1.0
    assert pydicom.dcmread(paths[0]).ImageType[0] == "DERIVED"
    assert headers.read(paths[0]).image_type[0] == "ORIGINAL"
