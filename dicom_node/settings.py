"""``dicom-node.toml``: every key, its default and what it means.

Looked for in this order: the command's ``--settings``, the variable ``DICOM_NODE_SETTINGS``,
``./dicom-node.toml``, ``/etc/dicom-node.toml``, then the defaults alone. ``DICOM_NODE__SECTION__KEY`` in
the environment overrides a key.
"""

from __future__ import annotations

import os
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from dicom_node.errors import NoSuchThing, SettingsError
from synthesis import job as message

FILE_NAME = "dicom-node.toml"
ENVIRONMENT_PREFIX = "DICOM_NODE__"

# PS3.5 6.2: AE is at most 16 characters, no backslash, no control characters, not only spaces.
AETitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$")]
Port = Annotated[int, Field(ge=1, le=65535)]


def default_spool() -> Path:
    """Return where bytes are kept when the settings do not say: by the user that runs the node."""
    if os.geteuid() == 0:
        return Path("/var/lib/dicom-node")
    return Path.home() / ".local" / "share" / "dicom-node"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Node(_Section):
    """``[node]``: who we are and where we keep what we receive."""

    ae_title: AETitle = "TAVIT"
    bind: str = "0.0.0.0"  # noqa: S104  a DICOM node is there to be reached
    port: Port = 11112
    spool: Path = Field(default_factory=default_spool)
    ledger: str = ""
    max_associations: int = Field(default=20, ge=1)
    max_pdu: int = Field(default=131072, ge=0)
    accept_unknown_peers: bool = False
    fsync: bool = True

    @property
    def ledger_url(self) -> str:
        """The database of the ledger: in the spool, unless the settings say otherwise."""
        return self.ledger or f"sqlite:///{self.spool / 'ledger.sqlite'}"

    @field_validator("ledger")
    @classmethod
    def _is_sqlite(cls, value: str) -> str:
        if value and not value.startswith("sqlite:///"):
            raise ValueError("only sqlite:///PATH is supported")
        return value


class Broker(_Section):
    """``[broker]``: the Redis that carries work to the workers."""

    url: str = "redis://localhost:6379/0"


class Collect(_Section):
    """``[collect]``: when a study counts as complete."""

    quiet_seconds: float = Field(default=20, gt=0)
    wait_minutes: float = Field(default=30, gt=0)


class Peer(_Section):
    """``[[peer]]``: a DICOM application that sends to us, receives from us, or both."""

    name: str = Field(min_length=1)
    ae_title: AETitle
    host: str = Field(min_length=1)
    port: Port = 104
    sends: bool = True
    receives: bool = True
    commitment: bool = True
    compress: bool = False
    dicomweb: str = Field(default="", pattern=r"^(https?://[^\s@]+)?$")

    @model_validator(mode="before")
    @classmethod
    def _dicomweb_needs_no_ae_title(cls, values: Any) -> Any:
        """A peer that is only a DICOMweb service has no AE title and opens no association to us."""
        if isinstance(values, dict) and values.get("dicomweb") and "ae_title" not in values:
            host = urlsplit(str(values["dicomweb"])).hostname or ""
            return {"ae_title": "DICOMWEB", "host": host, "sends": False} | values
        return values

    @model_validator(mode="after")
    def _only_an_association_agrees_on_compression(self) -> Peer:
        """STOW-RS names no transfer syntaxes: a service that cannot read one would refuse for good."""
        if self.compress and self.dicomweb:
            raise ValueError("compress has no effect on dicomweb: it is for C-STORE; leave one of them out")
        return self


class Retention(_Section):
    """``[retention]``: how long files stay in the spool, and when no more are taken."""

    hours: float = Field(default=24, ge=0)
    least_free_gb: float = Field(default=1, ge=0)

    @property
    def least_free_bytes(self) -> int:
        """Below this, nothing new is taken: what is there can still be finished."""
        return int(self.least_free_gb * 1e9)


