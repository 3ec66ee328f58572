"""Low-rank layers against dense matrices in float64, where autograd does all the work."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from engine.lora.layers import LoRAConv2d, LoRALinear, wrap


def randomized(layer):
    generator = torch.Generator().manual_seed(1)
    layer.reset(generator)
    with torch.no_grad():
        layer.up.copy_(torch.randn(layer.up.shape, generator=generator))
    for parameter in layer.base.parameters():
        parameter.requires_grad_(False)
    return layer


def dense(layer, x, convolution):
    """The layer's result with W + ΔW as one float64 weight, and that result's gradients of x, down and up."""
    x, down, up = (tensor.detach().double().requires_grad_() for tensor in (x, layer.down, layer.up))
    delta = (layer.alpha / layer.rank) * (up.flatten(1) @ down.flatten(1)).view(layer.base.weight.shape)
    y = convolution(x, layer.base.weight.double() + delta, layer.base.bias.double())
    weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape)
    (y * weights).sum().backward()
    return y, weights, (x.grad, down.grad, up.grad)


def close(mine, exact):
    assert mine.dtype == torch.float32
    torch.testing.assert_close(mine.double(), exact, rtol=1e-4, atol=1e-4)


def test_a_linear_layer_equals_the_dense_matrix_in_value_and_gradients():
    layer = randomized(LoRALinear(nn.Linear(24, 40), rank=5, alpha=3))
    x = torch.randn(2, 7, 24, requires_grad=True)
    y = layer(x)
    exact, weights, gradients = dense(layer, x, functional.linear)
    (y * weights.float()).sum().backward()
    close(y, exact)
    for mine, other in zip((x.grad, layer.down.grad, layer.up.grad), gradients, strict=True):
        close(mine, other)
    assert layer.base.weight.grad is None and layer.base.bias.grad is None


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 1, 0)])
def test_a_convolution_equals_the_dense_kernel_in_value_and_gradients(kernel, stride, padding):
    layer = randomized(LoRAConv2d(nn.Conv2d(6, 10, kernel, stride, padding), rank=4, alpha=6))
    x = torch.randn(2, 6, 9, 9, requires_grad=True)
    y = layer(x)
    exact, weights, gradients = dense(layer, x, lambda *a: functional.conv2d(*a, stride=stride, padding=padding))
    (y * weights.float()).sum().backward()
    close(y, exact)
    for mine, other in zip((x.grad, layer.down.grad, layer.up.grad), gradients, strict=True):
        close(mine, other)


@pytest.mark.parametrize("base", [nn.Linear(8, 12), nn.Conv2d(8, 12, 3, padding=1)])
def test_delta_is_what_the_layer_adds(base):
    layer = randomized(wrap(base, rank=3, alpha=7))
    x = torch.randn(2, 8) if isinstance(base, nn.Linear) else torch.randn(2, 8, 5, 5)
    merged = wrap(base, rank=3, alpha=7).base
    added = layer(x) - merged(x)
    with torch.no_grad():
        exact = functional.linear(x, layer.delta()) if x.ndim == 2 else functional.conv2d(x, layer.delta(), padding=1)
    torch.testing.assert_close(added.detach(), exact, rtol=1e-4, atol=1e-4)


def test_a_fresh_layer_changes_nothing_and_starts_kaiming_uniform():
    base = nn.Linear(64, 32)
    layer = LoRALinear(base, rank=16, alpha=16)
    layer.reset(torch.Generator().manual_seed(0))
    x = torch.randn(3, 64)
    assert torch.equal(layer(x), base(x))
    reference = nn.Linear(64, 16).weight  # torch's own layers are drawn Kaiming-uniform with a = sqrt(5)
    assert layer.down.abs().max() <= 64**-0.5
    assert layer.down.std().item() == pytest.approx(reference.std().item(), rel=0.1)


def test_dropout_acts_in_training_and_keeps_the_mean_and_is_off_in_eval():
    layer = randomized(LoRALinear(nn.Linear(16, 16), rank=8, alpha=8, dropout=0.5))
    x = torch.randn(4, 16)
    layer.eval()
    quiet = layer(x)
    assert torch.equal(quiet, layer(x))
    layer.train()
    noisy = torch.stack([layer(x) for _ in range(4000)]).mean(0)
    assert not torch.equal(layer(x), layer(x))
    torch.testing.assert_close(noisy, quiet, atol=0.15, rtol=0.1)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_dropout_gradients_are_those_of_the_masked_bottleneck(kind):
    base = nn.Linear(6, 5) if kind == "linear" else nn.Conv2d(6, 5, 1)
    layer = randomized(wrap(base, rank=4, alpha=4, dropout=0.5)).train()
    x = torch.randn(3, 6) if kind == "linear" else torch.randn(3, 6, 2, 2)
    torch.manual_seed(3)
    y = layer(x)
    hidden = functional.linear(x, layer.down) if kind == "linear" else functional.conv2d(x, layer.down)
    torch.manual_seed(3)
    mask = torch.empty_like(hidden).bernoulli_(0.5).div_(0.5)
    up = (lambda h: functional.linear(h, layer.up)) if kind == "linear" else (lambda h: functional.conv2d(h, layer.up))
    exact = base(x) + up(hidden * mask)
    torch.testing.assert_close(y, exact)
    mine = torch.autograd.grad(y.square().sum(), (layer.down, layer.up))
    other = torch.autograd.grad(exact.square().sum(), (layer.down, layer.up))
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_half_precision_products_leave_float32_gradients():
    layer = randomized(LoRALinear(nn.Linear(32, 32).bfloat16(), rank=4, alpha=4))
    x = torch.randn(5, 32)
    layer(x.bfloat16()).float().square().sum().backward()
    assert layer.down.grad.dtype == layer.up.grad.dtype == torch.float32
    exact = randomized(LoRALinear(layer.base.float(), rank=4, alpha=4))
    exact(x.bfloat16().float()).square().sum().backward()
    similarity = functional.cosine_similarity(layer.down.grad.flatten(), exact.down.grad.flatten(), dim=0)
    assert similarity > 0.999


def test_only_one_copy_of_the_input_is_saved():
    layer = randomized(LoRALinear(nn.Linear(64, 64), rank=2, alpha=2))
    x = torch.randn(100, 64, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        layer(x)
    big = [tensor for tensor in saved if tensor.numel() == x.numel()]
    assert len(big) == 1 and big[0].data_ptr() == x.data_ptr()


def test_grouped_convolutions_are_refused():
    with pytest.raises(ValueError, match="groups=2"):
        LoRAConv2d(nn.Conv2d(4, 4, 3, groups=2), rank=2, alpha=2)
