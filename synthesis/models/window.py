"""What of a plane the networks look at: a window around the head.

Their norms average over the picture: the more air it shows, the stronger all else becomes. So training and
use show about as much of it. And air costs time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

#: Rows and columns of the smallest window, in tokens: 224×176 mm of a plane of 30×30. Most heads fit.
LEAST = (28, 22)
#: A window has an even number of tokens along each side: U-Nets halve it three times.
STEP = 2

Planes = TypeVar("Planes", npt.NDArray[np.float32], npt.NDArray[np.bool_], Tensor)


@dataclass(frozen=True)
class Window:
    """Where it begins in the plane, and how large it is, in tokens of so many pixels."""

    corner: tuple[int, int]
    sides: tuple[int, int]
    token: int
    #: Tokens along each side of the plane.
    plane: int

    def of(self, planes: Planes) -> Planes:
        """Return what it shows of planes (…, S, S)."""
        rows, columns = (
            slice(self.token * first, self.token * (first + side))
            for first, side in zip(self.corner, self.sides, strict=True)
        )
        return planes[..., rows, columns]

    def corners(self, count: int, flip: bool = False) -> Tensor:
        """Return its corner for each of so many pictures, (B, 2); of planes with left and right exchanged."""
        row, column = self.corner
        return torch.tensor([[row, self.plane - column - self.sides[1] if flip else column]] * count)


def window_around(
    head: npt.NDArray[np.bool_], token: int, fixed: bool = False, beside: tuple[float, float] = (0.0, 0.0)
) -> Window:
    """Return the window that has the head in its middle.

    Parameters
    ----------
    head : ndarray
        (…, S, S): the head, in one plane or in several.
    token : int
        Rows and columns of a token in pixels; S is a multiple.
    fixed : bool
        Whether the window is to be the smallest even if not all of the head is in it.
    beside : tuple of float
        Rows and columns, in pixels, by which the window is moved.
    """
    plane = head.shape[-1] // token
    flat = head.reshape(-1, *head.shape[-2:])
    # planes and columns, or planes and rows, are gone through for what is shown in a row, or a column
    ends = [_ends(np.asarray(flat.any(axis=(0, 2 - axis)))) for axis in (0, 1)]
    sides = [min(least, plane) for least in LEAST]
    if not fixed:
        # a head that lies across the borders of tokens needs one more
        needed = (STEP * (-(-(last - first) // (STEP * token))) + STEP for first, last in ends)
        sides = [min(max(side, own), plane) for side, own in zip(sides, needed, strict=True)]
    corner = [
        int(np.clip(round(((first + last) / 2 + moved) / token - side / 2), 0, plane - side))
        for (first, last), side, moved in zip(ends, sides, beside, strict=True)
    ]
    return Window((corner[0], corner[1]), (sides[0], sides[1]), token, plane)


def _ends(shown: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return the first place and the one after the last; of nothing, those of all."""
    places = np.flatnonzero(shown)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, len(shown))
