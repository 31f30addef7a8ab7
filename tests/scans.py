"""Series as headers, for tests of what is decided: no file, no pixel."""

from __future__ import annotations

from typing import Any

import numpy as np

from dicom_node.choose.series import Series
from dicom_node.headers import CLASSIC_MR, Header

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)

#: Timings of the series that most tests need.
T1_SE: dict[str, Any] = {"tr_ms": 500.0, "te_ms": 10.0, "scanning_sequence": ("SE",)}
T1_MPRAGE: dict[str, Any] = {
    "tr_ms": 2300.0,
    "te_ms": 2.98,
    "ti_ms": 900.0,
    "flip_deg": 9.0,
    "scanning_sequence": ("GR", "IR"),
}
FLAIR_2D: dict[str, Any] = {
    "tr_ms": 9000.0,
    "te_ms": 100.0,
    "ti_ms": 2500.0,
    "scanning_sequence": ("SE", "IR"),
}
T2_TSE: dict[str, Any] = {"tr_ms": 4500.0, "te_ms": 100.0, "scanning_sequence": ("SE",)}
GADOLINIUM: dict[str, Any] = {"contrast_agent": "GADOTERATE MEGLUMINE", "contrast_given": True}


def at(minutes: float) -> str:
    """Return the acquisition time that many minutes after ten o'clock, as a header has it."""
    seconds = round(minutes * 60)
    return f"20260112{10 + seconds // 3600:02d}{seconds % 3600 // 60:02d}{seconds % 60:02d}.000000"


def headers(
    description: str = "",
    *,
    uid: str = "",
    slices: int = 20,
    spacing_mm: float = 6.0,
    cosines: tuple[float, ...] = AXIAL,
    origin_mm: tuple[float, float, float] = (-120.0, -120.0, -60.0),
    **values: Any,
) -> list[Header]:
    """Return the headers of a stack of classic MR images, from the lowest slice on."""
    uid = uid or f"1.2.3.{sum(map(ord, description)) + 1}"
    normal = np.cross(cosines[:3], cosines[3:])
    common: dict[str, Any] = {
        "modality": "MR",
        "image_type": ("ORIGINAL", "PRIMARY", "M", "ND"),
        "rows": 256,
        "columns": 256,
        "spacing_mm": (0.9, 0.9),
        "orientation": tuple(cosines),
        "distinct_values": 256,
        "body_part": "BRAIN",
    } | values
    positions = [tuple(map(float, np.array(origin_mm) + k * spacing_mm * normal)) for k in range(slices)]
    return [
        Header(
            study_uid="1.2.3",
            series_uid=uid,
            sop_instance_uid=f"{uid}.{k + 1}",
            sop_class_uid=CLASSIC_MR,
            series_description=description,
            instance_number=k + 1,
            positions_mm=(position,),  # type: ignore[arg-type]
            **common,
        )
        for k, position in enumerate(positions)
    ]


def series(description: str = "", **values: Any) -> Series:
    """Return a stack as choosing sees it; the arguments are those of `headers` and the fields of `Header`."""
    members = headers(description, **values)
    return Series(members[0].series_uid, tuple(members))
