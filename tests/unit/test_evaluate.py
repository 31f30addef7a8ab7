"""The evaluation: the pipeline's own way, every arm on every patient, each by what never saw him."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from synthesis import pipeline
from synthesis.models.load import LoadedModel, Prediction
from synthesis.models.mpr_vit import MprVit, Sizes
from synthesis.models.ta_vit import TaVit
from synthesis.preprocess import ModelInput, to_model_grid
from synthesis.series import read_series
from training.arms import (
    Arm,
    Subject,
    cross_validated,
    drawn_map,
    identity,
    mean_uptake,
    true_change,
    uptake_on_map,
)
from training.compare import by_patient, read_rows
from training.data import folds
from training.evaluate import Evaluation, evaluate, judge, summary, truth_of
from training.figures import Group
from training.judging import falsely_lit
from training.prepare import Exam, Patient, find_exams, read_exam
from training.prepare.labels import ENHANCING, OEDEMA
from training.report import cases, write_report

SIZE = 120
TINY = Sizes(size=24, width=8, blocks=2, transformers_at=(1,), dim=64, heads=1, depth=1, tokens=6)
#: What the rim of the tests' tumours takes up, in units of the brain.
UPTAKE = 0.6


def image_of(values: np.ndarray) -> sitk.Image:
    """Return (14, 96, 96) as 2.4×2.4×9 mm, centred on the patient's origin."""
    image = sitk.GetImageFromArray(values)
    image.SetSpacing([2.4, 2.4, 9.0])
    image.SetOrigin([-114.0, -114.0, -58.5])
    return image


def subject(name: str, enhances: bool = True, seed: int = 0) -> Subject:
    """Return a head of noise with a tumour: a ball of 27 mm, in which one of 15 mm enhances or not."""
    random = np.random.default_rng(seed)
    z, y, x = np.mgrid[:14, :96, :96]
    x, y, z = 2.4 * x - 114, 2.4 * y - 114, 9.0 * z - 58.5
    head = (x / 80) ** 2 + (y / 95) ** 2 + (z / 75) ** 2 < 1
    beside = np.sqrt((x - 20) ** 2 + (y + 15) ** 2 + z**2)
    texture = sitk.GetArrayFromImage(
        sitk.SmoothingRecursiveGaussian(image_of(random.normal(0, 1, head.shape)), [5.0, 5.0, 0.01])
    )
    t1 = (100 + 12 * texture / texture.std()) * head
    tumour, rim = head & (beside < 27), head & (beside < 15)
    t1[tumour] *= 0.8
    t1c = 1.5 * (t1 + 100 * UPTAKE * (rim & enhances) + random.normal(0, 3, head.shape) * head)
    flair = (80 + 70 * tumour) * head + random.normal(0, 2, head.shape) * head
    t1, flair, t1c = (image_of(values.astype(np.float32)) for values in (t1, flair, t1c))
    return Subject(Exam(name, name, {}), Patient(t1, flair, t1c, image_of(tumour.astype(np.uint8))))


def bright_flair(subject: Subject, found: ModelInput) -> Prediction:
    """Answer that what is bright in the FLAIR is tumour, and enhances by 0.3."""
    tumour = (found.values[:, 1] > 1.4).astype(np.float32)
    return Prediction(delta=0.3 * tumour, chance=0.5 * tumour, spread=0 * tumour, tumour=tumour)


def judged(subjects: Sequence[Subject], *arms: Arm) -> Evaluation:
    """Return the evaluation of these patients as if they lay in folders."""
    patients = {one.exam.name: one.patient for one in subjects}
    return evaluate([one.exam for one in subjects], arms, read=lambda exam: patients[exam.name])


