"""Adapters with weights that can be learned, against dense float64 weights and their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.formats.adapter import Adapter, Factors
from engine.lora.mixture import Mixture, block_of


class Unet(nn.Module):
    """Enough of a UNet to have blocks."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down_blocks = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.mid_block = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1))

    @property
    def device(self):
        return self.mid_block[0].weight.device

    def forward(self, x):
        for block in self.down_blocks:
            x = torch.tanh(block(x))
        return self.mid_block(x.reshape(-1, 1, 3, 2)).flatten(1)


LAYERS = {"down_blocks.0": (6, 6), "down_blocks.1": (6, 6), "mid_block.0": (3, 1, 3, 3)}


def adapter(seed: int, rank: int, names=tuple(LAYERS)) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for name in names:
        out, *inside = LAYERS[name]
        ones = (1, 1) if len(inside) == 3 else ()
        down = torch.randn(rank, *inside, generator=generator)
        layers[name] = Factors(down, torch.randn(out, rank, *ones, generator=generator), alpha=0.5)
    return Adapter({"unet": layers})


ADAPTERS = [adapter(1, 2), adapter(2, 3, ("down_blocks.1", "mid_block.0"))]


def dense(weights: torch.Tensor, blocks: list[str], x: torch.Tensor) -> torch.Tensor:
    """The same model with float64 weights that the mixture's are put into."""
    model = Unet().double()
    values = {name: model.get_submodule(name).weight.detach() for name in LAYERS}
    for number, one in enumerate(ADAPTERS):
        for name, layer in one.parts["unet"].items():
            row = blocks.index(block_of("unet", name)) if len(blocks) > 1 else 0
            values[name] = values[name] + weights[row, number] * layer.delta()
    return torch.func.functional_call(model, {f"{name}.weight": value for name, value in values.items()}, (x,))


@pytest.mark.parametrize("per_block", [False, True])
def test_outputs_and_gradients_are_those_of_the_dense_weights(per_block):
    model = Unet().requires_grad_(False)
    mixture = Mixture({"unet": model}, ADAPTERS, (0.7, -0.4), per_block)
    assert mixture.blocks == (["unet.down_blocks.0", "unet.down_blocks.1", "unet.mid_block"] if per_block else ["all"])
    with torch.no_grad():
        mixture.weights += 0.1 * torch.arange(mixture.weights.numel()).reshape(mixture.weights.shape)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(3))
    found = model(x)
    found.square().sum().backward()

    weights = mixture.weights.detach().double().requires_grad_()
    exact = dense(weights, mixture.blocks, x.double())
    exact.square().sum().backward()
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mixture.weights.grad.double(), weights.grad, rtol=1e-4, atol=1e-4)


def test_a_removed_mixture_leaves_the_model_as_it_was():
    model, x = Unet(), torch.ones(2, 6)
    before = model(x)
    mixture = Mixture({"unet": model}, ADAPTERS, (1.0, 1.0), False)
    assert not torch.equal(model(x), before)
    mixture.remove()
    assert torch.equal(model(x), before)


def test_learned_weights_find_the_blend_that_made_the_target():
    model = Unet().requires_grad_(False)
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(3))
    target = dense(torch.tensor([[0.6, -0.3]], dtype=torch.float64), ["all"], x.double()).detach().float()
    mixture = Mixture({"unet": model}, ADAPTERS, (0.0, 0.0), False)
    optimizer = torch.optim.Adam([mixture.weights], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (model(x) - target).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(torch.tensor(mixture.named()["all"]), torch.tensor([0.6, -0.3]), rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("part", "path", "block"),
    [
        ("unet", "down_blocks.1.attentions.0.proj_in", "unet.down_blocks.1"),
        ("unet", "up_blocks.10.resnets.0.conv1", "unet.up_blocks.10"),
        ("unet", "mid_block.attentions.0.proj_in", "unet.mid_block"),
        ("unet", "conv_in", "unet.conv_in"),
        ("text_encoder_2", "encoder.layers.3.mlp.fc1", "text_encoder_2"),
    ],
)
def test_the_block_of_a_layer(part, path, block):
    assert block_of(part, path) == block
