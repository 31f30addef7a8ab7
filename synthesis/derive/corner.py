"""A line of text burned into the corner of each slice, for viewers that show no annotation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from synthesis.derive.scaling import Pixels

TEXT = "SYNTHETIC, NO Gd\nRESEARCH ONLY"
#: Height of a letter, as a share of the rows; fewer pixels than the second cannot be read.
LETTER_SHARE, LEAST_LETTER = 1 / 32, 9
MARGIN = 2


def with_corner_text(pixels: Pixels, window: tuple[float, float]) -> Pixels:
    """Return the slices (D, H, W) with the text at the top left, white on black in this window."""
    letters = _letters(*pixels.shape[1:])
    rows, columns = letters.shape
    center, width = window
    highest = np.iinfo(pixels.dtype).max if pixels.size == 0 else max(int(pixels.max()), 1)
    white = min(round(center + width / 2), highest)
    marked = pixels.copy()
    marked[:, :rows, :columns] = np.where(letters, white, 0)
    return marked


def _letters(rows: int, columns: int) -> npt.NDArray[np.bool_]:
    """Return the text as a mask that fits into a slice of this size."""
    font = ImageFont.load_default(max(LEAST_LETTER, round(rows * LETTER_SHARE)))
    canvas = Image.new("1", (columns, rows))
    draw = ImageDraw.Draw(canvas)
    draw.multiline_text((MARGIN, MARGIN), TEXT, fill=1, font=font)
    right, bottom = draw.multiline_textbbox((MARGIN, MARGIN), TEXT, font=font)[2:]
    return np.asarray(canvas)[: int(bottom) + MARGIN, : int(right) + MARGIN]
