"""A real post-contrast T1 is in the study: it is never taken as input."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import DONE, Bench
from studies import copy_study, headers

pytestmark = [pytest.mark.pacs, pytest.mark.slow]

PATIENT = "TCGA_CS_4943_20000902"


@pytest.fixture
def patient(shared_data: Path) -> Path:
    """A glioma patient with T1, FLAIR, T1 POST and a SEG, JPEG-LS."""
    return shared_data / "lgg" / PATIENT


def test_of_a_study_with_both_t1_the_one_before_contrast_is_taken(
    bench: Bench, patient: Path, tmp_path: Path
) -> None:
    files = sorted(patient.rglob("*.dcm"))
    study_uid = copy_study(files, tmp_path / "both", "both")
    bench.orthanc.upload(tmp_path / "both")
    bench.orthanc.send_study(study_uid)
    job = bench.node.job(study_uid, seconds=200)
    assert job["state"] in DONE, job
    roles = {tags["SeriesDescription"]: uid for uid, tags in bench.orthanc.series(study_uid).items()}
    told = bench.node.json("queue", "explain", job["job"])
    assert told["chosen"] == {"T1W": roles["T1"], "FLAIR": roles["FLAIR"]}


def test_with_only_the_t1_after_contrast_the_study_is_declined_and_the_reason_says_so(
    bench: Bench, patient: Path, tmp_path: Path
) -> None:
    files = [*sorted((patient / "t1c").iterdir()), *sorted((patient / "flair").iterdir())]
    study_uid = copy_study(files, tmp_path / "post", "post")
    bench.orthanc.upload(tmp_path / "post")
    bench.orthanc.send_study(study_uid)
    job = bench.node.job(study_uid)
    assert job["state"] == "DECLINED", job
    assert "contrast" in job["reason"].lower()
    assert len(bench.orthanc.series(study_uid)) == len(
        {image.SeriesInstanceUID for image in headers(sorted((tmp_path / "post").iterdir()))}
    )
