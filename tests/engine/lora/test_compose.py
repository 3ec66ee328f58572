"""Weighted sums of adapters against dense matrices in float64, in factors and on a model."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from engine.formats.adapter import Adapter, Factors
from engine.lora.compose import compose
from engine.lora.inject import apply, remove

SHAPES = {"linear": (6, 5), "conv": (6, 5, 3, 3), "pointwise": (4, 6, 1, 1)}


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 6)
        self.conv = nn.Conv2d(5, 6, 3, stride=2, padding=1)
        self.pointwise = nn.Conv2d(6, 4, 1)

    def forward(self, x):
        lines = self.linear(x.movedim(1, -1)).movedim(-1, 1)
        return self.pointwise(self.conv(x)), lines


def factors(name: str, rank: int, alpha: float, seed: int, dtype=torch.float32) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    out, inside, *kernel = SHAPES[name]
    down = torch.randn(rank, inside, *kernel, generator=generator)
    up = torch.randn(out, rank, *[1 for _ in kernel], generator=generator)
    return Factors(down.to(dtype), up.to(dtype), alpha)


def adapter(seed: int, names=tuple(SHAPES), rank=3, alpha=5.0, dtype=torch.float32) -> Adapter:
    modules = {name: factors(name, rank, alpha, 10 * seed + place, dtype) for place, name in enumerate(names)}
    return Adapter({"unet": modules})


def dense(terms: list[tuple[Adapter, float]], name: str) -> torch.Tensor:
    """Σ weight · alpha/rank · UD of one module, entry by entry in float64."""
    total = torch.zeros(SHAPES[name], dtype=torch.float64)
    for one, weight in terms:
        if name in one.parts["unet"]:
            found = one.parts["unet"][name]
            up, down = found.up.double(), found.down.double()
            if down.ndim == 4:
                update = torch.einsum("or,rihw->oihw", up[:, :, 0, 0], down)
            else:
                update = torch.einsum("or,ri->oi", up, down)
            total += weight * found.alpha / down.shape[0] * update
    return total


TERMS = {
    "one": [(adapter(1), 1.0)],
    "weighted": [(adapter(1), 0.6)],
    "two": [(adapter(1), 0.7), (adapter(2, rank=2, alpha=8.0), -0.4)],
    "apart": [(adapter(1, ("linear",)), 1.0), (adapter(2, ("conv", "pointwise")), 2.0)],
    "three": [(adapter(1), 0.5), (adapter(2, ("conv",), rank=1), 3.0), (adapter(3, alpha=0.5), -1.0)],
    "halves": [(adapter(1, dtype=torch.float16), 0.7), (adapter(2, dtype=torch.bfloat16), 0.4)],
    "against itself": [(adapter(1), 1.0), (adapter(1), -1.0)],
}


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
def test_the_composition_is_the_weighted_sum_of_the_dense_updates(terms):
    composed = compose(terms).parts["unet"]
    assert composed.keys() == {name for one, _ in terms for name in one.parts["unet"]}
    for name, found in composed.items():
        torch.testing.assert_close(found.delta(), dense(terms, name), rtol=1e-5, atol=1e-5)


def test_ranks_are_concatenated_and_alpha_is_the_new_rank():
    composed = compose([(adapter(1), 0.5), (adapter(2, ("conv",), rank=1), 3.0)]).parts["unet"]
    assert {name: (found.rank, found.alpha) for name, found in composed.items()} == {
        "linear": (3, 3.0),
        "conv": (4, 4.0),
        "pointwise": (3, 3.0),
    }
    assert composed["conv"].down.shape == (4, 5, 3, 3) and composed["conv"].up.shape == (6, 4, 1, 1)
    assert all(found.down.dtype == found.up.dtype == torch.float32 for found in composed.values())


def test_a_rank_beyond_the_matrix_is_brought_back_to_it():
    composed = compose(TERMS["three"]).parts["unet"]
    assert {name: found.rank for name, found in composed.items()} == {"linear": 5, "conv": 6, "pointwise": 4}


def test_factors_added_one_by_one_would_have_been_something_else():
    one, two = adapter(1), adapter(2)
    terms = [(one, 1.0), (two, 1.0)]
    mine, other = (each.parts["unet"]["linear"] for each in (one, two))
    crossed = Factors(mine.down + other.down, mine.up + other.up, mine.alpha).delta()
    assert not torch.allclose(crossed, dense(terms, "linear"), atol=0.1)


def test_an_adapter_of_weight_zero_is_left_out_altogether():
    assert compose([(adapter(1), 0.0)]).parts == {}
    composed = compose([(adapter(1, ("linear",)), 0.0), (adapter(2, ("conv",)), 1.0)])
    assert list(composed.parts["unet"]) == ["conv"]


def test_the_composed_adapters_stay_as_they_were():
    one = adapter(1)
    before = {name: (found.down.clone(), found.up.clone()) for name, found in one.parts["unet"].items()}
    composed = compose([(one, 1.0)])
    composed.parts["unet"]["linear"].down.zero_()
    composed.parts["unet"]["linear"].up.zero_()
    for name, (down, up) in before.items():
        found = one.parts["unet"][name]
        assert torch.equal(found.down, down) and torch.equal(found.up, up)


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
def test_an_applied_adapter_computes_with_the_dense_weights(terms):
    torch.manual_seed(0)
    model = Model()
    composed = compose(terms)
    layers = apply({"unet": model}, composed)
    x = torch.randn(2, 5, 8, 8)
    with torch.no_grad():
        images, lines = model(x)
    remove({"unet": model}, layers)
    weights = {name: getattr(model, name).weight.double() + dense(terms, name) for name in SHAPES}
    biases = {name: getattr(model, name).bias.double() for name in SHAPES}
    hidden = functional.conv2d(x.double(), weights["conv"], biases["conv"], stride=2, padding=1)
    exact = functional.conv2d(hidden, weights["pointwise"], biases["pointwise"])
    torch.testing.assert_close(images.double(), exact, rtol=1e-4, atol=1e-4)
    exact = functional.linear(x.double().movedim(1, -1), weights["linear"], biases["linear"]).movedim(-1, 1)
    torch.testing.assert_close(lines.double(), exact, rtol=1e-4, atol=1e-4)


def test_applied_layers_are_at_rest_and_removing_them_gives_the_very_bits_back():
    torch.manual_seed(0)
    model = Model()
    x = torch.randn(2, 5, 8, 8)
    before = model(x)
    layers = apply({"unet": model}, adapter(1))["unet"]
    for layer in layers.values():
        assert not layer.training and not layer.down.requires_grad and not layer.up.requires_grad
    assert not torch.equal(model(x)[0], before[0])
    remove({"unet": model}, {"unet": layers})
    assert all(map(torch.equal, model(x), before))


def test_an_adapter_is_applied_in_the_precision_of_the_base():
    torch.manual_seed(0)
    model = Model().bfloat16()
    apply({"unet": model}, adapter(1))
    x = torch.randn(2, 5, 8, 8)
    half = model(x.bfloat16())
    assert all(result.dtype == torch.bfloat16 for result in half)
    exact = Model()
    exact.load_state_dict(
        {name.replace("base.", ""): t.float() for name, t in model.state_dict().items() if "base" in name}
    )
    apply({"unet": exact}, adapter(1))
    for result, reference in zip(half, exact(x), strict=True):
        difference = (result.float() - reference).norm() / reference.norm()
        assert difference < 0.02


def test_an_adapter_of_modules_that_the_model_does_not_have_is_an_error():
    with pytest.raises(AttributeError):
        apply({"unet": Model()}, Adapter({"unet": {"nowhere": factors("linear", 2, 2.0, 1)}}))
