"""What is trained, by name. A recipe and the cache decide everything; the command line tunes nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    name: str
    #: "segmentation" (MPR-ViT, the tumour) or "synthesis" (TA-ViT, Δ).
    network: str
    steps: int
    sizes: str = "small"
    #: Whether features of the encoder reach the decoder.
    skips: bool = False
    #: The maps that condition the synthesis: "drawn" (the SEG) or "predicted"; perturbed in both cases.
    maps: str = "predicted"
    #: Name of a recipe whose weights are taken where names and shapes agree.
    start_from: str = ""
    batch: int = 8
    learning_rate: float = 3e-4
    warmup: int = 30
    weight_decay: float = 0.01
    ema: float = 0.99
    seed: int = 7
    #: Share of the slices that must show tumour.
    tumour_share: float = 0.5
    #: What an enhancing voxel weighs more than another of the tumour in the synthesis loss.
    enhancing_weight: float = 1.0
    #: Share of the slices into which a lesion of `lesions` is transplanted.
    transplants: float = 0.5


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("segmentation-small", "segmentation", steps=240, maps="drawn", transplants=0.3),
        Recipe("synthesis-small-start", "synthesis", 240, maps="drawn", enhancing_weight=6.0),
        Recipe(
            "synthesis-small",
            "synthesis",
            steps=300,
            transplants=0.4,
            skips=True,
            start_from="synthesis-small-start",
            seed=8,
        ),
        Recipe(
            "synthesis-small-longer",
            "synthesis",
            steps=300,
            learning_rate=1e-3,
            enhancing_weight=3.0,
            skips=True,
            start_from="synthesis-small",
            seed=9,
        ),
    )
}
