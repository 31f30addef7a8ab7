"""Training: exact resumption, the same on several processes, stops when it should, and its file survives."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Literal

import numpy as np
import pytest
import tiny_training
import torch
from rich.console import Console
from tiny_training import FOLD, RECIPE, enter
from torch import Tensor

from synthesis.models.uptake import Uptake
from training.data import MAP, Batch, Lesions, Slices, folds, maps_of, split, training_batch
from training.distributed import Ranks
from training.fit import (
    Diverged,
    averaged,
    fit,
    inherited,
    kept_weights,
    network,
    path_of,
    predict_maps,
    refuse_uneven,
    validation,
)
from training.losses import (
    LEAST_ERROR,
    LEAST_PIXELS,
    answer,
    decibel_loss,
    loss_of,
    segmentation_loss,
    squared_error,
    synthesis_loss,
)
from training.prepare import prepare_patients
from training.recipes import Recipe, Stage
from training.run import Run, asked, learning_rate, start, step
from training.watch import Watch

REPOSITORY = Path(__file__).parents[2]
#: Of `lgg`; the first is in fold 0.
HELD_OUT, TRAINED = "TCGA_HT_7874_19950902", "TCGA_HT_7616_19940813"


@pytest.fixture(autouse=True)
def _tiny() -> None:
    tiny_training.enter()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tiny_training.write_cache(tmp_path / "cache")


def batch_of(cache: Path, recipe: Recipe, number: int) -> Batch:
    """Return the batch of a step, with the lesions that `fit` transplants."""
    slices = Slices(cache / "lgg", split(FOLD)[0])
    return training_batch(
        slices, Lesions(cache / "lesions", lambda patient: "008" not in patient), recipe, number
    )


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def curve(runs: Path) -> list[dict[str, str]]:
    """Return the rows of a curve; seconds are of no interest."""
    with path_of(RECIPE, runs, FOLD).with_name("curve.csv").open(encoding="utf-8") as file:
        return [
            {name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)
        ]


# --- resumption


@pytest.mark.parametrize(("stopped_at", "optimiser"), [(2, "adamw"), (4, "adamw"), (4, "muon")])
def test_a_resumed_run_has_the_same_next_loss_weights_and_curve(
    cache: Path, stopped_at: int, optimiser: Literal["adamw", "muon"]
) -> None:
    recipe = replace(RECIPE, optimiser=optimiser)
    whole = fit(recipe, cache, cache / "whole", resume=False, fold=FOLD, most_steps=5)
    fit(recipe, cache, cache / "parts", resume=False, fold=FOLD, most_steps=stopped_at)
    parts = fit(recipe, cache, cache / "parts", resume=True, fold=FOLD, most_steps=5)

    batch = batch_of(cache, RECIPE, 5)
    assert step(parts, batch) == step(whole, batch)
    assert same(parts.net.state_dict(), whole.net.state_dict())
    assert same(parts.average.state_dict(), whole.average.state_dict())
    assert curve(cache / "parts") == curve(cache / "whole")


def test_two_runs_of_a_recipe_are_the_same(cache: Path) -> None:
    one, other = (fit(RECIPE, cache, cache / name, False, FOLD, most_steps=2) for name in ("one", "other"))
    another = fit(replace(RECIPE, name="tiny-8", seed=8), cache, cache / "another", False, FOLD, most_steps=2)
    assert same(one.average.state_dict(), other.average.state_dict())
    assert not same(one.average.state_dict(), another.average.state_dict())


def test_training_draws_nothing_from_the_global_generators(cache: Path) -> None:
    run = start(RECIPE)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()
    step(run, batch_of(cache, RECIPE, 0))
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert str(np.random.get_state()) == str(numpy_before)


def test_a_run_is_not_overwritten_and_not_continued_by_another_recipe(cache: Path) -> None:
    fit(RECIPE, cache, cache / "runs", resume=False, fold=FOLD, most_steps=1)
    with pytest.raises(FileExistsError, match="--resume"):
        fit(RECIPE, cache, cache / "runs", resume=False, fold=FOLD, most_steps=1)
    with pytest.raises(ValueError, match="of recipe tiny, not of other"):
        start(replace(RECIPE, name="other")).load(path_of(RECIPE, cache / "runs", FOLD))
    with pytest.raises(ValueError, match="tiny was changed since"):
        start(replace(RECIPE, seed=99)).load(path_of(RECIPE, cache / "runs", FOLD))


def test_a_run_that_has_not_ended_or_was_of_another_recipe_answers_nothing(cache: Path) -> None:
    runs = cache / "runs"
    fit(RECIPE, cache, runs, resume=False, fold=FOLD, most_steps=1)
    with pytest.raises(ValueError, match=f"is at step 1 of {RECIPE.steps}: go on"):
        averaged(RECIPE, runs, FOLD)
    fit(RECIPE, cache, runs, resume=True, fold=FOLD)
    averaged(RECIPE, runs, FOLD)
    with pytest.raises(ValueError, match="tiny was changed since"):
        averaged(replace(RECIPE, learning_rate=0.5), runs, FOLD)


def test_a_cache_of_another_grid_is_refused(cache: Path) -> None:
    with pytest.raises(ValueError, match="wants images of 240², lgg holds 120²"):
        fit(replace(RECIPE, grid=240), cache, cache / "runs", resume=False, fold=FOLD)


def test_a_cache_that_shows_no_tumour_is_refused_before_the_first_step(cache: Path) -> None:
    path = cache / "lgg" / "tumour.npy"
    np.save(path, np.zeros_like(np.load(path)))
    with pytest.raises(ValueError, match="nobody's segmentation shows any"):
        fit(RECIPE, cache, cache / "runs", resume=False, fold=FOLD)
    assert not path_of(RECIPE, cache / "runs", FOLD).exists()


def test_rows_of_the_curve_after_the_saved_step_are_not_written_twice(tmp_path: Path) -> None:
    for from_step in (0, 10):
        with Watch("tiny", tmp_path, from_step, 40) as watch:
            for number in range(from_step + 1, 31):
                watch.stepped(number, 1.0, 0.1, loss=number)
    with (tmp_path / "curve.csv").open(encoding="utf-8") as file:
        rows = [(row["step"], row["loss"]) for row in csv.DictReader(file)]
    assert rows == [("10", "5.5"), ("20", "15.5"), ("30", "25.5")]


# --- the file


def test_a_full_disk_leaves_the_state_that_was_saved_before(cache: Path) -> None:
    run = fit(RECIPE, cache, cache / "runs", resume=False, fold=FOLD, most_steps=1)
    path = path_of(RECIPE, cache / "runs", FOLD)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(OSError, match="Step 1 could not be saved"):
            run.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".*.partial"))


def test_a_kill_in_the_middle_of_saving_leaves_a_whole_state(tmp_path: Path) -> None:
    path = path_of(RECIPE, tmp_path / "runs", FOLD)
    partial = path.with_name(".run.pt.partial")
    saving = subprocess.Popen(
        [sys.executable, tiny_training.__file__, str(tmp_path), "save"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )
    try:
        until = time.monotonic() + 120
        while not (path.exists() and partial.exists()) and time.monotonic() < until:
            assert saving.poll() is None
            time.sleep(0.001)
    finally:
        saving.kill()
        saving.wait()
    run = start(RECIPE)
    run.load(path)
    assert run.step >= 1


# --- several processes


def test_two_processes_train_as_one_does(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # bfloat16 rounds sums over half a batch otherwise than over the whole; clipping hides a wrong scale
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    monkeypatch.setattr("training.run.LONGEST_GRADIENT", math.inf)
    alone = fit(RECIPE, cache, cache.parent / "alone", resume=False, fold=FOLD, most_steps=5)
    environment = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    launcher = ["torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, tiny_training.__file__, str(cache.parent), "5"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr

    together = start(RECIPE)
    together.load(path_of(RECIPE, cache.parent / "runs", FOLD))
    assert together.step == alone.step == 5
    gradients = [averaged_gradient(run) for run in (alone, together)]
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-3
    # AdamW makes steps of the same length of large gradients and of those that are rounding alone
    assert distance(together, alone) < 0.01 * distance(start(RECIPE), alone)
    held_out = [
        [float(row["held_out_loss"]) for row in curve(cache.parent / name)] for name in ("alone", "runs")
    ]
    assert held_out[0] == pytest.approx(held_out[1], rel=1e-3)
    batch = batch_of(cache, RECIPE, 5)
    assert step(together, batch) == pytest.approx(step(alone, batch), rel=1e-3)


def averaged_gradient(run: Run) -> torch.Tensor:
    """Return AdamW's mean of the gradients so far, of all weights."""
    (adamw,) = run.optimisers
    return torch.cat([state["exp_avg"].flatten() for state in adamw.state_dict()["state"].values()])


