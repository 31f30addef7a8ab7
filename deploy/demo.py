"""The whole way on one machine, each step printed as it happens; started by ``./deploy/demo``.

An embedded Redis, the node, one worker and a small PACS run on free ports of the loopback. The PACS sends a
study (the phantom, or FOLDER), the synthetic T1C comes back, and the demo shows what came. Then all stops.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pydicom
from processes import HOST, DemoFailed, Processes, answers, free_port, redis_executable
from rich.console import Console
from rich.table import Table
from stand_in_pacs import StandInPACS, dicom_files, send

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "demo-output"
NODE_AET = "TAVIT"
PACS_AET = "PACS"
#: How long the node may take to come up, and how long a job may show no sign of life.
START_S = 30.0
SILENCE_S = 300.0
POLL_S = 1.0
GOOD = ("DELIVERED", "COMMITTED")
BAD = ("DECLINED", "FAILED", "CANCELLED")

KEY_TAGS = (
    ("Series Description", "SeriesDescription"),
    ("Image Type", "ImageType"),
    ("Synthetic Data", "SyntheticData"),
    ("Content Qualification", "ContentQualification"),
    ("Derivation Description", "DerivationDescription"),
    ("Frame of Reference UID", "FrameOfReferenceUID"),
    ("Manufacturer", "Manufacturer"),
    ("Study Instance UID", "StudyInstanceUID"),
    ("Series Instance UID", "SeriesInstanceUID"),
)


class Story:
    """Prints each step with the seconds since the beginning."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._began = time.monotonic()

    def say(self, sentence: str) -> None:
        """Print a step."""
        self.console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/dim]  ", end="")
        self.console.print(sentence, markup=False)

    def under(self, sentence: str) -> None:
        """Print something that belongs to the step before."""
        self.console.print(" " * 10 + sentence, markup=False)


