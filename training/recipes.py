"""What is trained, each a function. Recipe, fold and cache decide everything; nothing else tunes a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

#: What a batch shows: lesion patches of 32×32, or windows around the head.
View = Literal["lesions", "heads"]
#: What is asked of Δ: a small squared error over the batch, or in each picture and region many decibels.
Loss = Literal["squared", "decibels"]


@dataclass(frozen=True)
class Stage:
    """A part of a run: so many steps of so many pictures of one kind."""

    view: View
    steps: int
    batch: int


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    #: "segmentation" and "mpr_vit" are MPR-ViT (tumour; uptake), "unet" is the plain baseline.
    network: Literal["segmentation", "mpr_vit", "ta_vit", "unet"]
    stages: tuple[Stage, ...]
    name: str = ""
    sizes: str = "small"
    #: Rows and columns of the images: 120, or 240 where the cache was prepared so.
    grid: int = 120
    #: Whether features of the encoder reach the decoder.
    skips: bool = False
    #: Whether the FLAIR is looked at beside the T1W, and how many planes on each side.
    flair: bool = True
    neighbours: int = 0
    #: What TA-ViT's latent is read from, and after which stage (`Sizes`); with "features", of which recipe.
    latent: Literal["map", "features"] = "map"
    latent_stage: int = 3
    finder: str = ""
    #: What conditions the synthesis: the "drawn" maps, or those that the recipe of this name predicted out of
    #: fold; made worse or not.
    maps: str = "drawn"
    perturbed: bool = True
    #: The cache to train from, and the stem of the file in `folds` that says who is held out.
    data: str = "lgg"
    folds: str = "lgg"
    #: Name of a recipe whose weights are taken where names and shapes agree.
    start_from: str = ""
    #: Whether the mean of the weights at both ends answers: what it started from, and where it came to.
    both_ends: bool = False
    #: Muon where steps are few and dear; it leaves norms, biases and the first and last layer to AdamW.
    optimiser: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3
    warmup: int = 40
    weight_decay: float = 0.03
    ema: float = 0.995
    seed: int = 7
    loss: Loss = "squared"
    #: Share of the pictures that must show tumour.
    tumour_share: float = 0.5
    #: Share of the slices into which a lesion of `lesions` is transplanted.
    transplants: float = 0.35
    #: Share of the slices that are shown without skull.
    stripped: float = 0.15
    #: By how much the signal varies over a slice, as over a head in a coil; and what noise is added.
    shading: float = 0.0
    noise: float = 0.0
    #: Steps between two looks at what is held out.
    validate_every: int = 120
    #: Looks without improvement after which the run stops and its best weights are kept; 0 goes to the end.
    patience: int = 0

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def is_oracle(self) -> bool:
        """Whether the synthesis learns to rely on the tumour as it was drawn."""
        return self.network == "ta_vit" and self.maps == "drawn" and not self.perturbed

    def stage(self, step: int) -> Stage:
        """Return the stage that this step belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]


RECIPES: dict[str, Recipe] = {}


def recipe(function: Callable[[], Recipe]) -> Callable[[], Recipe]:
    """Enter what the function returns in `RECIPES`, under the function's name with hyphens."""
    name = function.__name__.replace("_", "-")
    RECIPES[name] = replace(function(), name=name)
    return function


@recipe
def small_lesions() -> Recipe:
    """Enhancing tumours alone: TA-ViT on the patches of `lesions`, where the number of them is."""
    return Recipe("ta_vit", (Stage("lesions", 640, 64),), skips=True, optimiser="muon")


@recipe
def small_outline() -> Recipe:
    """The shipped MPR-ViT: the FLAIR abnormality, one network a fold, from nothing."""
    return Recipe("segmentation", (Stage("heads", 240, 8),), optimiser="muon", transplants=0.25)


