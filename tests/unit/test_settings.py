"""The settings file: defaults, what it refuses with line and key, the environment, the rules."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dicom_node import settings as module
from dicom_node.errors import NoSuchThing, SettingsError
from dicom_node.settings import Settings, find_file, load, shown, template, without_password
from synthesis.job import Wanted


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder, without variables of ours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DICOM_NODE_SETTINGS", raising=False)
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "given.toml"
    path.write_text(text, encoding="utf-8")
    return path


def of(folder: Path, text: str, environment: dict[str, str] | None = None) -> Settings:
    return load(written(folder, text), environment or {})


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        of(folder, text)
    return caught.value.sentence


PACS = '[[peer]]\nname = "pacs"\nae_title = "ORTHANC"\nhost = "127.0.0.1"\n'


def test_without_a_file_the_defaults_hold() -> None:
    found = load(None, {})

    assert (found.node.ae_title, found.node.port) == ("TAVIT", 11112)
    assert (found.collect.quiet_seconds, found.collect.wait_minutes) == (20, 30)
    assert [rule.name for rule in found.rule] == ["every study"]
    assert not found.node.accept_unknown_peers and found.node.fsync


def test_the_template_is_valid_and_changes_nothing(tmp_path: Path) -> None:
    found = of(tmp_path, template())

    assert shown(found) == shown(load(None, {}))


def test_every_key_of_the_template_exists(tmp_path: Path) -> None:
    lines = [line.removeprefix("# ") for line in template().splitlines()[2:]]
    uncommented = "\n".join(line for line in lines if not line.startswith(("#", " ")))

    found = of(tmp_path, uncommented)

    assert found.peer[0].name == "pacs" and found.rule[0].deliver_to == ("pacs",)


def test_the_design_documents_example_is_accepted(tmp_path: Path) -> None:
    found = of(
        tmp_path,
        PACS
        + """
        [[rule]]
        name = "asked by a radiologist"
        called_aet = "TAVIT"
        deliver_to = ["pacs"]
        objects = ["t1c", "seg"]
        if_contrast_given = "do"
        answer = "always"
        [[rule]]
        name = "routed automatically"
        called_aet = "TAVIT_AUTO"
        answer = "results"
        priority = 2
        [retention]
        hours = 24
        """,
    )

    assert [rule.answer for rule in found.rule] == ["sr", "none"]
    assert found.rule[0].wanted == Wanted(("t1c", "seg"))
    assert found.rule[1].wanted == Wanted(("t1c",))


def test_a_rule_says_which_objects_and_in_which_form(tmp_path: Path) -> None:
    found = of(
        tmp_path,
        """
        [[rule]]
        name = "all"
        objects = ["t1c", "report", "uncertainty", "t1c"]
        seg = "fractional"
        corner_text = true
        """,
    )

    wanted = Wanted(("t1c", "report", "uncertainty"), "classic", "fractional", corner_text=True)
    assert found.rule[0].wanted == wanted


def test_burned_in_text_and_enhanced_mr_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no burned-in text"):
        of(tmp_path, '[[rule]]\nname = "x"\nt1c = "enhanced"\ncorner_text = true\n')


@pytest.mark.parametrize("objects", ["[]", '["t1ce"]'])
def test_objects_that_cannot_be_made_are_named(objects: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="objects"):
        of(tmp_path, f'[[rule]]\nname = "x"\nobjects = {objects}\n')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[node]\nprot = 104\n", "given.toml:2: node.prot: there is no such key."),
        ("[node]\n\nport = 0\n", "given.toml:3: node.port: "),
        ('[node]\nae_title = "A NAME THAT IS TOO LONG"\n', "given.toml:2: node.ae_title: "),
        (
            '[node]\nledger = "postgresql://x"\n',
            "node.ledger: only sqlite:///PATH is supported.",
        ),
        ("[collect]\nquiet_seconds = -1\n", "given.toml:2: collect.quiet_seconds: "),
        ("[colect]\nquiet_seconds = 1\n", "given.toml:1: colect: there is no such key."),
        (PACS + '[[peer]]\nname = "b"\nae_title = "B"\n', "given.toml:5: peer.1.host: Field required."),
        (PACS + PACS, "two [[peer]] are named 'pacs'."),
        ('[[rule]]\nname = "a"\n[[rule]]\nname = "a"\n', "two [[rule]] are named 'a'."),
        ('[[rule]]\nname = "a"\ndeliver_to = ["x"]\n', "rule 'a' delivers to 'x', but no [[peer]]"),
        ('[[rule]]\nname = "a"\npriority = 12\n', "given.toml:3: rule.0.priority: "),
        ('[[rule]]\nname = "a"\nif_contrast_given = "no"\n', "given.toml:3: rule.0.if_contrast_given: "),
        ("[node\n", "given.toml: "),
    ],
)
def test_what_is_wrong_is_said_with_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    assert said in complaint(tmp_path, text)


def test_all_complaints_come_at_once(tmp_path: Path) -> None:
    assert len(complaint(tmp_path, "[node]\nport = 0\n[monitor]\nport = 70000\n").splitlines()) == 2


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    found = of(tmp_path, "[node]\nport = 104\n", {"DICOM_NODE__NODE__PORT": "11113"})

    assert found.node.port == 11113


def test_a_wrong_value_in_the_environment_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"node\.port"):
        of(tmp_path, "", {"DICOM_NODE__NODE__PORT": "many"})


@pytest.mark.parametrize(
    ("variable", "said"),
    [("DICOM_NODE__PORT", "SECTION__KEY"), ("DICOM_NODE__PEER__NAME", r"can only be set in the file")],
)
def test_a_variable_of_another_form_is_said(tmp_path: Path, variable: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        of(tmp_path, PACS, {variable: "x"})


def test_a_named_file_that_is_absent_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="There is no settings file"):
        find_file(tmp_path / "absent.toml")


def test_the_variable_comes_before_the_file_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / module.FILE_NAME).write_text("")
    other = written(tmp_path, "")
    monkeypatch.setenv("DICOM_NODE_SETTINGS", str(other))

    assert find_file(None) == other
    assert find_file(tmp_path / module.FILE_NAME) == tmp_path / module.FILE_NAME


def test_the_file_in_the_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / module.FILE_NAME).write_text("")

    assert find_file(None) == Path(module.FILE_NAME)


def test_passwords_are_masked(tmp_path: Path) -> None:
    found = of(tmp_path, '[broker]\nurl = "redis://user:secret@host:6379/0"\n')

    assert "secret" not in str(shown(found))
    assert without_password("redis://user:secret@host/0") == "redis://user:***@host/0"
    assert without_password("redis://host/0") == "redis://host/0"


def test_the_broker_is_set_only_when_it_is_named(tmp_path: Path) -> None:
    assert not load(None, {}).broker_is_set
    assert of(tmp_path, "", {"DICOM_NODE__BROKER__URL": "redis://h/0"}).broker_is_set


RULES = """
[[rule]]
name = "spine never"
body_part = "*spine*"
[[rule]]
name = "routed"
called_aet = "TAVIT_AUTO"
[[rule]]
name = "glioma at the new scanner"
study_description = "*gliom*"
station = "MR[23]"
[[rule]]
name = "one institution"
institution = "klinik*"
"""


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"called_aet": "TAVIT_AUTO"}, "routed"),
        ({"called_aet": "TAVIT_AUTO", "body_part": "CSPINE"}, "spine never"),
        (
            {"called_aet": "TAVIT", "study_description": "MR Gliom", "station": "mr2"},
            "glioma at the new scanner",
        ),
        ({"called_aet": "TAVIT", "institution": "Klinikum Nord"}, "one institution"),
        ({"called_aet": "TAVIT"}, None),
    ],
)
def test_the_first_rule_that_matches_wins(tmp_path: Path, facts: dict[str, str], name: str | None) -> None:
    rule = of(tmp_path, RULES).rule_for(facts)

    assert (rule.name if rule else None) == name


def test_we_answer_to_our_title_and_to_those_that_rules_name(tmp_path: Path) -> None:
    text = '[[rule]]\nname = "a"\ncalled_aet = "TAVIT_AUTO"\n[[rule]]\nname = "b"\ncalled_aet = "X*"\n'

    settings = of(tmp_path, text)

    asked = ["TAVIT", "TAVIT_AUTO", "X1", "OTHER"]
    assert [settings.answers_to(title) for title in asked] == [True, True, True, False]


def test_an_unknown_peer_is_named_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(NoSuchThing, match=r"no \[\[peer\]\] named 'x'; known: pacs"):
        of(tmp_path, PACS).peer_named("x")


def test_a_destination_that_is_named_twice_is_one(tmp_path: Path) -> None:
    settings = of(tmp_path, f'{PACS}[[rule]]\nname = "a"\ndeliver_to = ["pacs", "pacs"]\n')

    assert settings.destinations(settings.rule[0], None) == ["pacs"]


def test_compression_is_for_peers_that_can_agree_on_it(tmp_path: Path) -> None:
    assert of(tmp_path, f"{PACS}compress = true\n").peer[0].compress

    said = complaint(tmp_path, f'{PACS}compress = true\ndicomweb = "https://pacs/dicom-web"\n')

    assert "compress has no effect on dicomweb" in said


def test_the_template_parses_as_toml() -> None:
    sections = {"node", "broker", "collect", "rule", "worker", "retention", "monitor"}

    assert set(tomllib.loads(template())) == sections
