"""Muon: momentum, made orthogonal (Jordan 2024). Where steps are dear, each goes further than one of AdamW's.

PyTorch's own takes matrices only; half of these networks are kernels of convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from training.recipes import Recipe

#: Of the quintic iteration that brings all singular values near 1 (Jordan 2024), and how often it is done.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MOMENTUM = 0.95
#: Root mean square of a step, in rates. AdamW's is about 0.2 (Liu 2025); three times that learnt faster here.
STEP_SIZE = 0.6
BETAS = (0.9, 0.99)
#: Kernels all the same left to AdamW, by a part of their names: first and last layer, and positions.
EDGES = ("stages.0.weight", "head", "positions")


class Muon(Optimizer):
    """Nesterov momentum, orthogonal, for kernels of two dimensions and more; decoupled weight decay."""

    def __init__(self, kernels: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(kernels, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Do one step; no closure is called."""
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is not None:
                    self._change(kernel, kernel.grad, group["lr"], group["weight_decay"])

    def _change(self, kernel: Tensor, gradient: Tensor, lr: float, weight_decay: float) -> None:
        state: dict[str, Any] = self.state[kernel]
        momentum = state.setdefault("momentum", torch.zeros_like(kernel))
        momentum.lerp_(gradient, 1 - MOMENTUM)
        update = orthogonal(gradient.lerp(momentum, MOMENTUM).flatten(1))
        kernel.mul_(1 - lr * weight_decay)
        kernel.add_(update.view(kernel.shape), alpha=-lr * STEP_SIZE * max(update.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return U Vᵀ of the matrix U S Vᵀ, roughly: its singular values lie between 0.7 and 1.2."""
    tall = matrix.shape[0] > matrix.shape[1]
    found: Tensor = (matrix.T if tall else matrix).bfloat16()
    found = found / (found.norm() + torch.finfo(torch.float32).tiny)
    first, third, fifth = QUINTIC
    for _ in range(ITERATIONS):
        square = found @ found.T
        found = first * found + (third * square + fifth * square @ square) @ found
    return (found.T if tall else found).to(matrix.dtype)


def optimisers_of(recipe: Recipe, net: nn.Module) -> tuple[Optimizer, ...]:
    """Return what changes the network's weights, each its own."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimiser == "adamw":
        return (AdamW(net.parameters(), rate, betas=BETAS, weight_decay=decay),)
    kernels: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        within = parameter.ndim > 1 and not any(edge in name for edge in EDGES)
        (kernels if within else rest).append(parameter)
    return Muon(kernels, rate, decay), AdamW(rest, rate, betas=BETAS, weight_decay=decay)
