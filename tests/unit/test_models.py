"""The networks: shapes, a fresh block is the identity, the ways to compute attention agree."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from synthesis.models.attention import SelfAttention, attend
from synthesis.models.blocks import TransformerBlock, VisionTransformer
from synthesis.models.mpr_vit import SIZES, MprVit, Sizes
from synthesis.models.ta_vit import TaVit

TINY = Sizes(size=24, width=8, blocks=2, transformers_at=(1,), dim=64, heads=1, depth=1, tokens=6)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


def test_attention_by_plain_arithmetic_agrees_with_the_fused_kernel() -> None:
    query, key, value = torch.randn(3, 2, 3, 50, 64)
    assert torch.allclose(attend(query, key, value, "sdpa"), attend(query, key, value, "math"), atol=1e-5)
    assert torch.allclose(attend(query, key, value, "auto"), attend(query, key, value, "math"), atol=1e-5)


def test_flash_attention_is_refused_where_it_cannot_run() -> None:
    with pytest.raises(ValueError, match="CUDA"):
        attend(torch.ones(1, 1, 4, 64), torch.ones(1, 1, 4, 64), torch.ones(1, 1, 4, 64), "flash")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_attention_on_cuda_agrees_with_plain_arithmetic() -> None:
    query, key, value = torch.randn(3, 2, 3, 900, 64, device="cuda", dtype=torch.bfloat16)
    assert torch.allclose(attend(query, key, value), attend(query, key, value, "math"), atol=2e-2)


def test_attention_does_not_depend_on_the_order_of_the_tokens() -> None:
    layer, tokens, order = SelfAttention(64, 1), torch.randn(1, 20, 64), torch.randperm(20)
    assert torch.allclose(layer(tokens)[:, order], layer(tokens[:, order]), atol=1e-5)


def test_a_fresh_conditioned_block_is_the_identity() -> None:
    block, tokens = TransformerBlock(64, 1, conditioned=True), torch.randn(2, 36, 64)
    assert torch.equal(block(tokens, torch.randn(2, 36, 64)), tokens)


def test_the_latent_of_one_token_changes_the_parameters_of_that_token_only() -> None:
    block = TransformerBlock(64, 1, conditioned=True)
    assert block.modulation is not None
    torch.nn.init.normal_(block.modulation.weight, std=0.1)
    torch.nn.init.zeros_(block.attention.out.weight)
    tokens, latent = torch.randn(1, 9, 64), torch.randn(1, 9, 64)
    other = latent.clone()
    other[:, 4] += 1
    changed = (block(tokens, latent) - block(tokens, other)).abs().amax(dim=-1)[0] > 1e-6
    assert changed.tolist() == [index == 4 for index in range(9)]


def test_positions_are_interpolated_for_another_grid() -> None:
    transformer = VisionTransformer(16, 64, 1, depth=1, tokens=6, patch=1, conditioned=False)
    assert transformer(torch.randn(1, 16, 9, 7)).shape == (1, 16, 9, 7)


def test_fresh_networks_answer_zero() -> None:
    images, tumour = torch.rand(2, 2, 24, 24), torch.rand(2, 1, 24, 24)
    assert not MprVit(TINY)(images).any()
    assert not TaVit(TINY)(images, tumour).any()


def test_the_map_reaches_the_output() -> None:
    net = TaVit(TINY).eval()
    for module in net.modules():
        if isinstance(module, TransformerBlock) and module.modulation is not None:
            torch.nn.init.normal_(module.modulation.weight, std=0.1)
    torch.nn.init.normal_(net.decoder.head.weight, std=0.1)
    images = torch.rand(1, 2, 24, 24)
    empty, full = torch.zeros(1, 1, 24, 24), torch.ones(1, 1, 24, 24)
    assert not torch.allclose(net(images, empty), net(images, full), atol=1e-5)


@pytest.mark.parametrize(("name", "millions"), [("small", (5, 7)), ("medium", (24, 27)), ("base", (55, 60))])
def test_sizes_have_the_parameters_that_were_planned(name: str, millions: tuple[int, int]) -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in TaVit(SIZES[name]).parameters())
    assert millions[0] < count / 1e6 < millions[1]


def test_a_larger_image_keeps_the_token_grid() -> None:
    net = TaVit(replace(TINY, size=48))
    assert net(torch.rand(1, 2, 48, 48), torch.rand(1, 1, 48, 48)).shape == (1, 1, 48, 48)
    assert net.sizes.patch == 2


def test_sizes_survive_the_card() -> None:
    assert Sizes.from_json(SIZES["medium"].to_json()) == SIZES["medium"]


def test_sizes_that_make_no_network_are_refused() -> None:
    with pytest.raises(ValueError, match="heads"):
        Sizes(dim=100)
    with pytest.raises(ValueError, match="token grid"):
        Sizes(size=100)
