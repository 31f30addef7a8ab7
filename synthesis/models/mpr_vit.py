"""MPR-ViT: encoder, residual and transformer bottleneck, decoder (Eidex 2024, arXiv 2407.02616).

Used here to find the tumour; with another number of outputs the same class synthesises.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

from torch import Tensor, nn

from synthesis.models.attention import HEAD_DIM
from synthesis.models.blocks import ArtBlock, Decoder, Encoder, VisionTransformer


@dataclass(frozen=True)
class Sizes:
    """All that decides the shape of a network."""

    #: Rows and columns of the images.
    size: int = 120
    #: Channels of the stem; twice and four times as many after each halving.
    width: int = 32
    #: Blocks of the bottleneck, and which of them hold a transformer.
    blocks: int = 4
    transformers_at: tuple[int, ...] = (1, 3)
    #: Channels, heads and blocks of each transformer.
    dim: int = 192
    heads: int = 3
    depth: int = 2
    #: The token grid is this many rows and columns, whatever the image's size.
    tokens: int = 30
    #: Whether features of the encoder are added in the decoder.
    skips: bool = False

    def __post_init__(self) -> None:
        if self.dim != self.heads * HEAD_DIM:
            raise ValueError(f"{self.heads} heads of {HEAD_DIM} channels do not make {self.dim}.")
        if self.size % (4 * self.tokens):
            raise ValueError(f"A token grid of {self.tokens} does not divide images of {self.size}.")

    @property
    def patch(self) -> int:
        """Features per token, along rows and columns."""
        return self.size // 4 // self.tokens

    def to_json(self) -> dict[str, Any]:
        """Return the sizes as JSON-compatible values."""
        return asdict(self) | {"transformers_at": list(self.transformers_at)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Sizes:
        """Return the sizes of a card; raises `TypeError` or `ValueError` when they make no network."""
        return cls(**{**values, "transformers_at": tuple(values["transformers_at"])})


SIZES = {
    "small": Sizes(),
    "medium": Sizes(width=48, blocks=6, transformers_at=(1, 4), dim=384, heads=6, depth=3),
    "base": Sizes(width=64, blocks=9, transformers_at=(1, 6), dim=512, heads=8, depth=4),
}


def bottleneck(sizes: Sizes, conditioned: bool) -> nn.ModuleList:
    """Return the ART blocks of a network of these sizes."""
    channels = 4 * sizes.width
    return nn.ModuleList(
        ArtBlock(
            channels,
            VisionTransformer(
                channels, sizes.dim, sizes.heads, sizes.depth, sizes.tokens, sizes.patch, conditioned
            )
            if index in sizes.transformers_at
            else None,
        )
        for index in range(sizes.blocks)
    )


class MprVit(nn.Module):
    """T1W and FLAIR in, `out_channels` maps out: logits of the tumour, or Δ for synthesis."""

    def __init__(self, sizes: Sizes, in_channels: int = 2, out_channels: int = 1) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = Encoder(in_channels, sizes.width)
        self.bottleneck = bottleneck(sizes, conditioned=False)
        self.decoder = Decoder(out_channels, sizes.width, sizes.skips)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, out, S, S) for (B, in, S, S)."""
        features, half, whole = self.encoder(images)
        for block in self.bottleneck:
            features = block(features)
        return cast(Tensor, self.decoder(features, half, whole))
