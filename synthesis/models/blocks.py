"""The parts of both networks: residual convolutions, transformer blocks, and the two together."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from synthesis.models.attention import SelfAttention

GROUPS = 8
MLP_RATIO = 4


class ResidualBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))), 3×3, channels kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(GROUPS, channels), nn.SiLU(), _conv3(channels, channels))
        self.second = nn.Sequential(nn.GroupNorm(GROUPS, channels), nn.SiLU(), _conv3(channels, channels))

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        return features + cast(Tensor, self.second(self.first(features)))


class TransformerBlock(nn.Module):
    """Pre-norm transformer block; with a condition, adaLN-zero with parameters for each token.

    Peebles 2023 adds one conditioning vector per image to every block. Here the latent of the tumour map
    differs from place to place: the parameters of token i come from token i + latent i. The token is normed
    for this: gate and scale multiply what is added to it, and unnormed they would feed on themselves. Scale,
    shift and gate are zero before training, so that a fresh conditioned block is the identity.
    """

    def __init__(self, dim: int, heads: int, conditioned: bool) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(dim, elementwise_affine=not conditioned, eps=1e-6)
        self.norm_mlp = nn.LayerNorm(dim, elementwise_affine=not conditioned, eps=1e-6)
        self.attention = SelfAttention(dim, heads)
        self.mlp = nn.Sequential(
            nn.Linear(dim, MLP_RATIO * dim), nn.GELU(approximate="tanh"), nn.Linear(MLP_RATIO * dim, dim)
        )
        self.modulation = nn.Linear(dim, 6 * dim) if conditioned else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens: Tensor, latent: Tensor | None = None) -> Tensor:
        """Return (B, N, dim). `latent` is (B, N, dim), None for an unconditioned block."""
        if self.modulation is None:
            tokens = tokens + self.attention(self.norm_attention(tokens))
            return cast(Tensor, tokens + self.mlp(self.norm_mlp(tokens)))
        normed = self.norm_attention(tokens)
        condition = normed if latent is None else normed + latent
        parameters = self.modulation(functional.silu(condition))  # (B, N, 6·dim)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = parameters.chunk(6, dim=-1)
        tokens = tokens + gate_a * self.attention(normed * (1 + scale_a) + shift_a)
        return cast(Tensor, tokens + gate_m * self.mlp(self.norm_mlp(tokens) * (1 + scale_m) + shift_m))


class VisionTransformer(nn.Module):
    """Features to tokens, transformer blocks, and back to features of the same shape."""

    def __init__(
        self, channels: int, dim: int, heads: int, depth: int, tokens: int, patch: int, conditioned: bool
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, dim, patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, dim, tokens, tokens))
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads, conditioned) for _ in range(depth))
        self.unembed = nn.ConvTranspose2d(dim, channels, patch, stride=patch)

    def forward(
        self, features: Tensor, latent: Tensor | None = None, corners: Tensor | None = None
    ) -> Tensor:
        """Return (B, C, h, w). `latent` is (B, dim, h/patch, w/patch).

        `corners` (B, 2) places crops in the token grid, by the row and column of their first token.
        """
        embedded = self.embed(features)  # (B, dim, h/p, w/p)
        rows, columns = embedded.shape[-2:]
        positions = self._positions(rows, columns, corners)
        tokens = (embedded + positions).flatten(2).transpose(1, 2)  # (B, N, dim)
        latents = None if latent is None else latent.flatten(2).transpose(1, 2)  # (B, N, dim)
        for block in self.blocks:
            tokens = block(tokens, latents)
        grid = tokens.transpose(1, 2).unflatten(2, (rows, columns))  # (B, dim, h/p, w/p)
        return cast(Tensor, self.unembed(grid))

    def _positions(self, rows: int, columns: int, corners: Tensor | None) -> Tensor:
        """Return what is added to the tokens, (1 or B, dim, rows, columns)."""
        learned: Tensor = self.positions
        if corners is not None:
            return torch.stack(
                [
                    learned[0, :, row : row + rows, column : column + columns]
                    for row, column in corners.tolist()
                ]
            )
        if learned.shape[-2:] != (rows, columns):
            return functional.interpolate(learned, (rows, columns), mode="bicubic", align_corners=False)
        return learned


class ArtBlock(nn.Module):
    """Aggregated residual transformer block (Dalmaz 2022): transformer, compression, residual convolution.

    Without a transformer it is the residual convolution alone.
    """

    def __init__(self, channels: int, transformer: VisionTransformer | None) -> None:
        super().__init__()
        self.transformer = transformer
        if transformer is not None:
            self.compress = nn.Sequential(
                _conv3(2 * channels, channels),
                nn.GroupNorm(GROUPS, channels),
                nn.SiLU(),
                _conv3(channels, channels),
            )
            self.skip = nn.Conv2d(2 * channels, channels, 1)
        self.residual = ResidualBlock(channels)

    def forward(
        self, features: Tensor, latent: Tensor | None = None, corners: Tensor | None = None
    ) -> Tensor:
        """Return (B, C, h, w)."""
        if self.transformer is not None:
            mixed = self.transformer(features, latent, corners)
            both = torch.cat([features, mixed], dim=1)  # (B, 2C, h, w)
            features = self.compress(both) + self.skip(both)
        return cast(Tensor, self.residual(features))


class Encoder(nn.Module):
    """Stages of a convolution and a residual block: at S×S and 1 width, then each at half and twice that."""

    def __init__(self, in_channels: int, width: int, count: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 7, padding=3), ResidualBlock(width)]
        for _ in range(count - 1):
            layers += [nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), ResidualBlock(2 * width)]
            width *= 2
        self.stages = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the features of each stage, the last first: S/4 (4 widths), S/2 (2 widths), S (1 width)."""
        found: tuple[Tensor, ...] = ()
        features = image
        for first in range(0, len(self.stages), 2):
            features = self.stages[first + 1](self.stages[first](features))
            found = (features, *found)
        return found


class Decoder(nn.Module):
    """The encoder's mirror with transposed convolutions; the last convolution is zero before training.

    With skips, features of the encoder are added on the way up, by 1×1 convolutions that are zero before
    training: in few steps of training Δ stays a blur without them.
    """

    def __init__(self, out_channels: int, width: int, skips: bool) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            ResidualBlock(4 * width),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1),  # 4 = 2·2: no checkerboard
            ResidualBlock(2 * width),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            ResidualBlock(width),
            nn.GroupNorm(GROUPS, width),
            nn.SiLU(),
        )
        self.skip_half = nn.Conv2d(2 * width, 2 * width, 1) if skips else None
        self.skip_whole = nn.Conv2d(width, width, 1) if skips else None
        self.head = nn.Conv2d(width, out_channels, 7, padding=3)
        for zero in (self.skip_half, self.skip_whole, self.head):
            if zero is not None:
                nn.init.zeros_(zero.weight)
                nn.init.zeros_(cast(Tensor, zero.bias))

    def forward(self, features: Tensor, half: Tensor, whole: Tensor) -> Tensor:
        """Return (B, out, S, S) from features at S/4, and the encoder's at S/2 and S."""
        up = self.stages[:2](features)
        up = self.stages[2:4](up if self.skip_half is None else up + self.skip_half(half))
        up = up if self.skip_whole is None else up + self.skip_whole(whole)
        return cast(Tensor, self.head(self.stages[4:](up)))


def _conv3(from_channels: int, to_channels: int) -> nn.Conv2d:
    return nn.Conv2d(from_channels, to_channels, 3, padding=1)