def distance(one: Run, other: Run) -> float:
    """Return the length of the difference of all weights."""
    pairs = zip(one.net.parameters(), other.net.parameters(), strict=True)
    return math.sqrt(sum(float((a - b).detach().square().sum()) for a, b in pairs))


def test_the_shares_of_the_processes_make_up_the_batch(cache: Path) -> None:
    batch = batch_of(cache, RECIPE, 0)
    shares = [Ranks(rank, 2).share(batch) for rank in range(2)]
    assert batch.corners is not None
    assert torch.equal(torch.cat([share.images for share in shares]), batch.images)
    assert torch.equal(torch.cat([share.map for share in shares]), batch.map)
    assert torch.equal(
        torch.cat([share.corners for share in shares if share.corners is not None]), batch.corners
    )


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    refuse_uneven(RECIPE, Ranks(0, 2))
    with pytest.raises(ValueError, match="batches of 4, which 3 processes cannot share"):
        refuse_uneven(RECIPE, Ranks(0, 3))


# --- when to stop


def test_patience_stops_a_run_and_its_best_weights_are_kept(cache: Path) -> None:
    recipe = replace(
        RECIPE,
        name="tiny-patient",
        stages=(Stage("heads", 20, 2),),
        validate_every=2,
        patience=2,
        learning_rate=0.1,
    )
    run = fit(recipe, cache, cache / "runs", resume=False, fold=FOLD)
    assert run.best is not None
    assert run.step == run.best.step + 4 < 20

    best = fit(recipe, cache, cache / "best", resume=False, fold=FOLD, most_steps=run.best.step)
    kept = kept_weights(recipe, cache / "runs", FOLD)
    assert same(kept, best.average.state_dict())
    assert not same(kept, run.average.state_dict())
    assert same(averaged(recipe, cache / "runs", FOLD).state_dict(), kept)

    again = fit(recipe, cache, cache / "runs", resume=True, fold=FOLD)
    assert again.step == run.step


