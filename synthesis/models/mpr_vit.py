"""MPR-ViT: encoder, residual and transformer bottleneck, decoder (Eidex 2024, arXiv 2407.02616).

It finds the tumour. With `OUTPUTS` channels the same class synthesises without a condition: the baseline, and
what TA-ViT is without its latent.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, cast, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from synthesis.models.attention import HEAD_DIM
from synthesis.models.blocks import ArtBlock, Decoder, Encoder, VisionTransformer

#: What TA-ViT's latent is read from: the tumour map, by an encoder of its own, or the segmentation network's
#: features. With none the network is MPR-ViT.
Latent = Literal["map", "features", "none"]
#: The latent's channels, by the stage of the encoder that it is taken after: at 120² it is 30×30×256 or, one
#: halving earlier, 60×60×128.
LATENT_CHANNELS = {2: 128, 3: 256}
#: T1W and FLAIR.
CONTRASTS = 2
Value = TypeVar("Value", bound=np.generic)


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
    #: Whether the FLAIR is looked at beside the T1W, and how many planes above and below (2.5D).
    flair: bool = True
    neighbours: int = 0
    #: TA-ViT's latent: what it is read from, and after which stage of the encoder.
    latent: Latent = "map"
    latent_stage: int = 3
    #: The map is encoded after averaging over squares of so many pixels.
    map_shrink: int = 1

    def __post_init__(self) -> None:
        if self.dim != self.heads * HEAD_DIM:
            raise ValueError(f"{self.heads} heads of {HEAD_DIM} channels do not make {self.dim}.")
        if self.size % (4 * self.tokens):
            raise ValueError(f"A token grid of {self.tokens} does not divide images of {self.size}.")
        if self.latent not in get_args(Latent) or self.latent_stage not in LATENT_CHANNELS:
            raise ValueError(f"There is no latent of {self.latent} after stage {self.latent_stage}.")
        if self.neighbours < 0:
            raise ValueError(f"{self.neighbours} neighbours cannot be looked at.")
        if self.map_shrink < 1 or (self.map_shrink > 1 and self.latent != "map"):
            raise ValueError(f"A latent of {self.latent} cannot be shrunk by {self.map_shrink}.")
        if self.size % (self.map_shrink * self.tokens * self.halved):
            raise ValueError(f"A latent of a map shrunk by {self.map_shrink} is coarser than the token grid.")

    @property
    def patch(self) -> int:
        """Features per token, along rows and columns."""
        return self.size // 4 // self.tokens

    @property
    def in_channels(self) -> int:
        """Channels of the images."""
        return (CONTRASTS if self.flair else 1) * (1 + 2 * self.neighbours)

    @property
    def halved(self) -> int:
        """How many times fewer rows and columns there are after `latent_stage`, and more channels."""
        return int(2 ** (self.latent_stage - 1))

    @property
    def stage_channels(self) -> int:
        """Channels of an encoder of this width after `latent_stage`."""
        return self.width * self.halved

    @property
    def latent_channels(self) -> int:
        """Channels of the latent."""
        return LATENT_CHANNELS[self.latent_stage]

    @property
    def latent_patch(self) -> int:
        """Places of the latent per token, along rows and columns."""
        return self.size // (self.map_shrink * self.halved * self.tokens)

    def to_json(self) -> dict[str, Any]:
        """Return the sizes as JSON-compatible values."""
        return asdict(self) | {"transformers_at": list(self.transformers_at)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Sizes:
        """Return the sizes of a card; raises `TypeError` or `ValueError` when they make no network."""
        return cls(**{**values, "transformers_at": tuple(values["transformers_at"])})


#: TA-ViT (and MPR-ViT with three outputs); at 240² the map is encoded at 120². Multiplications are those of
#: one slice, attention counted:
#:
#:          120²  10⁶ parameters  10⁹ multiplications   240²  10⁶ parameters  10⁹ multiplications
#: small          6.5   (5.4)        8.1  (6.9)                6.8  (5.7)       20.3  (19.2)
#: medium        25.9  (20.1)       29.2 (23.6)               26.8 (21.0)       60.2  (54.7)
#: base          58.6  (45.2)       63.3 (50.8)               60.2 (46.8)      127.9 (115.4)
SIZES = {
    "small": Sizes(),
    "medium": Sizes(width=48, blocks=6, transformers_at=(1, 4), dim=384, heads=6, depth=3),
    "base": Sizes(width=64, blocks=9, transformers_at=(1, 6), dim=512, heads=8, depth=4),
}


def channels_of(values: npt.NDArray[Value], planes: npt.ArrayLike, sizes: Sizes) -> npt.NDArray[Value]:
    """Return the images that a network of these sizes sees of some planes of a volume, (B, C, S, S).

    The plane itself comes first, then the one below and the one above it, then the next two; of each the T1W,
    then the FLAIR. Beyond the ends of the volume the last plane stands again.

    Parameters
    ----------
    values : ndarray
        (D, 2, S, S): T1W and FLAIR of one patient.
    planes : array_like
        (B,): indices of planes.
    """
    offsets = [0, *(sign * away for away in range(1, sizes.neighbours + 1) for sign in (-1, 1))]
    near = np.clip(np.asarray(planes)[:, None] + np.array(offsets), 0, len(values) - 1)  # (B, 2k+1)
    seen = values[near][:, :, : CONTRASTS if sizes.flair else 1]  # (B, 2k+1, contrasts, S, S)
    return np.reshape(seen, (len(near), sizes.in_channels, *values.shape[2:]))


def narrowed(images: Tensor, sizes: Sizes) -> Tensor:
    """Return those channels that a network of these sizes sees.

    `images` (B, 2·(2k+1), S, S) are T1W and FLAIR as `channels_of` orders them, of as many neighbours or
    more.
    """
    seen = images[:, : CONTRASTS * (1 + 2 * sizes.neighbours)]
    return seen if sizes.flair else seen[:, ::CONTRASTS]


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
    """Images in, `out_channels` maps out: logits of the tumour, or the parts of `Uptake`."""

    def __init__(self, sizes: Sizes, out_channels: int = 1) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = Encoder(sizes.in_channels, sizes.width)
        self.bottleneck = bottleneck(sizes, conditioned=False)
        self.decoder = Decoder(out_channels, sizes.width, sizes.skips)

    def forward(self, images: Tensor, corners: Tensor | None = None) -> Tensor:
        """Return (B, out, S, S) for (B, in, S, S); `corners` (B, 2) places crops in the token grid."""
        quarter, half, whole = self.encoder(images)
        return cast(Tensor, self.decoder(self._mixed(quarter, corners), half, whole))

    def features(self, images: Tensor, stage: int, corners: Tensor | None = None) -> Tensor:
        """Return what TA-ViT may read its latent from.

        Stage 3 is what leaves the bottleneck, (B, 4w, S/4, S/4), stage 2 the encoder's (B, 2w, S/2, S/2).
        """
        quarter, half, _ = self.encoder(images)
        return self._mixed(quarter, corners) if stage == 3 else cast(Tensor, half)

    def _mixed(self, features: Tensor, corners: Tensor | None) -> Tensor:
        for block in self.bottleneck:
            features = block(features, None, corners)
        return features
