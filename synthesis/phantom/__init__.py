"""A head that nobody has: a numerical phantom for the demo and the tests.

Made from the tissue maps of the ICBM152 template (see ``ICBM-NOTICE.txt``), with a skull, a scalp, a face
and a tumour of its own. It is acquired as a scanner would: oblique thick slices, partial volume, noise, a
patient who moves.
"""

from synthesis.phantom.scan import Scan
from synthesis.phantom.study import (
    FLAIR,
    T1_POST,
    T1W,
    T1W_3D,
    T1W_SAGITTAL,
    T2W,
    PhantomSeries,
    PhantomStudy,
    write_study,
)

__all__ = [
    "FLAIR",
    "T1W",
    "T1W_3D",
    "T1W_SAGITTAL",
    "T1_POST",
    "T2W",
    "PhantomSeries",
    "PhantomStudy",
    "Scan",
    "write_study",
]