@dataclass(frozen=True)
class Command:
    """``dicom-node`` with the demo's settings."""

    settings: Path

    def line(self, *arguments: str) -> list[str]:
        """Return the arguments of a process."""
        return [sys.executable, "-m", "dicom_node", "--settings", str(self.settings), *arguments]

    def json(self, *arguments: str) -> Any:
        """Return what it prints with ``--json``; raises `DemoFailed` when it fails."""
        done = subprocess.run(self.line(*arguments, "--json"), capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise DemoFailed(
                f"dicom-node {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return json.loads(done.stdout)


def write_settings(path: Path, spool: Path, node_port: int, redis_port: int, pacs_port: int) -> None:
    """Write the settings of the node: the PACS is its only peer."""
    path.write_text(
        f"""\
[node]
ae_title = "{NODE_AET}"
bind = "{HOST}"
port = {node_port}
spool = "{spool}"
[broker]
url = "redis://{HOST}:{redis_port}/0"
[collect]
quiet_seconds = 5
wait_minutes = 0.5
[[peer]]
name = "pacs"
ae_title = "{PACS_AET}"
host = "{HOST}"
port = {pacs_port}
[monitor]
port = 0
""",
        encoding="utf-8",
    )


def study_folder(given: Path | None, story: Story) -> Path:
    """Return the folder that is sent: the user's, or a phantom made for the purpose."""
    if given is not None:
        return given
    from synthesis.phantom import write_study

    study = write_study(OUTPUT / "study")
    names = ", ".join(f"{s.description} ({len(s.paths)})" for s in study.series.values())
    story.say(f"A phantom was made: {names}")
    return study.folder


def series_of(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a folder by Series Instance UID."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path, _, _ in dicom_files(folder):
        header = pydicom.dcmread(path, specific_tags=["SeriesInstanceUID"], stop_before_pixels=True)
        found[str(header.get("SeriesInstanceUID", ""))].append(path)
    return dict(found)


def follow(command: Command, processes: Processes, story: Story) -> list[dict[str, Any]]:
    """Print what happens to the jobs until each has ended; return them."""
    told: dict[str, int] = defaultdict(int)
    last_sign, before = time.monotonic(), ""
    with story.console.status("waiting for the node") as status:
        while True:
            processes.check()
            jobs: list[dict[str, Any]] = command.json("queue", "list")
            details = [command.json("queue", "show", job["job"]) for job in jobs]
            for detail in details:
                tell_news(detail, told, story)
            signs = json.dumps([[d["state"], d.get("step"), d.get("progress")] for d in details])
            if signs != before:
                before, last_sign = signs, time.monotonic()
            if jobs and all(job["state"] in GOOD + BAD for job in jobs):
                return details
            if time.monotonic() - last_sign > SILENCE_S:
                raise DemoFailed(f"Nothing has happened for {SILENCE_S:.0f} s.")
            status.update(
                " · ".join(f"{d['job']} {d['state']} {d.get('step') or ''}" for d in details) or "waiting"
            )
            time.sleep(POLL_S)


def tell_news(detail: Mapping[str, Any], told: dict[str, int], story: Story) -> None:
    """Print the lines of a job's timeline that were not printed before."""
    timeline = detail["timeline"]
    for event in timeline[told[detail["job"]] :]:
        story.say(f"{event['to']:<11} {event['sentence']}")
    told[detail["job"]] = len(timeline)


def show_seconds(detail: Mapping[str, Any], story: Story) -> None:
    """Print the seconds of each step."""
    seconds: Mapping[str, float] = detail.get("seconds") or {}
    if seconds:
        story.under("seconds: " + ", ".join(f"{step} {value:.1f}" for step, value in seconds.items()))


def show_series(paths: Sequence[Path], story: Story) -> None:
    """Print a table of what a viewer will show and a reader must know."""
    image = pydicom.dcmread(sorted(paths)[0], stop_before_pixels=True)
    table = Table(title="The synthetic series", title_justify="left")
    table.add_column("attribute")
    table.add_column("value", overflow="fold")
    for title, keyword in KEY_TAGS:
        value = image.get(keyword, "")
        table.add_row(
            title, str(value) if not isinstance(value, pydicom.multival.MultiValue) else "\\".join(value)
        )
    for item in image.get("ContributingEquipmentSequence", []):
        purpose = item.PurposeOfReferenceCodeSequence[0].CodeMeaning
        table.add_row(
            f"Contributing Equipment: {purpose}",
            " ".join(str(item.get(key, "")) for key in ("Manufacturer", "ManufacturerModelName")).strip(),
        )
    table.add_row("Instances", str(len(paths)))
    story.console.print(table)


def draw(t1w: Sequence[Path], flair: Sequence[Path], t1c: Sequence[Path], tumour: Path, out: Path) -> None:
    """Write the montage T1W · FLAIR · segmentation · synthetic T1C."""
    import SimpleITK as sitk

    from synthesis.montage import save_montage
    from synthesis.pipeline import Pictures
    from synthesis.series import read_series

    before, fluid, after = (read_series(paths).image for paths in (t1w, flair, t1c))
    on_grid = sitk.Resample(fluid, before, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    save_montage(Pictures(before, on_grid, sitk.ReadImage(str(tumour)), after), out)


def run(given: Path | None, story: Story, processes: Processes) -> None:
    """Do it; raises `DemoFailed` with the reason when there is no synthetic series at the end."""
    folder = study_folder(given, story)
    sent_series = series_of(folder)
    if not sent_series:
        raise DemoFailed(f"There is no DICOM file in {folder}.")
    spool, settings = OUTPUT / "spool", OUTPUT / "dicom-node.toml"
    node_port, redis_port = free_port(), free_port()
    redis_folder = OUTPUT / "redis"
    redis_folder.mkdir()

    with StandInPACS(OUTPUT / "pacs", PACS_AET, say=story.say) as pacs:
        story.say(f"The PACS stand-in listens on {HOST}:{pacs.port} as {PACS_AET}")
        write_settings(settings, spool, node_port, redis_port, pacs.port)
        command = Command(settings)
        processes.start(
            "redis",
            [
                redis_executable(),
                "--port",
                str(redis_port),
                "--bind",
                HOST,
                "--dir",
                str(redis_folder),
                "--save",
                "",
            ],
        )
        processes.wait_for("Redis", lambda: answers(redis_port), START_S)
        story.say(f"Redis listens on {HOST}:{redis_port}")
        processes.start("node", command.line("serve"))
        processes.wait_for("The node", lambda: answers(node_port), START_S)
        story.say(f"The node listens on {HOST}:{node_port} as {NODE_AET}")
        processes.start("worker", command.line("worker"))
        count = send(folder, node_port, NODE_AET, PACS_AET)
        story.say(f"The PACS has sent {count} instances of {len(sent_series)} series")

        jobs = follow(command, processes, story)
        for job in jobs:
            show_seconds(job, story)
        for job in jobs:
            if job["state"] in GOOD:
                show_answer(command, job, pacs, sent_series, spool, story)
        bad = [job for job in jobs if job["state"] in BAD]
        if bad:
            raise DemoFailed("\n".join(f"{job['state']}: {job['reason']}" for job in bad))


def show_answer(
    command: Command,
    job: Mapping[str, Any],
    pacs: StandInPACS,
    sent_series: Mapping[str, Sequence[Path]],
    spool: Path,
    story: Story,
) -> None:
    """Print where the series lies, its tags and the picture."""
    chosen = command.json("queue", "explain", job["job"])["chosen"]
    received = list(pacs.series(job["study_uid"]).values())
    if len(received) != 1:
        raise DemoFailed(
            f"The node says {job['state']}, but the PACS has {len(received)} series of this study."
        )
    paths = received[0]
    show_series(paths, story)
    story.say(f"The series lies in {shown(paths[0].parent)}")
    picture = OUTPUT / f"montage-{job['job']}.png"
    tumour = spool / "jobs" / job["job"] / "result" / "tumour.nii.gz"
    draw(sent_series[chosen["T1W"]], sent_series[chosen["FLAIR"]], paths, tumour, picture)
    story.say(f"The montage T1W · FLAIR · segmentation · synthetic T1C is {shown(picture)}")


def shown(path: Path) -> str:
    """Return a path as short as it can be told from here."""
    here = Path.cwd()
    return f"./{path.relative_to(here)}" if path.is_relative_to(here) else str(path)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Treat SIGTERM like Ctrl-C."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo; return 0 when a synthetic series came back."""
    parser = argparse.ArgumentParser(prog="./deploy/demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="a study; default: the phantom")
    given: Path | None = parser.parse_args().folder
    if given is not None and not given.is_dir():
        parser.error(f"there is no folder {given}")
    signal.signal(signal.SIGTERM, interrupt)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    story = Story()
    processes = Processes(OUTPUT / "logs")
    try:
        with processes:
            run(given, story, processes)
        story.say(f"Everything has been stopped; what was written lies in {shown(OUTPUT)}")
        return 0
    except DemoFailed as failure:
        story.console.print(processes.log_tails(), markup=False, style="dim")
        story.say(str(failure))
        return 1
    except KeyboardInterrupt:
        story.say("Interrupted; everything has been stopped.")
        return 130
    except Exception:
        story.console.print(processes.log_tails(), markup=False, style="dim")
        raise


if __name__ == "__main__":
    sys.exit(main())
