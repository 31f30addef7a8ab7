"""What the commands show: put together from ledger, broker, peers and files."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dicom_node import headers, send
from dicom_node.broker import Broker, broker_url_in_use
from dicom_node.choose import choose_pair, classify, group
from dicom_node.choose.enhancement import glance_into
from dicom_node.choose.pair import Situation
from dicom_node.choose.pixels import files_to_see, look_into
from dicom_node.errors import NoSuchThing, PeerRefuses, PeerUnreachable
from dicom_node.headers import Header
from dicom_node.ledger import AT_PEER, NOT_AT_PEER, DeliveryState, JobRow, Ledger
from dicom_node.monitor import Check, checks, job_as_json
from dicom_node.settings import Peer, Settings
from dicom_node.spool import Spool


@dataclass(frozen=True)
class Overview:
    """What `status` shows."""

    checks: list[Check]
    counts: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether everything is well."""
        return all(check.ok for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return what `status --json` prints."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks], "queue": self.counts}


def open_ledger(settings: Settings) -> Ledger:
    """Return the ledger of a node that ran at least once; raises `NoSuchThing`."""
    path = Path(settings.node.ledger_url.removeprefix("sqlite:///"))
    if not path.is_file():
        raise NoSuchThing(
            f"There is no ledger {path}: no node ran with these settings yet. Start one with: dicom-node up."
        )
    return Ledger(settings.node.ledger_url)


def overview(settings: Settings) -> Overview:
    """Return the state of node, broker, workers, peers, disk and queue."""
    found = [_node_listens(settings)]
    try:
        ledger = open_ledger(settings)
    except NoSuchThing as error:
        return Overview([*found, Check("ledger", False, error.sentence)], {})
    spool = Spool(settings.node.spool)
    found += checks(settings, ledger, spool, Broker(broker_url_in_use(settings)))
    found += echo_all(settings, settings.peer)
    return Overview(found, {str(state): count for state, count in ledger.counts().items()})


def _node_listens(settings: Settings) -> Check:
    node = settings.node
    host = "127.0.0.1" if node.bind in {"0.0.0.0", ""} else node.bind  # noqa: S104
    try:
        socket.create_connection((host, node.port), timeout=3).close()
    except OSError:
        return Check("node", False, f"nothing listens on port {node.port}")
    return Check("node", True, f"listens on port {node.port} as {node.ae_title}")


def echo_all(settings: Settings, peers: Iterable[Peer]) -> list[Check]:
    """C-ECHO each peer that receives; a DICOMweb service is asked for one study."""
    found = []
    for peer in peers:
        if not peer.receives:
            continue
        try:
            found.append(Check(f"peer {peer.name}", True, _ask(settings, peer)))
        except (PeerRefuses, PeerUnreachable) as error:
            found.append(Check(f"peer {peer.name}", False, error.sentence))
    return found


def _ask(settings: Settings, peer: Peer) -> str:
    """Return how a peer answers; raises `PeerRefuses` or `PeerUnreachable`."""
    if peer.dicomweb:
        from dicom_node import stow  # the client brings much that a node without DICOMweb never needs

        return f"answers QIDO-RS in {stow.ping(peer) * 1000:.0f} ms"
    return f"answers C-ECHO in {send.echo(settings.node.ae_title, peer) * 1000:.0f} ms"


def details(settings: Settings, ledger: Ledger, job: JobRow) -> dict[str, Any]:
    """Return what `queue show --json` prints."""
    rows = ledger.deliveries(job.id)
    deliveries = []
    for destination in sorted({row.destination for row in rows}):
        states = [row.state for row in rows if row.destination == destination]
        deliveries.append(
            {
                "destination": destination,
                "stored": sum(state in AT_PEER for state in states),
                "pending": sum(state in (DeliveryState.PENDING, DeliveryState.LOST) for state in states),
                "refused": sum(state in NOT_AT_PEER for state in states),
                "committed": states.count(DeliveryState.COMMITTED),
                "last": ledger.attempt(job.id, destination)[2],
            }
        )
    return {
        **job_as_json(job),
        "peer": job.peer,
        "worker": job.worker,
        "starts": job.starts,
        "model": job.model or {},
        "remarks": job.remarks or [],
        "timeline": [
            {
                "at": event.at,
                "from": event.before,
                "to": event.after,
                "code": event.code,
                "sentence": event.sentence,
            }
            for event in ledger.events(job.id)
        ],
        "deliveries": deliveries,
        "documents": [
            {
                "form": str(document.form),
                "state": str(document.state),
                "code": document.code,
                "reason": document.reason,
                "destinations": {one.destination: str(one.state) for one in ledger.postings(document.id)},
                "last": " ".join(one.sentence for one in ledger.postings(document.id) if one.sentence),
            }
            for document in ledger.documents(job.id)
        ],
        "folder": str(Spool(settings.node.spool).job(job.id)),
    }


def explain(ledger: Ledger, job: JobRow) -> dict[str, Any]:
    """Return why these series and not those, with the series that came after the decision."""
    explanation = job.explanation or {
        "rule": job.rule,
        "decision": str(job.state),
        "code": job.code,
        "reason": job.reason,
        "chosen": {},
        "series": [],
    }
    known = {line["uid"] for line in explanation["series"]}
    headers_here = (Header.from_json(values) for _, values in ledger.study_headers(job.study_uid))
    late = [
        {
            "uid": series.uid,
            "description": series.first.series_description,
            "role": str(verdict.role),
            "why": [*verdict.why, "came after the decision"],
        }
        for series in group(header for header in headers_here if header.series_uid not in known)
        for verdict in [classify(series)]
    ]
    return {**explanation, "series": [*explanation["series"], *late]}


def try_rules(
    settings: Settings, folder: Path, called_aet: str | None, calling_aet: str
) -> list[dict[str, Any]]:
    """Return the explanation of each study in a folder; raises `NoSuchThing` when there is none."""
    if not folder.exists():
        raise NoSuchThing(f"There is no folder {folder}.")
    studies: dict[str, list[Header]] = {}
    files: list[tuple[Path, Header]] = []
    known: set[str] = set()
    unreadable = 0
    for path in sorted([folder] if folder.is_file() else (p for p in folder.rglob("*") if p.is_file())):
        try:
            header = headers.read(path)
        except headers.Unreadable:
            unreadable += 1
            continue
        if header.sop_instance_uid in known:
            continue
        known.add(header.sop_instance_uid)
        studies.setdefault(header.study_uid, []).append(header)
        files.append((path, header))
    if not studies:
        raise NoSuchThing(f"There is no readable DICOM image in {folder}.")
    to_see = files_to_see(files)
    found = []
    for members in studies.values():
        first = members[0]
        rule = settings.rule_for(
            {
                "called_aet": called_aet or settings.node.ae_title,
                "calling_aet": calling_aet,
                **first.rule_facts(),
            }
        )
        situation = Situation(
            unreadable=unreadable,
            if_contrast_given=rule.if_contrast_given if rule else "do",
            look=look_into(to_see),
            glance=glance_into(to_see),
        )
        explanation = choose_pair(group(members), situation).to_json(rule.name if rule else "")
        if rule is None:
            explanation |= {
                "decision": "DECLINED",
                "code": "NO_RULE",
                "reason": "No rule matches this study.",
            }
        found.append(explanation)
    return found
