"""Layers from the tensors of a file: which kind their names make, whether they fit together, and what they may hold.

Nothing here knows a spelling; tensors come by role, as `engine.formats.keys` has it. What can't be a layer raises
`Misfit`, whose words are a problem's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from engine.formats.adapter import Factors
from engine.formats.findings import times
from engine.formats.layers import Dense, DoRA, Layer, LoHa, LoKr, Shape, Tucker

READABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INCOMPLETE = "the file is incomplete: copy, download or write it again"
_DAMAGED = "the file is damaged, or no adapter of this base"
_REWRITE = "write it again"


class Misfit(Exception):
    """Why tensors are no layer: expected, found and advice."""


def make(tensors: Mapping[str, Tensor], alpha: float | None) -> Layer:
    """The layer that one module's tensors are, by role. alpha: None where the file has none, which means the rank.

    The shape of LoHa and LoKr is out x in·kh·kw until `shaped` says more. Raises Misfit.
    """
    tensors = {role: tensor for role, tensor in tensors.items() if role != "alpha"}
    for tensor in tensors.values():
        if tensor.dtype not in READABLE:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise Misfit("float16, bfloat16, float32 or float64", dtype, "save it in one of these")
        if not tensor.numel() or tensor.ndim not in (1, 2, 4):
            raise Misfit("tensors of one, two or four dimensions with numbers in them", times(tensor.shape), _DAMAGED)
    magnitudes = {role: tensors.pop(role) for role in ("dora_scale", "magnitude") if role in tensors}
    kinds = [kind for kind in _KINDS if any(role.startswith(kind) for role in tensors)]
    if len(kinds) != 1 or len(magnitudes) > 1:
        found = " and ".join(sorted({*tensors, *magnitudes})) or "no factors"
        raise Misfit("tensors of one kind of update", found, _INCOMPLETE)
    try:
        layer = _KINDS[kinds[0]](tensors, alpha)
        return _with_magnitude(layer, *magnitudes.items()) if magnitudes else layer
    except ValueError as error:
        raise Misfit("factors that multiply to a weight", str(error), _DAMAGED) from error


def _plain(tensors: Mapping[str, Tensor], alpha: float | None) -> Layer:
    _need(tensors, "lora_down", "lora_up")
    down, up, mid = tensors["lora_down"], tensors["lora_up"], tensors.get("lora_mid")
    if mid is not None:
        down, up = (tensor if tensor.ndim == 4 else tensor[..., None, None] for tensor in (down, up))
        return Tucker(down, mid, up, _default(alpha, down.shape[0]))
    if up.ndim == 2 and down.ndim == 4:
        up = up[..., None, None]
    if down.ndim not in (2, 4) or up.ndim != down.ndim or down.shape[0] != up.shape[1] or math.prod(up.shape[2:]) != 1:
        found = f"lora_down {times(down.shape)}, lora_up {times(up.shape)}"
        raise Misfit("factors rankxin and outxrank of one rank", found, _DAMAGED)
    return Factors(down, up, _default(alpha, down.shape[0]))


def _hadamard(tensors: Mapping[str, Tensor], alpha: float | None) -> Layer:
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    _need(tensors, *names)
    cores = [tensors.get(name) for name in ("hada_t1", "hada_t2")]
    a, b = tensors["hada_w1_a"], tensors["hada_w1_b"]
    _two(a, b)
    if cores == [None, None]:
        shape: Shape = (a.shape[0], b.shape[1])
    else:
        _need(tensors, "hada_t1", "hada_t2")
        shape = (a.shape[1], b.shape[1], *cores[0].shape[2:])
    return LoHa(*(tensors[name] for name in names), _default(alpha, b.shape[0]), shape, *cores)


def _kronecker(tensors: Mapping[str, Tensor], alpha: float | None) -> Layer:
    named = {role.removeprefix("lokr_"): tensor for role, tensor in tensors.items()}
    first = named.get("w1")
    rows, columns = first.shape[:2] if first is not None and first.ndim == 2 else _side(named, "w1")
    second = named.get("w2")
    if second is None and "t2" in named:
        height, width = (_needed(named, name).shape[-1] for name in ("w2_a", "w2_b"))
        kernel = tuple(named["t2"].shape[2:])
    elif second is None:
        (height, width), kernel = _side(named, "w2"), tuple(_needed(named, "w2_b").shape[2:])
    else:
        if second.ndim < 2:
            raise Misfit("two sides of a product", f"lokr_w2 {times(second.shape)}", _DAMAGED)
        height, width, *kernel = second.shape
    rank = next((named[name].shape[0] for name in ("w2_b", "w1_b") if name in named), 1)
    return LoKr(_default(alpha, rank), (rows * height, columns * width, *kernel), **named)


def _side(named: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    a, b = (_needed(named, f"{name}_{half}") for half in "ab")
    if a.ndim != 2 or b.ndim < 2:
        raise Misfit("two sides of a product", f"lokr_{name}_a {times(a.shape)}, _b {times(b.shape)}", _DAMAGED)
    return a.shape[0], b.shape[1]


def _needed(named: Mapping[str, Tensor], name: str) -> Tensor:
    _need({f"lokr_{role}": tensor for role, tensor in named.items()}, f"lokr_{name}")
    return named[name]


def _two(*tensors: Tensor) -> None:
    if any(tensor.ndim != 2 for tensor in tensors):
        raise Misfit("halves of two dimensions", ", ".join(times(tensor.shape) for tensor in tensors), _DAMAGED)


def _dense(tensors: Mapping[str, Tensor], alpha: float | None) -> Layer:
    if tensors["diff"].ndim == 1:
        raise Misfit("a difference of a weight", f"diff of {times(tensors['diff'].shape)}", _DAMAGED)
    return Dense(tensors["diff"])


_KINDS = {"lora": _plain, "hada": _hadamard, "lokr": _kronecker, "diff": _dense}
"""Start of a role → what makes the layer."""


def _need(tensors: Mapping[str, Tensor], *names: str) -> None:
    missing = [name for name in names if name not in tensors]
    if missing:
        expected = "lora_down and lora_up of every module" if names[0] == "lora_down" else "all tensors of every module"
        raise Misfit(expected, f"no {' and no '.join(missing)}", _INCOMPLETE)


def _default(alpha: float | None, rank: int) -> float:
    return float(rank) if alpha is None else alpha


def _with_magnitude(layer: Layer, named: tuple[str, Tensor]) -> DoRA:
    """The layer with magnitudes. LyCORIS tells the axis by where the ones are; PEFT has outputs alone."""
    role, magnitude = named
    out, inputs = layer.shape[:2]
    rows = role == "magnitude" or magnitude.ndim == 1 or magnitude.shape[0] != 1
    if magnitude.numel() == out == 1 or (rows and magnitude.numel() == out):
        return DoRA(layer, magnitude, 0)
    if magnitude.numel() == inputs and role != "magnitude":
        return DoRA(layer, magnitude, 1)
    raise Misfit(f"{out} magnitudes", times(magnitude.shape), _DAMAGED)


def shaped(layer: Layer, weight: Shape) -> Layer:
    """The layer as one for `weight`: LoHa and LoKr learn its kernel, plain factors get its dimensions.

    A 1x1 convolution may be stored as a linear layer and the other way round. Raises Misfit where it is for another
    weight.
    """
    if isinstance(layer, DoRA):
        return dataclasses.replace(layer, update=shaped(layer.update, weight))
    try:
        if isinstance(layer, LoHa | LoKr) and layer.shape != weight:
            return dataclasses.replace(layer, shape=weight)
        if isinstance(layer, Factors) and len(layer.shape) != len(weight):
            down, up = (_with_dimensions(tensor, len(weight)) for tensor in (layer.down, layer.up))
            layer = dataclasses.replace(layer, down=down, up=up)
        if isinstance(layer, Dense) and len(layer.shape) != len(weight):
            layer = Dense(_with_dimensions(layer.diff, len(weight)))
    except ValueError:
        pass
    if layer.shape != weight:
        raise Misfit(f"factors for a {times(weight)} weight", described(layer), "")
    return layer


def described(layer: Layer) -> str:
    """What there is in place of what was expected."""
    if isinstance(layer, Factors):
        return f"lora_down {times(layer.down.shape)}, lora_up {times(layer.up.shape)}"
    return f"an update of a {times(layer.shape)} weight"


def _with_dimensions(tensor: Tensor, dimensions: int) -> Tensor:
    """`tensor` as that of a linear layer (2) or a convolution (4); ValueError where that would change its meaning."""
    if dimensions == 4 and tensor.ndim == 2:
        return tensor[..., None, None]
    if dimensions == 2 and tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
        return tensor[..., 0, 0]
    raise ValueError


def finite(layer: Layer) -> bool:
    """Whether every number of a layer is one."""
    if isinstance(layer, DoRA):
        return finite(layer.update) and bool(layer.magnitude.isfinite().all())
    values = (getattr(layer, field.name) for field in dataclasses.fields(layer))
    return all(bool(value.isfinite().all()) for value in values if isinstance(value, Tensor))
