"""A picture of a job for people: T1W · FLAIR · segmentation · synthetic T1C. No patient data in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from synthesis.pipeline import Pictures
from synthesis.preprocess import brain_level

NOTICE = "SYNTHETIC · RESEARCH ONLY"
ROWS = 4
PIXEL_MM = 0.8
#: Thin slices are shown this far apart.
THINNEST_MM = 2.0
AIR, MARGIN = 0.25, 6
INCHES_PER_ROW, INCHES_OF_TITLE = 2.9, 0.4
#: Window over the brain's level: as the derived series has it.
DARK, BRIGHT = 0.1, 2.1
OUTLINE = 0.5

Volume = npt.NDArray[np.float32]


def save_montage(pictures: Pictures, file: Path, *, rows: int = ROWS) -> None:
    """Write the PNG: one row per slice, through the tumour where there is one.

    Parameters
    ----------
    pictures : Pictures
        Volumes on the T1W's grid.
    file : Path
        The PNG to write.
    rows : int
        Number of slices shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    t1, flair, tumour, t1c = (
        axial(image) for image in (pictures.t1, pictures.flair, pictures.tumour, pictures.t1c)
    )
    level, flair_level = brain_level(pictures.t1), brain_level(pictures.flair)
    t1, t1c, flair = t1 / level, t1c / level, flair / flair_level
    inside = head_box(t1)
    figure = Figure(figsize=(10.0, INCHES_PER_ROW * rows + INCHES_OF_TITLE), facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 4, squeeze=False)
    for row, z in zip(axes, shown_slices(tumour, rows), strict=True):
        probability = tumour[z][inside]
        for axis, volume in zip(row, (t1, flair, flair, t1c), strict=True):
            axis.imshow(volume[z][inside], cmap="gray", vmin=DARK, vmax=BRIGHT, interpolation="bilinear")
            axis.set_axis_off()
        row[2].imshow(probability, cmap="autumn", vmin=0.0, vmax=1.0, alpha=0.25 * probability)
        if probability.max() > OUTLINE:
            row[2].contour(probability, levels=[OUTLINE], colors="#ff3b30", linewidths=1.2)
        row[3].text(
            0.5,
            0.01,
            NOTICE,
            color="#ffd60a",
            fontsize=8,
            ha="center",
            va="bottom",
            transform=row[3].transAxes,
        )
    titles = ("T1W", "FLAIR", "Segmentation", "Synthetic T1C")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, color="white", fontsize=12)
    top = 1 - INCHES_OF_TITLE / figure.get_figheight()
    figure.subplots_adjust(left=0.005, right=0.995, top=top, bottom=0.005, wspace=0.02, hspace=0.02)
    figure.savefig(file, dpi=110, metadata={"Title": NOTICE})


def axial(image: sitk.Image) -> Volume:
    """Return the volume as (slices, rows, columns) the way radiologists look: front up, right on the left.

    The first slice is nearest to the feet. Pixels are square; planes are the acquired ones where those are
    nearer to axial than to anything else.
    """
    upright = sitk.DICOMOrient(image, "LPS")
    thickness = max(THINNEST_MM, upright.GetSpacing()[2])
    extent = [count * spacing for count, spacing in zip(upright.GetSize(), upright.GetSpacing(), strict=True)]
    size = [max(1, round(e / mm)) for e, mm in zip(extent, (PIXEL_MM, PIXEL_MM, thickness), strict=True)]
    grid = sitk.Image(size, sitk.sitkFloat32)
    grid.SetSpacing((PIXEL_MM, PIXEL_MM, thickness))
    grid.SetOrigin(upright.GetOrigin())
    grid.SetDirection(upright.GetDirection())
    return np.asarray(sitk.GetArrayFromImage(sitk.Resample(upright, grid)), dtype=np.float32)


def head_box(t1: Volume) -> tuple[slice, slice]:
    """Return the rows and columns that hold the head, with a margin; values in units of the brain."""
    seen = (t1 > AIR).mean(axis=0) > 0.05
    return _span(seen.any(axis=1)), _span(seen.any(axis=0))


def _span(seen: npt.NDArray[np.bool_]) -> slice:
    places = np.flatnonzero(seen)
    if not len(places):
        return slice(None)
    return slice(max(0, int(places[0]) - MARGIN), int(places[-1]) + 1 + MARGIN)


def shown_slices(tumour: Volume, rows: int) -> list[int]:
    """Return the slices to show, top of the head first: through the largest tumour, else over the brain."""
    depth = len(tumour)
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(sitk.GetImageFromArray(tumour) > OUTLINE))
    amount = (sitk.GetArrayFromImage(parts) == 1).sum(axis=(1, 2))
    if not amount.any():
        low, high = 0.35 * (depth - 1), 0.75 * (depth - 1)
    else:
        shares = np.cumsum(amount) / amount.sum()
        low, high = (float(np.searchsorted(shares, share)) for share in (0.1, 0.9))
    middle, half = (low + high) / 2, max((high - low) / 2, (rows - 1) / 2)
    places = np.linspace(middle + half, middle - half, rows)
    return [int(z) for z in np.clip(np.rint(places), 0, depth - 1)]
