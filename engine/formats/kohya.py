"""Tensors of layers in kohya's naming, the one that every UNet program reads: `lora_unet_….lora_down.weight`,
`.lora_up.weight` and `.alpha` a module; other kinds by the names of LyCORIS.

How a module is called differs by model family, so the caller brings the names.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from engine.formats.adapter import Adapter, Factors
from engine.formats.layers import Dense, DoRA, Layer, LoHa, LoKr, Tucker
from engine.formats.saving import PRECISIONS, number, save

Name = Callable[[str, str], str]
"""(part, module path) → kohya's name of the module."""


def write(path: Path, adapter: Adapter, name: Name, precision: str) -> dict[str, str]:
    """Write what was trained to `path`, whole or not at all, the same bits for the same adapter.

    precision: fp16, bf16 or fp32. An alpha that it can't hold exactly is kept in a wider format, since readers take it
    as a number whatever its format. Returns the file's metadata: the adapter's with the hashes of `saving.save`.
    """
    return save(path, tensors(adapter, name, PRECISIONS[precision]), adapter.metadata)


def tensors(adapter: Adapter, name: Name, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The tensors of a file, by key. dtype: None keeps each as it is."""
    made: dict[str, Tensor] = {}
    for part, modules in adapter.parts.items():
        for path, layer in modules.items():
            base = name(part, path)
            for role, tensor in named(layer, dtype).items():
                if f"{base}.{role}" in made:
                    raise ValueError(f"two modules are named {base}; one of them is {part}.{path}")
                made[f"{base}.{role}"] = tensor
    return made


def named(layer: Layer, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The tensors of one layer, by what comes behind its module's name."""
    found = _tensors(layer)
    widths = {tensor.dtype for tensor in found.values()}
    cast = {role: tensor.detach().to("cpu", dtype or tensor.dtype) for role, tensor in found.items()}
    plain = layer.update if isinstance(layer, DoRA) else layer
    if not isinstance(plain, Dense):
        cast["alpha"] = number(plain.alpha, dtype or (widths.pop() if len(widths) == 1 else torch.float32))
    return cast


def _tensors(layer: Layer) -> dict[str, Tensor]:
    match layer:
        case Factors():
            return {"lora_down.weight": layer.down, "lora_up.weight": layer.up}
        case Tucker():
            return {"lora_down.weight": layer.down, "lora_up.weight": layer.up, "lora_mid.weight": layer.mid}
        case LoHa() | LoKr():
            return layer.tensors()
        case Dense():
            return {"diff": layer.diff}
        case DoRA():
            return _tensors(layer.update) | {"dora_scale": _along(layer)}
    raise TypeError(f"{type(layer).__name__} has no names")


def _along(layer: DoRA) -> Tensor:
    """Magnitudes with ones where the weight has its other dimensions, which tells readers their axis."""
    ones = [1] * len(layer.shape)
    ones[layer.axis] = layer.shape[layer.axis]
    return layer.magnitude.reshape(ones)