def test_a_run_is_judged_without_the_tumour_mask(cache: Path) -> None:
    recipe = replace(RECIPE, network="mpr_vit")
    run = fit(recipe, cache, cache / "runs", resume=False, fold=FOLD, most_steps=2)
    with_mask = validation(run, Slices(cache / "lgg", split(FOLD)[1]))
    np.save(cache / "lgg" / "tumour.npy", np.load(cache / "lgg" / "tumour.npy")[:, ::-1])
    with_another = validation(run, Slices(cache / "lgg", split(FOLD)[1]))
    assert with_mask == with_another
    assert with_mask[1] > 0


def test_a_voxel_that_is_no_number_stops_the_run_and_the_saved_state_stays(cache: Path) -> None:
    fit(RECIPE, cache, cache / "runs", resume=False, fold=FOLD, most_steps=3)
    path = path_of(RECIPE, cache / "runs", FOLD)
    before = path.read_bytes()
    t1c = np.load(cache / "lgg" / "t1c.npy")
    np.save(cache / "lgg" / "t1c.npy", np.full_like(t1c, np.nan))
    with pytest.raises(Diverged, match="Step 3 of tiny has loss nan"):
        fit(RECIPE, cache, cache / "runs", resume=True, fold=FOLD)
    assert path.read_bytes() == before


def test_a_gradient_without_end_does_not_reach_the_weights(cache: Path) -> None:
    run, batch = start(RECIPE), batch_of(cache, RECIPE, 0)
    before = {name: value.clone() for name, value in run.net.state_dict().items()}
    run.net.decoder.head.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(Diverged, match="gradient"):
        step(run, batch)
    assert run.step == 0
    assert same(run.net.state_dict(), before)


# --- what is learnt


def test_the_learning_rate_rises_and_falls_to_two_percent() -> None:
    recipe = replace(RECIPE, stages=(Stage("heads", 100, 1),), warmup=10)
    rates = [learning_rate(recipe, number) for number in range(100)]
    assert rates.index(max(rates)) in (9, 10)
    assert rates[0] == pytest.approx(recipe.learning_rate / 10)
    assert 0.02 <= rates[-1] / recipe.learning_rate < 0.03


