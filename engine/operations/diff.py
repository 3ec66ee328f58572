"""diff: how far two adapters are apart, of each layer and of all layers taken as one vector."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from engine.config.operations import Diff
from engine.lora.algebra import Product, inner, product
from engine.lora.compose import Base, Options, Target, Terms, check_forms, dense, gather, low_rank
from engine.operate import Reporter
from engine.operations.inputs import read_alike
from engine.protocol.operations import Difference, LayerDifference


@dataclass
class Sums:
    """Squared norms of two updates, and their inner product."""

    first: float = 0.0
    second: float = 0.0
    inner: float = 0.0

    def add(self, other: Sums) -> None:
        self.first += other.first
        self.second += other.second
        self.inner += other.inner

    @property
    def distance(self) -> float:
        return math.sqrt(max(0.0, self.first + self.second - 2 * self.inner))

    @property
    def cosine(self) -> float | None:
        size = math.sqrt(self.first * self.second)
        return max(-1.0, min(1.0, self.inner / size)) if size else None


def diff(request: Diff, reporter: Reporter) -> Difference:
    """Norms, distance and cosine of ΔW, layer by layer and in all."""
    reporter.stage("read")
    first, second = read_alike([request.first, request.second], reporter)
    base = None
    if request.base:
        from engine.operations.bases import open_base

        base = open_base(request.base)
    ours, theirs = gather([(first, 1.0)]), gather([(second, 1.0)])
    for terms in (ours, theirs):
        check_forms(terms, Options(svd=True, base=base))
    targets = list(dict.fromkeys([*ours, *theirs]))
    reporter.stage("compare", len(targets), "layers")
    whole, layers = Sums(), []
    for done, target in enumerate(targets, 1):
        sums = _sums(_update(ours.get(target), target, base), _update(theirs.get(target), target, base))
        whole.add(sums)
        layers.append(
            LayerDifference(
                part=target[0],
                path=target[1],
                first=math.sqrt(sums.first),
                second=math.sqrt(sums.second),
                distance=sums.distance,
                cosine=sums.cosine,
            )
        )
        reporter.progress(done)
    return Difference(
        first=math.sqrt(whole.first),
        second=math.sqrt(whole.second),
        distance=whole.distance,
        cosine=whole.cosine,
        layers=layers,
    )


def _update(terms: Terms | None, target: Target, base: Base | None) -> Product | Tensor | None:
    """An update as factors, or as a float64 matrix where it has none; None where there is none."""
    if terms is None:
        return None
    ((layer, _),) = terms
    factors = low_rank(layer)
    if factors is not None:
        return product(factors)
    return dense(layer, base, target).flatten(1)


def _sums(first: Product | Tensor | None, second: Product | Tensor | None) -> Sums:
    return Sums(
        _inner(first, first) if first is not None else 0.0,
        _inner(second, second) if second is not None else 0.0,
        _inner(first, second) if first is not None and second is not None else 0.0,
    )


def _inner(first: Product | Tensor, second: Product | Tensor) -> float:
    if isinstance(first, Product) and isinstance(second, Product):
        return inner(first, second)
    if isinstance(first, Product):
        first, second = second, first
    if isinstance(second, Product):  # tr(Mᵀ U D) = Σ (Uᵀ M) ∘ D
        return float(((second.up.double().t() @ first) * second.down.double()).sum())
    return float((first * second).sum())