@recipe
def small_segmentation() -> Recipe:
    """`small_outline` gone on with, on less tumour, the neighbouring planes in view.

    Better in `lgg` and worse beyond it (LOG.md, sixth round): `small_synthesis` learnt from its maps.
    """
    return replace(
        small_outline(),
        stages=(Stage("heads", 500, 8),),
        start_from="small-outline",
        neighbours=1,
        tumour_share=0.4,
        transplants=0.15,
        shading=0.12,
        noise=0.03,
        seed=12,
        validate_every=100,
    )


@recipe
def small_heads() -> Recipe:
    """TA-ViT from nothing, one network a fold, on whole heads with lesions transplanted."""
    return Recipe(
        "ta_vit",
        (Stage("heads", 1100, 8),),
        skips=True,
        maps="small-segmentation",
        optimiser="muon",
        transplants=0.25,
        seed=8,
        validate_every=100,
    )


@recipe
def small_longer() -> Recipe:
    """`small_heads` gone on with, tumours and lesions nearer to how often they occur.

    Two ends of a cosine, averaged, do better than either (Izmailov 2018, arXiv 1803.05407).
    """
    return replace(
        small_heads(),
        stages=(Stage("heads", 500, 8),),
        start_from="small-heads",
        both_ends=True,
        learning_rate=7e-4,
        tumour_share=0.3,
        transplants=0.1,
        seed=10,
    )


@recipe
def small_decibels() -> Recipe:
    """`small_longer` gone on with, every picture and region counting by its decibels."""
    return replace(
        small_longer(),
        stages=(Stage("heads", 700, 8),),
        start_from="small-longer",
        loss="decibels",
        learning_rate=5e-4,
        tumour_share=0.5,
        transplants=0.15,
        shading=0.12,
        noise=0.03,
        seed=11,
    )


@recipe
def small_synthesis() -> Recipe:
    """The shipped TA-ViT: `small_decibels` gone on with, every other step on lesions alone.

    Most gliomas of `lgg` do not enhance, nearly all lesions do: what is learnt of the one is to hold beside
    the other.
    """
    return replace(
        small_decibels(),
        stages=(Stage("heads", 1, 8), Stage("lesions", 1, 64)) * 200,
        start_from="small-decibels",
        seed=13,
    )


@recipe
def small_unet() -> Recipe:
    """The plain U-Net that stands in the tables beside TA-ViT, from nothing, on the same pictures."""
    return replace(small_heads(), network="unet", maps="small-outline")


def _arm(network: Literal["ta_vit", "mpr_vit", "unet"]) -> Recipe:
    """Return what is compared: from nothing, on the same pictures in the same order, for the same steps."""
    return Recipe(
        network, (Stage("heads", 150, 8),), skips=True, maps="small-outline", optimiser="muon", seed=9
    )


@recipe
def arm_ta_vit() -> Recipe:
    """TA-ViT, to be compared with the arms below."""
    return _arm("ta_vit")


@recipe
def arm_mpr_vit() -> Recipe:
    """MPR-ViT: the same without conditioning."""
    return _arm("mpr_vit")


@recipe
def arm_unet() -> Recipe:
    """A plain U-Net of about as many parameters."""
    return _arm("unet")


@recipe
def arm_outline_t1w_only() -> Recipe:
    """The FLAIR abnormality as the T1W alone tells it."""
    return replace(small_outline(), flair=False)


@recipe
def arm_t1w_only() -> Recipe:
    """TA-ViT without the FLAIR; judge it with `--segmentation arm-outline-t1w-only`."""
    return replace(_arm("ta_vit"), flair=False, maps="arm-outline-t1w-only")


@recipe
def arm_latent_60() -> Recipe:
    """TA-ViT with a latent of 60×60×128."""
    return replace(_arm("ta_vit"), latent_stage=2)


@recipe
def arm_oracle() -> Recipe:
    """TA-ViT that is told the tumour as it was drawn. Judge it on drawn maps only."""
    return replace(_arm("ta_vit"), maps="drawn", perturbed=False)


