"""The plain baseline: a U-Net of about as many parameters as TA-ViT of the same sizes (Ronneberger 2015)."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from synthesis.models.blocks import GROUPS
from synthesis.models.mpr_vit import Sizes
from synthesis.models.ta_vit import TaVit
from synthesis.models.uptake import OUTPUTS

#: Each level has half the rows and columns and twice the channels of the one above: 120, 60, 30, 15.
LEVELS = 4
#: Step in which widths are tried, as a share of TA-ViT's.
STEP = 1 / 64


class UNet(nn.Module):
    """Images (B, in, S, S) in, the parts of `Uptake` out. S is a multiple of 8."""

    def __init__(self, sizes: Sizes, out_channels: int = OUTPUTS) -> None:
        super().__init__()
        self.sizes = sizes
        widths = widths_of(sizes)
        self.down = nn.ModuleList(
            _convolutions(before, after) for before, after in pairwise((sizes.in_channels, *widths))
        )
        self.pool = nn.MaxPool2d(2)
        self.widen = nn.ModuleList(
            nn.ConvTranspose2d(below, width, 2, stride=2) for width, below in pairwise(widths)
        )
        self.up = nn.ModuleList(_convolutions(2 * width, width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], out_channels, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(cast(Tensor, self.head.bias))

    def forward(self, images: Tensor, corners: Tensor | None = None) -> Tensor:
        """Return (B, out, S, S). Where a crop lies, `corners`, a convolution does not know."""
        levels: list[Tensor] = []
        features = images
        for level, block in enumerate(self.down):
            features = block(self.pool(features) if level else features)
            levels.append(features)
        for widen, block, beside in zip(
            reversed(self.widen), reversed(self.up), reversed(levels[:-1]), strict=True
        ):
            features = block(torch.cat([beside, widen(features)], dim=1))
        return cast(Tensor, self.head(features))


@cache
def widths_of(sizes: Sizes) -> tuple[int, ...]:
    """Return the channels of each level that bring the U-Net next to TA-ViT's number of parameters."""
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in TaVit(sizes).parameters())
    tried = {_scaled(sizes.width, float(scale)) for scale in np.arange(0.5, 3.0, STEP)}
    return min(sorted(tried), key=lambda widths: abs(_parameters(widths) - wanted))


def _scaled(width: int, scale: float) -> tuple[int, ...]:
    return tuple(GROUPS * max(1, round(scale * width * 2**level / GROUPS)) for level in range(LEVELS))


def _parameters(widths: tuple[int, ...]) -> int:
    """Return the parameters of all convolutions of 3×3 and 2×2; norms, biases and the head are below 1 %."""
    inner = sum(9 * (before * after + after**2) for before, after in pairwise((2, *widths)))
    return inner + sum(4 * below * width + 9 * 3 * width**2 for width, below in pairwise(widths))


def _convolutions(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(GROUPS, after), nn.SiLU()),
        *(nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(GROUPS, after), nn.SiLU()),
    )
