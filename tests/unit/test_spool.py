"""Paths and atomic writes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dicom_node.spool import Spool
from synthesis import job as message

UID = "1.2.840.4711"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def test_what_is_written_is_there_whole(spool: Spool) -> None:
    path = spool.incoming(UID)

    spool.write(path, (b"one ", memoryview(b"two")))

    assert path.read_bytes() == b"one two"


def test_a_write_that_fails_leaves_nothing(spool: Spool) -> None:
    def pieces():  # type: ignore[no-untyped-def]
        yield b"one"
        raise OSError("the cable")

    with pytest.raises(OSError, match="the cable"):
        spool.write(spool.incoming(UID), pieces())

    assert [path for path in spool.root.rglob("*") if path.is_file()] == []


def test_file_names_tell_no_uid(spool: Spool) -> None:
    assert UID not in str(spool.incoming(UID)) and UID not in str(spool.conflict(UID, "ab" * 32))


def test_the_spool_is_for_its_owner_only(spool: Spool) -> None:
    modes = {stat.S_IMODE((spool.root / name).stat().st_mode) for name in ("incoming", "conflicts", "jobs")}

    assert modes == {0o700}


def test_paths_are_exchanged_relative_to_the_spool(spool: Spool) -> None:
    assert not os.path.isabs(spool.relative(spool.incoming(UID)))
    assert spool.root / spool.relative(spool.job("ab")) == spool.job("ab")


def test_other_bytes_under_one_uid_lie_apart(spool: Spool) -> None:
    assert spool.conflict(UID, "a" * 64) != spool.conflict(UID, "b" * 64)


def test_starts_are_counted(spool: Spool) -> None:
    (spool.open_job("ab") / message.STARTS_NAME).write_text("1\n2\n")

    assert (spool.starts("ab"), spool.starts("other")) == (2, 0)


def test_a_reset_job_has_neither_result_nor_starts_nor_a_cancellation(spool: Spool) -> None:
    folder = spool.open_job("ab")
    spool.cancel_job("ab")
    (folder / message.STARTS_NAME).write_text("1\n")
    (folder / message.RESULT_NAME).write_text("{}")
    (folder / message.RESULT_FOLDER).mkdir()
    (folder / message.RESULT_FOLDER / "1.dcm").write_bytes(b"x")

    spool.reset_job("ab")

    assert list(folder.iterdir()) == []


def test_a_job_that_never_ran_can_be_reset(spool: Spool) -> None:
    spool.reset_job("never")


def test_free_space_is_told(spool: Spool) -> None:
    assert spool.free_bytes() > 0
