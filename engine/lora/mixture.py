"""Frozen adapters on a model whose weights can be learned: y = W x + Σᵢ wᵢ(b) sᵢ Uᵢ (Dᵢ x), with one wᵢ for all layers
or one for each block b.

A layer's factors lie side by side, so its adapters cost one product of the concatenated rank; gradients go to the
weights, and through the layers, but never to factors. Updates hang on forward hooks: the model stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.formats.adapter import Adapter
from engine.lora.compose import low_rank


def block_of(part: str, path: str) -> str:
    """The block of a layer: `unet.down_blocks.1`, `unet.mid_block`, or a whole text encoder."""
    if part != "unet":
        return part
    first, _, rest = path.partition(".")
    return f"{part}.{first}.{rest.partition('.')[0]}" if first in ("down_blocks", "up_blocks") else f"{part}.{first}"


class Mixture(nn.Module):
    """Adapters on the parts of a model. `weights` is [blocks, adapters], float32, and all that is learned."""

    def __init__(
        self, parts: Mapping[str, nn.Module], adapters: Sequence[Adapter], start: Sequence[float], per_block: bool
    ):
        super().__init__()
        layers = list(dict.fromkeys((part, path) for one in adapters for part in one.parts for path in one.parts[part]))
        self.blocks = list(dict.fromkeys(block_of(*layer) for layer in layers)) if per_block else ["all"]
        device = next(iter(parts.values())).device
        self.weights = nn.Parameter(torch.tensor([list(start)] * len(self.blocks), device=device))
        self._handles = []
        for part, path in layers:
            module = parts[part].get_submodule(path)
            present = [(i, one.parts[part][path]) for i, one in enumerate(adapters) if path in one.parts.get(part, {})]
            row = self.blocks.index(block_of(part, path)) if per_block else 0
            self._handles.append(module.register_forward_hook(_hook(self.weights, row, module, present)))

    def named(self) -> dict[str, list[float]]:
        """Block → the weight of each adapter."""
        return dict(zip(self.blocks, self.weights.detach().tolist(), strict=True))

    def remove(self) -> None:
        """Take the adapters off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


@torch.no_grad()
def _hook(weights: Tensor, row: int, module: nn.Module, present: list):
    """A forward hook that adds the weighted updates of one layer. present: number of an adapter, and its layer."""
    factors = [(i, low_rank(layer)) for i, layer in present]
    dtype, device = module.weight.dtype, module.weight.device
    down = torch.cat([one.down.float() for _, one in factors]).to(device, dtype)
    up = torch.cat([one.scale * one.up.float() for _, one in factors], dim=1).to(device, dtype)
    owner = torch.cat([torch.full((one.rank,), i) for i, one in factors]).to(device)

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        strength = weights[row][owner].to(dtype)
        x = inputs[0].to(dtype)
        if down.ndim == 4:
            hidden = functional.conv2d(x, down, None, module.stride, module.padding, module.dilation)
            return output + functional.conv2d(hidden * strength[:, None, None], up)
        return output + functional.linear(functional.linear(x, down) * strength, up)

    return add
