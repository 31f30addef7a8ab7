"""Whatever transfer syntax a PACS holds, the node stores it as it came."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pydicom
import pytest
from bench import Node, Orthanc, tool, wait_for
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from stand_in_pacs import send
from studies import other_uid

from synthesis.phantom import PhantomStudy, write_study

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
