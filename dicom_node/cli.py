"""The commands. Thin: each asks a module and prints what it answers. Exit 0 fine, 1 no, 2 wrong usage."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dicom_node import settings as settings_module
from dicom_node.errors import NodeError, SettingsError
from dicom_node.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A DICOM node that answers a brain MR study with a synthetic contrast-enhanced T1. Research only.",
)
queue = typer.Typer(no_args_is_help=True, help="The queue: what is there, why, and acting on it.")
peers = typer.Typer(no_args_is_help=True, help="The PACS and routers we know.")
rules = typer.Typer(no_args_is_help=True, help="Which studies, and what becomes of them.")
settings_app = typer.Typer(no_args_is_help=True, help="The settings file.")
app.add_typer(queue, name="queue")
app.add_typer(peers, name="peers")
app.add_typer(rules, name="rules")
app.add_typer(settings_app, name="settings")

AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
JobId = Annotated[str, typer.Argument(help="The job's id, or the start of it.")]

_file: Path | None = None


@app.callback()
def _common(
    settings: Annotated[
        Path | None, typer.Option(help="Settings file, instead of ./dicom-node.toml.")
    ] = None,
) -> None:
    global _file
    _file = settings


def main() -> None:
    """Run the command line; a `NodeError` becomes its sentence and exit code 1 (2 for the settings)."""
    try:
        app()
    except SettingsError as error:
        print(error.sentence, file=sys.stderr)
        sys.exit(2)
    except NodeError as error:
        print(error.sentence, file=sys.stderr)
        sys.exit(1)


def _settings() -> Settings:
    return settings_module.load(_file)


def _log_to_stderr() -> None:
    """Log in UTC. What pydicom warns of may quote a patient's values: it stays out."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("pynetdicom", "pydicom", "dicomweb_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")


def _start(settings: Settings) -> Settings:
    _log_to_stderr()
    return settings


def _console() -> Any:
    from rich.console import Console

    plain = Console()
    return plain if plain.is_terminal else Console(width=200, highlight=False)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    return table


# --- processes -----------------------------------------------------------------------------------


@app.command()
def up() -> None:
    """Everything on this machine: Redis unless one is set, the node, one worker. Ctrl-C stops all."""
    from dicom_node.up import up as run

    raise typer.Exit(run(_start(_settings())))


@app.command()
def serve() -> None:
    """The node alone: receives, chooses, enqueues, delivers."""
    from dicom_node.serve import serve as run

    raise typer.Exit(run(_start(_settings())))


@app.command()
def worker() -> None:
    """One worker alone, on this machine's GPU or CPU."""
    from dicom_node.serve import work

    raise typer.Exit(work(_settings()))


@app.command()
def status(as_json: AsJson = False) -> None:
    """Node, broker, workers, peers, disk and queue in one screen; exit 1 when something is wrong."""
    from dicom_node.overview import overview

    found = overview(_settings())
    if as_json:
        _print_json(found.to_json())
    else:
        console = _console()
        console.print(
            _table(
                "",
                ("", "check", ""),
                (("[green]ok[/]" if c.ok else "[red]no[/]", c.name, c.sentence) for c in found.checks),
            )
        )
        counts = "  ".join(f"{state} {count}" for state, count in found.counts.items() if count)
        console.print(f"Queue: {counts or 'empty'}")
    raise typer.Exit(0 if found.ok else 1)


# --- queue ---------------------------------------------------------------------------------------


def _ledger(settings: Settings) -> Any:
    from dicom_node.overview import open_ledger

    return open_ledger(settings)


