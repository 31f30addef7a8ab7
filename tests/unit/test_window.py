"""The window around a head: all of the head, little of the air, on whole tokens."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthesis.models.window import LEAST, Window, window_around

TOKEN, PLANE = 4, 30
SIDE = TOKEN * PLANE


def head_of(rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    """Return a block of head in two planes, half of it in each."""
    head = np.zeros((2, SIDE, SIDE), dtype=bool)
    middle = (rows[0] + rows[1] + 1) // 2
    head[0, rows[0] : middle, columns[0] : columns[1]] = True
    head[1, middle : rows[1], columns[0] : columns[1]] = True
    return head


@st.composite
def ends(draw: st.DrawFn) -> tuple[int, int]:
    first = draw(st.integers(0, SIDE - 2))
    return first, draw(st.integers(first + 2, SIDE))


@given(ends(), ends())
def test_all_of_a_head_is_in_its_window(rows: tuple[int, int], columns: tuple[int, int]) -> None:
    head = head_of(rows, columns)
    window = window_around(head, TOKEN)
    assert window.of(head).sum() == head.sum()
    assert all(side % 2 == 0 and side >= least for side, least in zip(window.sides, LEAST, strict=True))
    assert window.of(head).shape[1:] == tuple(TOKEN * side for side in window.sides)


@given(ends(), ends())
def test_a_fixed_window_has_the_head_in_its_middle(rows: tuple[int, int], columns: tuple[int, int]) -> None:
    window = window_around(head_of(rows, columns), TOKEN, fixed=True)
    assert window.sides == LEAST
    for (first, last), corner, side in zip((rows, columns), window.corner, window.sides, strict=True):
        beside = TOKEN * (corner + side / 2) - (first + last) / 2
        assert abs(beside) <= TOKEN / 2 or corner in (0, PLANE - side)


def test_a_small_plane_is_its_own_window() -> None:
    assert window_around(np.ones((1, 24, 24), dtype=bool), 4) == Window((0, 0), (6, 6), 4, 6)


def test_nothing_has_a_window_too() -> None:
    assert window_around(np.zeros((1, SIDE, SIDE), dtype=bool), TOKEN).sides == (PLANE, PLANE)


def test_a_mirrored_plane_is_seen_at_the_mirrored_place() -> None:
    head = head_of((10, 110), (20, 90))
    window = window_around(head, TOKEN)
    row, column = window.corners(1, flip=True)[0].tolist()
    there = Window((row, column), window.sides, TOKEN, PLANE)
    plane = torch.rand(2, SIDE, SIDE)
    assert torch.equal(there.of(plane.flip(-1)), window.of(plane).flip(-1))
    assert window.corners(3).tolist() == [list(window.corner)] * 3
