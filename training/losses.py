"""What a network is asked for: the losses, and the error by which a run is judged without any tumour mask."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from synthesis.models.mpr_vit import MprVit, Sizes, narrowed
from synthesis.models.ta_vit import TaVit
from synthesis.models.uptake import OUTPUTS, Uptake
from training.data import ENHANCING, Batch
from training.recipes import Loss

#: Weights of a voxel in the synthesis loss: air, head, brain. Tumour weighs no more than other brain: three
#: times as much, it was learnt by heart.
REGION_WEIGHTS = (0.02, 0.3, 1.0)
#: Beside the squared error of Δ: what the chance to enhance costs, and the amount. They are side issues. At
#: weight 1 the cross entropy is all that is learnt.
CHANCE_WEIGHT, AMOUNT_WEIGHT = 0.05, 0.1
#: Weights of the regions where every picture counts by its decibels: scalp, brain without tumour, tumour.
DECIBEL_WEIGHTS = (0.1, 1.0, 0.5)
#: A picture that errs less than this, squared, in a region is as good as one can tell from 8 bits.
LEAST_ERROR = 0.002
#: A region of fewer pixels of a picture does not count.
LEAST_PIXELS = 20
#: What the chance to enhance costs there, in tumours alone.
TUMOUR_CHANCE_WEIGHT = 0.2


def has_bfloat16(device: torch.device) -> bool:
    """Return whether this device computes in bfloat16: emulated, it is far slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def answer(
    net: nn.Module, batch: Batch, wraps: nn.Module | None = None, finder: MprVit | None = None
) -> Tensor:
    """Return the network's output, float32, (B, C, S, S); computed in bfloat16 where the device has it.

    Parameters
    ----------
    net : Module
        The network.
    batch : Batch
        What it sees.
    wraps : Module, optional
        The network itself where `net` is what several processes have in its place.
    finder : MprVit, optional
        The segmentation whose features TA-ViT reads its latent from, in place of the map.
    """
    itself, device = wraps or net, batch.images.device
    with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
        sizes = cast(Sizes, itself.sizes)
        sources = [batch.map] if isinstance(itself, TaVit) else []
        if sizes.latent == "features" and finder is not None:
            with torch.no_grad():
                seen = narrowed(batch.images, finder.sizes)
                sources = [finder.features(seen, sizes.latent_stage, batch.corners)]
        images = narrowed(batch.images, sizes).contiguous(memory_format=torch.channels_last)
        out: Tensor = net(images, *sources, batch.corners)
    return out.float()


def loss_of(out: Tensor, batch: Batch, loss: Loss = "squared") -> Tensor:
    """Return the loss of what a network answered to this batch: one channel is a segmentation."""
    if out.shape[1] != OUTPUTS:
        return segmentation_loss(out, batch)
    asked = decibel_loss if loss == "decibels" else synthesis_loss
    return asked(Uptake.of(out), batch)


def segmentation_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Return cross entropy in the head plus 1 − soft Dice over the batch."""
    head = (batch.region > 0).float()
    entropy = functional.binary_cross_entropy_with_logits(logits, batch.tumour, reduction="none")
    share = (logits.sigmoid() * head, batch.tumour * head)
    dice = 2 * (share[0] * share[1]).sum() / (share[0].sum() + share[1].sum() + 1.0)
    return (entropy * head).sum() / head.sum() + 1 - dice


def synthesis_loss(uptake: Uptake, batch: Batch) -> Tensor:
    """Return the squared error of Δ, and beside it what chance and amount of enhancement cost."""
    weight = torch.tensor(REGION_WEIGHTS, device=batch.region.device)[batch.region.round().long()]
    change, chance, amount = _errors(uptake, batch)
    return (weight * (change + CHANCE_WEIGHT * chance + AMOUNT_WEIGHT * amount)).sum() / weight.sum()


def decibel_loss(uptake: Uptake, batch: Batch) -> Tensor:
    """Return the mean over the pictures of the log of the squared error of Δ, region by region.

    Figures are means of decibels over patients. The squared error over a batch is that of the few patients
    whose T1C differs most; here all count alike, and Δ is small where another's may have either sign.
    """
    change, chance, amount = _errors(uptake, batch)
    tumour = batch.tumour * (batch.region > 0)
    regions = ((batch.region == 1) & (tumour == 0), (batch.region == 2) & (tumour == 0), tumour > 0)
    total = uptake.mean.new_zeros(())
    for weight, region in zip(DECIBEL_WEIGHTS, regions, strict=True):
        pixels = region.sum(dim=(1, 2, 3))
        counts = pixels >= LEAST_PIXELS
        if bool(counts.any()):
            error = (change * region).sum(dim=(1, 2, 3))[counts] / pixels[counts]
            total = total + weight * (error + LEAST_ERROR).log().mean()
    beside = TUMOUR_CHANCE_WEIGHT * chance + AMOUNT_WEIGHT * amount
    return total + (beside * tumour).sum() / tumour.sum().clamp(min=1.0)


def _errors(uptake: Uptake, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return what each pixel errs by, (B, 1, S, S): in Δ, in the chance to enhance, in the amount."""
    enhances = (functional.avg_pool2d(batch.delta, 3, 1, 1) > ENHANCING).float()
    change = (uptake.mean - batch.delta).square()
    chance = functional.binary_cross_entropy_with_logits(uptake.log_odds, enhances, reduction="none")
    known = uptake.mean.detach() + (enhances - uptake.chance().detach()) * uptake.amplitude
    return change, chance, (known - batch.delta).square()


def squared_error(out: Tensor, batch: Batch) -> tuple[float, float]:
    """Return the sum of the squared errors of Δ over the head, and its voxels; none for a segmentation.

    The tumour mask has no part in it, neither as a region nor as a weight.
    """
    if out.shape[1] != OUTPUTS:
        return 0.0, 0.0
    head = (batch.region > 0).float()
    return float(((Uptake.of(out).delta() - batch.delta).square() * head).sum()), float(head.sum())
