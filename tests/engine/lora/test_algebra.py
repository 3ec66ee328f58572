"""The algebra of low-rank updates against dense matrices in float64."""

from __future__ import annotations

import math

import pytest
import torch

from engine.formats.adapter import Factors
from engine.lora.algebra import (
    Kept,
    Measure,
    cut,
    effective_rank,
    inner,
    norm,
    product,
    rank_for_energy,
    recompress,
    singular_values,
    total,
)

SHAPES = {"linear": (24, 40), "tall": (40, 9), "conv": (24, 10, 3, 3), "pointwise": (16, 24, 1, 1)}


def factors(shape, rank: int, seed: int, alpha: float = 3.0, decay: float = 1.0) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, *shape[1:], generator=generator)
    up = torch.randn(shape[0], rank, *(1 for _ in shape[2:]), generator=generator)
    up *= (decay ** torch.arange(rank)).reshape(1, rank, *(1 for _ in shape[2:]))
    return Factors(down, up, alpha)


def dense(one: Factors) -> torch.Tensor:
    return one.delta().flatten(1)


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_product_is_the_update_and_becomes_factors_of_the_layers_shape_again(shape):
    one = factors(shape, 5, 1)
    made = product(one, 0.7)
    assert error(made.dense(), 0.7 * dense(one)) < 1e-6
    again = made.factors()
    assert again.delta().shape == shape and again.alpha == again.rank == 5
    assert error(again.delta(), 0.7 * one.delta()) < 1e-6


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_total_is_the_sum_of_the_dense_updates(shape):
    ones = [factors(shape, rank, rank) for rank in (2, 3, 7)]
    weights = (0.7, -0.3, 2.0)
    made = total(product(one, weight) for one, weight in zip(ones, weights, strict=True))
    exact = sum(weight * dense(one) for one, weight in zip(ones, weights, strict=True))
    assert made.rank == 12 and error(made.dense(), exact) < 1e-6


def test_updates_of_different_layers_have_no_total():
    with pytest.raises(ValueError, match="different layers"):
        total([product(factors((4, 4), 2, 1)), product(factors((4, 4, 1, 1), 2, 1))])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_norms_and_angles_are_those_of_the_dense_updates(shape):
    one, other = factors(shape, 4, 1), factors(shape, 6, 2)
    exact = dense(one), dense(other)
    assert math.isclose(norm(product(one)), float(exact[0].norm()), rel_tol=1e-6)
    assert math.isclose(inner(product(one), product(other)), float((exact[0] * exact[1]).sum()), rel_tol=1e-5)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_singular_values_are_those_of_the_dense_update(shape):
    one = factors(shape, 6, 1)
    found, exact = singular_values(product(one)), torch.linalg.svdvals(dense(one))
    assert error(found, exact[: len(found)]) < 1e-5 and float(exact[len(found) :].norm()) < 1e-9


def test_singular_values_beyond_the_full_rank_do_not_exist():
    one = factors((40, 9), 30, 1)
    assert error(singular_values(product(one)), torch.linalg.svdvals(dense(one))) < 1e-5


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_recompression_to_a_rank_is_the_best_there_is(shape, rank):
    one = factors(shape, 8, 1, decay=0.6)
    made, kept = recompress(product(one), Measure(rank=rank))
    u, values, vh = torch.linalg.svd(dense(one), full_matrices=False)
    best = u[:, :rank] * values[:rank] @ vh[:rank]
    assert made.rank == kept.rank == rank
    assert error(made.dense(), best) < 1e-5
    reached = error(made.dense(), dense(one))
    assert math.isclose(kept.error, reached, rel_tol=1e-3, abs_tol=1e-5)
    assert math.isclose(kept.energy, 1 - reached**2, rel_tol=1e-5)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_recompression_by_energy_keeps_that_energy_and_no_direction_more(share):
    one = factors((24, 40), 12, 3, decay=0.7)
    made, kept = recompress(product(one), Measure(energy=share))
    energies = torch.linalg.svdvals(dense(one)).square()
    shares = energies.cumsum(0) / energies.sum()
    assert float(shares[made.rank - 1]) >= share > float(shares[made.rank - 2] if made.rank > 1 else 0.0)
    assert math.isclose(kept.energy, float(shares[made.rank - 1]), rel_tol=1e-5)
    assert math.isclose(kept.sv_fro, math.sqrt(kept.energy))


