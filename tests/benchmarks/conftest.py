"""Benchmarks print ratios of one run; they assert the work, and at most who is ahead, never how fast."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "pacs"), str(HERE.parents[1] / "deploy")]

from bench import storescp  # noqa: E402, F401  a fixture
