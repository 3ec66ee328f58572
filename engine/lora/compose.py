"""Adapters on a model: their weighted sum, exact by concatenated ranks, and putting it in place.

Σ wᵢ sᵢ Uᵢ Dᵢ is one product of [w₁s₁U₁ w₂s₂U₂ …] and [D₁; D₂; …]. Adding factor by factor instead would add cross
terms Uᵢ Dⱼ, and is not what anybody wants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from engine.formats.adapter import Adapter, Factors
from engine.lora.inject import Layers, replace
from engine.lora.layers import wrap


def compose(adapters: Iterable[tuple[Adapter, float]]) -> Adapter:
    """Σ weight · ΔW of the adapters, in float32, with alpha = rank. Weight 0 leaves an adapter out altogether."""
    gathered: dict[str, dict[str, list[tuple[Factors, float]]]] = {}
    for adapter, weight in adapters:
        if weight:
            for part, modules in adapter.parts.items():
                for path, factors in modules.items():
                    gathered.setdefault(part, {}).setdefault(path, []).append((factors, weight * factors.scale))
    return Adapter({part: {path: _sum(terms) for path, terms in modules.items()} for part, modules in gathered.items()})


def _sum(terms: list[tuple[Factors, float]]) -> Factors:
    down = torch.cat([factors.down.float() for factors, _ in terms])
    up = torch.cat([scale * factors.up.float() for factors, scale in terms], dim=1)
    return Factors(down, up, alpha=float(len(down)))


@torch.no_grad()
def apply(parts: Mapping[str, nn.Module], adapter: Adapter) -> Layers:
    """Put an adapter's layers around the modules of a model, ready for use: no gradients, no dropout."""
    layers: Layers = {}
    for part, modules in adapter.parts.items():
        for path, factors in modules.items():
            layer = wrap(parts[part].get_submodule(path), factors.rank, factors.alpha)
            weight = layer.base.weight
            layer.down = nn.Parameter(factors.down.to(weight.device, torch.float32), requires_grad=False)
            layer.up = nn.Parameter(factors.up.to(weight.device, torch.float32), requires_grad=False)
            layer.compute = (layer.down.to(weight.dtype), layer.up.to(weight.dtype))
            replace(parts[part], path, layer.eval())
            layers.setdefault(part, {})[path] = layer
    return layers