def tiny(members: int, seed: int = 0) -> LoadedModel:
    """Return a model of networks that were never trained, the first of which left out fold 0 of lgg, …"""
    torch.manual_seed(seed)
    segmentation = tuple(MprVit(TINY).eval() for _ in range(members))
    synthesis = tuple(TaVit(TINY).eval() for _ in range(members))
    for net in (*segmentation, *synthesis):
        for parameter in net.parameters():  # what starts at zero, too: an untrained TA-ViT ignores the map
            torch.nn.init.normal_(parameter, std=0.2)
    sizes = {"segmentation": TINY.to_json(), "synthesis": TINY.to_json()}
    held_out = [sorted(fold) for fold in folds()[:members]]
    known = {"file": "training/folds/lgg.json", "held_out": held_out}
    card = {"sizes": sizes, "folds": known, "limits": ["Never trained."]}
    return LoadedModel(
        "tiny", "1", "0" * 64, card, segmentation, synthesis, torch.device("cpu"), torch.float32
    )


@pytest.fixture(scope="module")
def found() -> Evaluation:
    """Return four patients, every second enhancing, under four arms."""
    subjects = [subject(f"patient {n}", enhances=n % 2 == 0, seed=n) for n in range(4)]
    arm = Arm("model", SIZE, bright_flair)
    return judged(subjects, arm, uptake_on_map(arm, lambda patient: 0.2), true_change(SIZE))


def test_every_arm_judges_every_patient_and_identity_is_never_left_out(found: Evaluation) -> None:
    assert found.arms == ("model", "identity", "uptake-on-map", "true-change")
    assert len(found.rows) == 4 * 4
    assert [row.group for row in by_patient(found.rows, "model").values()] == [Group.CLEAR, Group.NONE] * 2


def test_identity_is_neither_better_nor_worse_than_the_t1w(found: Evaluation) -> None:
    for row in by_patient(found.rows, "identity").values():
        assert row.figures["false_ml"] == 0
        assert row.figures["map_dice"] == 0
        if row.group is Group.CLEAR:
            assert (row.figures["auc"], row.figures["recovery"]) == (0.5, 0)


def test_the_true_change_is_brought_back_but_for_what_the_grid_cannot_hold(found: Evaluation) -> None:
    truth, nothing = by_patient(found.rows, "true-change"), by_patient(found.rows, "identity")
    for name, row in truth.items():
        if row.group is Group.CLEAR:
            assert row.figures["recovery"] > 0.85
            assert row.figures["auc"] > 0.97
            gain = row.figures["tumour_psnr_in_region"] - nothing[name].figures["tumour_psnr_in_region"]
            assert gain > 8
        assert row.figures["map_dice"] > 0.9
        assert row.figures["false_ml"] < 0.2


def test_a_uniform_change_of_the_tumour_has_the_recovery_and_the_light_that_it_must(
    found: Evaluation,
) -> None:
    for row in by_patient(found.rows, "model").values():
        if row.group is Group.CLEAR:
            assert row.figures["recovery"] == pytest.approx(0.3 / UPTAKE, abs=0.08)
            assert row.figures["lit"] == 1
        else:
            assert row.figures["false_ml"] == pytest.approx(row.figures["tumour_ml"], rel=0.15)


def test_a_baseline_on_the_models_map_does_not_ask_the_model_again() -> None:
    asked = []
    model = tiny(1)
    counting = replace(model, segmentation=(Counting(model.segmentation[0], asked),))
    arm = cross_validated(counting)
    judged([subject("z")], arm, uptake_on_map(arm, lambda patient: 0.2))
    usable = 2  # batches of eight planes
    assert len(asked) == usable


class Counting(torch.nn.Module):
    """A network that notes when it is asked."""

    def __init__(self, net: torch.nn.Module, asked: list[int]) -> None:
        super().__init__()
        self.net, self.asked = net, asked

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(inputs[0]))
        return self.net(*inputs)


