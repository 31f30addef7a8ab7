"""The cache: arrays that grow by a patient at a time, whole or not there, and ``cases.json`` beside them.

Each array is one ``.npy`` that `np.load` maps into memory. Until all patients are in, they grow in a hidden
folder with a journal; a run that was killed goes on after the last patient of the journal, as long as the
source is the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]

#: Changes with the meaning of the arrays, so that a run of older code is not continued.
FORMAT = 2
_JOURNAL, _PLAN = "cases.jsonl", "plan"


@dataclass(frozen=True)
class Case:
    """What became of one exam: slices `first` to `first + count` of the arrays, or the reason why not."""

    #: All exams of a patient have his name; splits go by it.
    patient: str
    first: int
    count: int
    #: Why the exam is left out, as a sentence and as a code; empty when it is in.
    refused: str = ""
    code: str = ""
    exam: str = ""
    institution: str = ""
    #: Whether somebody segmented: without that, no tumour means nothing.
    labelled: bool = True
    #: Volume of the tumour and of its enhancing part; None where that is not known.
    tumour_ml: float | None = None
    enhancing_ml: float | None = None
    #: ``none``, ``some`` or ``clear`` (`training.figures.Group`); empty where that is not known.
    group: str = ""
    #: Planes of the head that are not in the arrays, as an image shows nothing there.
    left_out: int = 0
    #: Names of the same patient in other data sets.
    also: tuple[str, ...] = ()
    #: Digest of the T1W's voxels.
    fingerprint: str = ""
    notes: tuple[str, ...] = ()


def read_cases(cache: Path) -> list[Case]:
    """Return the cases of a cache.

    Raises
    ------
    FileNotFoundError
        When there is no cache.
    """
    return [_case(row) for row in json.loads((cache / "cases.json").read_text(encoding="utf-8"))]


def cache_folder(root: Path, name: str) -> Path:
    """Return the folder of the cache of a name.

    Raises
    ------
    ValueError
        When the name is not that of one folder in `root`.
    """
    if name in ("", ".", "..") or set(name) & {"/", "\\"}:
        raise ValueError(f'"{name}" is no name for a cache; give one with --name.')
    return root / name


class CacheWriter:
    """Writes a cache, one case after the other."""

    def __init__(self, out: Path, plan: str) -> None:
        """Begin, or go on where a run of the same `plan` was killed: `cases` are already in.

        Raises
        ------
        FileExistsError
            When something else than a cache is in its place.
        """
        _refuse_other(out)
        self._out, self._plan = out, f"{FORMAT} {plan}"
        self._partial = out.with_name(f".{out.name}.partial")
        self.cases: list[Case] = []
        if (self._partial / _PLAN).exists() and (self._partial / _PLAN).read_text(
            encoding="utf-8"
        ) == self._plan:
            self._resume()
        else:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir(parents=True)
            (self._partial / _PLAN).write_text(self._plan, encoding="utf-8")

    @property
    def rows(self) -> int:
        """How many slices are in."""
        return sum(case.count for case in self.cases)

    def add(self, case: Case, arrays: Arrays) -> None:
        """Append a case and its slices (N, ...) to every array. Each call brings the same names."""
        for name, values in arrays.items():
            with (self._partial / f"{name}.npy").open("ab") as file:
                if not file.tell():
                    _write_header(file, values.dtype, (0, *values.shape[1:]))
                file.write(np.ascontiguousarray(values).tobytes())
        with (self._partial / _JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(asdict(case)) + "\n")
        self.cases.append(case)

    def finish(self) -> None:
        """Put the cache in its place; one that was there before goes, with all that was made from it.

        Raises
        ------
        FileNotFoundError
            When no case brought a slice.
        FileExistsError
            When something else than a cache is in its place.
        """
        _refuse_other(self._out)
        if not self.rows:
            shutil.rmtree(self._partial)
            raise FileNotFoundError(f"No usable patient in the source of {self._out.name}.")
        for path in self._partial.glob("*.npy"):
            _set_rows(path, self.rows)
        text = json.dumps([asdict(case) for case in self.cases], indent=1, ensure_ascii=False)
        (self._partial / "cases.json").write_text(text, encoding="utf-8")
        (self._partial / _JOURNAL).unlink()
        (self._partial / _PLAN).unlink()
        before = self._out.with_name(f".{self._out.name}.before")
        shutil.rmtree(before, ignore_errors=True)
        if self._out.exists():
            self._out.rename(before)
        self._partial.rename(self._out)
        shutil.rmtree(before, ignore_errors=True)

    def _resume(self) -> None:
        journal = self._partial / _JOURNAL
        lines = journal.read_text(encoding="utf-8").splitlines(keepends=True) if journal.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        self.cases = [_case(json.loads(line)) for line in whole]
        journal.write_text("".join(whole), encoding="utf-8")
        for path in self._partial.glob("*.npy"):
            if self.rows:
                _set_rows(path, self.rows)
            else:
                path.unlink()


def _refuse_other(out: Path) -> None:
    if out.exists() and not (out / "cases.json").is_file():
        raise FileExistsError(f"{out.name} is there and no cache: it would be lost. Choose another name.")


def _case(row: Mapping[str, Any]) -> Case:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in row.items()
    }
    return Case(**values)


def _write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Write the header of a ``.npy``; numpy leaves room in it for the first axis to grow."""
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)


def _set_rows(path: Path, rows: int) -> None:
    """Cut what lies behind the first `rows` of an array, and say in its header how many they are."""
    with path.open("r+b") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        begin = file.tell()
        file.truncate(begin + rows * int(np.prod(shape[1:])) * dtype.itemsize)
        file.seek(0)
        _write_header(file, dtype, (rows, *shape[1:]))
        if file.tell() != begin:
            raise RuntimeError(f"The header of {path.name} grew.")
