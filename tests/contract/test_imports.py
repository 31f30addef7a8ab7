"""Who may import whom, and that the whole is complete."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_import_contracts_hold() -> None:
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    linter = shutil.which("lint-imports", path=beside)
    if linter is None:
        pytest.skip("THE IMPORT CONTRACTS ARE NOT TESTED: import-linter is not installed")

    said = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("heavy", ["torch", "numpy", "SimpleITK", "pydicom", "redis"])
def test_the_common_module_imports_nothing_heavy(heavy: str) -> None:
    code = f"import synthesis.job, sys; sys.exit({heavy!r} in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_module_of_ours_names_a_folder_of_one_machine() -> None:
    ours = [path for name in ("dicom_node", "synthesis", "training") for path in (ROOT / name).rglob("*.py")]

    assert ours and not [path for path in ours if "/work/" in path.read_text(encoding="utf-8")]