@recipe
def institution_segmentation() -> Recipe:
    """The segmentation without an institution."""
    return Recipe(
        "segmentation",
        (Stage("heads", 240, 8),),
        optimiser="muon",
        transplants=0.25,
        folds="lgg-institutions",
    )


@recipe
def institution_synthesis() -> Recipe:
    """TA-ViT without an institution; drawn maps, since the predicted ones know every institution."""
    return Recipe(
        "ta_vit",
        (Stage("heads", 480, 8),),
        skips=True,
        optimiser="muon",
        transplants=0.25,
        folds="lgg-institutions",
        seed=8,
    )


#: UCSF-PDGM as in the paper: 400 exams to train on, 50 to validate (`--fold 1`), 51 to judge by. What the
#: paper leaves open (rate, steps, batch, loss) is ours.
PAPER = Recipe(
    "ta_vit",
    (Stage("heads", 60_000, 32),),
    sizes="base",
    maps="paper-segmentation",
    data="ucsf_pdgm",
    folds="ucsf_pdgm-papers",
    learning_rate=3e-4,
    warmup=1_000,
    weight_decay=0.01,
    ema=0.999,
    transplants=0.0,
    stripped=0.0,
    validate_every=2_000,
    patience=5,
)


@recipe
def paper_segmentation() -> Recipe:
    """The paper's MPR-ViT that predicts the tumour; five folds, so that every map is out of fold."""
    return replace(PAPER, network="segmentation", maps="drawn", folds="ucsf_pdgm")


@recipe
def paper_finder() -> Recipe:
    """The same, trained on the paper's 400 exams: what a test patient's tumour is found with."""
    return replace(PAPER, network="segmentation", maps="drawn")


@recipe
def paper_mpr_vit() -> Recipe:
    """The paper's baseline, and its first experiment: no conditioning."""
    return replace(PAPER, network="mpr_vit")


@recipe
def paper_unet() -> Recipe:
    """A plain U-Net of about as many parameters."""
    return replace(PAPER, network="unet")


@recipe
def paper_ta_vit() -> Recipe:
    """The paper's TA-ViT: T1W and FLAIR, latent of 30×30×256."""
    return PAPER


@recipe
def paper_ta_vit_latent_60() -> Recipe:
    """A first experiment of the paper: latent of 60×60×128."""
    return replace(PAPER, latent_stage=2)


@recipe
def paper_ta_vit_features() -> Recipe:
    """The other reading of the latent: features of the MPR-ViT that predicts the tumour."""
    return replace(PAPER, latent="features", finder="paper-segmentation", folds="ucsf_pdgm")


@recipe
def paper_ta_vit_neighbours() -> Recipe:
    """With the planes below and above."""
    return replace(PAPER, neighbours=1)


@recipe
def paper_ta_vit_240() -> Recipe:
    """On pixels of 1 mm: `prepare --size 240`, and maps of `paper_segmentation_240`."""
    return replace(PAPER, grid=240, maps="paper-segmentation-240", data="ucsf_pdgm-240")


@recipe
def paper_segmentation_240() -> Recipe:
    """The tumour on pixels of 1 mm."""
    return replace(paper_segmentation(), grid=240, data="ucsf_pdgm-240")


@recipe
def paper_segmentation_t1w_only() -> Recipe:
    """The tumour as the T1W alone tells it."""
    return replace(paper_segmentation(), flair=False)


@recipe
def paper_ta_vit_t1w_only() -> Recipe:
    """A first experiment of the paper: without the FLAIR, in the map as well."""
    return replace(PAPER, flair=False, maps="paper-segmentation-t1w-only")


@recipe
def paper_ta_vit_oracle() -> Recipe:
    """The upper bound: conditioned on the tumour as it was drawn. Judge it on drawn maps only."""
    return replace(PAPER, maps="drawn", perturbed=False)