@pytest.mark.parametrize("allowed", [0.5, 0.1, 0.01])
def test_recompression_by_error_stays_within_it_at_the_least_rank(allowed):
    one = factors((24, 40), 12, 3, decay=0.7)
    made, kept = recompress(product(one), Measure(error=allowed))
    reached = error(made.dense(), dense(one))
    assert reached <= allowed and math.isclose(kept.error, reached, rel_tol=1e-3)
    values = torch.linalg.svdvals(dense(one))
    assert float(values[made.rank - 1 :].norm() / values.norm()) > allowed


def test_all_of_the_energy_is_the_rank_without_the_rounding():
    one = factors((24, 40), 5, 1)
    twice = total([product(one), product(one)])
    made, kept = recompress(twice, Measure(energy=1.0))
    assert made.rank == 5 and kept.energy > 1 - 1e-10
    assert error(made.dense(), 2 * dense(one)) < 1e-5


def test_ranks_beyond_the_full_one_are_found_again():
    ones = [factors((24, 9), 20, seed) for seed in range(3)]
    together = total(map(product, ones))
    assert together.rank == 60 and together.full_rank == 9
    made, kept = recompress(together, Measure(rank=60))
    assert made.rank == 9 and kept.error == 0.0
    assert error(made.dense(), sum(map(dense, ones))) < 1e-5


def test_an_update_of_zeros_keeps_one_direction_of_zeros():
    one = Factors(torch.randn(4, 6), torch.zeros(5, 4), 4.0)
    for measure in (Measure(rank=2), Measure(energy=0.9), Measure(error=0.1)):
        made, kept = recompress(product(one), measure)
        assert not made.dense().any() and made.up.isfinite().all() and made.down.isfinite().all()
        assert kept.energy == 1.0 and kept.error == 0.0


def test_energy_outside_of_the_values_counts_as_lost():
    rank, kept = cut(torch.tensor([2.0, 1.0]), Measure(rank=1), beyond=3.0)
    assert (rank, kept) == (1, Kept(1, 0.5, math.sqrt(0.5)))


@pytest.mark.parametrize(
    ("energies", "share", "rank"),
    [([4.0, 3.0, 2.0, 1.0], 0.7, 2), ([4.0, 3.0, 2.0, 1.0], 0.71, 3), ([1.0], 0.5, 1), ([5.0, 1e-20], 1.0, 1)],
)
def test_the_rank_for_an_energy(energies, share, rank):
    assert rank_for_energy(torch.tensor(energies, dtype=torch.float64), share) == rank


def test_the_effective_rank_counts_equal_directions_and_is_between_otherwise():
    assert math.isclose(effective_rank(torch.ones(7)), 7.0)
    assert math.isclose(effective_rank(torch.tensor([3.0, 0.0, 0.0])), 1.0)
    assert 1 < effective_rank(torch.tensor([3.0, 1.0, 0.1])) < 3
    assert effective_rank(torch.zeros(3)) == 0.0


def test_one_measure_is_given_and_no_more():
    for wrong in ({}, {"rank": 3, "energy": 0.5}):
        with pytest.raises(ValueError):
            Measure(**wrong)


def test_factors_come_out_balanced_so_that_halves_can_hold_them():
    one = Factors(torch.randn(4, 30), 1e5 * torch.randn(20, 4), 4.0)
    made, _ = recompress(product(one), Measure(rank=4))
    assert math.isclose(float(made.up.norm()), float(made.down.norm()), rel_tol=1e-4)
