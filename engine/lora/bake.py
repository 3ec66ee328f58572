"""Adapters in the weight that they are for: W + Σ wᵢ ΔWᵢ, in float64, and then in the weight's own format again.

The sum is rounded once, whatever the number of adapters, and so finely before that how a product was ordered or split
does not show: a folder and a file of the same model come out the same. Baking an adapter and then its negative does not
give back the weight to the last bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.formats.adapter import Factors
from engine.formats.layers import Layer


def baked(weight: Tensor, terms: list[tuple[Layer, float]]) -> Tensor:
    """The weight with these updates at these strengths, in its dtype. Every layer has the weight's shape.

    What is beyond the dtype's range comes out as infinity.
    """
    total = weight.to(torch.float64, copy=True)
    for layer, strength in terms:
        if isinstance(layer, Factors):
            up, down = layer.up.to(total.dtype).flatten(1), layer.down.to(total.dtype).flatten(1)
            total.flatten(1).addmm_(up, down, alpha=strength * layer.scale)
        else:
            total += strength * layer.delta(weight).to(total.dtype)
    return total.to(weight.dtype)
