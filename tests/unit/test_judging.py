"""From three trained folds to weights and their card, and to a report: the commands, on real patients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_training
from tiny_training import RECIPE, enter

from training import judging
from training.__main__ import main
from training.compare import read_rows
from training.data import folds
from training.recipes import RECIPES, Stage

FOLDS = range(3)
SHORT = replace(RECIPE, stages=(Stage("heads", 1, 2),), transplants=0.0)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder of work with one step of training of each network, three folds of each."""
    work = tmp_path_factory.mktemp("work")
    tiny_training.write_cache(work / "cache")
    networks = {"tiny": "ta_vit", "tiny-finder": "segmentation", "tiny-unet": "unet"}
    for name, network in networks.items():
        enter(replace(SHORT, name=name, network=network))
        for fold in FOLDS:
            assert main(["--work", str(work), "fit", name, "--fold", str(fold)]) == 0
    yield work
    for name in networks:
        del RECIPES[name]


@pytest.fixture(scope="module")
def source(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a patient of each fold of lgg, the one of the fewest files."""
    source = tmp_path_factory.mktemp("exams")
    for fold in folds():
        exams = [shared_data / "lgg" / patient for patient in sorted(fold)]
        fewest = min(exams, key=lambda exam: sum(1 for _ in exam.rglob("*.dcm")))
        (source / fewest.name).symlink_to(fewest)
    return source


def test_an_export_is_judged_beside_identity_uptake_and_a_unet(
    work: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "calibrate", lambda arm, exams: {"guard": arm.name})  # wants ten patients
    export = ["export", "tiny", "tiny-finder", "--name", "tiny", "--source", str(source)]
    where = ["--baseline", "tiny-unet", "--elsewhere", "tiny", "tiny-finder", "--out", str(work / "weights")]
    assert main(["--work", str(work), *export, *where]) == 0

    card = json.loads((work / "weights" / "tiny.card.json").read_text(encoding="utf-8"))
    validation, elsewhere = (card["trained"][key] for key in ("validation", "elsewhere"))
    assert set(validation["arms"]) == {"model", "identity", "uptake-on-map", "drawn-map", "tiny-unet"}
    assert set(elsewhere["arms"]) == {"model", "identity", "uptake-on-map"}
    assert validation["patients"] == elsewhere["patients"] == len(FOLDS)
    assert card["guard"] == "model"
    runs = [(run["recipe"], run["fold"]) for run in card["trained"]["runs"]]
    assert runs == [(name, fold) for name in ("tiny-finder", "tiny") for fold in FOLDS]


def test_arms_are_judged_beside_the_unet_and_who_has_none_is_told(
    work: Path, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exam = min(source.iterdir())
    (tmp_path / "exams").mkdir()
    (tmp_path / "exams" / exam.name).symlink_to(exam.resolve())

    def arms(baseline: str, *names: str) -> set[str]:
        """Return who stands in the report."""
        asked = [
            "evaluate",
            "--segmentation",
            "tiny-finder",
            "--baseline",
            baseline,
            "--arms",
            "tiny",
            *names,
        ]
        where = ["--source", str(tmp_path / "exams"), "--out", str(tmp_path / baseline)]
        assert main(["--work", str(work), *asked, *where]) == 0
        return {row.arm for row in read_rows(tmp_path / baseline)}

    assert arms("small-unet", "tiny-unet") == {"tiny", "identity", "uptake-on-map", "tiny-unet"}
    assert arms("tiny-unet") == {"tiny", "identity", "uptake-on-map", "tiny-unet"}
    assert "No U-Net" not in caplog.text
    assert arms("small-unet") == {"tiny", "identity", "uptake-on-map"}
    assert "No U-Net stands in the table" in caplog.text


def test_without_a_unet_nothing_is_exported(
    work: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = ["export", "tiny", "tiny-finder", "--source", str(source), "--out", str(tmp_path / "weights")]
    assert main(["--work", str(work), *export]) == 1
    assert "small-unet was not trained yet" in capsys.readouterr().err
    assert not (tmp_path / "weights").exists()
