"""TA-ViT: the tumour-aware network (Med Phys 2025, doi 10.1002/mp.17600), after its public description.

A latent z of 30×30×256 (or 60×60×128) says where the tumour is. Each transformer of the bottleneck takes its
norm parameters from token + latent, place by place. The description can be read in two ways, `Sizes.latent`
says in which: z is encoded from the tumour map that MPR-ViT predicts ("map"), which may then be drawn or
edited as well, or it is projected from the features of that MPR-ViT ("features"). `Uptake` reads the output.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from synthesis.models.blocks import ArtBlock, Decoder, Encoder
from synthesis.models.mpr_vit import Sizes, bottleneck
from synthesis.models.uptake import OUTPUTS

#: Of the map's encoder, beside the images' encoder of the same network; and the least that its norms divide.
MAP_WIDTH, LEAST_WIDTH = 0.5, 8


class MapEncoder(nn.Module):
    """The tumour map to z: the first stages of an MPR-ViT, then 1×1."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = max(int(MAP_WIDTH * sizes.width), LEAST_WIDTH)
        self.shrink = sizes.map_shrink
        self.encoder = Encoder(1, width, sizes.latent_stage)
        self.project = nn.Conv2d(width * sizes.halved, sizes.latent_channels, 1)

    def forward(self, tumour: Tensor) -> Tensor:
        """Return z (B, Cz, h, w) of the map (B, 1, S, S), 0–1."""
        seen = functional.avg_pool2d(tumour, self.shrink) if self.shrink > 1 else tumour
        return cast(Tensor, self.project(self.encoder(seen)[0]))


class TaVit(nn.Module):
    """Images and what z is read from in, the parts of `Uptake` out."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        if sizes.latent == "none":
            raise ValueError("Without a latent the network is an MprVit.")
        self.sizes = sizes
        self.encoder = Encoder(sizes.in_channels, sizes.width)
        if sizes.latent == "map":
            self.map_encoder = MapEncoder(sizes)
        else:
            self.feature_project = nn.Conv2d(sizes.stage_channels, sizes.latent_channels, 1)
        patch = sizes.latent_patch
        self.latents = nn.ModuleDict(
            {
                str(index): nn.Conv2d(sizes.latent_channels, sizes.dim, patch, stride=patch)
                for index in sizes.transformers_at
            }
        )
        self.bottleneck = bottleneck(sizes, conditioned=True)
        self.decoder = Decoder(OUTPUTS, sizes.width, sizes.skips)

    def latent(self, source: Tensor) -> Tensor:
        """Return z (B, Cz, h, w).

        `source` is the tumour map (B, 1, S, S), or the `MprVit.features` of a segmentation network that is as
        wide as this one.
        """
        read = self.map_encoder if self.sizes.latent == "map" else self.feature_project
        return cast(Tensor, read(source))

    def forward(self, images: Tensor, source: Tensor | None, corners: Tensor | None = None) -> Tensor:
        """Return (B, 3, S, S) for images (B, in, S, S) and what z is read from; None leaves z out."""
        z = None if source is None else self.latent(source)
        features, half, whole = self.encoder(images)
        for index, block in enumerate(self.bottleneck):
            transforms = cast(ArtBlock, block).transformer is not None
            here = self.latents[str(index)](z) if transforms and z is not None else None  # (B, dim, h, w)
            features = block(features, here, corners)
        return cast(Tensor, self.decoder(features, half, whole))
