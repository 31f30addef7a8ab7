"""The statistics: against calculations by hand and by other ways, and on files as a report leaves them."""

from __future__ import annotations

import csv
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from training.compare import (
    Comparison,
    by_patient,
    compare,
    equivalence,
    holm,
    mean_of,
    over_patients,
    read_arm,
    read_rows,
    signed_rank,
    table,
    write_comparison,
    write_rows,
)
from training.figures import PSNR_DB, Group, Row

#: Differences of nine pairs without ties: ranks 1 to 9 by size, of which 1, 2 and 4 are negative.
NINE = np.array([-0.1, -0.2, 0.3, -0.4, 0.5, 0.6, 0.7, 0.8, 0.9])


def rows(arm: str, psnr: np.ndarray, recovery: np.ndarray | None = None) -> dict[str, Row]:
    """Return one row per patient; every second patient clearly enhances, the others do not."""
    recovery = np.full(len(psnr), math.nan) if recovery is None else recovery
    groups = itertools.cycle((Group.CLEAR, Group.NONE))
    return {
        f"p{number:02d}": Row(
            f"p{number:02d}", arm, group, {"brain_psnr_in_region": float(db), "recovery": float(share)}
        )
        for number, (db, share, group) in enumerate(zip(psnr, recovery, groups, strict=False))
    }


def printed(found: Comparison, folder: Path) -> str:
    """Return the table as a wide terminal shows it."""
    with (folder / "out.txt").open("w", encoding="utf-8") as file:
        console = Console(width=200, record=True, file=file)
        console.print(table(found))
        return console.export_text()


def test_the_signed_rank_test_agrees_with_counting_all_signs() -> None:
    ranks = np.arange(1, 10)
    observed = min(1 + 2 + 4, 45 - 7)
    sums = [ranks @ np.array(signs) for signs in itertools.product((0, 1), repeat=9)]
    by_counting = 2 * np.mean(np.array(sums) <= observed)
    p, effect = signed_rank(NINE)
    assert p == pytest.approx(by_counting)
    assert p == pytest.approx(float(stats.wilcoxon(NINE).pvalue))
    assert effect == pytest.approx((38 - 7) / 45)


def test_pairs_without_a_difference_decide_nothing() -> None:
    assert signed_rank(np.zeros(8)) == (1.0, 0.0)
    assert signed_rank(np.append(NINE, 0.0)) == signed_rank(NINE)


@given(st.lists(st.floats(-5, 5).filter(lambda x: abs(x) > 1e-6), min_size=6, max_size=20, unique_by=abs))
def test_the_effect_turns_round_with_the_arms_and_p_does_not_change(values: list[float]) -> None:
    there, back = signed_rank(np.array(values)), signed_rank(-np.array(values))
    assert there[0] == pytest.approx(back[0])
    assert there[1] == pytest.approx(-back[1])
    assert -1 <= there[1] <= 1


def test_holm_by_hand() -> None:
    # Sorted: 0.005·4, 0.01·3, 0.03·2 and 0.04·1, of which the last may not fall below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_nothing_and_bonferroni(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for p, after in zip(p_values, corrected, strict=True):
        assert p <= after <= min(1.0, len(p_values) * p) + 1e-12
    for (p, after), (q, later) in itertools.combinations(zip(p_values, corrected, strict=True), 2):
        assert (p - q) * (after - later) >= 0


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.5))
def test_equivalence_is_that_the_ninety_percent_interval_lies_within_the_margin(
    seed: int, margin: float
) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(random.normal(0, 0.3), 0.5, 12)
    error = values.std(ddof=1) / math.sqrt(12)
    half = 1.7958848 * error  # the 95th percentile of t with 11 degrees of freedom, from a printed table
    within = -margin < values.mean() - half and values.mean() + half < margin
    assert (equivalence(values, margin) < 0.05) == within


def test_equivalence_by_hand() -> None:
    values = np.array([0.1, -0.1, 0.2, 0.0, -0.2, 0.1])  # mean 0.01667, SD 0.14720, error 0.06009
    nearer = (0.5 - 0.1 / 6) / 0.0600925  # 8.043 standard errors to the nearer margin
    assert equivalence(values, 0.5) == pytest.approx(float(stats.t.sf(nearer, 5)), rel=1e-4)


def test_equal_values_are_equivalent_and_a_constant_gap_beyond_the_margin_is_not() -> None:
    assert equivalence(np.zeros(9), 0.5) == 0
    assert equivalence(np.full(9, 0.4), 0.5) == 0
    assert equivalence(np.full(9, 0.6), 0.5) == 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=30))
