"""What the node makes comes back to it, from an archive that forwards everything: nothing begins again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from node_bench import Bench, Peer, wait_for
from objects import every_object, save_all
from pydicom import Dataset, dcmread
from small_studies import pair, write

from dicom_node.ledger import State
from synthesis.series import read_series

Start = Callable[..., Bench]
T1, FLAIR = slice(0, 12), slice(12, 24)
#: On a slow machine a pause must not look like the end of an association.
UNHURRIED = {"quiet_seconds": 20}
PATIENCE_S = 200


def everything_made_of(study: Sequence[Dataset], folder: Path) -> list[Dataset]:
    """Return one object of every kind and form: images, segmentations, reports, answers, a retraction."""
    t1, flair = (
        read_series(write(study[part], folder / name)) for part, name in ((T1, "t1"), (FLAIR, "flair"))
    )
    kinds = every_object(t1, flair)
    assert len({instances[0].SOPClassUID for instances in kinds.values()}) == 7
    return [dcmread(path) for path in save_all([one[0] for one in kinds.values()], folder / "made")]


def as_old_archives_keep_it(images: list[Dataset]) -> list[Dataset]:
    """Drop Synthetic Data, which came with the standard of 2024."""
    for image in images:
        del image.SyntheticData
    return images


def answered(peer: Peer) -> set[str]:
    """Return what the peer was sent; on a slow machine one may come twice, its first answer lost."""
    return {str(image.SOPInstanceUID) for image in peer.received}


KEPT = pytest.mark.parametrize("kept", [list, as_old_archives_keep_it], ids=["as it is", "without its mark"])


@KEPT
def test_no_kind_of_object_that_is_routed_back_opens_a_job_or_is_answered(
    bench: Start, peer: Peer, tmp_path: Path, kept: Callable[[list[Dataset]], list[Dataset]]
) -> None:
    flow, study = bench(collect=UNHURRIED), pair()
    flow.send(study)
    job = flow.wait(State.DELIVERED, seconds=PATIENCE_S)
    made = kept(everything_made_of(study, tmp_path))

    flow.send(made)

    told = flow.noted(job, "SYNTHETIC_IGNORED", seconds=PATIENCE_S)
    assert told == f"{len(made)} instances of a synthetic series came in: ignored, never an input."
    assert [(one.id, one.state) for one in flow.jobs()] == [(job.id, State.DELIVERED)]
    assert len(flow.worker.took) == 1 and len(answered(peer)) == 12


def test_what_was_delivered_is_known_by_its_uid_though_an_archive_dropped_every_mark(
    bench: Start, peer: Peer
) -> None:
    flow = bench(collect=UNHURRIED)
    flow.send(pair())
    job = flow.wait(State.DELIVERED, seconds=PATIENCE_S)
    back = list({one.SOPInstanceUID: one for one in peer.received}.values())
    for image in as_old_archives_keep_it(back):
        image.Manufacturer, image.ImageType = "Archive", ["ORIGINAL", "PRIMARY", "M", "SE"]
        image.SeriesDescription = "T1"

    flow.send(back)

    assert flow.noted(job, "SYNTHETIC_IGNORED", seconds=PATIENCE_S).startswith("12 instances")
    assert [(one.id, one.state) for one in flow.jobs()] == [(job.id, State.DELIVERED)]


@KEPT
def test_no_kind_of_object_alone_opens_a_job(
    bench: Start, peer: Peer, tmp_path: Path, kept: Callable[[list[Dataset]], list[Dataset]]
) -> None:
    flow, study = bench(collect=UNHURRIED), pair()
    made = kept(everything_made_of(study, tmp_path))

    flow.send(made)

    uids = [one.SOPInstanceUID for one in made]
    wait_for("headers", lambda: all(flow.node.ledger.header_of(uid) for uid in uids), PATIENCE_S)
    flow.send(pair())  # what came before it has been looked at when this one is answered
    flow.wait(State.DELIVERED, seconds=PATIENCE_S)
    assert len(flow.jobs()) == 1 and len(answered(peer)) == 12


def test_no_kind_of_object_is_an_input_of_the_study_it_lies_in(
    bench: Start, peer: Peer, tmp_path: Path
) -> None:
    flow, study = bench(collect=UNHURRIED), pair()
    made = everything_made_of(study, tmp_path)

    flow.send([*made, *study])

    job = flow.wait(State.DELIVERED, seconds=PATIENCE_S)
    explanation = job.explanation or {}
    roles = {line["uid"]: line["role"] for line in explanation["series"]}
    assert {roles[one.SeriesInstanceUID] for one in made} == {"SYNTHETIC"}
    assert explanation["chosen"] == {
        "T1W": study[T1][0].SeriesInstanceUID,
        "FLAIR": study[FLAIR][0].SeriesInstanceUID,
    }
    assert len(answered(peer)) == 12
