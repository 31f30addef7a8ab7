"""What a synthesis network says of every pixel: a change without agent, a chance to enhance, an amount.

One regression of T1C − T1W answers an uncertain voxel with its median, and that is "no enhancement". So the
three are predicted apart (a hurdle model): Δ = base + share · amplitude, and the share is the chance of
enhancement when the mean is wanted. All in units of the brain level.
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

    #: T1C − T1W where nothing enhances.
    base: Tensor
    #: Log odds of enhancement.
    log_odds: Tensor
    #: What is added where it does; above 0.
    amplitude: Tensor

    @classmethod
    def of(cls, out: Tensor) -> Uptake:
        """Return the parts of a network's output (B, 3, S, S)."""
        base, log_odds, raw = out.float().chunk(OUTPUTS, dim=1)
        return cls(base, log_odds, functional.softplus(raw))

    @classmethod
    def mean(cls, several: list[Uptake]) -> Uptake:
        """Return the mean of several networks' answers, part by part."""
        parts = ([getattr(one, name) for one in several] for name in ("base", "log_odds", "amplitude"))
        return cls(*(torch.stack(part).mean(dim=0) for part in parts))

    def delta(self, slope: float = 1.0, offset: Tensor | float = 0.0) -> Tensor:
        """Return Δ, its share being the logistic function of slope · log odds + offset."""
        return self.base + self.chance(slope, offset) * self.amplitude

    def chance(self, slope: float = 1.0, offset: Tensor | float = 0.0) -> Tensor:
        """Return the probability of enhancement, 0–1."""
        return torch.sigmoid(slope * self.log_odds + offset)
