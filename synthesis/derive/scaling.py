"""How a volume becomes stored values: the T1W's own values, where they fit into 16 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: A brain level of fewer counts than this would turn to steps; it is scaled up to `SCALED_LEVEL`.
LEAST_LEVEL, SCALED_LEVEL = 20.0, 1000.0
LARGEST_VALUE = 2**16 - 1
LARGEST_SIGNED = 2**15 - 1

Pixels = npt.NDArray[np.uint16] | npt.NDArray[np.int16]


@dataclass(frozen=True)
class Scaling:
    """Stored value = (value − offset) · factor; the T1W's own values where that is possible."""

    offset: float
    factor: float
    bits_stored: int
    signed: bool = False

    def stored(self, values: npt.NDArray[np.float32]) -> Pixels:
        """Return what is stored for these values."""
        scaled = np.rint((values.astype(np.float64) - self.offset) * self.factor)
        if self.signed:
            return np.clip(scaled, -LARGEST_SIGNED, LARGEST_SIGNED).astype(np.int16)
        return np.clip(scaled, 0, 2**self.bits_stored - 1).astype(np.uint16)

    def window(self, center: float, width: float) -> tuple[float, float]:
        """Return Window Center and Width in stored values, of those in the volume's values."""
        return (center - self.offset) * self.factor, max(1.0, width * self.factor)


def scaling_of(
    values: npt.NDArray[np.float32], level: float, bits_stored: int
) -> tuple[Scaling, tuple[str, ...]]:
    """Return how the volume is stored, and what differs from the T1W's values."""
    offset = min(0.0, float(np.floor(values.min())))
    factor = 1.0
    if level < LEAST_LEVEL:
        factor = SCALED_LEVEL / level
    highest = float(values.max()) - offset
    if highest * factor > LARGEST_VALUE:
        factor = LARGEST_VALUE / highest
    bits = 12 if bits_stored <= 12 and highest * factor < 2**12 - 0.5 else 16
    said: tuple[str, ...] = ()
    if factor != 1.0:
        said += (f"The synthetic series stores {factor:.4g} times the T1W's values.",)
    if offset:
        said += (f"The synthetic series stores the T1W's values plus {-offset:.0f}: some are negative.",)
    return Scaling(offset, factor, bits), said


def scaling_of_change(values: npt.NDArray[np.float32], t1c: Scaling) -> tuple[Scaling, tuple[str, ...]]:
    """Return how a change of the T1W is stored: signed, in steps of the synthetic T1C where they fit."""
    highest = float(np.abs(values).max(initial=0.0))
    if highest * t1c.factor <= LARGEST_SIGNED:
        return Scaling(0.0, t1c.factor, 16, signed=True), ()
    factor = LARGEST_SIGNED / highest
    return Scaling(0.0, factor, 16, signed=True), (
        f"The difference stores {factor:.4g} times the T1W's values.",
    )


def scaling_to_level(level: float) -> Scaling:
    """Return how a map in the T1W's values is stored as thousandths of the brain's level."""
    return Scaling(0.0, SCALED_LEVEL / level, 16)
