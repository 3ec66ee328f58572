"""The best low-rank approximation of a dense update, as extraction from a fine-tuned model needs it.

The singular value decomposition is float32. Where a fixed rank is far below the matrix's own, a randomized one (Halko,
Martinsson & Tropp 2011, algorithm 4.4) finds the few directions that are kept; it goes on until another round of power
iteration finds next to no more energy, and gives way to the whole decomposition where that does not come, as on the
flat spectrum of noise. What is reported of an approximation is measured on it, not deduced.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engine.lora.algebra import Kept, Measure, Product, balanced, cut

OVERSAMPLE = 16
"""Directions looked for beyond those that are kept."""
FAR_BELOW = 4
"""A rank is far below the full one where so many times (rank + OVERSAMPLE) still are."""
ROUNDS = 6
"""Rounds of power iteration before the whole decomposition is cheaper."""
GAIN = 1e-4
"""The randomized decomposition is enough where a round's share of newly found energy is below this."""


def approximate(
    update: Tensor, measure: Measure, clamp: float = 1.0, dtype: torch.dtype = torch.float32
) -> tuple[Product, Kept]:
    """The best approximation of ΔW, [out, in(, kh, kw)] float32, and how good it is.

    clamp: factors are cut to this quantile of their magnitudes; 1 cuts nothing. It bounds outliers, and costs accuracy.
    dtype: number format that the factors are rounded to; they come back as float32.
    """
    matrix = update.flatten(1)
    u, values, vh = decompose(matrix, measure.rank)
    rank, _ = cut(values, measure)
    up, down = balanced(u[:, :rank], values[:rank], vh[:rank])
    if clamp < 1.0:
        limit = _quantile(torch.cat([up.flatten(), down.flatten()]).abs(), clamp)
        up, down = up.clamp(-limit, limit), down.clamp(-limit, limit)
    found = Product(up.to(dtype).float(), down.to(dtype).float(), tuple(update.shape))
    error = relative_error(found, matrix)
    return found, Kept(rank, max(0.0, 1.0 - error**2), error)


def relative_error(found: Product, matrix: Tensor) -> float:
    """‖ΔW − up @ down‖ / ‖ΔW‖, of a dense ΔW; 0 where ΔW is zero."""
    size = float(torch.linalg.vector_norm(matrix, dtype=torch.float64))
    rest = float(torch.linalg.vector_norm(torch.addmm(matrix, found.up, found.down, alpha=-1), dtype=torch.float64))
    return rest / size if size else 0.0


def decompose(matrix: Tensor, rank: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(U, σ, Vᵀ) of a matrix: all of it, or at least the leading `rank` directions where a rank is given."""
    if rank and FAR_BELOW * (rank + OVERSAMPLE) <= min(matrix.shape):
        found = _randomized(matrix, rank)
        if found is not None:
            return found
    return torch.linalg.svd(matrix, full_matrices=False)


def _randomized(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """The leading directions by power iteration from a fixed random start; None where they don't settle."""
    generator = torch.Generator(matrix.device).manual_seed(0)
    start = torch.randn(
        matrix.shape[1], rank + OVERSAMPLE, generator=generator, device=matrix.device, dtype=matrix.dtype
    )
    basis = torch.linalg.qr(matrix @ start)[0]
    found = 0.0
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.t() @ basis)[0])[0]
        u, values, vh = torch.linalg.svd(basis.t() @ matrix, full_matrices=False)
        energy = float(values[:rank].double().square().sum())
        if not math.isfinite(energy):
            return None
        if energy - found <= GAIN * energy:
            return basis @ u, values, vh
        found = energy
    return None


def _quantile(values: Tensor, share: float) -> float:
    """The quantile of many values; torch's own stops at 16 million."""
    place = math.ceil(share * values.numel())
    return float(values.kthvalue(max(1, place)).values)
