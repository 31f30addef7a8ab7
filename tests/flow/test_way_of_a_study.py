"""From C-STORE to the derived series at the peer."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from node_bench import Bench, Peer, associate, store
from pydicom.uid import ImplicitVRLittleEndian
from small_studies import PATIENT_ID, PATIENT_NAME, new_uid, pair, stack

from dicom_node import collect
from dicom_node.by_hand import retry
from dicom_node.errors import NoSuchThing
from dicom_node.ledger import State

Start = Callable[..., Bench]


def test_a_study_comes_back_with_a_synthetic_series(bench: Start, peer: Peer) -> None:
    flow, images = bench(), pair()

    flow.send(images)

    job = flow.wait(State.DELIVERED)
    assert flow.path(job) == ["RECEIVING", "COMPLETE", "QUEUED", "RUNNING", "SYNTHESISED", "DELIVERED"]
    assert len(peer.received) == 12
    assert {ds.StudyInstanceUID for ds in peer.received} == {images[0].StudyInstanceUID}
    assert {ds.SyntheticData for ds in peer.received} == {"YES"}
    assert {ds.PatientID for ds in peer.received} == {PATIENT_ID}


def test_each_step_has_its_seconds(bench: Start) -> None:
    flow = bench()

    flow.send(pair())

    seconds = flow.wait(State.DELIVERED).seconds or {}
    assert {"receive", "decide", "queue", "read", "synthesise", "deliver", "total"} <= set(seconds)
    assert all(value >= 0 for value in seconds.values())


def test_the_decision_takes_at_most_two_seconds_when_the_association_was_released(bench: Start) -> None:
    flow = bench(collect={"quiet_seconds": 60.0})
    decided = []

    for nth in range(3):
        flow.send(pair())
        decided.append((flow.wait(State.DELIVERED, nth=nth).seconds or {})["decide"])

    # The best of three: a timer would hold all of them, another process on the machine only some. Where
    # several wait for each core, seconds tell nothing but that no timer was waited for.
    overloaded = os.getloadavg()[0] > 2 * (os.cpu_count() or 1)
    assert min(decided) <= (30.0 if overloaded else 2.0), decided


def test_the_pair_goes_though_the_t2_still_arrives(bench: Start) -> None:
    flow, study = bench(collect={"quiet_seconds": 60.0}), new_uid()
    t2 = stack(study, "T2")
    scanner = associate(flow.port, t2)
    store(scanner, t2[:5])

    flow.send(pair(study))

    flow.wait(State.DELIVERED)
    scanner.release()


def test_the_series_are_recorded_with_their_reasons(bench: Start) -> None:
    flow, study = bench(), new_uid()

    flow.send([*pair(study), *stack(study, "T2")])

    explanation = flow.wait(State.DELIVERED).explanation or {}
    assert {line["role"] for line in explanation["series"]} == {"T1W", "FLAIR", "T2W"}
    assert set(explanation["chosen"]) == {"T1W", "FLAIR"}


def test_a_suspicion_about_the_t1w_goes_to_the_worker_and_into_the_explanation(
    bench: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "glance_into", lambda files: lambda uid: 2.0)  # 16 pixels show no vessels
    flow = bench()

    flow.send(pair())

    job = flow.wait(State.DELIVERED)
    (flag,) = flow.worker.took[-1].remarks
    assert flag.startswith("The T1W may have been acquired after contrast agent")
    assert (job.explanation or {})["flags"] == [flag]


def test_two_studies_interleaved_in_one_association_are_kept_apart(bench: Start) -> None:
    flow, one, other = bench(collect={"quiet_seconds": 600.0}), pair(), pair()

    flow.send([image for both in zip(one, other, strict=True) for image in both])

    for nth, images in enumerate((one, other)):
        job = flow.wait(State.DELIVERED, nth=nth)
        assert job.study_uid == images[0].StudyInstanceUID
        assert sum(map(len, (job.inputs or {}).values())) == len(images)


def test_an_aborted_transfer_that_is_sent_again_as_a_whole_needs_no_timer(bench: Start) -> None:
    flow, images = bench(collect={"quiet_seconds": 600.0}), pair()
    aborted = associate(flow.port, images)
    store(aborted, images[:17])
    aborted.abort()

    flow.send(images)

    assert (flow.wait(State.DELIVERED).seconds or {})["decide"] < 300.0


def test_a_study_sent_again_is_noted_and_nothing_new_arrives(bench: Start, peer: Peer) -> None:
    flow, images = bench(), pair()
    flow.send(images)
    job = flow.wait(State.DELIVERED)

    flow.send(images)

    assert flow.noted(job, "SENT_AGAIN") == "24 instances came again, all known: nothing to do."
    assert len(flow.jobs()) == 1 and len(flow.worker.took) == 1 and len(peer.received) == 12


def test_a_synthetic_series_that_is_routed_back_is_ignored(bench: Start, peer: Peer) -> None:
    flow = bench()
    flow.send(pair())
    job = flow.wait(State.DELIVERED)

    flow.send(peer.received)

    assert flow.noted(job, "SYNTHETIC_IGNORED").startswith("12 instances of a synthetic series")
    assert len(flow.jobs()) == 1


def test_a_synthetic_series_alone_opens_no_job(bench: Start) -> None:
    flow = bench()

    flow.send(stack(new_uid(), "T1", SyntheticData="YES"))
    flow.send(pair())

    flow.wait(State.DELIVERED)
    assert len(flow.jobs()) == 1


def test_other_bytes_under_a_known_uid_are_set_aside(bench: Start) -> None:
    flow, images = bench(), pair()
    flow.send(images)
    job = flow.wait(State.DELIVERED)
    images[3].PixelData = bytes(512)

    flow.send(images[3:4])

    assert "1 instances came again with other content" in flow.noted(job, "CONFLICT")
    assert len(list((flow.node.spool.root / "conflicts").iterdir())) == 1
    assert len(flow.jobs()) == 1


def test_a_flair_that_arrives_late_is_waited_for(bench: Start) -> None:
    flow, study = bench(), new_uid()
    flow.send(stack(study, "T1"))
    waiting = flow.wait(State.WAITING, "NO_FLAIR")
    assert "The study holds no FLAIR" in waiting.reason

    flow.send(stack(study, "FLAIR"))

    job = flow.wait(State.DELIVERED)
    assert flow.path(job)[:3] == ["RECEIVING", "WAITING", "COMPLETE"]


def test_a_flair_that_comes_after_the_study_was_declined_reopens_it(bench: Start) -> None:
    flow, study = bench(collect={"quiet_seconds": 0.5, "wait_minutes": 0.02}), new_uid()
    flow.send(stack(study, "T1"))
    flow.wait(State.DECLINED, "NO_FLAIR")

    flow.send(stack(study, "FLAIR"))

    job = flow.wait(State.DELIVERED)
    assert flow.path(job)[:5] == ["RECEIVING", "WAITING", "DECLINED", "RECEIVING", "COMPLETE"]


def test_a_missing_slice_is_waited_for_by_name(bench: Start) -> None:
    flow, images = bench(), pair()
    late = images.pop(4)
    flow.send(images)
    waiting = flow.wait(State.WAITING, "SLICE_MISSING")
    assert "instance number 5" in waiting.reason

    flow.send([late])

    flow.wait(State.DELIVERED)


def test_a_missing_slice_that_comes_completes_the_pair_without_a_timer(bench: Start) -> None:
    flow, study = bench(collect={"quiet_seconds": 60.0}), new_uid()
    t1 = stack(study, "T1")
    flow.send([*t1[:5], *t1[6:], *stack(study, "FLAIR")])
    flow.wait(State.WAITING, "SLICE_MISSING")

    flow.send([t1[5]])

    assert (flow.wait(State.DELIVERED).seconds or {})["decide"] < 30.0


def test_one_association_per_image_waits_until_it_is_quiet(bench: Start) -> None:
    flow, study = bench(collect={"quiet_seconds": 1.5}), new_uid()
    flow.send(stack(study, "FLAIR"))
    for ds in stack(study, "T1"):
        flow.send([ds])

    job = flow.wait(State.DELIVERED)

    assert (job.seconds or {})["decide"] >= 1.5


def test_an_aborted_association_waits_until_it_is_quiet(bench: Start) -> None:
    flow, images = bench(collect={"quiet_seconds": 1.5}), pair()
    association = associate(flow.port, images)
    store(association, images)
    association.abort()

    job = flow.wait(State.DELIVERED)

    assert (job.seconds or {})["decide"] >= 1.5


def test_slices_that_complete_a_used_series_late_open_revision_two(bench: Start, peer: Peer) -> None:
    flow, study = bench(), new_uid()
    t1 = stack(study, "T1", slices=14)
    flow.send([*t1[:12], *stack(study, "FLAIR")])
    first = flow.wait(State.DELIVERED)

    flow.send(t1[12:])

    second = flow.wait(State.DELIVERED, nth=1)
    assert second.revision == 2 and "next revision" in flow.noted(first, "REVISED")
    assert len(flow.worker.took[-1].t1w) == 14


def test_late_instances_that_do_not_change_the_pair_open_no_revision(bench: Start) -> None:
    flow, study = bench(), new_uid()
    flow.send(pair(study))
    flow.wait(State.DELIVERED)

    flow.send(stack(study, "T2"))
    flow.send(pair())

    flow.wait(State.DELIVERED, nth=1)
    assert {job.revision for job in flow.jobs()} == {1}


def test_only_a_post_contrast_t1_is_declined_with_a_reason(bench: Start) -> None:
    flow, study = bench(), new_uid()

    flow.send([*stack(study, "T1", ContrastBolusAgent="Gadovist"), *stack(study, "FLAIR")])

    job = flow.wait(State.DECLINED, "ONLY_POST_CONTRAST")
    assert "a pre-contrast T1W is needed" in job.reason


def test_two_equal_t1w_wait_for_a_person_who_says_which(bench: Start) -> None:
    flow, study = bench(), new_uid()
    one, other = stack(study, "T1", SeriesNumber=11), stack(study, "T1", SeriesNumber=12)
    flow.send([*one, *other, *stack(study, "FLAIR")])
    waiting = flow.wait(State.WAITING, "TWO_T1W")
    flair = next(line["uid"] for line in (waiting.explanation or {})["series"] if line["role"] == "FLAIR")

    retry(flow.node.ledger, flow.node.spool, waiting, other[0].SeriesInstanceUID, flair)

    job = flow.wait(State.DELIVERED)
    assert job.by_hand and (job.explanation or {})["chosen"]["T1W"] == other[0].SeriesInstanceUID


def test_a_retry_that_names_an_unknown_series_says_so(bench: Start) -> None:
    flow = bench()
    flow.send(stack(new_uid(), "T1"))
    waiting = flow.wait(State.WAITING)

    with pytest.raises(NoSuchThing, match=r"no series 1\.2\.3"):
        retry(flow.node.ledger, flow.node.spool, waiting, "1.2.3", "4.5.6")


def test_no_rule_means_no_job_and_the_files_are_kept(bench: Start) -> None:
    flow = bench(rule=[{"name": "spine", "body_part": "SPINE"}, {"name": "by title", "called_aet": "OTHER"}])

    flow.send(pair())
    flow.send(pair(), called="OTHER")

    flow.wait(State.DELIVERED)
    assert [job.rule for job in flow.jobs()] == ["by title"]
    assert len(list((flow.node.spool.root / "incoming").rglob("*.dcm"))) == 48


def test_a_rule_may_deliver_to_others_than_the_sender(bench: Start, peer: Peer) -> None:
    archive = Peer()
    archive.start()
    peers = [
        {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": peer.port},
        {"name": "archive", "ae_title": "PACS", "host": "127.0.0.1", "port": archive.port, "sends": False},
    ]
    flow = bench(peer=peers, rule=[{"name": "r", "deliver_to": ["archive"]}])

    flow.send(pair())

    flow.wait(State.DELIVERED)
    archive.stop()
    assert (len(peer.received), len(archive.received)) == (0, 12)


def test_an_unreadable_instance_does_not_hold_the_others(bench: Start) -> None:
    flow, images = bench(), pair()
    broken = stack(images[0].StudyInstanceUID, "T2", slices=1)[0]
    del broken.StudyInstanceUID

    flow.send([*images, broken])

    flow.wait(State.DELIVERED)
    assert flow.node.ledger.totals()["unreadable"] == 1


def test_pixel_data_that_is_absent_is_said(bench: Start) -> None:
    flow, study = bench(), new_uid()

    flow.send([*stack(study, "T1", PixelData=None), *stack(study, "FLAIR")])

    assert "holds no pixel data" in flow.wait(State.WAITING, "NO_PIXEL_DATA").reason


def test_implicit_vr_is_kept_as_it_came(bench: Start) -> None:
    flow, images = bench(), pair()
    for ds in images:
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian

    flow.send(images)

    flow.wait(State.DELIVERED)


def test_file_names_in_the_spool_tell_nothing_of_the_patient(bench: Start) -> None:
    flow, images = bench(), pair()

    flow.send(images)

    flow.wait(State.DELIVERED)
    names = "\n".join(str(path) for path in flow.node.spool.root.rglob("*"))
    assert not [part for part in (*PATIENT_NAME.split("^"), PATIENT_ID) if part in names]
    assert images[0].StudyInstanceUID not in names


def test_a_study_that_is_sent_again_under_another_rule_gets_a_job_of_that_rule(bench: Start) -> None:
    flow = bench(rule=[{"name": "automatic", "called_aet": "AUTO"}, {"name": "asked", "called_aet": "TAVIT"}])
    study = pair()

    flow.send(study, called="AUTO")
    flow.wait(State.DELIVERED)
    flow.send(study)

    flow.wait(State.DELIVERED, nth=1)
    assert sorted(job.rule for job in flow.jobs()) == ["asked", "automatic"]


def test_a_second_t1w_that_comes_after_the_answer_opens_a_revision_that_asks(bench: Start) -> None:
    flow = bench()
    study = new_uid()

    flow.send([*stack(study, "T1"), *stack(study, "FLAIR")])
    first = flow.wait(State.DELIVERED)
    flow.send(stack(study, "T1"))

    second = flow.wait(State.WAITING, "TWO_T1W", nth=1)
    assert second.revision == 2
    assert "Two T1W series" in flow.noted(first, "REVISED")
