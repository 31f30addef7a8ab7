"""`python -m training compare A B`, and what is said of one arm: intervals, paired tests, equivalence.

The unit is the patient. A and B are arms that judged the same patients: paired Wilcoxon signed rank tests
with Holm's correction over the figures, effect sizes, and two one-sided tests (TOST) of whether the mean
difference lies within a margin that was set before. That two do not differ significantly does not make them
equivalent; TOST does.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.box import SIMPLE
from rich.table import Table
from scipy import stats

from training.figures import FIGURES, Figure, Group, Row

Values = npt.NDArray[np.float64]

#: File of a report folder with one row per patient and arm.
ROWS = "patients.csv"
IDENTITY = "identity"
RESAMPLES, SEED = 10_000, 20260101
CONFIDENCE = 0.95
SIGNIFICANT = 1 - CONFIDENCE
#: With fewer pairs a two-sided signed rank test cannot reach 0.05 (2 / 2⁶ = 0.03).
LEAST_PAIRS = 6


@dataclass(frozen=True)
class Mean:
    """A mean over patients, their standard deviation (n − 1), and the bootstrap interval of the mean."""

    mean: float
    sd: float
    low: float
    high: float
    patients: int


@dataclass(frozen=True)
class Difference:
    """A − B in one figure over the patients that both judged."""

    figure: str
    title: str
    a: float
    b: float
    difference: Mean
    #: Two-sided, of the Wilcoxon signed rank test; then corrected over the figures.
    p: float
    p_holm: float
    #: (W⁺ − W⁻) / (W⁺ + W⁻), −1 to 1; and mean over standard deviation of the differences.
    rank_biserial: float
    cohen_dz: float
    #: Of the hypothesis that the mean difference lies outside ± margin.
    margin: float
    p_equivalence: float

    @property
    def verdict(self) -> str:
        """What the tests permit to say."""
        differs, equal = self.p_holm < SIGNIFICANT, self.p_equivalence < SIGNIFICANT
        if differs and equal:
            return "differs, by less than the margin"
        return "differs" if differs else "equivalent" if equal else "undecided"


@dataclass(frozen=True)
class Comparison:
    """Two arms over the patients that both judged."""

    a: str
    b: str
    patients: int
    #: Patients that only one of the two judged.
    unpaired: int
    differences: tuple[Difference, ...]


def mean_of(values: Values) -> Mean:
    """Return mean, spread and the percentile bootstrap interval over one or more patients.

    The same values give the same interval: the resampling is seeded.
    """
    mean = float(values.mean())
    if values.size == 1 or np.ptp(values) == 0:
        return Mean(mean, 0.0, mean, mean, values.size)
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    low, high = found.confidence_interval
    return Mean(mean, float(values.std(ddof=1)), float(low), float(high), values.size)


def over_patients(rows: Mapping[str, Row], against: Mapping[str, Row] | None = None) -> dict[str, Mean]:
    """Return the mean of every figure, or of its paired difference to another arm, by the figure's key.

    Parameters
    ----------
    rows, against : mapping
        Row by patient.
    """
    found = {}
    for figure in FIGURES:
        if against is None:
            values = np.array([figure.value(row) for row in rows.values()])
        else:
            pairs = _pairs(figure, rows, against)
            values = pairs[0] - pairs[1]
        finite = values[np.isfinite(values)]
        if finite.size:
            found[figure.key] = mean_of(finite)
    return found


def compare(a: Mapping[str, Row], b: Mapping[str, Row]) -> Comparison:
    """Return the tests of every figure that has a margin, A − B, over the patients of both.

    Parameters
    ----------
    a, b : mapping
        Row by patient.

    Raises
    ------
    ValueError
        When they share fewer than `LEAST_PAIRS` patients.
    """
    both = a.keys() & b.keys()
    if len(both) < LEAST_PAIRS:
        raise ValueError(f"Both judged {len(both)} of the same patients; {LEAST_PAIRS} are needed.")
    tested = [
        (figure, figure.margin, pairs)
        for figure in FIGURES
        if figure.margin is not None and (pairs := _pairs(figure, a, b)).shape[1] >= LEAST_PAIRS
    ]
    corrected = holm([signed_rank(pairs[0] - pairs[1])[0] for *_, pairs in tested])
    differences = [_difference(*one, p_holm) for one, p_holm in zip(tested, corrected, strict=True)]
    names = [next(iter(side.values())).arm for side in (a, b)]
    return Comparison(names[0], names[1], len(both), len(a.keys() ^ b.keys()), tuple(differences))


def signed_rank(differences: Values) -> tuple[float, float]:
    """Return (two-sided P of the Wilcoxon signed rank test, matched rank-biserial correlation).

    Differences of 0 are left out of both; P is exact without ties up to 50 pairs.
    """
    moved = differences[differences != 0]
    if not moved.size:
        return 1.0, 0.0
    ranks = stats.rankdata(np.abs(moved))
    effect = float((ranks * np.sign(moved)).sum() / ranks.sum())
    return float(stats.wilcoxon(moved).pvalue), effect


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the P values corrected for their number (Holm 1979): in their order, none above 1."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def equivalence(differences: Values, margin: float) -> float:
    """Return P of the two one-sided t tests (Schuirmann 1987) that the mean lies outside ± `margin`."""
    if np.ptp(differences) == 0:
        return 0.0 if abs(float(differences[0])) < margin else 1.0
    above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    return float(max(above, below))


def by_patient(rows: Iterable[Row], arm: str) -> dict[str, Row]:
    """Return the rows of an arm by patient."""
    return {row.patient: row for row in rows if row.arm == arm}


def write_rows(rows: Sequence[Row], folder: Path) -> None:
    """Write ``patients.csv``: a row per patient and arm; the arm that comes first is the one under test."""
    columns = list(dict.fromkeys(column for row in rows for column in row.figures))
    with (folder / ROWS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "arm", "group", *columns])
        for row in rows:
            values = (row.figures.get(column, math.nan) for column in columns)
            shown = ("" if math.isnan(value) else repr(value) for value in values)
            writer.writerow([row.patient, row.arm, row.group.value, *shown])


def read_rows(folder: Path) -> list[Row]:
    """Return the rows of a report folder.

    Raises
    ------
    FileNotFoundError
        When the folder is no report.
    """
    path = folder / ROWS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no report: it has no {ROWS}.")
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(
                line.pop("patient"),
                line.pop("arm"),
                Group(line.pop("group")),
                {column: float(value) if value else math.nan for column, value in line.items()},
            )
            for line in csv.DictReader(file)
        ]


def read_arm(name: str) -> dict[str, Row]:
    """Return the rows by patient of ``FOLDER``, its first arm, or of ``FOLDER:ARM``.

    Raises
    ------
    FileNotFoundError
        When the folder is no report, or has no such arm.
    """
    before, _, after = name.rpartition(":")
    folder, arm = (Path(name), "") if Path(name).is_dir() or not before else (Path(before), after)
    rows = read_rows(folder)
    found = by_patient(rows, arm or rows[0].arm)
    if not found:
        arms = ", ".join(dict.fromkeys(row.arm for row in rows))
        raise FileNotFoundError(f"{folder} has no arm {arm!r}; it has {arms}.")
    return found


def write_comparison(found: Comparison, file: Path) -> None:
    """Write the comparison as JSON."""
    values = asdict(found)
    for one, difference in zip(values["differences"], found.differences, strict=True):
        one["verdict"] = difference.verdict
    file.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def table(found: Comparison) -> Table:
    """Return the comparison for a terminal."""
    title = f"A {found.a} against B {found.b}, {found.patients} patients"
    caption = "P: Wilcoxon signed rank, corrected by Holm. TOST: mean difference outside ± margin."
    if found.unpaired:
        caption += f" {found.unpaired} patients that one of them did not judge are left out."
    out = Table(title=title, caption=caption, box=SIMPLE)
    for heading in ("figure", "n", "A", "B", "A − B", "95 %", "P", "P Holm", "r", "dz", "±", "P TOST", ""):
        out.add_column(heading, justify="left" if heading in ("figure", "") else "right", overflow="fold")
    for one in found.differences:
        mean = one.difference
        out.add_row(
            one.title,
            str(mean.patients),
            *(f"{value:.3f}" for value in (one.a, one.b)),
            f"{mean.mean:+.3f}",
            f"{mean.low:+.3f} to {mean.high:+.3f}",
            *(_shown(p) for p in (one.p, one.p_holm)),
            *(f"{value:+.2f}" for value in (one.rank_biserial, one.cohen_dz)),
            f"{one.margin:g}",
            _shown(one.p_equivalence),
            one.verdict,
        )
    return out


def _pairs(figure: Figure, a: Mapping[str, Row], b: Mapping[str, Row]) -> Values:
    """Return the values of both for the patients for whom both have one, (2, N)."""
    both = sorted(a.keys() & b.keys())
    pairs = np.array([[figure.value(side[patient]) for patient in both] for side in (a, b)])
    return pairs[:, np.isfinite(pairs).all(axis=0)]


def _difference(figure: Figure, margin: float, pairs: Values, p_holm: float) -> Difference:
    differences = pairs[0] - pairs[1]
    mean = mean_of(differences)
    p, effect = signed_rank(differences)
    return Difference(
        figure=figure.key,
        title=figure.title,
        a=float(pairs[0].mean()),
        b=float(pairs[1].mean()),
        difference=mean,
        p=p,
        p_holm=p_holm,
        rank_biserial=effect,
        cohen_dz=mean.mean / mean.sd if mean.sd else 0.0,
        margin=margin,
        p_equivalence=equivalence(differences, margin),
    )


def _shown(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
