"""Values of a data set as they are needed, whatever a faulty element holds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pydicom import config
from pydicom.dataset import Dataset


def value(dataset: Dataset, keyword: str) -> Any:
    """Return a value, or None where it is absent or its bytes do not fit its VR."""
    with config.disable_value_validation():
        try:
            return dataset.get(keyword)
        except Exception:  # a malformed element must not hide the rest of the header
            return None


def text(dataset: Dataset, keyword: str) -> str:
    """Return the first value as text, "" where it is absent."""
    found = value(dataset, keyword)
    if found is None:
        return ""
    first = found[0] if isinstance(found, list | tuple) and found else found
    return str(first).strip() if not isinstance(first, bytes) else ""


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Return the values in capitals, none where the element is absent or damaged."""
    found = value(dataset, keyword)
    if found is None or isinstance(found, bytes):
        return ()
    parts = [found] if isinstance(found, str) else list(found)
    return tuple(str(part).strip().upper() for part in parts)


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Return the values as finite numbers, none where one of them is not."""
    found = value(dataset, keyword)
    if found is None or found == "":
        return ()
    parts = found if isinstance(found, Iterable) and not isinstance(found, str) else [found]
    try:
        finite = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        return ()
    return finite if all(map(math.isfinite, finite)) else ()


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return the first value as a number, None where there is none."""
    found = numbers(dataset, keyword)
    return found[0] if found else None


def integer(dataset: Dataset, keyword: str) -> int | None:
    """Return the first value as a whole number, None where there is none."""
    found = number(dataset, keyword)
    return None if found is None else int(found)