def test_the_losses_are_less_for_the_truth() -> None:
    full = torch.ones(1, 1, 24, 24)
    batch = Batch(torch.ones(1, 2, 24, 24), 0.5 * full, full, 2 * full, full, torch.zeros(1, 2))
    right = torch.cat([0.5 * full, 20 * full, 0 * full], dim=1)
    wrong = torch.cat([0 * full, -20 * full, 0 * full], dim=1)
    assert (
        float(synthesis_loss(Uptake.of(right), batch)) < 1e-6 < float(synthesis_loss(Uptake.of(wrong), batch))
    )
    assert squared_error(right, batch) == (pytest.approx(0, abs=1e-6), 576)
    assert squared_error(wrong, batch)[0] == pytest.approx(0.25 * 576, rel=1e-3)
    assert float(segmentation_loss(20 * full, batch)) < 0.01 < float(segmentation_loss(-20 * full, batch))


def two_pictures(tumour: Tensor) -> Batch:
    """Return two pictures of brain in which nothing changes."""
    full = torch.ones(2, 1, 24, 24)
    return Batch(torch.ones(2, 2, 24, 24), 0 * full, tumour, 2 * full, tumour, torch.zeros(2, 2))


def test_in_decibels_every_picture_counts_alike() -> None:
    """A tenth of the error in a picture that errs much, or little, is worth the same."""
    batch = two_pictures(torch.zeros(2, 1, 24, 24))

    def loss(*errors: float) -> float:
        mean = torch.tensor(errors).reshape(2, 1, 1, 1).expand(2, 1, 24, 24)
        return float(decibel_loss(Uptake(mean, 0 * mean, 0 * mean), batch))

    begun, much, little = loss(100.0, 5.0), loss(10.0, 5.0), loss(100.0, 0.5)
    assert begun - much == pytest.approx(begun - little, rel=0.01)
    assert loss(0.0, 0.0) == pytest.approx(math.log(LEAST_ERROR))


def test_in_decibels_a_tumour_counts_beside_the_brain_and_a_trace_of_one_does_not() -> None:
    whole, trace = (torch.zeros(2, 1, 24, 24) for _ in range(2))
    whole[0, :, :12, :12] = 1
    trace[0, :, 0, : LEAST_PIXELS - 1] = 1
    for tumour, counts in ((whole, True), (trace, False)):
        batch = two_pictures(tumour)
        right = Uptake(torch.zeros(2, 1, 24, 24), -20 * torch.ones(2, 1, 24, 24), torch.zeros(2, 1, 24, 24))
        wrong = Uptake(tumour, right.log_odds, right.amplitude)
        more = float(decibel_loss(wrong, batch)) - float(decibel_loss(right, batch))
        assert (more > 1) is counts


def test_the_recipe_says_what_is_asked() -> None:
    batch, out = two_pictures(torch.ones(2, 1, 24, 24)), torch.rand(2, 3, 24, 24)
    assert loss_of(out, batch) == synthesis_loss(Uptake.of(out), batch)
    assert loss_of(out, batch, "decibels") == decibel_loss(Uptake.of(out), batch)