def test_every_patient_is_judged_by_the_member_that_did_not_see_him() -> None:
    model, head = tiny(2), subject("any")
    inputs = to_model_grid(head.patient.t1, head.patient.flair, TINY.size)
    judges = {min(folds()[0]): model.only(0), min(folds()[1]): model.only(1), "someone else": model}
    arm = cross_validated(model)
    for name, unseeing in judges.items():
        one = replace(head, exam=Exam(name, name, {}))
        answer = arm.answer(one, replace(inputs))  # each has an input of his own
        assert np.array_equal(answer.delta, unseeing.predict(inputs).delta)
    assert not np.array_equal(model.only(0).predict(inputs).delta, model.only(1).predict(inputs).delta)


def test_a_patient_whom_all_members_saw_does_not_judge_them() -> None:
    name = min(folds()[2])
    seen = replace(subject("any"), exam=Exam(name, name, {}))
    inputs = to_model_grid(seen.patient.t1, seen.patient.flair, TINY.size)
    with pytest.raises(ValueError, match="trained on"):
        cross_validated(tiny(2)).answer(seen, inputs)


def test_the_drawn_map_is_what_the_synthesis_is_told() -> None:
    model, head = tiny(1), subject("a")
    inputs = to_model_grid(head.patient.t1, head.patient.flair, TINY.size)
    told = drawn_map(model).answer(head, inputs)
    assert 0 <= told.tumour.min() <= told.tumour.max() <= 1
    assert np.array_equal(told.delta, model.synthesise(inputs, told.tumour).delta)
    assert not np.array_equal(told.delta, model.predict(inputs).delta)


def test_a_patient_who_cannot_be_judged_is_left_out_with_the_reason() -> None:
    good, blank = subject("good"), subject("blank")
    t1c = blank.patient.t1c * 0
    blank = replace(blank, patient=replace(blank.patient, t1c=t1c))
    found = judged([blank, good], identity(SIZE))
    assert [row.patient for row in found.rows] == ["good"]
    assert len(found.refused) == 1
    assert "good" not in found.refused[0] and "blank" not in found.refused[0]


def test_what_nobody_segmented_is_not_judged() -> None:
    head = subject("a")
    found = judged([replace(head, patient=replace(head.patient, labelled=False))], identity(SIZE))
    assert (found.rows, found.refused) == ((), ("Nobody segmented the tumour.",))


def test_blank_planes_of_the_t1c_are_not_judged() -> None:
    whole = subject("a")
    t1c = sitk.GetArrayFromImage(whole.patient.t1c)
    t1c[:6] = 0
    cut = replace(whole, patient=replace(whole.patient, t1c=image_of(t1c)))
    inputs = to_model_grid(cut.patient.t1, cut.patient.flair, SIZE)
    truth = truth_of(cut, inputs)
    assert all(not region[:6].any() for region in truth.regions.values())
    assert truth.regions["tumour"][6:].any()


def test_planes_that_the_flair_does_not_show_are_not_judged() -> None:
    whole = subject("a")
    flair = sitk.GetArrayFromImage(whole.patient.flair)
    flair[9:] = 0
    cut = replace(whole, patient=replace(whole.patient, flair=image_of(flair)))
    truth = truth_of(cut, to_model_grid(cut.patient.t1, cut.patient.flair, SIZE))
    assert all(not region[9:].any() for region in truth.regions.values())
    assert truth.regions["brain"][5:9].any()


def test_what_an_expert_drew_makes_regions_of_its_own() -> None:
    head = subject("a")
    tumour = sitk.GetArrayFromImage(head.patient.tumour)
    core = tumour * (np.arange(96)[None, None] > 56).astype(np.uint8)
    drawn = image_of(np.where(core, ENHANCING, OEDEMA * tumour).astype(np.uint8))
    labelled = replace(head, patient=replace(head.patient, labels=drawn))
    inputs = to_model_grid(head.patient.t1, head.patient.flair, SIZE)
    truth = truth_of(labelled, inputs)
    assert {"core", "enhancing_label", "enhancing_rule"} < truth.regions.keys()
    row = judge(truth, labelled, inputs, "model", bright_flair(labelled, inputs)).row
    assert row.figures["voxels"] == truth.regions["core"].sum() != truth.regions["enhancing_rule"].sum()
    assert math.isfinite(row.figures["core_ncc"])


