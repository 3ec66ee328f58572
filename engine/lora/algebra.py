"""Linear algebra on low-rank updates: ΔW = up @ down as matrices, float32, their scale folded in.

Everything about ΔW (its norm, spectrum, angle to another, best approximation at a lower rank) is found from the two
factors, at a cost of rank² and not of the dense matrix; a convolution is its out × (in · kh · kw) matrix. Norms and
energies are summed in float64. The tests check each function against dense float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.formats.adapter import Factors

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Product:
    """ΔW = up @ down of a layer whose weight has `shape`; up is out × r, down r × (in · kh · kw)."""

    up: Tensor
    down: Tensor
    shape: Shape

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def full_rank(self) -> int:
        """The largest rank that a matrix of this shape can have."""
        return min(self.up.shape[0], self.down.shape[1])

    def factors(self) -> Factors:
        """The same as a layer of an adapter, with alpha = rank."""
        down = self.down.reshape(self.rank, *self.shape[1:])
        up = self.up.reshape(*self.up.shape, *(1 for _ in self.shape[2:]))
        return Factors(down.contiguous(), up.contiguous(), alpha=float(self.rank))

    def dense(self) -> Tensor:
        """ΔW as a matrix, out × (in · kh · kw)."""
        return self.up @ self.down


@dataclass(frozen=True)
class Kept:
    """How good an approximation is."""

    rank: int
    energy: float
    """Share of the squared Frobenius norm that is kept."""
    error: float
    """Relative Frobenius error, ‖ΔW − approximation‖ / ‖ΔW‖."""

    @property
    def sv_fro(self) -> float:
        """The figure that sd-scripts asks for and prints as sv_fro: a share of the norm, not of its square."""
        return math.sqrt(self.energy)


@dataclass(frozen=True)
class Measure:
    """How far to reduce: to a rank, or to the least rank that keeps this energy, or stays within this error.

    Exactly one of them is set.
    """

    rank: int = 0
    energy: float = 0.0
    error: float = 0.0

    def __post_init__(self) -> None:
        if sum(map(bool, (self.rank, self.energy, self.error))) != 1:
            raise ValueError("one of rank, energy and error must be given")

    def choose(self, energies: Tensor) -> int:
        """The rank to keep of directions that hold these energies, largest first."""
        if self.rank:
            return min(self.rank, len(energies))
        return rank_for_energy(energies, self.energy or 1.0 - self.error**2)


def product(factors: Factors, weight: float = 1.0) -> Product:
    """weight · ΔW of a layer. The scale goes to `up`, where compositions put it."""
    up = factors.up.float().flatten(1) * (weight * factors.scale)
    return Product(up, factors.down.float().flatten(1), (factors.up.shape[0], *factors.down.shape[1:]))


def total(products: Iterable[Product]) -> Product:
    """Σ ΔW by concatenated ranks: [U₁ U₂ …] @ [D₁; D₂; …], exactly. All must be updates of the same layer."""
    products = list(products)
    if len({one.shape for one in products}) != 1:
        raise ValueError(f"updates of different layers: {sorted({one.shape for one in products})}")
    up = torch.cat([one.up for one in products], dim=1)
    return Product(up, torch.cat([one.down for one in products]), products[0].shape)


def inner(first: Product, second: Product) -> float:
    """Frobenius inner product of two updates, tr(ΔW₁ᵀ ΔW₂), from r₁ × r₂ products in float64."""
    ups = first.up.double().t() @ second.up.double()
    downs = first.down.double() @ second.down.double().t()
    return float((ups * downs).sum())


def norm(one: Product) -> float:
    """Frobenius norm of an update."""
    return math.sqrt(max(0.0, inner(one, one)))


def singular_values(one: Product) -> Tensor:
    """All singular values of an update that can differ from zero, largest first, float32: min(r, out, in)."""
    return torch.linalg.svdvals(_core(one)[1])


def effective_rank(values: Tensor) -> float:
    """exp of the entropy of the singular values' distribution (Roy & Vetterli 2007): 1 to their number, 0 of zeros."""
    values = values.double()
    if not values.sum() > 0:
        return 0.0
    shares = values / values.sum()
    return float(torch.exp(torch.special.entr(shares).sum()))


def recompress(one: Product, measure: Measure) -> tuple[Product, Kept]:
    """The best approximation of an update at a lower rank (Eckart & Young 1936), by QR of both factors and an SVD of
    the small core between them."""
    (left, right), core = _core(one)
    u, values, vh = torch.linalg.svd(core, full_matrices=False)
    rank, kept = cut(values, measure)
    up, down = balanced(left @ u[:, :rank], values[:rank], vh[:rank] @ right)
    return Product(up, down, one.shape), kept


def _core(one: Product) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """((Q₁, Q₂), C) with ΔW = Q₁ C Q₂, Q₁ᵀQ₁ = Q₂Q₂ᵀ = 1 and C no larger than r × r."""
    left, upper = torch.linalg.qr(one.up)
    right, lower = torch.linalg.qr(one.down.t())
    return (left, right.t()), upper @ lower.t()


def cut(values: Tensor, measure: Measure, beyond: float = 0.0) -> tuple[int, Kept]:
    """How many of the singular values to keep, at least one, and what that keeps.

    values: largest first. beyond: energy in directions that are not among them.
    """
    energies = values.double().square()
    rank = max(1, measure.choose(energies))
    whole, rest = float(energies.sum()) + beyond, float(energies[rank:].sum()) + beyond
    share = rest / whole if whole else 0.0
    return rank, Kept(rank, 1.0 - share, math.sqrt(share))


def rank_for_energy(energies: Tensor, share: float) -> int:
    """The least rank whose directions hold `share` of the energy. What is only rounding beside the largest is nothing.

    energies: squared singular values, largest first.
    """
    energies = energies.double()
    floor = float(energies.max()) * (len(energies) * torch.finfo(torch.float32).eps) ** 2 if len(energies) else 0.0
    energies = torch.where(energies > floor, energies, 0.0)
    tails = energies.flip(0).cumsum(0).flip(0)  # from the small end: exact where little is left
    return int((tails > (1.0 - share) * float(energies.sum())).sum())


def balanced(left: Tensor, values: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """(up, down) of U Σ Vᵀ with the singular values shared out as √Σ, so that neither leaves a half's range."""
    roots = values.clamp_min(0.0).sqrt()
    return left * roots, roots[:, None] * right
