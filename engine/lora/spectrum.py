"""What an update looks like from inside: its norm, and how its energy is spread over singular directions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.formats.layers import Layer
from engine.lora.algebra import effective_rank, product, rank_for_energy, singular_values
from engine.lora.compose import Base, dense, low_rank

MARKS = (0.5, 0.9, 0.99)
"""Shares of the energy whose ranks are told."""


@dataclass(frozen=True)
class Spectrum:
    """The singular values of one layer's ΔW, in short."""

    rank: int
    """Of the layer as it is stored."""
    norm: float
    """Frobenius norm of ΔW."""
    largest: float
    """Its largest singular value."""
    effective_rank: float
    """exp of the singular values' entropy (Roy & Vetterli 2007)."""
    ranks: dict[float, int]
    """Share of the squared norm → least rank that holds it."""
    values: tuple[float, ...]
    """The singular values, largest first."""


def spectrum(layer: Layer, base: Base | None = None, target: tuple[str, str] = ("", "")) -> Spectrum:
    """The spectrum of a layer, from its factors where it has some. base: asked for the weight of a DoRA.

    Raises ValueError for a DoRA without it.
    """
    factors = low_rank(layer)
    if factors is not None:
        values = singular_values(product(factors))
    else:
        values = torch.linalg.svdvals(dense(layer, base, target).float().flatten(1))
    return described(values, layer.rank)


def described(values: Tensor, rank: int) -> Spectrum:
    energies = values.double().square()
    return Spectrum(
        rank=rank,
        norm=float(energies.sum().sqrt()),
        largest=float(values.max()),
        effective_rank=effective_rank(values),
        ranks={share: rank_for_energy(energies, share) for share in MARKS},
        values=tuple(values.tolist()),
    )
