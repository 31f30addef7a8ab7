"""What cannot be done ends with a sentence that a technologist understands, and holds nobody else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bench import DONE, ENDED, Bench, echo
from pydicom.dataset import Dataset
from stand_in_pacs import send
from studies import copy_study

from synthesis.phantom import PhantomStudy, write_study

pytestmark = [pytest.mark.pacs, pytest.mark.slow]


def cut_pixels(dataset: Dataset) -> None:
    if dataset.InstanceNumber == 9:
        dataset.PixelData = dataset.PixelData[:1000]


def drop_pixels(dataset: Dataset) -> None:
    del dataset.PixelData


def noise(dataset: Dataset) -> None:
    rng = np.random.default_rng(int(dataset.InstanceNumber))
    dataset.PixelData = rng.integers(0, 900, (dataset.Rows, dataset.Columns), dtype=np.uint16).tobytes()


def nothing(dataset: Dataset) -> None:
    pass


def files_of(study: PhantomStudy, *roles: str) -> list[Path]:
    return [path for role in roles for path in study.series[role].paths]


def with_a_hole(study: PhantomStudy) -> list[Path]:
    return [path for path in files_of(study, "t1", "flair") if path != study.series["t1"].paths[9]]


Case = tuple[Callable[[PhantomStudy], list[Path]], Callable[[Dataset], None]]
CASES: dict[str, Case] = {
    "the FLAIR is missing": (lambda study: files_of(study, "t1"), nothing),
    "the T1W is missing": (lambda study: files_of(study, "flair"), nothing),
    "there is only a T1W after contrast": (lambda study: files_of(study, "t1_post", "flair"), nothing),
    "a slice is missing": (with_a_hole, nothing),
    "a slice is cut short": (lambda study: files_of(study, "t1", "flair"), cut_pixels),
    "the pixel data is absent": (lambda study: files_of(study, "t1", "flair"), drop_pixels),
    "it is not a head": (lambda study: files_of(study, "t1", "flair"), noise),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PhantomStudy:
    """A study of which the cases take what they need."""
    return write_study(
        tmp_path_factory.mktemp("source"), seed=200, t2=None, localizer=False, with_t1_post=True
    )


@pytest.fixture(scope="module")
def sent(bench: Bench, source: PhantomStudy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The Study Instance UID of each case, all sent one after the other, and a good study after them."""
    studies = {}
    cases = {**CASES, "it is good": (lambda study: files_of(study, "t1", "flair"), nothing)}
    for name, (choose, change) in cases.items():
        folder = tmp_path_factory.mktemp("case")
        studies[name] = copy_study(choose(source), folder, name, change)
        send(folder, bench.node.port, bench.node.ae_title, bench.orthanc.ae_title)
    return studies


@pytest.mark.parametrize("case", CASES)
def test_a_study_that_cannot_be_done_is_declined_with_a_sentence(
    bench: Bench, sent: dict[str, str], case: str
) -> None:
    job = bench.node.job(sent[case], (*ENDED, "WAITING"))
    print(f"\n{case}: {job['state']} {job['code']}: {job['reason']}")
    assert job["state"] in ("DECLINED", "WAITING"), job
    assert job["code"]
    assert re.fullmatch(r"[A-Z].{15,}\.", job["reason"], re.DOTALL)
    assert not re.search(r"\d+\.\d+\.\d+|Traceback|PHANTOM", job["reason"])


def test_a_good_study_behind_the_bad_ones_is_done(bench: Bench, sent: dict[str, str]) -> None:
    job = bench.node.job(sent["it is good"], seconds=200)
    assert job["state"] in DONE, job
    assert len(bench.orthanc.series(sent["it is good"])) == 1


def test_the_node_still_answers(bench: Bench, sent: dict[str, str]) -> None:
    assert echo(bench.node.port, bench.node.ae_title)


def test_two_equal_t1w_end_waiting_or_declined_and_no_guess_is_delivered(
    bench: Bench, source: PhantomStudy, tmp_path: Path
) -> None:
    def second(dataset: Dataset) -> None:
        dataset.SeriesInstanceUID += ".1"
        dataset.SOPInstanceUID += ".1"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

    study_uid = copy_study(files_of(source, "t1", "flair"), tmp_path / "a", "two equal")
    copy_study(files_of(source, "t1"), tmp_path / "b", "two equal", second)
    send(tmp_path, bench.node.port, bench.node.ae_title, bench.orthanc.ae_title)
    job = bench.node.job(study_uid, (*ENDED, "WAITING"))
    assert job["state"] in ("DECLINED", "WAITING"), job
