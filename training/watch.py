"""What a run shows while it trains: a bar or plain lines, ``curve.csv``, TensorBoard, sample images."""

from __future__ import annotations

import csv
import importlib.util
import logging
import math
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from synthesis.models.uptake import OUTPUTS, Uptake
from synthesis.preprocess import FloatArray
from training.data import Batch

log = logging.getLogger(__name__)

#: Steps over which the loss of a line of the curve is averaged.
CURVE_EVERY = 10
#: Without a terminal a line is written this often, in seconds.
LINE_EVERY_S = 10.0
#: The last steps from which the rate is measured, in seconds: stages differ in the cost of a step.
RATE_OVER_S = 60.0
COLUMNS = ("step", "seconds", "learning_rate", "loss", "held_out_loss", "held_out_delta_error")
#: Window of the sample images over the brain's level: as the derived series has it.
DARK, BRIGHT = 0.1, 2.1


class Watch:
    """Shows a run; one process of those that train together has it."""

    def __init__(
        self, name: str, folder: Path, step: int, steps: int, console: Console | None = None
    ) -> None:
        self._folder, self._name, self._steps = folder, name, steps
        self._losses: list[float] = []
        self._curve = _curve_until(folder / "curve.csv", step)
        self._board = _board(folder / "tensorboard", step)
        console = console or Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:.3g} steps/s"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=RATE_OVER_S,
        )
        self._task = self._bar.add_task(name, total=steps, completed=step, loss=math.nan, rate=math.nan)
        self._spoken = time.monotonic()

    def __enter__(self) -> Watch:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._board:
            self._board.close()

    def stepped(self, step: int, seconds: float, learning_rate: float, loss: float) -> None:
        """Show a step of training; `step` counts the steps done."""
        self._losses.append(loss)
        rate = self._bar.tasks[self._task].speed or math.nan
        self._bar.update(self._task, completed=step, loss=loss, rate=rate)
        if self._bar.disable and time.monotonic() - self._spoken > LINE_EVERY_S:
            self._spoken = time.monotonic()
            left_min = (self._steps - step) / rate / 60
            self.say(f"step {step}/{self._steps} loss {loss:.4f} {rate:.3g} steps/s {left_min:.1f} min left")
        if step % CURVE_EVERY == 0:
            self._write(step, seconds, learning_rate=learning_rate, loss=float(np.mean(self._losses)))
            self._losses.clear()

    def validated(
        self, step: int, seconds: float, loss: float, delta_error: float, sheet: FloatArray | None = None
    ) -> None:
        """Show the figures of what is held out, and a sheet (H, W) of pictures of it, 0–1."""
        of_delta = "" if math.isnan(delta_error) else f", Δ in the head {delta_error:.5f}²"
        self.say(f"step {step} held out: loss {loss:.4f}{of_delta}")
        self._write(step, seconds, held_out_loss=loss, held_out_delta_error=delta_error)
        if sheet is None:
            return
        samples = self._folder / "samples"
        samples.mkdir(exist_ok=True)
        _save_png(samples / f"step-{step:06d}.png", sheet)
        if self._board:
            self._board.add_image("held out", sheet, step, dataformats="HW")

    def say(self, sentence: str) -> None:
        """Print a sentence above the bar, or log it."""
        if self._bar.disable:
            log.info("%s: %s", self._name, sentence)
        else:
            self._bar.console.print(sentence, highlight=False)

    def _write(self, step: int, seconds: float, **values: float) -> None:
        known = {name: value for name, value in values.items() if math.isfinite(value)}
        with self._curve.open("a", newline="", encoding="utf-8") as file:
            row = {"step": step, "seconds": f"{seconds:.1f}"} | {k: f"{v:.6g}" for k, v in known.items()}
            csv.DictWriter(file, COLUMNS).writerow(row)
        if self._board:
            for name, value in known.items():
                self._board.add_scalar(name, value, step)


def sheet_of(out: Tensor, batch: Batch) -> FloatArray:
    """Return a network's output for a batch beside the truth, a column per picture, (rows · S, B · S), 0–1.

    Rows of a synthesis: T1W, FLAIR, map, T1C, predicted T1C, predicted chance of enhancement. Rows of a
    segmentation: T1W, FLAIR, drawn tumour, predicted tumour.
    """
    t1, flair = batch.images[:, :1], batch.images[:, 1:2]
    if out.shape[1] == OUTPUTS:
        uptake = Uptake.of(out)
        made = _windowed(t1 + uptake.delta() * (batch.region > 0))
        rows = [
            _windowed(t1),
            _windowed(flair),
            batch.map,
            _windowed(t1 + batch.delta),
            made,
            uptake.chance(),
        ]
    else:
        rows = [_windowed(t1), _windowed(flair), batch.tumour, out.sigmoid()]
    columns = [torch.cat(list(row[:, 0]), dim=1) for row in rows]
    return np.asarray(torch.cat(columns).cpu().numpy(), dtype=np.float32)


def _windowed(values: Tensor) -> Tensor:
    return ((values - DARK) / (BRIGHT - DARK)).clamp(0, 1)


def _save_png(path: Path, sheet: FloatArray) -> None:
    from matplotlib.image import imsave

    imsave(path, sheet, cmap="gray", vmin=0, vmax=1)


def _curve_until(path: Path, step: int) -> Path:
    """Return the curve's file without what was written after the step from which the run goes on."""
    rows: list[dict[str, Any]] = []
    if path.exists() and step:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["step"].isdigit() and int(row["step"]) <= step]
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)
    return path


def _board(folder: Path, step: int) -> Any:
    """Return TensorBoard's writer, without what it showed after this step; None where it is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        log.info("TensorBoard is not installed; the curve is in %s.", "curve.csv")
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder, purge_step=step + 1)