def test_gain_and_scale_of_the_t1c_do_not_matter() -> None:
    head = subject("a")
    brighter = replace(head, patient=replace(head.patient, t1c=head.patient.t1c * 3.7))
    figures = [judged([one], identity(SIZE)).rows[0].figures for one in (head, brighter)]
    assert figures[0] == pytest.approx(figures[1], rel=2e-3, abs=1e-4, nan_ok=True)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return a cache of three patients whose tumours take up 0.1, 0.2 and 0.6."""
    uptakes = np.repeat([0.1, 0.2, 0.6], 2)
    shape = (6, 24, 24)
    tumour = np.zeros(shape, np.uint8)
    tumour[:, 8:16, 8:16] = 255
    np.save(tmp_path / "values.npy", np.ones((6, 2, 24, 24), np.float16))
    np.save(tmp_path / "t1c.npy", (1 + uptakes[:, None, None] * (tumour > 0)).astype(np.float16))
    np.save(tmp_path / "tumour.npy", tumour)
    for name in ("brain", "inside"):
        np.save(tmp_path / f"{name}.npy", np.ones(shape, np.uint8))
    listed = [{"patient": name, "first": 2 * i, "count": 2, "refused": ""} for i, name in enumerate("abc")]
    (tmp_path / "cases.json").write_text(json.dumps(listed), encoding="utf-8")
    return tmp_path


def test_the_mean_uptake_is_learnt_from_the_patients_outside_the_fold(cache: Path) -> None:
    uptake = mean_uptake(cache, (frozenset("a"), frozenset("b"), frozenset("c")))
    assert [uptake(name) for name in "abc"] == pytest.approx([0.4, 0.35, 0.15], abs=1e-3)
    assert uptake("someone else") == pytest.approx(0.3, abs=1e-3)


def test_the_summary_is_json_with_intervals_and_gains(found: Evaluation) -> None:
    values = json.loads(json.dumps(summary(found), allow_nan=False))
    assert (values["patients"], values["enhancing"], values["clearly_enhancing"]) == (4, 2, 2)
    gain = values["over_identity"]["true-change"]["brain_psnr_in_region"]
    assert gain["low"] <= gain["mean"] <= gain["high"]
    assert gain["patients"] == 4
    means = [values["arms"][arm]["brain_psnr_in_region"]["mean"] for arm in ("true-change", "identity")]
    assert gain["mean"] == pytest.approx(means[0] - means[1], abs=1e-2)
    assert values["arms"]["model"]["false_ml_none"]["patients"] == 2
    assert values["calibration_error"]["true-change"] < values["calibration_error"]["model"]


def test_the_card_states_the_volume_that_lights_up_falsely(found: Evaluation) -> None:
    falsely = [
        row.figures["false_ml"] for row in found.rows if row.arm == "model" and row.patient[-1] in "13"
    ]
    assert max(falsely) > 1
    assert falsely_lit(found) == (
        f"In the 2 tumours of patients never seen that do not enhance, {sum(falsely) / 2:.2f} mL lit up "
        f"falsely on average, {max(falsely):.2f} mL at most."
    )


def test_the_report_needs_no_other_file_and_shows_the_extremes(found: Evaluation, tmp_path: Path) -> None:
    page = write_report(found, tmp_path / "report", "Weights of the test").read_text(encoding="utf-8")
    assert page.count("<img") == page.count('src="data:image/') == 3 + len(cases(found))
    assert "http" not in page
    assert all(arm in page for arm in found.arms)
    assert "Weights of the test" in page
    with (tmp_path / "report" / "patients.csv").open(encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == 1 + 16
    assert len(read_rows(tmp_path / "report")) == 16
    written = json.loads((tmp_path / "report" / "summary.json").read_text(encoding="utf-8"))
    assert written["arms"].keys() == set(found.arms)


def test_cases_run_from_best_to_worst(found: Evaluation) -> None:
    shown = cases(found)
    assert [heading.split(":")[0] for heading, _ in shown] == ["Best", "Worst", "Best", "Median", "Worst"]
    recovery = {name: row.figures["recovery"] for name, row in by_patient(found.rows, "model").items()}
    assert recovery[shown[0][1]] >= recovery[shown[1][1]]


def test_of_one_patient_nothing_is_best_or_worst_and_there_is_no_interval(
    found: Evaluation, tmp_path: Path
) -> None:
    first = found.rows[0].patient
    one = replace(found, rows=tuple(row for row in found.rows if row.patient == first))
    assert [heading.split(":")[0] for heading, _ in cases(one)] == ["The only one"] * 2
    page = write_report(one, tmp_path, "One").read_text(encoding="utf-8")
    assert "± –<br>[–, –]" in page
    assert "nan" not in page.partition("<h2>Patient by patient")[0]
    figure = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["arms"]["model"]["false_ml"]
    assert figure["mean"] > 0
    assert (figure["sd"], figure["low"], figure["high"], figure["patients"]) == (None, None, None, 1)


def test_two_exams_of_a_patient_are_one_patient_in_the_report(found: Evaluation, tmp_path: Path) -> None:
    rows = tuple(replace(row, person="same") if row.patient[-1] in "01" else row for row in found.rows)
    page = write_report(replace(found, rows=rows), tmp_path, "Two exams").read_text(encoding="utf-8")
    assert "3 patients, 4 exams; 2 enhance, 2 of them clearly." in page
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["patients"] == 3


def test_a_patient_without_recovery_is_no_case(found: Evaluation) -> None:
    first = found.rows[0]
    dark = replace(first, figures=dict(first.figures) | {"recovery": math.nan})
    shown = cases(replace(found, rows=(dark, *found.rows[1:])))
    assert [heading.split(":")[0] for heading, _ in shown] == ["The only one", "Best", "Median", "Worst"]


def test_what_is_kept_to_look_at_does_not_keep_the_volumes(found: Evaluation) -> None:
    for look in found.looks:
        images = (look.t1, look.flair, look.t1c, look.tumour, look.chance, *look.predicted.values())
        assert all(image.base is None and image.shape == look.t1.shape for image in images)


def test_nothing_judged_is_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No patient"):
        write_report(Evaluation(("model",), (), (), {}, ("Blank.",)), tmp_path, "")


def test_the_pipeline_makes_of_the_dicom_what_is_judged(shared_data: Path, tmp_path: Path) -> None:
    model, folder = tiny(3), min((shared_data / "lgg").glob("TCGA_*"))
    exam = find_exams(folder)[0]
    own = next(number for number, fold in enumerate(folds()) if exam.patient in fold)
    made = pipeline.run(
        *(sorted((folder / name).glob("*.dcm")) for name in ("t1", "flair")),
        tmp_path,
        model.only(own),
        lambda step, share: None,
    )
    person = Subject(exam, read_exam(exam))
    inputs = to_model_grid(person.patient.t1, person.patient.flair, model.size)
    truth = truth_of(person, inputs)
    ours = judge(truth, person, inputs, "model", cross_validated(model).answer(person, inputs))
    assert np.abs(ours.predicted - person_t1(person) / truth.t1_level).max() > 0.1
    pictured = sitk.GetArrayFromImage(made.pictures.t1c) / truth.t1_level
    assert np.allclose(ours.predicted, pictured, atol=1e-4)
    written = read_series([tmp_path / one.path for one in made.instances]).image
    assert np.allclose(ours.predicted, sitk.GetArrayFromImage(written) / truth.t1_level, atol=0.01)


def person_t1(person: Subject) -> np.ndarray:
    """Return the voxels of the T1W."""
    return np.asarray(sitk.GetArrayFromImage(person.patient.t1))