def _since(text: str | None) -> float | None:
    """Return the time that "90s", "15m", "1h" or "2d" ago was."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not match:
        raise typer.BadParameter("say how long: 90s, 15m, 1h or 2d")
    return time.time() - float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


@queue.command("list")
def queue_list(
    state: Annotated[list[str] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    since: Annotated[str | None, typer.Option(help="Only jobs changed within 90s, 15m, 1h, 2d.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep the list on the screen.")] = False,
    as_json: AsJson = False,
) -> None:
    """The jobs, newest first."""
    from dicom_node.ledger import State
    from dicom_node.monitor import job_as_json

    try:
        states = [State(one.upper()) for one in state or ()]
    except ValueError:
        raise typer.BadParameter(f"states are {', '.join(State)}") from None
    ledger = _ledger(_settings())
    begin = _since(since)

    def jobs() -> list[Any]:
        return list(ledger.jobs(states=states, since=begin))

    if as_json:
        _print_json([job_as_json(job) for job in jobs()])
        return
    console = _console()

    def table() -> Any:
        rows = (
            (
                job.id,
                f"{job.state}{f' {job.progress:.0%}' if job.state == State.RUNNING else ''}",
                job.rule,
                _clock(job.updated),
                (job.seconds or {}).get("total", ""),
                job.reason,
            )
            for job in jobs()
        )
        return _table("", ("job", "state", "rule", "changed", "seconds", "reason"), rows)

    if not watch:
        console.print(table())
        return
    _watch(console, table)


def _watch(console: Any, table: Callable[[], Any]) -> None:
    from rich.live import Live

    try:
        with Live(table(), console=console, refresh_per_second=2) as live:
            while True:
                time.sleep(0.5)
                live.update(table())
    except KeyboardInterrupt:
        return


@queue.command("show")
def queue_show(job: JobId, as_json: AsJson = False) -> None:
    """One job: its timeline, the seconds of each step, its deliveries."""
    from dicom_node.overview import details

    settings = _settings()
    ledger = _ledger(settings)
    found = details(settings, ledger, ledger.job(job))
    if as_json:
        _print_json(found)
        return
    console = _console()
    console.print(f"Job {found['job']}: {found['state']}. {found['reason']}")
    console.print(_table("Timeline", ("time", "state", "what"), _timeline(found["timeline"])))
    if found["seconds"]:
        console.print(_table("Seconds", tuple(found["seconds"]), [list(found["seconds"].values())]))
    if found["deliveries"]:
        rows = [
            [one[key] for key in ("destination", "stored", "committed", "pending", "refused", "last")]
            for one in found["deliveries"]
        ]
        columns = ("to", "stored", "committed", "pending", "refused", "last word")
        console.print(_table("Deliveries", columns, rows))
    if found["documents"]:
        documents = [
            [
                {"ko": "retraction (KO)"}.get(one["form"], f"answer ({one['form'].upper()})"),
                one["state"],
                ", ".join(f"{name} {state}" for name, state in one["destinations"].items()),
                one["last"] or one["reason"],
            ]
            for one in found["documents"]
        ]
        console.print(_table("Documents", ("document", "state", "to", "says"), documents))
    if found["model"]:
        console.print(
            f"Model: {found['model']['name']} {found['model']['version']}, "
            f"SHA-256 {found['model']['sha256'][:16]}…"
        )
    for remark in found["remarks"]:
        console.print(f"· {remark}")
    console.print(f"Files: {found['folder']}")


def _timeline(events: list[dict[str, Any]]) -> Iterable[Sequence[Any]]:
    for one in events:
        changed = one["from"] != one["to"]
        yield _clock(one["at"]), one["to"] if changed else "", one["sentence"]


@queue.command("explain")
def queue_explain(job: JobId, as_json: AsJson = False) -> None:
    """Why these series and not those."""
    from dicom_node.overview import explain

    ledger = _ledger(_settings())
    _explain(explain(ledger, ledger.job(job)), as_json)


def _explain(explanation: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(explanation)
        return
    console = _console()
    console.print(f"Rule “{explanation['rule']}”: {explanation['decision']} {explanation['code']}")
    console.print(explanation["reason"])
    chosen = {uid: role for role, uid in explanation["chosen"].items()}
    rows = [
        (
            "▶" if one["uid"] in chosen else "",
            one["role"],
            one["description"],
            "\n".join(one["why"]),
            one["uid"],
        )
        for one in explanation["series"]
    ]
    console.print(_table("", ("", "role", "description", "why", "series"), rows))


@queue.command("retry")
def queue_retry(
    jobs: Annotated[list[str], typer.Argument(help="Jobs, by id or the start of it.")],
    t1: Annotated[str | None, typer.Option("--t1", help="Series to use as the T1W.")] = None,
    flair: Annotated[str | None, typer.Option("--flair", help="Series to use as the FLAIR.")] = None,
) -> None:
    """Put jobs into the queue again; --t1 and --flair overrule the choice."""
    from dicom_node.by_hand import retry
    from dicom_node.spool import Spool

    settings = _settings()
    ledger, spool = _ledger(settings), Spool(settings.node.spool)
    for identity in jobs:
        row = retry(ledger, spool, ledger.job(identity), t1, flair)
        print(f"{row.id}: {row.state}")


@queue.command("cancel")
def queue_cancel(
    jobs: Annotated[list[str], typer.Argument(help="Jobs, by id or the start of it.")],
) -> None:
    """Cancel jobs that are not delivered."""
    from dicom_node.by_hand import cancel
    from dicom_node.spool import Spool

    settings = _settings()
    ledger, spool = _ledger(settings), Spool(settings.node.spool)
    for identity in jobs:
        row = cancel(ledger, spool, ledger.job(identity))
        print(f"{row.id}: {row.state}")


@queue.command("retract")
def queue_retract(
    job: JobId,
    reason: Annotated[
        str, typer.Option(help="Why the result must not be used; destinations get to read it.")
    ] = "The result must not be used.",
) -> None:
    """Have destinations reject a result: "Rejected for Quality Reasons" (IHE IOCM)."""
    from dicom_node.by_hand import retract
    from dicom_node.spool import Spool

    settings = _settings()
    ledger = _ledger(settings)
    row = ledger.job(job)
    new = retract(ledger, Spool(settings.node.spool), row, reason)
    print(f"{row.id}: {'retracted' if new else 'was retracted before, nothing new is sent'}")


# --- peers, rules, send --------------------------------------------------------------------------


@peers.command("list")
def peers_list(as_json: AsJson = False) -> None:
    """The peers of the settings."""
    found = [peer.model_dump() for peer in _settings().peer]
    if as_json:
        _print_json(found)
        return
    columns = ("name", "ae_title", "host", "port", "sends", "receives")
    _console().print(_table("", columns, ([peer[c] for c in columns] for peer in found)))


@peers.command("echo")
def peers_echo(
    name: Annotated[str | None, typer.Argument(help="A peer; all when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """C-ECHO a peer, or all; exit 1 when one does not answer."""
    from dicom_node.overview import echo_all

    _log_to_stderr()
    settings = _settings()
    found = echo_all(settings, [settings.peer_named(name)] if name else list(settings.peer))
    if as_json:
        _print_json([{"peer": c.name, "ok": c.ok, "sentence": c.sentence} for c in found])
    else:
        for check in found:
            print(f"{check.name}: {check.sentence}")
        if not found:
            print("No [[peer]] receives.")
    raise typer.Exit(0 if all(check.ok for check in found) else 1)


@rules.command("list")
def rules_list(as_json: AsJson = False) -> None:
    """The rules, in the order in which they are tried."""
    found = [rule.model_dump() for rule in _settings().rule]
    if as_json:
        _print_json(found)
        return
    columns = ("name", "called_aet", "calling_aet", "study_description", "deliver_to", "if_contrast_given")
    _console().print(_table("", columns, ([rule[c] for c in columns] for rule in found)))


@rules.command("try")
def rules_try(
    folder: Annotated[Path, typer.Argument(help="Folder with DICOM files.")],
    called_aet: Annotated[str | None, typer.Option(help="As if sent to this AE title.")] = None,
    calling_aet: Annotated[str, typer.Option(help="As if sent by this AE title.")] = "",
    as_json: AsJson = False,
) -> None:
    """Which rule, which series, why; nothing is sent. Exit 1 unless every study has its pair."""
    from dicom_node.overview import try_rules

    warnings.simplefilter("ignore")
    found = try_rules(_settings(), folder, called_aet, calling_aet)
    if as_json:
        _print_json(found[0] if len(found) == 1 else found)
    else:
        for explanation in found:
            _explain(explanation, as_json=False)
    raise typer.Exit(0 if all(one["decision"] == "COMPLETE" for one in found) else 1)


@app.command()
def send(
    folder: Annotated[Path, typer.Argument(help="Folder with DICOM files, or one file.")],
    peer: Annotated[str, typer.Argument(help="Name of a peer in the settings.")],
) -> None:
    """Push a folder to a peer, for trying things."""
    from rich.progress import Progress

    from dicom_node.send import send_folder

    _log_to_stderr()
    settings = _settings()
    receiver = settings.peer_named(peer)
    with Progress(console=_console(), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(f"to {receiver.name}", total=None)
        stored, complaints = send_folder(
            settings.node.ae_title,
            receiver,
            folder,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    print(f"{stored} instances stored by {receiver.name}")
    raise typer.Exit(1 if complaints else 0)


@app.command()
def purge(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would leave.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove from the spool what is finished and older than retention.hours; the node does so by itself."""
    from dicom_node.retention import purge as run
    from dicom_node.spool import Spool

    settings = _settings()
    left = run(settings, _ledger(settings), Spool(settings.node.spool), dry_run=dry_run)
    if as_json:
        _print_json(left.to_json() | {"dry_run": dry_run})
        return
    print(f"{'Would leave' if dry_run else 'Left'} the spool: {left.sentence}")
    for identity in left.jobs:
        print(f"  job {identity}")


