"""What a real archive answers when it is asked how many images it holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import HOST, Orthanc
from studies import copy_study, headers

from dicom_node import find
from dicom_node.settings import Peer
from synthesis.phantom import write_study

pytestmark = pytest.mark.pacs


def test_orthanc_counts_its_images_and_names_those_that_we_lack(orthanc: Orthanc, tmp_path: Path) -> None:
    source = write_study(tmp_path / "source", seed=310, t2=None, localizer=False)
    study_uid = copy_study(source.paths, tmp_path / "sent", "counted")
    sent = headers(sorted((tmp_path / "sent").iterdir()))
    orthanc.upload(tmp_path / "sent")
    whole = {
        uid: sum(ds.SeriesInstanceUID == uid for ds in sent) for uid in {ds.SeriesInstanceUID for ds in sent}
    }
    short = min(whole)
    peer = Peer(name="pacs", ae_title=orthanc.ae_title, host=HOST, port=orthanc.port)

    held = find.held("TAVIT", peer, study_uid, whole | {short: 3}, name_missing=True)

    assert {uid: one.instances for uid, one in held.items()} == whole
    numbers = {ds.SOPInstanceUID: ds.InstanceNumber for ds in sent if ds.SeriesInstanceUID == short}
    assert held[short].numbers == numbers
    assert not any(one.numbers for uid, one in held.items() if uid != short)
