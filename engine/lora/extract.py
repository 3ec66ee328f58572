"""The best low-rank approximation of a dense update, as extraction from a fine-tuned model needs it.

An approximation is a projection: once the leading singular directions of one side are known, the other side follows
from the matrix itself. They are found from the float64 Gram matrix of the smaller side, no less accurate than a float32
SVD and without its copies; or, where a fixed rank is far below the matrix's own, by randomized power iteration (Halko,
Martinsson & Tropp 2011, algorithm 4.4), until another round finds next to no more energy. Where that does not come, as
on the flat spectrum of noise, the Gram matrix decides. What is reported of an approximation is measured on it.

Matrices are gone through in slabs, so that memory holds one layer in float32 and little more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from engine.lora.algebra import Kept, Measure, Product, cut

OVERSAMPLE = 16
"""Directions looked for beyond those that are kept."""
FAR_BELOW = 4
"""A rank is far below the full one where so many times (rank + OVERSAMPLE) still are."""
ROUNDS = 6
"""Rounds of power iteration before the Gram matrix is cheaper."""
GAIN = 1e-4
"""The randomized decomposition is enough where a round's share of newly found energy is below this."""
SLAB = 1 << 21
"""Numbers that are turned to float64, or out of halves, at a time."""


def difference(tuned: Tensor, base: Tensor, scratch: Tensor) -> Tensor:
    """tuned − base in float32, whatever their formats, in the memory of `scratch`: float32 [n], n enough for it."""
    update = scratch[: tuned.numel()].view(tuned.shape)
    for rows in _slabs(tuned.flatten(1)):
        torch.sub(tuned[rows].float(), base[rows].float(), out=update[rows])
    return update


def approximate(
    update: Tensor, measure: Measure, clamp: float = 1.0, dtype: torch.dtype = torch.float32
) -> tuple[Product, Kept]:
    """The best approximation of ΔW, [out, in(, kh, kw)] float32, and how good it is.

    clamp: factors are cut to this quantile of their magnitudes; 1 cuts nothing. It bounds outliers, and costs accuracy.
    dtype: number format that the factors are rounded to; they come back as float32.
    """
    matrix = update.flatten(1)
    tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.t() if tall else matrix
    basis = leading(wide, measure)
    others = basis.t() @ wide
    # both sides get √σ of the singular value, so that neither leaves a half's range
    roots = others.norm(dim=1).sqrt()
    near, far = basis * roots, others * torch.where(roots > 0, 1 / roots, 0.0)[:, None]
    up, down = (far.t(), near.t()) if tall else (near, far)
    if clamp < 1.0:
        limit = _quantile(torch.cat([up.flatten(), down.flatten()]).abs(), clamp)
        up, down = up.clamp(-limit, limit), down.clamp(-limit, limit)
    found = Product(up.to(dtype).float(), down.to(dtype).float(), tuple(update.shape))
    error = relative_error(found, matrix)
    return found, Kept(found.rank, max(0.0, 1.0 - error**2), error)


def relative_error(found: Product, matrix: Tensor) -> float:
    """‖ΔW − up @ down‖ / ‖ΔW‖, of a dense ΔW; 0 where ΔW is zero."""
    size = rest = 0.0
    for rows in _slabs(matrix):
        slab = matrix[rows]
        size += _energy(slab)
        rest += _energy(torch.addmm(slab, found.up[rows], found.down, alpha=-1))
    return math.sqrt(rest / size) if size else 0.0


def leading(wide: Tensor, measure: Measure) -> Tensor:
    """The left singular vectors to keep of a matrix that is no taller than wide: orthonormal columns, [m, rank]."""
    if measure.rank and FAR_BELOW * (measure.rank + OVERSAMPLE) <= wide.shape[0]:
        found = _randomized(wide, measure.rank)
        if found is not None:
            return found
    values, vectors = torch.linalg.eigh(_gram(wide))
    rank, _ = cut(values.flip(0).clamp_min(0.0).sqrt(), measure)
    return vectors.flip(1)[:, :rank].to(wide.dtype)


def _gram(wide: Tensor) -> Tensor:
    """A Aᵀ in float64."""
    gram = torch.zeros(len(wide), len(wide), dtype=torch.float64, device=wide.device)
    for columns in _slabs(wide.t()):
        slab = wide[:, columns].double()
        gram.addmm_(slab, slab.t())
    return gram


def _randomized(wide: Tensor, rank: int) -> Tensor | None:
    """The leading left singular vectors by power iteration from a fixed random start; None where they don't settle."""
    generator = torch.Generator(wide.device).manual_seed(0)
    start = torch.randn(wide.shape[1], rank + OVERSAMPLE, generator=generator, device=wide.device, dtype=wide.dtype)
    basis = torch.linalg.qr(wide @ start)[0]
    found = 0.0
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(wide @ torch.linalg.qr(wide.t() @ basis)[0])[0]
        rotation, values, _ = torch.linalg.svd(basis.t() @ wide, full_matrices=False)
        energy = float(values[:rank].double().square().sum())
        if energy - found <= GAIN * energy:
            return basis @ rotation[:, :rank]
        found = energy
    return None


def _slabs(matrix: Tensor) -> Iterator[slice]:
    """Rows of a matrix, as many at a time as make a slab."""
    step = max(1, SLAB // max(1, matrix.shape[1]))
    return (slice(start, start + step) for start in range(0, len(matrix), step))


def _energy(slab: Tensor) -> float:
    return float(slab.double().square().sum())


def _quantile(values: Tensor, share: float) -> float:
    """The quantile of many values; torch's own stops at 16 million."""
    place = math.ceil(share * values.numel())
    return float(values.kthvalue(max(1, place)).values)
