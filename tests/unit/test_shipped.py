"""The weights that ship, on real studies: as sharp as the T1W, and the numbers of `training evaluate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk

from synthesis.models.load import LoadedModel, load_model
from synthesis.pipeline import Made, run
from synthesis.preprocess import brain_region, to_model_grid
from synthesis.series import read_series
from training.arms import Subject, cross_validated
from training.evaluate import judge, truth_of
from training.prepare import find_exams, read_exam

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(device="cpu")


def made(t1: Path, flair: Path, out: Path, model: LoadedModel) -> Made:
    return run(sorted(t1.glob("*.dcm")), sorted(flair.glob("*.dcm")), out, model, lambda step, share: None)


def gradient_energy(image: sitk.Image, region: npt.NDArray[np.bool_]) -> float:
    """Return the mean square of the in-plane gradient in a region."""
    values = sitk.GetArrayFromImage(image).astype(np.float64)
    rows, columns = np.gradient(values, axis=(1, 2))
    return float((rows**2 + columns**2)[region].mean())


def test_the_synthetic_t1c_of_a_512_matrix_is_as_sharp_as_its_t1w(
    shared_data: Path, model: LoadedModel, tmp_path: Path
) -> None:
    pictures = made(
        shared_data / "BRAINIX" / "T1", shared_data / "BRAINIX" / "FLAIR", tmp_path, model
    ).pictures
    brain = brain_region(pictures.t1)

    ratio = gradient_energy(pictures.t1c, brain) / gradient_energy(pictures.t1, brain)
    print(f"gradient energy, synthetic T1C over T1W: {ratio:.3f}")

    assert pictures.t1c.GetSize()[:2] == (512, 512)
    assert 0.95 < ratio < 1.3


def test_the_series_holds_what_evaluate_judges(shared_data: Path, model: LoadedModel, tmp_path: Path) -> None:
    exam = next(exam for exam in find_exams(shared_data / "lgg") if "HT_7616" in exam.name)
    member = next(
        model.only(index)
        for index, fold in enumerate(model.card["folds"]["held_out"])
        if exam.patient in fold
    )

    folder = shared_data / "lgg" / exam.name
    made(folder / "t1", folder / "flair", tmp_path, member)
    written = sitk.GetArrayFromImage(read_series(sorted(tmp_path.glob("*.dcm"))).image)
    subject = Subject(exam, read_exam(exam))
    found = to_model_grid(subject.patient.t1, subject.patient.flair, model.size)
    truth = truth_of(subject, found)
    judged = judge(truth, subject, found, "model", cross_validated(model).answer(subject, found))

    assert np.abs(written / truth.t1_level - judged.predicted).max() < 0.01  # 16 bits are stored
    gain = judged.row.figures["brain_psnr_in_region"] + 10 * np.log10(
        np.square(truth.t1 - truth.t1c)[truth.regions["brain"]].mean() / truth.peak**2
    )
    assert gain > 0
