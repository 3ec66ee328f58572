"""Adapters as one adapter: Σ wᵢ ΔWᵢ, exact by concatenated ranks.

Σ wᵢ sᵢ Uᵢ Dᵢ is one product of [w₁s₁U₁ w₂s₂U₂ …] and [D₁; D₂; …]. Adding factor by factor instead would add cross
terms Uᵢ Dⱼ, and is not what anybody wants: it is not offered. What has no low-rank form of its own (a LoKr, a DoRA, a
full difference, a LoHa whose r² reaches the weight's rank) is refused, or, by explicit choice, added up as a dense
matrix and approximated; what that costs is reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.errors import Problem, UserError
from engine.formats.adapter import Adapter, Factors
from engine.formats.container import listed
from engine.formats.layers import DoRA, Layer
from engine.lora.algebra import Kept, Measure, Product, inner, norm, product, recompress, total
from engine.lora.extract import approximate

Target = tuple[str, str]
"""A part and a module path in it."""
Terms = list[tuple[Layer, float]]
"""The updates of one layer, and their weights."""
Weight = float | Callable[[str, str], float]
"""Of all layers of an adapter, or of each by part and module path."""
Base = Callable[[str, str], Tensor]
"""Part, module path → the base's weight there."""


@dataclass(frozen=True)
class Options:
    """How layers are put together."""

    measure: Measure | None = None
    """How far to reduce each layer's rank; None: not at all."""
    svd: bool = False
    """Whether layers without a low-rank form of their own are approximated, and not refused."""
    base: Base | None = None
    """Weights for DoRA layers."""


EXACT = Options()


def compose(adapters: Iterable[tuple[Adapter, Weight]]) -> Adapter:
    """Σ weight · ΔW of the adapters, exactly, in float32, with alpha = rank. Weight 0 leaves a layer out altogether.

    Raises UserError for layers that have no low-rank form. Tokens are left out: they belong to a tokenizer.
    """
    terms = gather(adapters)
    check_forms(terms, EXACT)
    parts: dict[str, dict[str, Layer]] = {}
    for (part, path), layers in terms.items():
        parts.setdefault(part, {})[path] = combine(layers, EXACT)[0]
    return Adapter(parts)


def gather(adapters: Iterable[tuple[Adapter, Weight]]) -> dict[Target, Terms]:
    """The updates of every layer, those of weight 0 left out."""
    gathered: dict[Target, Terms] = {}
    for adapter, weight in adapters:
        for part, modules in adapter.parts.items():
            for path, layer in modules.items():
                if strength := weight(part, path) if callable(weight) else weight:
                    gathered.setdefault((part, path), []).append((layer, strength))
    return gathered


def check_forms(terms: dict[Target, Terms], options: Options) -> None:
    """Raise UserError if some layers can't be put together this way: all of them, by kind."""
    bare = [_name(target) for target, layers in terms.items() for layer, _ in layers if _needs_base(layer)]
    formless: dict[str, list[str]] = {}
    for target, layers in terms.items():
        for layer, _ in layers:
            if low_rank(layer) is None:
                formless.setdefault(type(layer).__name__, []).append(_name(target))
    problems = []
    if bare and options.base is None:
        problems.append(
            Problem(
                where="adapters",
                field=listed(bare),
                expected="the base model beside DoRA layers",
                found="none",
                advice="name it with --base: a DoRA's update depends on the weights that it is for",
            )
        )
    if not options.svd:
        problems += [
            Problem(
                where="adapters",
                field=listed(names),
                expected="layers with an exact low-rank form",
                found=f"{kind} ({len(names)} of them)",
                advice="--how svd with --rank or --energy takes the best low-rank approximation and reports its error",
            )
            for kind, names in formless.items()
        ]
    if problems:
        raise UserError(problems)


def _name(target: Target) -> str:
    return ".".join(target)


def _needs_base(layer: Layer) -> bool:
    return isinstance(layer, DoRA)


def low_rank(layer: Layer) -> Factors | None:
    """A layer as plain factors, exactly; None where it has no such form, or only one that reaches the full rank."""
    if isinstance(layer, Factors):
        return layer
    factors = layer.factors()
    if factors is None or factors.rank >= min(factors.up.shape[0], factors.down[0].numel()):
        return None
    return factors


def combine(
    terms: Terms, options: Options, dtype: torch.dtype = torch.float32, target: Target = ("", "")
) -> tuple[Factors, Kept]:
    """Σ weight · ΔW of one layer in `dtype`, and how far it is, number format included, from the exact one.

    `check_forms` comes before. A sum whose rank exceeds that of the matrix is brought back to it, at no loss.
    """
    forms = [(low_rank(layer), layer, weight) for layer, weight in terms]
    products = [product(factors, weight) for factors, _, weight in forms if factors is not None]
    rest = [(layer, weight) for factors, layer, weight in forms if factors is None]
    if rest:
        matrix = _sum(products, rest, options.base, target)
        found, kept = approximate(matrix, options.measure or Measure(energy=1.0), dtype=dtype)
        return cast(found.factors(), dtype), kept
    together = found = total(products)
    kept = Kept(together.rank, 1.0, 0.0)
    if options.measure:
        found, kept = recompress(together, options.measure)
    elif together.rank > together.full_rank:
        found, kept = recompress(together, Measure(rank=together.full_rank))
    factors = cast(found.factors(), dtype)
    if found is together and dtype == torch.float32:
        return factors, kept
    return factors, replace(kept, error=distance(together, product(factors)) / (norm(together) or 1.0))


def _sum(products: list[Product], rest: Terms, base: Base | None, target: Target) -> Tensor:
    """The sum as a float32 matrix of the weight's shape."""
    shape = rest[0][0].shape
    matrix = torch.zeros(shape)
    for layer, weight in rest:
        matrix.add_(dense(layer, base, target), alpha=weight)
    for one in products:
        matrix.flatten(1).addmm_(one.up, one.down)
    return matrix


def dense(layer: Layer, base: Base | None, target: Target) -> Tensor:
    """ΔW of one layer, float64. base: asked for the weight of a DoRA. Raises UserError where that is another one's."""
    if base is None or not _needs_base(layer):
        return layer.delta()
    weight = base(*target)
    if (weight.shape[0], weight[0].numel()) != (layer.shape[0], math.prod(layer.shape[1:])):
        raise UserError(
            Problem(
                where="base",
                field=_name(target),
                expected=f"a weight of {tuple(layer.shape)}, as the adapter's update",
                found=f"{tuple(weight.shape)}",
                advice="choose the base that the adapter was trained on",
            )
        )
    return layer.delta(weight.reshape(layer.shape))


def combined(
    terms: dict[Target, Terms], options: Options, dtype: torch.dtype
) -> Iterator[tuple[Target, Factors, Kept]]:
    """Every layer in turn, as `combine` makes it. Raises UserError before the first where some can't be."""
    check_forms(terms, options)
    for target, layers in terms.items():
        yield target, *combine(layers, options, dtype, target)


def cast(factors: Factors, dtype: torch.dtype) -> Factors:
    """The same factors in another number format."""
    return Factors(factors.down.to(dtype), factors.up.to(dtype), factors.alpha)


def distance(first: Product, second: Product) -> float:
    """Frobenius norm of the difference of two updates, from their factors; resolved to about 1e-8 of their norms."""
    return max(0.0, inner(first, first) + inner(second, second) - 2 * inner(first, second)) ** 0.5
