"""The phantom's examination, sent by the stand-in PACS that the demo uses, which also gets the answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from node_bench import Bench, wait_for
from stand_in_pacs import StandInPACS, send

from dicom_node.ledger import State
from synthesis.phantom import PhantomStudy, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> PhantomStudy:
    """A survey in three planes, T2W, FLAIR, T1W and a real post-contrast T1."""
    return write_study(tmp_path_factory.mktemp("phantom"), with_t1_post=True)


def test_the_phantoms_t1w_and_flair_are_taken_and_the_answer_comes_back(
    bench: Callable[..., Bench], tmp_path: Path, study: PhantomStudy
) -> None:
    with StandInPACS(tmp_path / "pacs", say=lambda sentence: None) as pacs:
        flow = bench(peer_port=pacs.port)

        send(study.folder, flow.port, "TAVIT")

        job = flow.wait(State.DELIVERED, seconds=30)
        answered = wait_for("the series", lambda: pacs.series(study.uid))
    explanation = job.explanation or {}
    roles = {line["description"]: line["role"] for line in explanation["series"]}
    assert explanation["chosen"] == {"T1W": study.series["t1"].uid, "FLAIR": study.series["flair"].uid}
    assert roles == {
        "Survey": "LOCALIZER",
        "T2W TSE tra": "T2W",
        "FLAIR tra": "FLAIR",
        "T1W SE tra": "T1W",
        "T1W SE tra +Gd": "T1C",
    }
    assert [len(files) for files in answered.values()] == [22]
    assert "holds a real post-contrast T1 as well" in explanation["reason"]


def test_a_rule_may_decline_it_because_contrast_was_given(
    bench: Callable[..., Bench], study: PhantomStudy
) -> None:
    flow = bench(rule=[{"name": "r", "if_contrast_given": "decline"}])

    send(study.folder, flow.port, "TAVIT")

    flow.wait(State.DECLINED, "CONTRAST_GIVEN", seconds=30)
