"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A deadline measures how busy the machine is, not the code.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real studies; they may not be redistributed, so they lie beside the checkout."""
    named = os.environ.get("DICOM_NODE_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "BRAINIX").is_dir():
        pytest.skip(
            f"REAL STUDIES ARE MISSING: no {folder}; set DICOM_NODE_TEST_DATA", allow_module_level=True
        )
    return folder