class Rule(_Section):
    """``[[rule]]``: which studies, and what becomes of them. The first that matches wins."""

    name: str = Field(min_length=1)
    called_aet: str = "*"
    calling_aet: str = "*"
    peer: str = "*"
    study_description: str = "*"
    body_part: str = "*"
    institution: str = "*"
    station: str = "*"
    modality: str = "*"
    deliver_to: tuple[str, ...] = ()
    objects: tuple[message.Kind, ...] = Field(default=(message.Kind.T1C,), min_length=1)
    t1c: Literal["classic", "enhanced"] = "classic"
    seg: Literal["binary", "fractional"] = "binary"
    corner_text: bool = False
    if_contrast_given: Literal["do", "decline"] = "do"
    answer: Literal["none", "sr", "sc"] = "none"
    priority: int = Field(default=0, ge=0, le=9)

    @field_validator("answer", mode="before")
    @classmethod
    def _answer_in_other_words(cls, value: Any) -> Any:
        return {"always": "sr", "results": "none"}.get(value, value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _objects_can_be_made(self) -> Rule:
        assert self.wanted  # says itself what does not fit together
        return self

    @property
    def wanted(self) -> message.Wanted:
        """Which objects a job under this rule makes, and in which form."""
        objects = tuple(kind.value for kind in dict.fromkeys(self.objects))
        return message.Wanted(objects, self.t1c, self.seg, self.corner_text)


NO_DESTINATION = (
    "There is nobody to send the result to: give the rule a deliver_to, or the sender a [[peer]] "
    "with receives = true; then: dicom-node queue retry JOB."
)
#: The keys of a rule that are compared with the study, as globs without regard to case.
RULE_GLOBS = (
    "called_aet",
    "calling_aet",
    "peer",
    "study_description",
    "body_part",
    "institution",
    "station",
    "modality",
)


class Worker(_Section):
    """``[worker]``: where and with what a worker computes."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    model: str = "default"


class Monitor(_Section):
    """``[monitor]``: the page, health and metrics. Without a password: keep it on a trusted network."""

    bind: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)


class Settings(_Section):
    """All settings of one installation."""

    node: Node = Field(default_factory=Node)
    broker: Broker = Field(default_factory=Broker)
    collect: Collect = Field(default_factory=Collect)
    peer: tuple[Peer, ...] = ()
    rule: tuple[Rule, ...] = (Rule(name="every study"),)
    worker: Worker = Field(default_factory=Worker)
    retention: Retention = Field(default_factory=Retention)
    monitor: Monitor = Field(default_factory=Monitor)

    @model_validator(mode="after")
    def _names_fit_together(self) -> Settings:
        for kind, names in (
            ("peer", [peer.name for peer in self.peer]),
            ("rule", [rule.name for rule in self.rule]),
        ):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"two [[{kind}]] are named {sorted(twice)[0]!r}")
        receivers = {peer.name for peer in self.peer if peer.receives}
        for rule in self.rule:
            unknown = [name for name in rule.deliver_to if name not in receivers]
            if unknown:
                raise ValueError(
                    f"rule {rule.name!r} delivers to {unknown[0]!r}, "
                    "but no [[peer]] of that name has receives = true"
                )
        return self

    @property
    def broker_is_set(self) -> bool:
        """Whether the broker was named by the user, rather than by default."""
        return "broker" in self.model_fields_set and "url" in self.broker.model_fields_set

    def peer_named(self, name: str) -> Peer:
        """Return the peer of this name; raises `NoSuchThing`."""
        for peer in self.peer:
            if peer.name == name:
                return peer
        known = ", ".join(peer.name for peer in self.peer) or "none"
        raise NoSuchThing(f"There is no [[peer]] named {name!r}; known: {known}.")

    def rule_named(self, name: str) -> Rule | None:
        """Return the rule of this name, or None when the settings no longer have it."""
        return next((rule for rule in self.rule if rule.name == name), None)

    def rule_for(self, facts: dict[str, str]) -> Rule | None:
        """Return the first rule that matches these facts (`RULE_GLOBS`) about a study and who sent it."""
        for rule in self.rule:
            if all(
                fnmatchcase(facts.get(key, "").casefold(), getattr(rule, key).casefold())
                for key in RULE_GLOBS
            ):
                return rule
        return None

    def destinations(self, rule: Rule | None, sender: str | None) -> list[str]:
        """Return the peers that get the result: those of the rule, else the sender if it receives."""
        if rule is not None and rule.deliver_to:
            return list(dict.fromkeys(rule.deliver_to))
        return [peer.name for peer in self.peer if peer.name == sender and peer.receives]

    def answers_to(self, called_aet: str) -> bool:
        """Return whether we answer to this AE title: our own, or one that a rule asks for."""
        asked_for = [rule.called_aet for rule in self.rule if rule.called_aet != "*"]
        return called_aet == self.node.ae_title or any(fnmatchcase(called_aet, glob) for glob in asked_for)


def find_file(given: Path | None) -> Path | None:
    """Return the file to read, None for the defaults; raises `SettingsError` if a named one is absent."""
    named = given or (
        Path(os.environ["DICOM_NODE_SETTINGS"]) if "DICOM_NODE_SETTINGS" in os.environ else None
    )
    if named is not None:
        if not named.is_file():
            raise SettingsError(f"There is no settings file {named}. Make one with: dicom-node settings init")
        return named
    return next((path for path in (Path(FILE_NAME), Path("/etc") / FILE_NAME) if path.is_file()), None)


def load(given: Path | None = None, environment: dict[str, str] | None = None) -> Settings:
    """Return the settings of a file and of the environment; raises `SettingsError` with line and key."""
    path = find_file(given)
    text = path.read_text(encoding="utf-8") if path else ""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: {error}.") from None
    _apply_environment(values, dict(os.environ) if environment is None else environment)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        lines = [_sentence(detail, path, text) for detail in error.errors()]
        raise SettingsError("\n".join(lines)) from None


def _apply_environment(values: dict[str, Any], environment: dict[str, str]) -> None:
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        section, _, key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        if not key:
            raise SettingsError(f"{variable}: the form is {ENVIRONMENT_PREFIX}SECTION__KEY.")
        table = values.setdefault(section, {})
        if not isinstance(table, dict):
            raise SettingsError(f"{variable}: lists such as [[{section}]] can only be set in the file.")
        table[key] = value


def _sentence(detail: ErrorDetails, path: Path | None, text: str) -> str:
    """Say one of pydantic's complaints as file, line, key and reason."""
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location) or "settings"
    reason = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        reason = "there is no such key"
    line = _line_of(detail["loc"], text)
    place = f"{path}:{line}" if path and line else str(path or "environment")
    return f"{place}: {key}: {reason}."


