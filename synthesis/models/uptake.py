"""What a synthesis network says of every pixel: the change to expect, a chance to enhance, an amount.

Δ is the mean of T1C − T1W, learnt by its squared error: an absolute error would ask for the median, and for
an uncertain voxel that is "no enhancement". The chance is what the confidence speaks of. With the amount it
also says how Δ moves where enhancement is held to be more likely, or less, than in training. All in units of
the brain level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

#: Channels of a synthesis network's last convolution.
OUTPUTS = 3


@dataclass(frozen=True)
class Uptake:
    """The three parts, each (B, 1, S, S), float32."""

    #: T1C − T1W, on average.
    mean: Tensor
    #: Log odds of enhancement.
    log_odds: Tensor
    #: By how much T1C − T1W is larger where it enhances than where it does not; above 0.
    amplitude: Tensor

    @classmethod
    def of(cls, out: Tensor) -> Uptake:
        """Return the parts of a network's output (B, 3, S, S)."""
        mean, log_odds, raw = out.float().chunk(OUTPUTS, dim=1)
        return cls(mean, log_odds, functional.softplus(raw))

    @classmethod
    def together(cls, several: list[Uptake]) -> Uptake:
        """Return the mean of several networks' answers, part by part."""
        parts = ([getattr(one, name) for one in several] for name in ("mean", "log_odds", "amplitude"))
        return cls(*(torch.stack(part).mean(dim=0) for part in parts))

    def delta(self, slope: Tensor | float = 1.0, offset: Tensor | float = 0.0) -> Tensor:
        """Return Δ, if the log odds of enhancement were slope · log odds + offset."""
        return self.mean + (self.chance(slope, offset) - self.chance()) * self.amplitude

    def chance(self, slope: Tensor | float = 1.0, offset: Tensor | float = 0.0) -> Tensor:
        """Return the probability of enhancement, 0–1."""
        return torch.sigmoid(slope * self.log_odds + offset)
