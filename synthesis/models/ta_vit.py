"""TA-ViT: the tumour-aware network (Med Phys 2025, doi 10.1002/mp.17600), after its public description.

The predicted tumour map is compressed to a latent of 30×30×256. Each transformer of the bottleneck takes its
norm parameters from token + latent, place by place. The output is Δ = T1C − T1 in units of the brain level.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from synthesis.models.blocks import ArtBlock, Decoder, Encoder
from synthesis.models.mpr_vit import Sizes, bottleneck

LATENT_CHANNELS = 256


class MapEncoder(nn.Module):
    """The tumour map (B, 1, S, S) to the latent (B, 256, S/4, S/4): an encoder of MPR-ViT's kind."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = Encoder(1, width)
        self.project = nn.Conv2d(4 * width, LATENT_CHANNELS, 1)

    def forward(self, tumour: Tensor) -> Tensor:
        """Return (B, 256, S/4, S/4)."""
        return cast(Tensor, self.project(self.encoder(tumour)[0]))


class TaVit(nn.Module):
    """T1W, FLAIR and the soft tumour map in, Δ out."""

    def __init__(self, sizes: Sizes, in_channels: int = 2) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = Encoder(in_channels, sizes.width)
        self.map_encoder = MapEncoder(max(sizes.width // 2, 8))
        self.latents = nn.ModuleDict(
            {
                str(index): nn.Conv2d(LATENT_CHANNELS, sizes.dim, sizes.patch, stride=sizes.patch)
                for index in sizes.transformers_at
            }
        )
        self.bottleneck = bottleneck(sizes, conditioned=True)
        self.decoder = Decoder(1, sizes.width, sizes.skips)

    def forward(self, images: Tensor, tumour: Tensor) -> Tensor:
        """Return Δ (B, 1, S, S) for images (B, in, S, S) and the map (B, 1, S, S), 0–1."""
        latent = self.map_encoder(tumour)  # (B, 256, S/4, S/4)
        features, half, whole = self.encoder(images)
        for index, block in enumerate(self.bottleneck):
            here = self.latents[str(index)](latent) if cast(ArtBlock, block).transformer is not None else None
            features = block(features, here)
        return cast(Tensor, self.decoder(features, half, whole))
