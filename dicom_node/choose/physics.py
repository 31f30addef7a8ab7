"""What TR, TE and TI say about the weighting. Ranges in ms, from vendors' brain protocols at 1.5 and 3 T.

Sources: the protocol trees of Siemens (MPRAGE, TSE, SPACE), GE (BRAVO, FSPGR, CUBE, T1 FLAIR) and Philips
(TFE, TSE, VISTA); Bernstein, King, Zhou, Handbook of MRI Pulse Sequences, 2004, chapters 12 and 14.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Weighting(StrEnum):
    """The contrast of a sequence, as far as its timing tells."""

    T1 = "T1"
    FLAIR = "FLAIR"
    T2 = "T2"
    PD = "PD"
    STIR = "STIR"
    T2_STAR = "T2*"
    DIFFUSION = "DIFFUSION"
    DOUBLE_INVERSION = "DOUBLE_INVERSION"
    MP2RAGE = "MP2RAGE"
    WHITE_MATTER_NULLED = "WHITE_MATTER_NULLED"


@dataclass(frozen=True)
class Timing:
    """The timing of a series."""

    tr_ms: float | None = None
    te_ms: float | None = None
    ti_ms: float | None = None
    flip_deg: float | None = None
    scanning_sequence: tuple[str, ...] = ()
    sequence_variant: tuple[str, ...] = ()
    b_value: float | None = None

    def text(self) -> str:
        """Return the timing as people write it."""
        parts = [
            f"{name} {value:g} ms"
            for name, value in (("TR", self.tr_ms), ("TE", self.te_ms), ("TI", self.ti_ms))
            if value is not None
        ]
        return ", ".join(parts) or "no timing"


#: T1 of cerebrospinal fluid, and how much later than its zero a FLAIR inverts at most: a double inversion
#: begins at 1.3 times that.
FLUID_T1_MS = 4300.0
FLAIR_TI_WITHIN = 1.25
#: Flip angles at which a spoiled gradient echo is T1-weighted, by the TR up to which they hold. Beyond them
#: lie angiograms: after contrast agent (TR 3, 25–40°) and by time of flight (TR 18–30, 15–25°); and balanced
#: steady states (TR 4–12, 35–70°).
SPOILED_FLIPS = ((5.0, 1.0, 20.0), (18.0, 1.0, 34.0), (60.0, 25.0, 90.0))


def fluid_null_ms(tr_ms: float) -> float:
    """Return the inversion time at which fluid gives no signal."""
    return FLUID_T1_MS * math.log(2 / (1 + math.exp(-tr_ms / FLUID_T1_MS)))


def _is_spoiled_t1(timing: Timing) -> bool:
    """Whether a gradient echo with short TR and TE is T1-weighted, as far as its flip angle tells."""
    tr, flip = timing.tr_ms or 0.0, timing.flip_deg
    if "MTC" in timing.sequence_variant or tr > SPOILED_FLIPS[-1][0]:  # an angiogram darkens the brain
        return False
    low, high = next((low, high) for longest, low, high in SPOILED_FLIPS if tr <= longest)
    return low <= flip <= high if flip else low == SPOILED_FLIPS[0][1]


def _within(value: float | None, low: float, high: float) -> bool:
    return value is not None and low <= value <= high


def weighting(timing: Timing) -> tuple[Weighting, str] | None:
    """Return the weighting and the reason, or None where the timing does not tell."""
    tr, te, ti = timing.tr_ms or None, timing.te_ms, timing.ti_ms or None
    sequences = set(timing.scanning_sequence) - {"RM"}  # "research mode" is no sequence
    text = timing.text()
    if timing.b_value:
        return Weighting.DIFFUSION, f"b-value {timing.b_value:g} s/mm²"
    if "EP" in sequences and not _within(ti, 1500, 3200):
        return Weighting.DIFFUSION, "an echo-planar sequence (diffusion, perfusion or functional)"

    # Fluid nulled by a long inversion time (from 1200 ms at 64 mT) and a long echo (2D TE 70–170, 3D nominal
    # 90–460).
    if _within(ti, 1200, 3200) and te is not None and te > 60:
        if tr is not None and ti is not None and ti > FLAIR_TI_WITHIN * fluid_null_ms(tr):
            return Weighting.DOUBLE_INVERSION, f"{text}: inverted before fluid is nulled, a double inversion"
        return Weighting.FLAIR, f"{text}: fluid is nulled, long echo"
    # Fat nulled by a short inversion time.
    if _within(ti, 80, 260) and tr is not None and tr > 1200:
        return Weighting.STIR, f"{text}: fat is nulled by a short inversion time"
    if te is not None and te < 6 and tr is not None and (ti or "GR" in sequences):
        if tr > 3600:
            return Weighting.MP2RAGE, f"{text}: a gradient echo with two inversion times (MP2RAGE)"
        if tr >= 1500 and _within(ti, 260, 500):
            return Weighting.WHITE_MATTER_NULLED, f"{text}: white matter is nulled (FGATIR)"
    # T1 FLAIR and T1 IR-TSE: an inversion time as long as MPRAGE's, a short echo. It is T1W.
    if _within(ti, 300, 1300) and te is not None and te <= 35 and tr is not None and tr <= 3600:
        kind = "inversion-prepared gradient echo" if te < 6 else "inversion-prepared spin echo (T1 FLAIR)"
        return Weighting.T1, f"{text}: {kind}, T1-weighted"
    if _within(ti, 200, 1400) and te is not None and te < 6:
        return Weighting.T1, f"{text}: inversion-prepared gradient echo, T1-weighted"
    if tr is None or te is None:
        return None
    if ti is None or ti < 80:
        gradient = ("GR" in sequences and "SE" not in sequences) or (
            not sequences and tr > 60 and _within(timing.flip_deg, 1, 40)
        )
        if (gradient or not sequences) and te < 8 and _is_spoiled_t1(timing):
            return Weighting.T1, f"{text}: spoiled gradient echo with short TR and TE, T1-weighted"
        if gradient and te >= 12:
            return Weighting.T2_STAR, f"{text}: gradient echo with a long echo"
        if gradient and 60 < tr <= 500 and te < 12 and (timing.flip_deg or 90) >= 40:
            return Weighting.T1, f"{text}: 2D gradient echo with a large flip angle, T1-weighted"
        if gradient and 1200 <= tr <= 3000 and te < 6:
            return Weighting.T1, f"{text}: inversion-prepared gradient echo without its TI, T1-weighted"
        if not gradient and 250 <= tr <= 1100 and te <= 40:
            return Weighting.T1, f"{text}: spin echo with short TR and TE, T1-weighted"
        if "IR" in sequences and (tr >= 6000 or (tr >= 4000 and te >= 250)) and te > 60:
            return Weighting.FLAIR, f"{text}, an inversion without its TI: fluid is nulled, long echo"
        if tr >= 1500 and te >= 60:
            return Weighting.T2, f"{text}: long TR and TE without inversion, T2-weighted"
        if tr >= 1500 and te < 60 and not gradient and "IR" not in sequences:
            return Weighting.PD, f"{text}: long TR and short TE, proton density"
    return None
