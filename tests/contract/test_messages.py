"""What node and worker say to each other survives the way through Redis and the disk."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synthesis.job import (
    RESULT_NAME,
    SEG_FORMS,
    T1C_FORMS,
    DerivedInstance,
    Document,
    Form,
    Heartbeat,
    Job,
    Kind,
    Outcome,
    Reference,
    Result,
    Wanted,
    broker_options,
    heartbeat_key,
    worker_key,
)

text = st.text(max_size=20)
paths = st.lists(text, max_size=4).map(tuple)
wanted = st.builds(
    lambda objects, t1c, seg, corner: Wanted(objects, t1c, seg, corner and t1c == "classic"),
    objects=st.lists(st.sampled_from([kind.value for kind in Kind]), min_size=1, max_size=5).map(tuple),
    t1c=st.sampled_from(T1C_FORMS),
    seg=st.sampled_from(SEG_FORMS),
    corner=st.booleans(),
)
jobs = st.builds(Job, id=text, t1w=paths, flair=paths, folder=text, model=text, wanted=wanted, remarks=paths)
documents = st.builds(
    Document,
    id=text,
    form=st.sampled_from(Form),
    folder=text,
    code=text,
    reason=text,
    study=paths,
    details=paths,
    rejected=st.lists(
        st.builds(Reference, sop_class_uid=text, sop_instance_uid=text, series_instance_uid=text), max_size=3
    ).map(tuple),
    model=text,
    made_by=st.dictionaries(text, text, max_size=3),
)
instances = st.builds(
    DerivedInstance, path=text, sop_class_uid=text, sop_instance_uid=text, series_instance_uid=text
)
results = st.builds(
    Result,
    outcome=st.sampled_from(Outcome),
    code=text,
    reason=text,
    instances=st.lists(instances, max_size=3).map(tuple),
    seconds=st.dictionaries(text, st.floats(0, 1e6), max_size=4),
    remarks=st.lists(text, max_size=3).map(tuple),
    model=st.dictionaries(text, text, max_size=3),
    worker=text,
)

JOB = Job("ab", ("incoming/1.dcm",), ("incoming/2.dcm",), "jobs/ab")


@given(jobs)
def test_a_job_survives_its_message(job: Job) -> None:
    assert Job.from_message(json.loads(json.dumps(job.to_message()))) == job


@given(documents)
def test_a_document_survives_its_message(document: Document) -> None:
    assert Document.from_message(json.loads(json.dumps(document.to_message()))) == document


@given(wanted)
def test_what_is_wanted_survives_as_words_in_an_object(choice: Wanted) -> None:
    assert Wanted.of_text(choice.to_text()) == choice


@pytest.mark.parametrize("text", ["", "objects=t1c", "objects=x t1c=classic seg=binary corner_text=no", "x"])
def test_words_that_are_no_choice_raise(text: str) -> None:
    with pytest.raises(ValueError):
        Wanted.of_text(text)


@given(st.builds(Heartbeat, worker=text, step=text, progress=st.floats(0, 1)))
def test_a_heartbeat_survives_redis(heartbeat: Heartbeat) -> None:
    assert Heartbeat.from_json(heartbeat.to_json().encode()) == heartbeat


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(results)
def test_a_result_survives_the_disk(tmp_path: Path, result: Result) -> None:
    result.write(tmp_path)

    assert Result.read(tmp_path) == result


def test_a_message_with_an_unknown_key_raises() -> None:
    with pytest.raises(TypeError):
        Job.from_message(JOB.to_message() | {"later": 1})


@pytest.mark.parametrize("key", ["id", "t1w", "flair", "folder"])
def test_a_message_without_a_key_raises(key: str) -> None:
    message = JOB.to_message()
    del message[key]

    with pytest.raises((KeyError, TypeError)):
        Job.from_message(message)


def test_an_old_message_without_model_and_objects_means_the_default() -> None:
    message = JOB.to_message()
    del message["model"], message["wanted"]

    assert Job.from_message(message) == JOB


def test_there_is_no_result_where_none_was_written(tmp_path: Path) -> None:
    assert Result.read(tmp_path) is None


def test_a_result_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """One writes again and again, another reads: it never sees half of it."""
    result = Result(Outcome.FAILED, "X", "x" * 200_000)
    done = threading.Event()

    def write() -> None:
        for _ in range(20):
            result.write(tmp_path)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert Result.read(tmp_path) in (None, result)
    writer.join()

    assert [path.name for path in tmp_path.iterdir()] == [RESULT_NAME]


def test_keys_of_jobs_and_workers_do_not_mix() -> None:
    assert heartbeat_key("ab") != worker_key("ab")


def test_a_long_job_is_not_handed_out_twice() -> None:
    assert broker_options()["visibility_timeout"] >= 3600
    assert broker_options()["queue_order_strategy"] == "priority"