def test_the_interval_covers_the_mean_and_lies_among_the_values(values: list[float]) -> None:
    found = mean_of(np.array(values))
    assert min(values) - 1e-9 <= found.low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= found.high <= max(values) + 1e-9
    assert found.patients == len(values)


def test_the_interval_is_that_of_theory_for_many_patients_and_the_same_every_time() -> None:
    values = np.random.default_rng(0).normal(20, 3, 400)
    found = mean_of(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert found == mean_of(values)


def test_one_patient_has_a_value_but_no_spread_and_no_interval() -> None:
    found = mean_of(np.array([3.0]))
    assert (found.mean, found.patients) == (3, 1)
    assert all(math.isnan(value) for value in (found.sd, found.low, found.high))


@pytest.mark.parametrize("value", [0.0, 0.1, 21.3])
def test_equal_values_have_an_interval_of_no_width(value: float) -> None:
    found = mean_of(np.full(7, value))
    assert (found.sd, found.low, found.high) == (0, found.mean, found.mean)


def test_the_interval_of_skewed_values_is_corrected_for_it() -> None:
    values = np.array([0.0, 0.1, 0.1, 0.2, 0.3, 0.3, 0.4, 0.5, 0.9, 4.0])
    found, draws = mean_of(values), np.random.default_rng(0).choice(values, (20_000, 10)).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found.low > low + 0.03
    assert found.high > high + 0.2


def test_exams_of_a_patient_are_averaged_before_any_mean_or_test() -> None:
    psnr = np.linspace(18, 26, 9)
    a, b = (list(rows(arm, db, db / 30).values()) for arm, db in (("a", psnr + 1), ("b", psnr)))
    for arm in (a, b):
        arm[2:4] = [replace(row, person="twice") for row in arm[2:4]]  # clearly enhancing, then not
    mean = over_patients(by_patient(a, "a"))
    assert mean["brain_psnr_in_region"].patients == 8
    assert mean["brain_psnr_in_region"].mean == pytest.approx(
        np.mean([*psnr[[0, 1, 4, 5, 6, 7, 8]], 20.5]) + 1
    )
    assert mean["recovery_clear"].mean == pytest.approx(np.mean((psnr[::2] + 1) / 30))
    twice = by_patient(a, "a")["twice"]
    assert (twice.group, twice.figures["brain_psnr_in_region"]) == (Group.CLEAR, pytest.approx(21.5))
    assert compare(by_patient(a, "a"), by_patient(b, "b")).patients == 8


def test_only_exams_of_both_arms_are_paired() -> None:
    psnr = np.linspace(18, 26, 8)
    a, b = (list(rows(arm, db).values()) for arm, db in (("a", psnr + 1), ("b", psnr)))
    a[0], b[0] = (replace(arm[0], person="twice") for arm in (a, b))
    a.append(replace(a[0], patient="later", figures={"brain_psnr_in_region": 60.0}))
    gain = over_patients(by_patient(a, "a"), by_patient(b, "b"))["brain_psnr_in_region"]
    assert (gain.mean, gain.patients) == (pytest.approx(1), 8)


def test_differences_are_paired_by_patient_and_figures_keep_to_their_patients() -> None:
    psnr, recovery = np.linspace(18, 26, 9), np.linspace(0.1, 0.9, 9)
    better, identity = rows("model", psnr + 2, recovery), rows("identity", psnr, 0 * recovery)
    gain = over_patients(better, identity)
    assert gain["brain_psnr_in_region"].mean == pytest.approx(2)
    assert gain["brain_psnr_in_region"].sd == pytest.approx(0, abs=1e-9)
    assert gain["recovery_clear"].mean == pytest.approx(recovery[::2].mean())
    assert gain["recovery_clear"].patients == 5
    assert "auc_clear" not in gain


def test_a_clear_gain_differs_and_a_small_one_is_equivalent() -> None:
    random = np.random.default_rng(1)
    psnr = random.normal(20, 3, 20)
    better = compare(rows("a", psnr + random.normal(2, 0.5, 20)), rows("b", psnr)).differences[0]
    same = compare(rows("a", psnr + random.normal(0, 0.2, 20)), rows("b", psnr)).differences[0]
    assert (better.verdict, same.verdict) == ("differs", "equivalent")
    assert better.cohen_dz == pytest.approx(better.difference.mean / better.difference.sd)
    assert better.rank_biserial == 1
    assert same.margin == PSNR_DB


def test_too_few_patients_leave_it_undecided() -> None:
    psnr = np.array([20.0, 21, 22, 23, 24, 25])
    noise = np.array([3.0, -2, 1, -4, 2, 0.5])
    assert compare(rows("a", psnr + noise), rows("b", psnr)).differences[0].verdict == "undecided"


def test_only_patients_of_both_are_compared() -> None:
    psnr = np.linspace(18, 26, 10)
    one, other = rows("a", psnr + 1), rows("b", psnr[:8])
    found = compare(one, other)
    assert (found.patients, found.unpaired) == (8, 2)
    with pytest.raises(ValueError, match="5 of the same patients"):
        compare(one, rows("b", psnr[:5]))


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_patient_without_a_number_in_one_arm_is_not_counted(value: float, tmp_path: Path) -> None:
    psnr = np.linspace(18, 26, 8)
    found = compare(rows("a", np.append(value, psnr[1:] + 1)), rows("b", psnr))
    only = found.differences[0]
    assert (found.patients, only.difference.patients, only.left_out) == (7, 7, 1)
    assert only.b == pytest.approx(psnr[1:].mean())
    assert printed(found, tmp_path).count("7 (−1)") == 1


def test_figures_are_corrected_together_and_only_those_with_a_margin() -> None:
    random = np.random.default_rng(2)
    one = rows("a", random.normal(20, 1, 16), random.uniform(0, 1, 16))
    other = rows("b", random.normal(20, 1, 16), random.uniform(0, 1, 16))
    found = compare(one, other)
    assert [d.figure for d in found.differences] == ["brain_psnr_in_region", "recovery_enhancing"]
    assert [d.p_holm for d in found.differences] == pytest.approx(holm([d.p for d in found.differences]))
    assert found.differences[1].difference.patients == 8


def test_equivalence_is_corrected_as_well_and_decides_so() -> None:
    random = np.random.default_rng(3)
    psnr, recovery = random.normal(20, 1, 16), random.uniform(0, 1, 16)
    nearly = rows("a", psnr + 0.28 + random.normal(0, 0.5, 16), recovery + random.normal(0, 0.3, 16))
    found = compare(nearly, rows("b", psnr, recovery)).differences
    uncorrected = [one.p_equivalence for one in found]
    assert [one.p_equivalence_holm for one in found] == pytest.approx(holm(uncorrected))
    assert uncorrected[0] < 0.05 < found[0].p_equivalence_holm
    assert found[0].verdict == "undecided"


def test_rows_come_back_from_the_file_as_they_were(tmp_path: Path) -> None:
    both = [*rows("model", NINE, NINE).values(), *rows("identity", NINE / 3).values()]
    both[1] = replace(both[1], person="p00")
    write_rows(both, tmp_path)
    for before, after in zip(both, read_rows(tmp_path), strict=True):
        assert replace(before, figures={}) == replace(after, figures={})
        assert before.figures == pytest.approx(after.figures, rel=1e-15, nan_ok=True)


def test_rows_of_a_report_that_names_no_persons_are_read(tmp_path: Path) -> None:
    with (tmp_path / "patients.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["patient", "arm", "group", "auc"], ["p1", "model", "clear", 0.7]])
    assert read_arm(str(tmp_path)) == {"p1": Row("p1", "model", Group.CLEAR, {"auc": 0.7})}


def test_an_arm_is_named_after_the_folder_or_is_the_one_under_test(tmp_path: Path) -> None:
    both = [*rows("model", NINE).values(), *rows("identity", NINE / 3).values()]
    write_rows(both, tmp_path)
    assert read_arm(str(tmp_path)) == read_arm(f"{tmp_path}:model")
    assert read_arm(f"{tmp_path}:identity").keys() == by_patient(both, "identity").keys()
    with pytest.raises(FileNotFoundError, match="it has model, identity"):
        read_arm(f"{tmp_path}:unet")
    with pytest.raises(FileNotFoundError, match="no report"):
        read_arm(str(tmp_path / "elsewhere"))


def test_a_comparison_is_printed_and_written(tmp_path: Path) -> None:
    psnr = np.linspace(18, 26, 12)
    found = compare(rows("a", psnr + NINE.mean() + np.sin(psnr)), rows("b", psnr))
    assert found.differences[0].verdict in printed(found, tmp_path)
    write_comparison(found, tmp_path / "compare.json")
    written = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))
    assert written["differences"][0]["verdict"] == found.differences[0].verdict
    assert written["differences"][0]["p_equivalence_holm"] == found.differences[0].p_equivalence_holm
    assert written["differences"][0]["difference"]["mean"] == found.differences[0].difference.mean
