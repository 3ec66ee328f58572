"""Low-rank approximations of dense updates, against the best there is in float64."""

from __future__ import annotations

import math

import pytest
import torch

from engine.lora import extract
from engine.lora.algebra import Measure
from engine.lora.extract import approximate, difference


def update(*shape: int, decay: float = 0.9, seed: int = 0) -> torch.Tensor:
    """A dense update whose spectrum falls by this factor from one direction to the next."""
    generator = torch.Generator().manual_seed(seed)
    out, inside = shape[0], math.prod(shape[1:])
    width = min(out, inside)
    left = torch.linalg.qr(torch.randn(out, width, generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(inside, width, generator=generator, dtype=torch.float64))[0]
    values = 1e-3 * decay ** torch.arange(width, dtype=torch.float64)
    return (left * values @ right.t()).reshape(shape).float()


def least_error(matrix: torch.Tensor, rank: int) -> float:
    values = torch.linalg.svdvals(matrix.double().flatten(1))
    return float(values[rank:].norm() / values.norm())


def reached(found, matrix: torch.Tensor) -> float:
    exact = matrix.double()
    return float((found.factors().delta() - exact).norm() / exact.norm())


@pytest.mark.parametrize("shape", [(48, 30), (30, 64), (32, 12, 3, 3), (40, 24, 1, 1)], ids=str)
@pytest.mark.parametrize("rank", [1, 4, 12])
def test_a_fixed_rank_gives_the_best_approximation_of_it(shape, rank):
    matrix = update(*shape)
    found, kept = approximate(matrix, Measure(rank=rank))
    assert found.factors().delta().shape == shape and found.rank == kept.rank == rank
    assert math.isclose(reached(found, matrix), least_error(matrix, rank), rel_tol=1e-4, abs_tol=1e-6)
    assert math.isclose(kept.error, reached(found, matrix), rel_tol=1e-3, abs_tol=1e-6)
    assert math.isclose(kept.energy, 1 - kept.error**2, rel_tol=1e-9)


def test_energy_and_error_choose_the_rank_layer_by_layer():
    flat, steep = update(48, 60, decay=0.98), update(48, 60, decay=0.5)
    for measure, bound in ((Measure(energy=0.99), 0.1), (Measure(error=0.1), 0.1)):
        ranks = []
        for matrix in (flat, steep):
            found, kept = approximate(matrix, measure)
            assert kept.error <= bound * (1 + 1e-5) and least_error(matrix, found.rank - 1) > bound
            ranks.append(found.rank)
        assert ranks[0] > ranks[1]


def test_a_rank_beyond_the_matrix_gives_the_matrix():
    matrix = update(6, 9)
    found, kept = approximate(matrix, Measure(rank=64))
    assert found.rank == 6 and kept.error < 1e-6


def test_clamping_bounds_the_factors_and_its_cost_is_reported():
    matrix = update(64, 48, decay=0.7)
    matrix[3, 5] += 0.1
    free, best = approximate(matrix, Measure(rank=8))
    cut_off, kept = approximate(matrix, Measure(rank=8), clamp=0.99)
    largest = max(float(cut_off.up.abs().max()), float(cut_off.down.abs().max()))
    assert largest < 0.9 * max(float(free.up.abs().max()), float(free.down.abs().max()))
    assert kept.error > best.error and math.isclose(kept.error, reached(cut_off, matrix), rel_tol=1e-3)
    entries = torch.cat([free.up.flatten(), free.down.flatten()]).abs()
    share = float((entries <= largest).double().mean())
    assert 0.985 < share <= 0.995


def test_clamping_cuts_both_signs_alike():
    matrix = -update(64, 48, decay=0.7).abs()
    found, _ = approximate(matrix, Measure(rank=4), clamp=0.9)
    limit = max(float(found.up.abs().max()), float(found.down.abs().max()))
    for factor in (found.up, found.down):
        assert factor.min() >= -limit and factor.max() <= limit
    assert (found.up == -limit).any() or (found.down == -limit).any()


@pytest.mark.parametrize("decay", [0.97, 0.95, 0.8], ids=str)
def test_the_randomized_directions_hold_all_but_nothing_of_the_energy(decay):
    matrix = update(200, 320, decay=decay)
    basis = extract._randomized(matrix, 16).double()
    exact = torch.linalg.svdvals(matrix.double())[:16].square().sum()
    assert float((basis.t() @ matrix.double()).square().sum() / exact) > 1 - 1e-3
    assert float((basis.t() @ basis - torch.eye(16, dtype=torch.float64)).abs().max()) < 1e-5


@pytest.mark.parametrize("shape", [(400, 600), (600, 400)], ids=str)
def test_noise_settles_for_nothing_less_than_the_best(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert extract._randomized(matrix if shape[0] < shape[1] else matrix.t(), 16) is None
    found, _ = approximate(matrix, Measure(rank=16))
    assert math.isclose(reached(found, matrix), least_error(matrix, 16), rel_tol=1e-4)


def test_the_same_matrix_gives_the_same_bits():
    matrix = update(200, 320)
    for measure in (Measure(rank=16), Measure(energy=0.9)):
        first, second = (approximate(matrix, measure)[0] for _ in range(2))
        assert torch.equal(first.up, second.up) and torch.equal(first.down, second.down)


def test_matrices_are_gone_through_in_slabs_to_the_same_end(monkeypatch):
    matrix = update(48, 60, decay=0.95)
    whole, kept = approximate(matrix, Measure(energy=0.99))
    monkeypatch.setattr(extract, "SLAB", 100)
    parts, cut_up = approximate(matrix, Measure(energy=0.99))
    torch.testing.assert_close(parts.dense(), whole.dense(), rtol=1e-4, atol=1e-8)
    assert math.isclose(cut_up.error, kept.error, rel_tol=1e-5)


@pytest.mark.parametrize("shape", [(48, 60), (12, 5, 3, 3)], ids=str)
def test_a_difference_is_taken_in_float32_in_the_memory_that_it_is_given(monkeypatch, shape):
    monkeypatch.setattr(extract, "SLAB", 100)
    tuned, base, scratch = update(*shape).half(), update(*shape, seed=1).bfloat16(), torch.empty(5000)
    found = difference(tuned, base, scratch)
    assert torch.equal(found, tuned.float() - base.float()) and found.data_ptr() == scratch.data_ptr()


def test_an_update_of_zeros_is_approximated_by_zeros():
    for shape, measure in (((300, 320), Measure(rank=8)), ((5, 6), Measure(energy=0.5))):
        found, kept = approximate(torch.zeros(shape), measure)
        assert not found.dense().any() and (kept.energy, kept.error) == (1.0, 0.0)
