"""What the commands show, without the commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_bench import HOST, Peer, free_port
from small_studies import new_uid, pair, stack, write

from dicom_node.errors import NoSuchThing
from dicom_node.overview import echo_all, open_ledger, overview, try_rules
from dicom_node.settings import Settings


def settings(folder: Path, *ports: int, rules: list[dict[str, object]] | None = None) -> Settings:
    peers = [
        {"name": f"p{n}", "ae_title": "PACS", "host": HOST, "port": port} for n, port in enumerate(ports)
    ]
    values = {"node": {"spool": folder, "port": free_port()}, "peer": peers}
    return Settings.model_validate(values | ({"rule": rules} if rules else {}))


def test_without_a_ledger_the_sentence_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoSuchThing, match="Start one with: dicom-node up"):
        open_ledger(settings(tmp_path))


def test_a_node_that_never_ran_is_not_well(tmp_path: Path) -> None:
    found = overview(settings(tmp_path))

    assert not found.ok and [check.name for check in found.checks] == ["node", "ledger"]


def test_each_peer_is_asked(tmp_path: Path) -> None:
    there = Peer()
    there.start()
    known = settings(tmp_path, there.port, free_port())

    found = echo_all(known, known.peer)

    there.stop()
    assert [(check.name, check.ok) for check in found] == [("peer p0", True), ("peer p1", False)]
    assert "answers C-ECHO in" in found[0].sentence and "does not answer" in found[1].sentence


def test_a_peer_that_knows_no_echo_is_said(tmp_path: Path) -> None:
    deaf = Peer(echoes=False)
    deaf.start()
    known = settings(tmp_path, deaf.port)

    (check,) = echo_all(known, known.peer)

    deaf.stop()
    assert not check.ok and "p0" in check.sentence


def test_a_peer_that_receives_nothing_is_not_asked(tmp_path: Path) -> None:
    scanner = {"name": "s", "ae_title": "S", "host": HOST, "port": free_port(), "receives": False}
    known = Settings.model_validate({"peer": [scanner]})

    assert echo_all(known, known.peer) == []


def test_rules_are_tried_as_if_the_study_was_sent(tmp_path: Path) -> None:
    write(pair(), tmp_path / "study")
    rules: list[dict[str, object]] = [
        {"name": "routed", "called_aet": "AUTO"},
        {"name": "by station", "calling_aet": "MR*"},
        {"name": "else"},
    ]
    known = settings(tmp_path, rules=rules)

    names = [
        try_rules(known, tmp_path / "study", called, calling)[0]["rule"]
        for called, calling in (("AUTO", ""), (None, "MR1"), (None, ""))
    ]

    assert names == ["routed", "by station", "else"]


def test_a_rule_that_declines_contrast_is_tried_too(tmp_path: Path) -> None:
    study = new_uid()
    post = stack(study, "T1", SeriesNumber=9, ContrastBolusAgent="Gadovist", AcquisitionTime="101500")
    write([*pair(study), *post], tmp_path / "study")
    known = settings(tmp_path, rules=[{"name": "r", "if_contrast_given": "decline"}])

    (found,) = try_rules(known, tmp_path / "study", None, "")

    assert (found["decision"], found["code"]) == ("DECLINED", "CONTRAST_GIVEN")


def test_files_that_are_no_dicom_are_counted_where_something_is_missing(tmp_path: Path) -> None:
    write(stack(new_uid(), "T1"), tmp_path / "study")
    (tmp_path / "study" / "DICOMDIR.txt").write_text("x")

    (found,) = try_rules(settings(tmp_path), tmp_path / "study", None, "")

    assert "1 instance that came with this study could not be read." in found["reason"]


def test_one_file_can_be_tried(tmp_path: Path) -> None:
    path = write(stack(new_uid(), "T1"), tmp_path / "study")[0]

    assert try_rules(settings(tmp_path), path, None, "")[0]["code"] == "TOO_FEW_SLICES"