def test_without_bfloat16_a_step_is_computed_in_float32(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, batch = start(RECIPE).net, batch_of(cache, RECIPE, 0)
    torch.nn.init.normal_(net.decoder.head.weight, std=0.1)
    quick = answer(net, batch)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    exact = answer(net, batch)
    torch.testing.assert_close(exact, net(batch.images, batch.map, batch.corners))
    assert float((quick - exact).detach().norm() / exact.detach().norm()) < 0.05


def test_the_amount_is_the_difference_that_enhancement_makes_and_moves_nothing_else() -> None:
    """Half of the tumour enhances by 0.6, the chance is known to be one half."""
    full = torch.ones(1, 1, 24, 24)
    delta = torch.zeros(1, 1, 24, 24)
    delta[..., :12] = 0.6
    batch = Batch(torch.ones(1, 2, 24, 24), delta, full, 2 * full, full, torch.zeros(1, 2))

    def loss(amount: float, mean: Tensor) -> Tensor:
        return synthesis_loss(Uptake(mean, 0 * full, amount * full), batch)

    losses = [float(loss(amount, 0.3 * full)) for amount in (0.4, 0.6, 0.8)]
    assert losses[1] < min(losses[0], losses[2])
    gradients = []
    for amount in (0.1, 0.9):
        mean = (0.2 * full).requires_grad_()
        loss(amount, mean).backward()
        gradients.append(mean.grad)
    assert torch.equal(*gradients)


def test_a_latent_of_features_is_read_from_the_segmentation_of_the_same_fold(cache: Path) -> None:
    runs, finder = cache / "runs", replace(RECIPE, network="segmentation", name="tiny-finder")
    enter(finder)
    recipe = replace(RECIPE, latent="features", finder=finder.name, name="tiny-features")
    with pytest.raises(FileNotFoundError, match="tiny-finder-fold0 was not trained yet"):
        fit(recipe, cache, runs, resume=False, fold=FOLD)
    fit(finder, cache, runs, resume=False, fold=FOLD)
    run = fit(recipe, cache, runs, resume=False, fold=FOLD, most_steps=3)
    assert run.finder is not None
    assert same(run.finder.state_dict(), kept_weights(finder, runs, FOLD))
    batch = batch_of(cache, recipe, 3)
    said = answer(run.net, batch, finder=run.finder)
    assert torch.equal(answer(run.net, replace(batch, map=1 - batch.map), finder=run.finder), said)
    for parameter in run.finder.encoder.parameters():
        parameter.data.mul_(2)
    assert not torch.equal(answer(run.net, batch, finder=run.finder), said)


def test_neighbouring_planes_are_trained_on(cache: Path) -> None:
    recipe = replace(RECIPE, neighbours=1, name="tiny-near")
    run = fit(recipe, cache, cache / "runs", resume=False, fold=FOLD, most_steps=3)
    batch = batch_of(cache, recipe, 3)
    said = answer(run.net, batch)
    batch.images[:, 2:] = 0
    assert batch.images.shape[1] == 6
    assert not torch.equal(answer(run.net, batch), said)


def test_a_network_of_the_t1w_alone_is_shown_no_flair(cache: Path) -> None:
    net, batch = network(replace(RECIPE, flair=False, network="mpr_vit")), batch_of(cache, RECIPE, 0)
    torch.nn.init.normal_(net.decoder.head.weight)
    said = answer(net, batch)
    batch.images[:, 1] = 0
    assert torch.equal(answer(net, batch), said)
    batch.images[:, 0] = 0
    assert not torch.equal(answer(net, batch), said)


def test_the_loss_falls_on_real_slices(shared_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for patient in HELD_OUT, TRAINED:
        copytree(shared_data / "lgg" / patient, source / patient)
    prepare_patients(source, tmp_path / "cache" / "lgg")
    recipe = replace(
        RECIPE, name="real", stages=(Stage("heads", 40, 3),), optimiser="muon", validate_every=40
    )

    begun = time.process_time()
    fresh = validation(start(recipe), Slices(tmp_path / "cache" / "lgg", split(FOLD)[1]))
    run = fit(recipe, tmp_path / "cache", tmp_path / "runs", resume=False, fold=FOLD)
    trained = validation(run, Slices(tmp_path / "cache" / "lgg", split(FOLD)[1]))

    assert trained[0] < 0.8 * fresh[0]
    assert trained[1] < fresh[1]
    print(f"\nthe loss fell within {time.process_time() - begun:.0f} s of the processor's time (to hold: 60)")


# --- from recipe to recipe


def test_a_recipe_begins_with_the_weights_of_another_and_keeps_its_own_head(cache: Path) -> None:
    run_of_lesions = start(RECIPE)
    run_of_lesions.step = RECIPE.steps
    torch.nn.init.ones_(run_of_lesions.average.decoder.head.weight)
    path = path_of(RECIPE, cache / "runs", FOLD)
    path.parent.mkdir(parents=True)
    run_of_lesions.save(path)

    same_kind = start(replace(RECIPE, name="after", start_from="tiny"))
    inherited(same_kind, cache / "runs", FOLD)
    assert same(same_kind.net.state_dict(), run_of_lesions.average.state_dict())

    other_kind = start(replace(RECIPE, name="after", start_from="tiny", network="mpr_vit"))
    inherited(other_kind, cache / "runs", FOLD)
    weights = other_kind.average.state_dict()
    assert torch.equal(weights["encoder.stages.0.weight"], run_of_lesions.average.encoder.stages[0].weight)
    assert not weights["decoder.head.weight"].any()


def test_with_both_ends_the_mean_of_start_and_end_answers(cache: Path) -> None:
    runs = cache / "runs"
    fit(RECIPE, cache, runs, resume=False, fold=FOLD)
    after = replace(RECIPE, name="after", start_from="tiny", both_ends=True)
    fit(after, cache, runs, resume=False, fold=FOLD)
    begun, ended = (kept_weights(recipe, runs, FOLD) for recipe in (RECIPE, after))
    assert not same(begun, ended)
    half = averaged(after, runs, FOLD).state_dict()
    assert same(half, {name: (begun[name] + ended[name]) / 2 for name in ended})

    enter(after)
    third = start(replace(RECIPE, name="third", start_from="after"))
    inherited(third, runs, FOLD)
    assert same(third.net.state_dict(), half)


def test_a_recipe_whose_beginning_was_not_trained_is_refused(cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match="after starts from tiny, which was not trained yet"):
        fit(replace(RECIPE, name="after", start_from="tiny"), cache, cache / "runs", False, FOLD)
    with pytest.raises(FileNotFoundError, match="`maps small-outline`"):
        fit(replace(RECIPE, maps="small-outline"), cache, cache / "runs", False, FOLD)
    with pytest.raises(FileNotFoundError, match="tiny-fold0 was not trained yet"):
        averaged(RECIPE, cache / "runs", FOLD)


def test_every_patients_map_is_of_the_network_that_never_saw_him(cache: Path) -> None:
    recipe = replace(RECIPE, name="tiny-segmentation", network="segmentation")
    for fold, chance in enumerate((0.2, 0.4, 0.6)):
        net = network(recipe)
        net.decoder.head.bias.data.fill_(math.log(chance / (1 - chance)))
        path = path_of(recipe, cache / "runs", fold)
        path.parent.mkdir(parents=True)
        state = {"average": net.state_dict(), "asked": asked(recipe), "step": recipe.steps}
        torch.save(state, path)
    predict_maps(recipe, cache / "lgg", cache / "runs")
    maps, inside = np.load(maps_of(cache / "lgg", recipe.name)), np.load(cache / "lgg" / "inside.npy")
    for fold, chance in enumerate((0.2, 0.4, 0.6)):
        own = slice(fold * tiny_training.SLICES, (fold + 1) * tiny_training.SLICES)
        np.testing.assert_allclose(maps[own], 255 * chance * inside[own], atol=1.5)
    patients, index = folds()[1], tiny_training.SLICES
    learnt_from = Slices(cache / "lgg", patients, recipe.name).channels(index)[MAP]
    np.testing.assert_array_equal(learnt_from, np.float32(maps[index] / 255.0))


# --- what is shown


def test_a_run_leaves_a_curve_sample_images_and_tensorboard_files(cache: Path) -> None:
    fit(RECIPE, cache, cache / "runs", resume=False, fold=FOLD, most_steps=3)
    folder = path_of(RECIPE, cache / "runs", FOLD).parent
    assert {path.name for path in (folder / "samples").iterdir()} == {"step-000003.png"}
    assert [float(row["held_out_delta_error"]) > 0 for row in curve(cache / "runs")] == [True]
    assert list((folder / "tensorboard").glob("events.*"))


def test_without_tensorboard_the_run_says_so_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with caplog.at_level(logging.INFO):
        fit(RECIPE, cache, cache / "runs", resume=False, fold=FOLD, most_steps=3)
    assert sum("TensorBoard is not installed" in message for message in caplog.messages) == 1
    assert not (path_of(RECIPE, cache / "runs", FOLD).parent / "tensorboard").exists()


def test_a_terminal_gets_a_bar_with_rate_and_time_left(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with Watch("tiny", tmp_path, 0, 40, console) as watch:
        for number in range(1, 21):
            watch.stepped(number, 1.0, 0.1, loss=0.25)
            time.sleep(0.01)
    shown = screen.getvalue()
    assert "20/40" in shown
    assert "loss 0.2500" in shown
    assert "steps/s" in shown
    assert re.search(r"\d\d:\d\d", shown)


def test_elsewhere_it_writes_plain_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("training.watch.LINE_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO), Watch("tiny", tmp_path, 0, 40) as watch:
        for number in (1, 2):
            watch.stepped(number, 1.0, 0.1, loss=0.25)
            time.sleep(0.01)
    assert "step 2/40 loss 0.2500" in caplog.messages[-1]
    assert caplog.messages[-1].endswith("min left")