def _line_of(location: tuple[int | str, ...], text: str) -> int | None:
    """Return the line of a key: after the header of its table, counting [[tables]] of the same name."""
    if not location:
        return None
    section = str(location[0])
    nth = location[1] if len(location) > 1 and isinstance(location[1], int) else 0
    key = next((part for part in location[1:] if isinstance(part, str)), None)
    headers = {f"[{section}]", f"[[{section}]]"}
    seen, inside = -1, False
    header_line = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.split("#", 1)[0].strip()
        if line.startswith("["):
            seen += line in headers
            inside = line in headers and seen == nth
            header_line = number if inside else header_line
        elif inside and key and line.partition("=")[0].strip() == key:
            return number
    return header_line


TEMPLATE = """\
# Settings of the DICOM node. Every line that starts with "#" shows the default or an example.
# Any key of a section can be overridden by the environment: DICOM_NODE__NODE__PORT=104

[node]
ae_title = "TAVIT"            # our AE title; senders call this, or a rule's called_aet
port = 11112
# bind = "0.0.0.0"
# spool = "{spool}"           # received files, results and the ledger
# ledger = "sqlite:///PATH"   # default: ledger.sqlite in the spool
# max_associations = 20
# max_pdu = 131072            # bytes; 0 = no limit
# accept_unknown_peers = false   # true: anyone may send. Otherwise only [[peer]] with their address
# fsync = true                # a file is on the disk before the sender hears Success

[broker]
# url = "redis://localhost:6379/0"   # "dicom-node up" starts a Redis of its own unless this is set

[collect]
# quiet_seconds = 20          # only where it is not evident that a series is whole
# wait_minutes = 30           # what is still missing then will not come: the study is declined

# [[peer]]                    # one block for each PACS, router or scanner
# name = "pacs"
# ae_title = "ORTHANC"
# host = "pacs.hospital.example"
# port = 4242
# sends = true                # may send to us
# receives = true             # may be sent results
# commitment = true           # is asked by storage commitment to keep them; without: by C-FIND
# compress = false            # true: images go as JPEG-LS, JPEG 2000 or RLE (no loss) if the peer takes it
# dicomweb = ""               # "https://…/dicom-web": results go there by STOW-RS; token or password from the
#                             # environment: DICOM_NODE_PEER_PACS_TOKEN, or …_USER and …_PASSWORD

[[rule]]                      # the first that matches wins
name = "every study"
# called_aet = "*"            # globs: called_aet, calling_aet, peer, study_description, body_part,
#                             # institution, station, modality
# deliver_to = ["pacs"]       # default: the peer that sent the study
# objects = ["t1c"]           # also: "seg", "difference", "uncertainty", "report"
# t1c = "classic"             # "enhanced": one Enhanced MR object instead of one object per slice
# seg = "binary"              # "fractional": the probability instead of its half-way outline
# corner_text = false         # true: "SYNTHETIC, NO Gd" is burned into a corner of the (classic) T1C
# if_contrast_given = "do"    # a real post-contrast T1 is in the study: "do" and say so, or "decline"
# answer = "none"             # a declined study gets a document that says why: "sr", or "sc" (a page) for a
#                             # PACS that shows no SR
# priority = 0                # 0 is served first, 9 last

[worker]
# device = "auto"             # "cuda", "cpu"
# model = "default"

[retention]
# hours = 24                  # so long the files of a finished study stay in the spool
# least_free_gb = 1           # with less free on the spool's disk, C-STORE is answered with A700

[monitor]
# bind = "127.0.0.1"          # page, /health/live, /health/ready, /metrics; there is no password
# port = 8080                 # 0 = off
"""


def template() -> str:
    """Return a commented settings file for ``settings init``."""
    return TEMPLATE.format(spool=default_spool())


def shown(settings: Settings) -> dict[str, Any]:
    """Return the effective values with secrets masked, for ``settings show``."""
    values = settings.model_dump(mode="json")
    values["node"]["ledger"] = settings.node.ledger_url
    values["broker"]["url"] = without_password(settings.broker.url)
    return values


def without_password(url: str) -> str:
    """Return a URL with its password masked."""
    scheme, separator, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{credentials.partition(':')[0]}:***@{host}" if at else url
