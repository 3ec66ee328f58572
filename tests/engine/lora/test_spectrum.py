"""The spectrum of a layer against that of its dense update."""

from __future__ import annotations

import math

import pytest
import torch

from engine.formats.adapter import Factors
from engine.formats.layers import Dense, DoRA, LoHa, LoKr
from engine.lora.spectrum import spectrum


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


PLAIN = Factors(rand(4, 30), rand(20, 4, seed=1), 2.0)
BASE = rand(20, 30, seed=9)
LAYERS = {
    "LoRA": PLAIN,
    "LoCon": Factors(rand(4, 10, 3, 3), rand(20, 4, 1, 1, seed=1), 2.0),
    "LoHa": LoHa(rand(20, 2), rand(2, 30, seed=1), rand(20, 2, seed=2), rand(2, 30, seed=3), 2.0, (20, 30)),
    "LoKr": LoKr(1.0, (20, 30), w1=rand(4, 5), w2=rand(5, 6, seed=1)),
    "full difference": Dense(rand(20, 30)),
    "DoRA": DoRA(PLAIN, rand(20, 1).abs(), 0),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_the_spectrum_is_that_of_the_dense_update(layer):
    found = spectrum(layer, lambda part, path: BASE)
    exact = torch.linalg.svdvals(layer.delta(BASE).flatten(1))
    assert math.isclose(found.norm, float(exact.norm()), rel_tol=1e-5)
    assert math.isclose(found.largest, float(exact[0]), rel_tol=1e-5)
    torch.testing.assert_close(
        torch.tensor(found.values, dtype=torch.float64), exact[: len(found.values)], rtol=1e-4, atol=1e-4
    )
    shares = exact.square().cumsum(0) / exact.square().sum()
    for share, rank in found.ranks.items():
        assert rank == int((shares < share).sum()) + 1
    entropy = torch.special.entr(exact / exact.sum()).sum()
    assert math.isclose(found.effective_rank, float(entropy.exp()), rel_tol=1e-3)
    assert found.rank == layer.rank


def test_an_update_of_zeros_has_no_effective_rank():
    found = spectrum(Factors(rand(4, 30), torch.zeros(20, 4), 2.0))
    assert (found.norm, found.effective_rank, found.ranks[0.99]) == (0.0, 0.0, 0)
