"""Putting low-rank layers into a model and taking them out again, by module path.

A module is named `part.path`, such as `unet.mid_block.attentions.0.proj_in`. What a target set holds is the model
family's to say; here it is only a list of names.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from engine.formats.adapter import Adapter
from engine.lora.layers import LoRALayer, wrap

Layers = dict[str, dict[str, LoRALayer]]
"""Part → module path → layer, in the order of the model's modules."""


@dataclass(frozen=True)
class Selection:
    """Modules to adapt with one rank and alpha. `names` are exact, `pattern` is a shell pattern over all names."""

    rank: int
    alpha: float
    names: frozenset[str] = frozenset()
    pattern: str = ""

    def holds(self, name: str) -> bool:
        return name in self.names or (bool(self.pattern) and fnmatch.fnmatchcase(name, self.pattern))


def adaptable(parts: Mapping[str, nn.Module]) -> dict[str, list[str]]:
    """Every Linear and plain Conv2d of each part, by path, in the model's own order."""
    return {
        part: [
            path
            for path, module in model.named_modules()
            if isinstance(module, nn.Linear)
            or (isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros")
        ]
        for part, model in parts.items()
    }


def choose(parts: Mapping[str, nn.Module], selections: Iterable[Selection]) -> dict[str, dict[str, tuple[int, float]]]:
    """Rank and alpha of each module to adapt: the last selection that holds it decides; rank 0 leaves it out."""
    selections = list(selections)
    chosen: dict[str, dict[str, tuple[int, float]]] = {}
    for part, paths in adaptable(parts).items():
        for path in paths:
            holding = [selection for selection in selections if selection.holds(f"{part}.{path}")]
            if holding and holding[-1].rank:
                chosen.setdefault(part, {})[path] = (holding[-1].rank, holding[-1].alpha)
    return chosen


def inject(
    parts: Mapping[str, nn.Module],
    chosen: Mapping[str, Mapping[str, tuple[int, float]]],
    seed: Callable[[str], int],
    dropout: float = 0.0,
) -> Layers:
    """Wrap the chosen modules. Each layer's `down` is drawn from `seed(name)`: its start depends on its name."""
    layers: Layers = {}
    for part, paths in chosen.items():
        for path, (rank, alpha) in paths.items():
            layer = wrap(parts[part].get_submodule(path), rank, alpha, dropout)
            layer.reset(torch.Generator().manual_seed(seed(f"{part}.{path}")))
            replace(parts[part], path, layer)
            layers.setdefault(part, {})[path] = layer
    return layers


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


def remove(parts: Mapping[str, nn.Module], layers: Layers) -> None:
    """Put the wrapped modules back in their places, as they were."""
    for part, paths in layers.items():
        for path, layer in paths.items():
            replace(parts[part], path, layer.base)


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    """Set the submodule at a path."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
