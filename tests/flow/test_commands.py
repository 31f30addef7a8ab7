"""The commands, as a user and as a script use them: what they print, and their exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from node_bench import HOST, Bench, Peer, answer, free_port, wait_for
from small_studies import PATIENT_ID, PATIENT_NAME, new_uid, pair, stack, write

from dicom_node import cli
from dicom_node.ledger import State
from synthesis.job import Outcome

Start = Callable[..., Bench]


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Said]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command line in an empty folder: `run("queue", "list")`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DICOM_NODE_SETTINGS", raising=False)

    def command(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["dicom-node", *map(str, arguments)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return Said(int(code or 0), out, err)  # type: ignore[call-overload]

    return command


def file_of(flow: Bench, folder: Path) -> Path:
    """Write the settings of a running bench."""
    peer = flow.settings.peer[0]
    path = folder / "node.toml"
    path.write_text(
        f'[node]\nport = {flow.port}\nbind = "{HOST}"\nspool = "{flow.node.spool.root}"\n'
        f'[broker]\nurl = "{flow.settings.broker.url}"\n'
        f'[[peer]]\nname = "pacs"\nae_title = "PACS"\nhost = "{HOST}"\nport = {peer.port}\n'
    )
    return path


# --- settings ------------------------------------------------------------------------------------


def test_init_writes_a_file_that_check_finds_fine(run: Run, tmp_path: Path) -> None:
    assert run("settings", "init").code == 0

    said = run("settings", "check")

    assert (said.code, said.out) == (0, "dicom-node.toml: fine\n")


def test_init_does_not_overwrite_unless_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "dicom-node.toml").write_text("[node]\nport = 104\n")

    assert run("settings", "init").code == 2
    assert "104" in (tmp_path / "dicom-node.toml").read_text()
    assert run("settings", "init", "--force").code == 0


def test_check_names_file_line_and_key_and_exits_with_two(run: Run, tmp_path: Path) -> None:
    (tmp_path / "dicom-node.toml").write_text("[node]\n\nprot = 104\n")

    said = run("settings", "check")

    assert (said.code, said.err) == (2, "dicom-node.toml:3: node.prot: there is no such key.\n")


def test_show_prints_the_effective_values_without_the_password(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DICOM_NODE__BROKER__URL", "redis://:secret@host/0")

    said = run("settings", "show")

    assert said.code == 0 and "secret" not in said.out
    assert said.json["node"]["port"] == 11112 and said.json["broker"]["url"] == "redis://:***@host/0"


def test_wrong_usage_exits_with_two(run: Run) -> None:
    assert run("queue", "nonsense").code == 2
    assert run("queue", "list", "--state", "NONSENSE").code == 2
    assert run("--settings", "absent.toml", "settings", "show").code == 2


# --- queue ---------------------------------------------------------------------------------------


def test_the_queue_of_a_node_that_never_ran_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOM_NODE__NODE__SPOOL", "spool")

    said = run("queue", "list")

    assert said.code == 1 and "no node ran with these settings yet" in said.err


def test_queue_list_has_the_shape_that_scripts_hold_on_to(bench: Start, run: Run, tmp_path: Path) -> None:
    flow, images = bench(), pair()
    flow.send(images)
    job = flow.wait(State.DELIVERED)

    said = run("--settings", file_of(flow, tmp_path), "queue", "list", "--json")

    (line,) = said.json
    assert said.code == 0
    assert set(line) >= {
        "job",
        "state",
        "code",
        "reason",
        "rule",
        "study_uid",
        "created",
        "updated",
        "seconds",
    }
    assert (line["job"], line["state"], line["rule"]) == (job.id, "DELIVERED", "every study")
    assert line["study_uid"] == images[0].StudyInstanceUID
    assert line["seconds"]["total"] > 0


def test_queue_list_filters_and_prints_a_table(bench: Start, run: Run, tmp_path: Path) -> None:
    flow = bench()
    flow.send(pair())
    job = flow.wait(State.DELIVERED)
    settings = file_of(flow, tmp_path)

    table = run("--settings", settings, "queue", "list", "--state", "delivered", "--since", "1h")
    nothing = run("--settings", settings, "queue", "list", "--state", "FAILED", "--json")

    assert job.id in table.out and "DELIVERED" in table.out
    assert nothing.json == []


def test_queue_show_has_timeline_seconds_and_deliveries(bench: Start, run: Run, tmp_path: Path) -> None:
    flow = bench()
    flow.send(pair())
    job = flow.wait(State.DELIVERED)
    settings = file_of(flow, tmp_path)

    found = run("--settings", settings, "queue", "show", job.id[:5], "--json").json
    text = run("--settings", settings, "queue", "show", job.id)

    assert [event["to"] for event in found["timeline"] if event["from"] != event["to"]] == flow.path(job)
    assert found["deliveries"] == [
        {"destination": "pacs", "stored": 12, "pending": 0, "refused": 0, "committed": 0, "last": ""}
    ]
    assert found["model"]["name"] == "stand-in" and found["remarks"] == ["A remark."]
    assert text.code == 0 and "Timeline" in text.out and "A remark." in text.out


def test_queue_explain_has_the_shape_that_scripts_hold_on_to(bench: Start, run: Run, tmp_path: Path) -> None:
    flow, study = bench(), new_uid()
    images = [*pair(study), *stack(study, "T2")]
    flow.send(images)
    job = flow.wait(State.DELIVERED)
    settings = file_of(flow, tmp_path)

    said = run("--settings", settings, "queue", "explain", job.id, "--json")
    text = run("--settings", settings, "queue", "explain", job.id)

    assert set(said.json) == {"rule", "decision", "code", "reason", "chosen", "series"}
    assert said.json["decision"] == "COMPLETE"
    assert said.json["chosen"] == {
        "T1W": images[0].SeriesInstanceUID,
        "FLAIR": images[12].SeriesInstanceUID,
    }
    assert all(set(line) == {"uid", "description", "role", "why"} for line in said.json["series"])
    assert text.code == 0 and "fluid is nulled" in text.out


def test_an_unknown_job_exits_with_one(bench: Start, run: Run, tmp_path: Path) -> None:
    settings = file_of(bench(), tmp_path)

    said = run("--settings", settings, "queue", "show", "0000000000")

    assert (said.code, said.err) == (1, "There is no job '0000000000'.\n")


def test_queue_retry_puts_a_failed_job_into_the_queue(bench: Start, run: Run, tmp_path: Path) -> None:
    flow = bench(do=answer(Outcome.FAILED, "WORKER_ERROR", "The worker failed."))
    flow.send(pair())
    job = flow.wait(State.FAILED)
    settings = file_of(flow, tmp_path)

    said = run("--settings", settings, "queue", "retry", job.id)

    assert (said.code, said.out) == (0, f"{job.id}: QUEUED\n")
    assert len(flow.node.ledger.events(job.id)) >= 6


def test_queue_retry_of_a_job_without_a_pair_asks_for_both(bench: Start, run: Run, tmp_path: Path) -> None:
    flow = bench()
    flow.send(stack(new_uid(), "T1"))
    job = flow.wait(State.WAITING)
    settings = file_of(flow, tmp_path)

    said = run("--settings", settings, "queue", "retry", job.id)

    assert said.code == 1 and "--t1 SERIES --flair SERIES" in said.err


def test_queue_cancel_of_a_waiting_job(bench: Start, run: Run, tmp_path: Path) -> None:
    flow = bench()
    flow.send(stack(new_uid(), "T1"))
    job = flow.wait(State.WAITING)
    settings = file_of(flow, tmp_path)

    first = run("--settings", settings, "queue", "cancel", job.id)
    second = run("--settings", settings, "queue", "cancel", job.id)

    assert (first.code, first.out) == (0, f"{job.id}: CANCELLED\n")
    assert second.code == 1 and "cannot be cancelled any more" in second.err


# --- peers, rules, send, status ------------------------------------------------------------------


def test_purge_says_what_would_leave_and_then_removes_it(bench: Start, run: Run, tmp_path: Path) -> None:
    flow = bench()
    flow.send(pair())
    job = flow.wait(State.DELIVERED)
    wait_for("the peer to be taken at its word", lambda: flow.node.ledger.job(job.id).settled)
    file = file_of(flow, tmp_path)
    file.write_text(file.read_text() + "[retention]\nhours = 0\n")

    would = run("--settings", file, "purge", "--dry-run", "--json")
    there = len(list((flow.node.spool.root / "incoming").rglob("*.dcm")))
    did = run("--settings", file, "purge")

    assert (would.code, there, would.json["instances"], would.json["jobs"]) == (0, 24, 24, [job.id])
    assert did.out.startswith("Left the spool: 24 instances, 1 results") and job.id in did.out
    assert not list((flow.node.spool.root / "incoming").rglob("*.dcm"))


def test_peers_echo_exits_with_zero_when_all_answer(bench: Start, run: Run, tmp_path: Path) -> None:
    settings = file_of(bench(), tmp_path)

    said = run("--settings", settings, "peers", "echo", "pacs", "--json")

    assert said.code == 0 and said.json[0]["ok"] is True
    assert [peer["name"] for peer in run("--settings", settings, "peers", "list", "--json").json] == ["pacs"]


def test_peers_echo_exits_with_one_when_one_does_not_answer(
    bench: Start, run: Run, tmp_path: Path, peer: Peer
) -> None:
    settings = file_of(bench(), tmp_path)
    peer.stop()

    said = run("--settings", settings, "peers", "echo")

    assert said.code == 1 and "does not answer" in said.out


def test_peers_echo_of_an_unknown_name_exits_with_one(bench: Start, run: Run, tmp_path: Path) -> None:
    said = run("--settings", file_of(bench(), tmp_path), "peers", "echo", "nobody")

    assert said.code == 1 and "known: pacs" in said.err


def test_rules_try_of_brainix_names_the_pair(run: Run, shared_data: Path) -> None:
    said = run("rules", "try", shared_data / "BRAINIX", "--json")

    assert said.code == 0
    assert set(said.json) == {"rule", "decision", "code", "reason", "chosen", "series"}
    roles = {line["uid"]: line["role"] for line in said.json["series"]}
    assert [roles[said.json["chosen"][role]] for role in ("T1W", "FLAIR")] == ["T1W", "FLAIR"]


def test_rules_try_exits_with_one_where_there_is_no_pair(run: Run, tmp_path: Path) -> None:
    write(stack(new_uid(), "T1"), tmp_path / "study")

    said = run("rules", "try", tmp_path / "study", "--json")

    assert said.code == 1 and said.json["code"] == "NO_FLAIR"


def test_rules_try_of_several_studies_is_a_list(run: Run, tmp_path: Path) -> None:
    write([*pair(), *pair()], tmp_path / "studies")

    said = run("rules", "try", tmp_path / "studies", "--json")

    assert [one["decision"] for one in said.json] == ["COMPLETE", "COMPLETE"]


def test_rules_try_counts_an_image_that_is_there_twice_once(run: Run, tmp_path: Path) -> None:
    study = pair()
    write(study, tmp_path / "study" / "a")
    write(study, tmp_path / "study" / "b")

    assert run("rules", "try", tmp_path / "study", "--json").json["decision"] == "COMPLETE"


@pytest.mark.parametrize("what", ["absent", "empty"])
def test_rules_try_without_a_study_exits_with_one(run: Run, tmp_path: Path, what: str) -> None:
    (tmp_path / "empty").mkdir()

    said = run("rules", "try", tmp_path / what)

    assert said.code == 1 and said.err.startswith("There is no ")


def test_rules_try_where_no_rule_matches_says_so(run: Run, tmp_path: Path) -> None:
    write(pair(), tmp_path / "study")
    (tmp_path / "dicom-node.toml").write_text('[[rule]]\nname = "spine"\nbody_part = "SPINE"\n')

    said = run("rules", "try", tmp_path / "study", "--json")

    assert (said.code, said.json["code"], said.json["rule"]) == (1, "NO_RULE", "")
    assert [rule["name"] for rule in run("rules", "list", "--json").json] == ["spine"]


def test_send_pushes_a_folder_and_leaves_out_what_is_no_dicom(
    bench: Start, run: Run, tmp_path: Path, peer: Peer
) -> None:
    folder = tmp_path / "study"
    write(pair(), folder)
    (folder / "notes.txt").write_text("no DICOM")

    said = run("--settings", file_of(bench(), tmp_path), "send", folder, "pacs")

    assert len(peer.received) == 24
    assert said.out == "24 instances stored by pacs\n" and "notes.txt: not a DICOM file" in said.err


def test_send_without_a_listener_exits_with_one(run: Run, tmp_path: Path) -> None:
    write(pair()[:1], tmp_path / "study")
    (tmp_path / "dicom-node.toml").write_text(
        f'[[peer]]\nname = "p"\nae_title = "P"\nhost = "{HOST}"\nport = {free_port()}\n'
    )

    said = run("send", tmp_path / "study", "p")

    assert said.code == 1 and "does not answer" in said.err


def test_status_says_what_is_wrong(bench: Start, run: Run, tmp_path: Path) -> None:
    settings = file_of(bench(), tmp_path)

    said = run("--settings", settings, "status", "--json")

    checks = {check["name"]: check["ok"] for check in said.json["checks"]}
    assert checks == {
        "node": True,
        "ledger": True,
        "disk": True,
        "broker": True,
        "workers": False,
        "peer pacs": True,
    }
    assert said.code == 1 and said.json["ok"] is False
    assert run("--settings", settings, "status").code == 1


def test_what_the_commands_print_tells_no_name_of_the_patient(bench: Start, run: Run, tmp_path: Path) -> None:
    flow = bench()
    flow.send(pair())
    job = flow.wait(State.DELIVERED)
    settings = file_of(flow, tmp_path)

    printed = "".join(
        run("--settings", settings, "queue", *rest).out
        for rest in (("list",), ("show", job.id), ("explain", job.id), ("show", job.id, "--json"))
    )

    assert not [part for part in (*PATIENT_NAME.split("^"), PATIENT_ID) if part in printed]
