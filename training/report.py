"""The report of an evaluation: ``index.html`` with everything in it, ``patients.csv``, ``summary.json``.

It names the patients and shows their images: it stays with whoever may see them.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Picture

from synthesis.montage import BRIGHT, DARK, NOTICE
from training.compare import IDENTITY, Mean, by_exam, by_patient, over_patients, write_rows
from training.evaluate import Evaluation, Look, summary
from training.figures import FIGURES, LIT, FloatArray, Group, calibration_error

PAGE, SUMMARY = "index.html", "summary.json"
#: What is drawn patient by patient, by the figure's key.
DRAWN = (
    "brain_psnr_in_region",
    "tumour_psnr_in_region",
    "tumour_ncc",
    "auc_enhancing",
    "recovery_enhancing",
    "false_ml",
)
#: Window of uptake and of errors, in units of the brain.
MOST_CHANGE = 0.8
#: Distinct for the colour-blind (Okabe and Ito).
COLOURS = ("#0072B2", "#999999", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
INCHES, DPI = 1.9, 90
EXPLAINED = (
    "Mean ± standard deviation over patients, [95 % bootstrap interval of the mean: bias-corrected "
    "accelerated (BCa), of two patients by percentiles, of one none; too narrow for few: of 10 patients "
    "nearer to 90 %]; below, in grey, the paired difference to identity (the T1W taken for the T1C). Exams "
    "of one patient are averaged first. n: patients with a number; named in a cell that has fewer. "
    "Intensities are divided by the brain's median. In: over the region's voxels. Masked: over the whole "
    "volume with zeros outside the region, as the paper seems to count. Enhancing: smoothed T1C − T1W above "
    "0.2, or as an expert drew it, in ≥ 50 voxels and ≥ 1 % of the tumour; clearly: ≥ 10 %. Dice of uptake: "
    "of predicted uptake above 0.2, not smoothed, with the enhancing voxels."
)
STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1200px;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;font-size:13px}th,td{padding:.3em .7em;border-bottom:1px solid #ddd;"
    "text-align:right;vertical-align:top;white-space:nowrap}th:first-child,td:first-child{text-align:left;"
    "white-space:normal}small{color:#777}img{max-width:100%}.notice{color:#b00020;font-weight:600}"
    "div{overflow-x:auto}"
)


def write_report(found: Evaluation, folder: Path, about: str) -> Path:
    """Write the folder; return the page.

    Parameters
    ----------
    found : Evaluation
        What was found.
    folder : Path
        Made when absent; the three files in it are replaced.
    about : str
        A sentence: which weights, which patients.

    Raises
    ------
    ValueError
        When no patient was judged.
    """
    if not found.rows:
        raise ValueError("No patient was judged: there is nothing to report.")
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(found.rows, folder)
    text = json.dumps({"about": about} | summary(found), indent=1, ensure_ascii=False)
    (folder / SUMMARY).write_text(text + "\n", encoding="utf-8")
    page = folder / PAGE
    page.write_text(_page(found, about), encoding="utf-8")
    return page


def cases(found: Evaluation) -> list[tuple[str, str]]:
    """Return (heading, exam): best, median and worst of the arm under test, by what matters most.

    Those who clearly enhance by recovery, for a tumour that stays dark is a failure whatever its PSNR; and
    all by what the tumour gains over identity.
    """
    under_test, rows = by_exam(found.rows, found.arms[0]), by_exam(found.rows, IDENTITY)
    column = "tumour_psnr_in_region"
    gain = {
        patient: row.figures[column] - rows[patient].figures[column]
        for patient, row in under_test.items()
        if column in row.figures
    }
    recovery = {p: row.figures["recovery"] for p, row in under_test.items() if row.group is Group.CLEAR}
    return [
        *_extremes(recovery, "recovery {:.2f}, clearly enhancing"),
        *_extremes(gain, "{:+.1f} dB over identity in the tumour"),
    ]


def _extremes(values: Mapping[str, float], sentence: str) -> list[tuple[str, str]]:
    numbers = [patient for patient, value in values.items() if not math.isnan(value)]
    ranked = sorted(numbers, key=lambda patient: -values[patient])
    if not ranked:
        return []
    places = {0: "Best", len(ranked) // 2: "Median", len(ranked) - 1: "Worst"}
    if len(ranked) == 1:
        places = {0: "The only one"}
    return [
        (f"{name}: {sentence.format(values[ranked[place]])}", ranked[place])
        for place, name in sorted(places.items())
    ]


def _page(found: Evaluation, about: str) -> str:
    looks = {look.patient: look for look in found.looks}
    shown = cases(found)
    refused = "".join(f"<li>{escape(reason)}</li>" for reason in sorted(found.refused))
    parts = [
        f"<p>{escape(about)}</p><p class=notice>{escape(NOTICE)}. It shows patients: keep it private.</p>",
        f"<p>{escape(_counted(found))}</p>" + (f"<p>Not judged:</p><ul>{refused}</ul>" if refused else ""),
        f"<h2>Figures</h2><p><small>{escape(EXPLAINED)}</small></p><div>{_table(found)}</div>",
        f"<h2>Patient by patient</h2>{_image(_strips(found), 'svg')}",
        f"<h2>Recovery of enhancement</h2>{_image(_recoveries(found), 'svg')}",
        f"<h2>Chance of enhancement, in the tumour</h2>{_image(_calibration(found), 'svg')}",
        "<h2>Best, median, worst</h2><p><small>The slice with most true enhancement, or most tumour where "
        "none enhances. Outlined: the drawn tumour (yellow), what truly enhances (red).</small></p>",
        *(
            f"<h3>{escape(heading)}</h3><p><small>{escape(patient)}</small></p>"
            + _image(_case(looks[patient], found.arms), "png")
            for heading, patient in shown
        ),
    ]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Evaluation</title><style>{STYLE}</style>"
        f"<h1>Evaluation</h1>{''.join(parts)}</html>\n"
    )


def _counted(found: Evaluation) -> str:
    patients = by_patient(found.rows, found.arms[0])
    groups = [row.group for row in patients.values()]
    some, clear = sum(group is not Group.NONE for group in groups), groups.count(Group.CLEAR)
    exams = sum(len(row.each) for row in patients.values())
    return f"{len(groups)} patients, {exams} exams; {some} enhance, {clear} of them clearly."


def _table(found: Evaluation) -> str:
    rows = {arm: by_patient(found.rows, arm) for arm in found.arms}
    means = {arm: over_patients(rows[arm]) for arm in found.arms}
    gains = {arm: over_patients(rows[arm], rows[IDENTITY]) for arm in found.arms if arm != IDENTITY}
    head = "".join(f"<th>{escape(arm)}</th>" for arm in found.arms)
    lines = [f"<tr><th>figure</th><th>n</th>{head}</tr>"]
    for figure in FIGURES:
        own = {arm: means[arm][figure.key] for arm in found.arms if figure.key in means[arm]}
        if not own:
            continue
        patients = max(mean.patients for mean in own.values())
        cells = "".join(
            f"<td>{_cell(patients, own.get(arm), gains.get(arm, {}).get(figure.key))}</td>"
            for arm in found.arms
        )
        lines.append(f"<tr><td>{escape(figure.title)}</td><td>{patients}</td>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _cell(patients: int, mean: Mean | None, gain: Mean | None) -> str:
    """Return the cell of a row that has so many patients at most."""
    if mean is None:
        return ""
    shown = f"{_shown(mean.mean)} ± {_shown(mean.sd, '.2g')}<br>[{_shown(mean.low)}, {_shown(mean.high)}]"
    shown += _fewer(patients, mean)
    if gain is not None:
        own, low, high = (_shown(value, "+.3g") for value in (gain.mean, gain.low, gain.high))
        shown += f"<br><small>{own} [{low}, {high}]{_fewer(mean.patients, gain)}</small>"
    return shown


def _fewer(patients: int, mean: Mean) -> str:
    return f" n = {mean.patients}" if mean.patients < patients else ""


def _shown(value: float, form: str = ".3g") -> str:
    return "–" if math.isnan(value) else format(value, form)


def _strips(found: Evaluation) -> Picture:
    """Return a box and a point per patient of every arm, for the figures of `DRAWN`."""
    drawn = [figure for figure in FIGURES if figure.key in DRAWN]
    picture = Picture(figsize=(11, 7), layout="constrained")
    for axes, figure in zip(picture.subplots(2, 3).flat, drawn, strict=True):
        for place, arm in enumerate(found.arms):
            values = np.array([figure.value(row) for row in by_patient(found.rows, arm).values()])
            values = values[np.isfinite(values)]
            if values.size:
                axes.boxplot(values, positions=[place], widths=0.6, showfliers=False, manage_ticks=False)
            aside = 0.5 * (np.arange(values.size) * 0.618 % 1) - 0.25  # spread evenly, the same every time
            axes.plot(place + aside, values, ".", color=_colour(found, arm), alpha=0.7)
        axes.set_xticks(range(len(found.arms)), found.arms, rotation=30, ha="right")
        axes.set_title(figure.title, fontsize=10)
    return picture


def _recoveries(found: Evaluation) -> Picture:
    """Return the recovery of every enhancing exam, those with most enhancement first."""
    rows = [row for row in found.rows if row.group is not Group.NONE]
    under_test = sorted(by_exam(rows, found.arms[0]).values(), key=lambda row: -row.figures["voxels"])
    names = [row.patient for row in under_test]
    picture = Picture(figsize=(11, 4.5), layout="constrained")
    axes = picture.subplots()
    for arm in found.arms:
        own = by_exam(rows, arm)
        values = [own[name].figures["recovery"] for name in names]
        marker = "o" if arm == found.arms[0] else "x"
        axes.plot(values, marker, color=_colour(found, arm), label=arm)
    for height, style in ((0.0, "-"), (LIT, "--"), (1.0, ":")):
        axes.axhline(height, color="#999999", linestyle=style, linewidth=0.8)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    axes.set_ylabel(f"recovery (lights up: ≥ {LIT})")
    if names:
        axes.legend(fontsize=8)
    return picture


def _calibration(found: Evaluation) -> Picture:
    """Return the share that enhances against the predicted chance; arms that predict none are left out."""
    picture = Picture(figsize=(5, 5), layout="constrained")
    axes = picture.subplots()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, label="as it should be")
    for arm, counts in found.calibration.items():
        voxels, chances, happened = counts[:, counts[0] > 0]
        if chances.any():
            name = f"{arm}, error {calibration_error(counts):.3f}"
            axes.plot(chances / voxels, happened / voxels, ".-", color=_colour(found, arm), label=name)
    axes.set_xlabel("predicted chance")
    axes.set_ylabel("share of voxels that enhance")
    axes.legend(fontsize=8)
    return picture


def _colour(found: Evaluation, arm: str) -> str:
    return COLOURS[found.arms.index(arm) % len(COLOURS)]


def _case(look: Look, arms: Sequence[str]) -> Picture:
    """Return a row of images, a row of uptake (− T1W), a row of errors (− T1C)."""
    height, width = look.t1.shape
    columns = 2 + len(arms)
    picture = Picture(
        figsize=(INCHES * columns, 3 * INCHES * look.aspect * height / width + 0.3),
        facecolor="black",
        layout="constrained",
    )
    grid = picture.subplots(3, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    _show(grid[0, 0], "T1W", look.t1, look)
    _show(grid[1, 0], "FLAIR", look.flair, look)
    _show(grid[2, 0], f"chance, {arms[0]}", look.chance, look, (0.0, 1.0))
    _show(grid[0, 1], "T1C, true", look.t1c, look)
    _show_change(grid[1, 1], "true uptake", look.t1c - look.t1, look)
    grid[2, 1].text(0.5, 0.5, NOTICE.replace(" · ", "\n"), color="#ffd60a", ha="center", fontsize=8)
    for column, arm in enumerate(arms, 2):
        _show(grid[0, column], arm, look.predicted[arm], look)
        _show_change(grid[1, column], "uptake", look.predicted[arm] - look.t1, look)
        _show_change(grid[2, column], "error", look.predicted[arm] - look.t1c, look)
    for axes, marked, colour in (
        (grid[0, 0], look.tumour, "#ffd60a"),
        (grid[1, 0], look.tumour, "#ffd60a"),
        (grid[0, 1], look.enhancing, "#ff3b30"),
    ):
        if marked.any() and not marked.all():
            axes.contour(marked, levels=[0.5], colors=colour, linewidths=0.7)
    return picture


def _show(
    axes: Axes, title: str, image: FloatArray, look: Look, window: tuple[float, float] = (DARK, BRIGHT)
) -> None:
    axes.imshow(image, cmap="gray", vmin=window[0], vmax=window[1], aspect=look.aspect)
    axes.set_title(title, color="white", fontsize=8)


def _show_change(axes: Axes, title: str, image: FloatArray, look: Look) -> None:
    axes.imshow(image, cmap="RdBu_r", vmin=-MOST_CHANGE, vmax=MOST_CHANGE, aspect=look.aspect)
    axes.set_title(title, color="white", fontsize=8)


def _image(picture: Picture, form: Literal["png", "svg"]) -> str:
    """Return the picture as an element that needs no other file."""
    FigureCanvasAgg(picture)
    file = io.BytesIO()
    picture.savefig(file, format=form, dpi=DPI)
    kind = {"png": "image/png", "svg": "image/svg+xml"}[form]
    return f'<img alt="" src="data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}">'