@app.command()
def provenance(
    file: Annotated[Path, typer.Argument(help="An object that a dicom-node made.")],
    reproduce: Annotated[bool, typer.Option("--reproduce", help="Compute it again and compare.")] = False,
    inputs: Annotated[
        Path | None, typer.Option(help="Folder with T1W and FLAIR, instead of the spool.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda, for --reproduce.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """What made an object: model, weights, code, settings, inputs; compute it again and compare."""
    from dataclasses import asdict

    from dicom_node import provenance as module

    warnings.simplefilter("ignore")  # pydicom's may quote a patient's values
    found = module.read(file)
    told: dict[str, Any] = asdict(found)
    again = None
    if reproduce:
        sources = (
            module.inputs_in(inputs, found) if inputs else module.inputs_in_the_spool(_settings(), found)
        )
        again = module.reproduce(file, found, sources, device)
        told["reproduction"] = asdict(again)
    if as_json:
        _print_json(told)
    else:
        for line in module.lines(found):
            print(line)
        if again:
            print(again.sentence)
    raise typer.Exit(0 if again is None or again.same else 1)


# --- settings ------------------------------------------------------------------------------------


@settings_app.command("init")
def settings_init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path(settings_module.FILE_NAME),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a commented settings file."""
    if path.exists() and not force:
        raise SettingsError(f"{path} is there already; --force overwrites it.")
    try:
        path.write_text(settings_module.template(), encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}.") from None
    print(f"Wrote {path}")


@settings_app.command("check")
def settings_check() -> None:
    """Say what is wrong, with line and key."""
    _settings()
    print(f"{settings_module.find_file(_file) or 'Defaults'}: fine")


@settings_app.command("show")
def settings_show() -> None:
    """The effective values, secrets masked."""
    _print_json(settings_module.shown(_settings()))
