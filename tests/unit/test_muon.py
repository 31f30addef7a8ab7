"""Muon: steps of equal size in all directions, for kernels within; everything else stays with AdamW."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_training import RECIPE, enter
from torch.optim import AdamW

from training.muon import STEP_SIZE, Muon, optimisers_of, orthogonal
from training.run import network


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_the_singular_values_become_alike(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = left @ torch.diag(torch.logspace(0, -1, min(shape))) @ right
    values = torch.linalg.svdvals(orthogonal(matrix).float())
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


def test_a_kernel_without_gradient_stays_a_number() -> None:
    kernel = torch.nn.Parameter(torch.ones(4, 4))
    kernel.grad = torch.zeros(4, 4)
    Muon([kernel], 0.1, 0.0).step()
    assert torch.equal(kernel.detach(), torch.ones(4, 4))


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (32, 32), (64, 16)])
def test_a_step_has_the_size_that_the_rate_says(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    kernel = torch.nn.Parameter(torch.zeros(shape))
    kernel.grad = torch.randn(shape)
    Muon([kernel], 0.01, 0.0).step()
    size = float(kernel.detach().square().mean().sqrt())
    assert size == pytest.approx(0.01 * STEP_SIZE, rel=0.2)


def test_weights_decay_apart_from_the_gradient() -> None:
    kernel = torch.nn.Parameter(torch.ones(4, 4))
    kernel.grad = torch.zeros(4, 4)
    Muon([kernel], 0.1, 0.5).step()
    assert torch.allclose(kernel.detach(), torch.full((4, 4), 0.95))


def test_first_and_last_layer_norms_and_positions_are_left_to_adamw() -> None:
    enter()
    net = network(RECIPE)
    muon, adamw = optimisers_of(replace(RECIPE, optimiser="muon"), net)
    assert isinstance(muon, Muon) and isinstance(adamw, AdamW)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    kernels, rest = (
        {names[id(parameter)] for group in one.param_groups for parameter in group["params"]}
        for one in (muon, adamw)
    )
    assert not kernels & rest
    assert kernels | rest == set(names.values())
    assert {"encoder.stages.0.weight", "decoder.head.weight"} <= rest
    assert any("positions" in name for name in rest)
    assert all(dict(net.named_parameters())[name].ndim > 1 for name in kernels)
    assert "bottleneck.1.transformer.blocks.0.modulation.weight" in kernels
