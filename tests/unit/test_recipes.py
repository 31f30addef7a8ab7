"""Recipes: each can be built, starts from one that exists, and is compared with a network of its size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny_training
import torch
from torch import nn

from synthesis.models.mpr_vit import SIZES, MprVit, Sizes
from synthesis.models.ta_vit import TaVit
from training.data import folds
from training.recipes import RECIPES, Recipe, Stage
from training.run import inherit, network, sizes_of
from training.unet import UNet

ALL = list(RECIPES.values())
#: The folds of other data are written from the data.
SHIPPED = [recipe for recipe in ALL if recipe.data == "lgg"]


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("recipe", ALL, ids=[recipe.name for recipe in ALL])
def test_every_recipe_can_be_built_and_says_what_to_show(recipe: Recipe) -> None:
    with torch.device("meta"):
        assert parameters(network(recipe)) > 1e6
    assert recipe.steps == sum(stage.steps for stage in recipe.stages) > recipe.warmup


@pytest.mark.parametrize("recipe", SHIPPED, ids=[recipe.name for recipe in SHIPPED])
def test_every_recipe_of_shipped_weights_has_its_folds(recipe: Recipe) -> None:
    assert len(folds(recipe.folds)) >= 3


@pytest.mark.parametrize("recipe", ALL, ids=[recipe.name for recipe in ALL])
def test_every_recipe_starts_from_one_that_exists_and_gives_it_weights(recipe: Recipe) -> None:
    if not recipe.start_from:
        return
    before = RECIPES[recipe.start_from]
    given, taking = network(before), network(recipe)
    taken = inherit(taking, given.state_dict(), before.network == recipe.network)
    assert taken > 0.9 * len(taking.state_dict())


def test_who_sees_more_neighbours_begins_with_the_answer_of_who_saw_fewer() -> None:
    given, taking = (MprVit(replace(SIZES["small"], neighbours=neighbours)) for neighbours in (0, 1))
    nn.init.normal_(given.decoder.head.weight)
    taken = inherit(taking, given.state_dict(), whole=True)
    images = torch.rand(1, 6, 120, 120)
    assert taken == len(taking.state_dict())
    with torch.no_grad():
        assert torch.allclose(taking(images), given(images[:, :2]), atol=1e-5)


def test_who_is_told_the_drawn_tumour_is_an_oracle() -> None:
    assert {recipe.name for recipe in ALL if recipe.is_oracle} == {"arm-oracle", "paper-ta-vit-oracle"}


def test_a_step_belongs_to_the_stage_that_it_falls_into() -> None:
    lesions, heads = Stage("lesions", 3, 4), Stage("heads", 2, 2)
    recipe = Recipe("ta_vit", (lesions, heads))
    assert [recipe.stage(step) for step in range(6)] == [lesions] * 3 + [heads] * 3


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("size", [120, 240])
def test_the_unet_has_as_many_parameters_as_ta_vit(name: str, size: int) -> None:
    sizes = replace(SIZES[name], size=size)
    with torch.device("meta"):
        assert parameters(UNet(sizes)) == pytest.approx(parameters(TaVit(sizes)), rel=0.1)


@pytest.mark.parametrize("side", [32, 64, 120])
def test_the_unet_answers_pictures_of_every_stage_with_zeros_at_first(side: int) -> None:
    net = UNet(tiny_training.SIZES_TINY)
    out = net(torch.rand(2, 2, side, side), torch.zeros(2, 2, dtype=torch.int64))
    assert out.shape == (2, 3, side, side)
    assert not out.any()


def test_the_unet_sees_beyond_a_quarter_of_the_picture() -> None:
    torch.manual_seed(0)
    net = UNet(tiny_training.SIZES_TINY).eval()
    nn.init.normal_(net.head.weight)
    image = torch.rand(1, 2, 120, 120)
    other = image.clone()
    other[..., 75:80, 75:80] += 1
    changed = (net(image) - net(other)).abs().amax(dim=(0, 1)) > 1e-6
    assert changed[45:50, 45:50].any()


def test_a_network_of_the_t1w_alone_is_built() -> None:
    sizes = replace(Sizes(), flair=False)
    with torch.device("meta"):
        assert UNet(sizes)(torch.rand(1, 1, 64, 64)).shape == (1, 3, 64, 64)


def test_skips_of_a_recipe_reach_its_network() -> None:
    assert sizes_of(replace(ALL[0], skips=True)).skips
    assert not sizes_of(replace(ALL[0], skips=False)).skips
