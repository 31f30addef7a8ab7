"""The bench itself: the servers start, and the phantom is what they take for a study."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from bench import Orthanc, Redis, StoreSCP, echo, tool

from synthesis.phantom import PhantomStudy

pytestmark = pytest.mark.pacs


def test_orthanc_answers_a_c_echo(orthanc: Orthanc) -> None:
    assert echo(orthanc.port, orthanc.ae_title)


def test_redis_forgets_everything_when_it_is_killed(redis: Redis) -> None:
    client = [tool("redis-cli"), "-p", str(redis.port)]
    subprocess.run([*client, "set", "a", "1"], check=True, capture_output=True)
    redis.kill()
    redis.start()
    answer = subprocess.run([*client, "get", "a"], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == ""


def test_orthanc_keeps_the_phantom_as_one_study(
    orthanc: Orthanc, phantom: Callable[..., PhantomStudy]
) -> None:
    study = phantom(100, with_t1_post=True)
    assert orthanc.upload(study.folder) == len(study.paths)
    series = orthanc.series(study.uid)
    assert {uid: len(held["Instances"]) for uid, held in series.items()} == {
        made.uid: len(made.paths) for made in study.series.values()
    }


def test_orthanc_sends_the_phantom_by_c_store(
    orthanc: Orthanc, storescp: StoreSCP, phantom: Callable[..., PhantomStudy]
) -> None:
    study = phantom(101, t2=None, localizer=False)
    orthanc.upload(study.folder)
    orthanc.add_modality("storescp", "STORESCP", storescp.port)
    orthanc.send_study(study.uid, to="storescp")
    assert len(list(storescp.received.iterdir())) == len(study.paths)


def test_dciodvfy_finds_no_error_in_the_phantom(phantom: Callable[..., PhantomStudy]) -> None:
    study = phantom(102, with_t1_post=True)
    for series in study.series.values():
        said = subprocess.run([tool("dciodvfy"), str(series.paths[0])], capture_output=True, text=True)
        assert [line for line in said.stderr.splitlines() if line.startswith("Error")] == []


def test_dcentvfy_finds_no_inconsistency_in_the_phantom(phantom: Callable[..., PhantomStudy]) -> None:
    study = phantom(103, with_t1_post=True)
    said = subprocess.run([tool("dcentvfy"), *map(str, study.paths)], capture_output=True, text=True)
    assert said.stdout + said.stderr == ""
