"""Which modules SD1, SD2 and SDXL have in their UNets and text encoders, of which sizes, and what files call them.

The tables are made from a few sizes of each family and hold every Linear and Conv2d that an adapter may change, by the
path that it has in diffusers and transformers 5. By them a file's family is told, its shapes are checked, and the files
of cloneofsimo's lora are read, which number their modules in the order of the model they were trained on. No torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain

from engine.formats.keys import to_sgm

Shape = tuple[int, ...]
Table = Mapping[str, Mapping[str, Shape]]
"""Part → path of a module → shape of its weight."""


@dataclass(frozen=True)
class _UNet:
    """Sizes of a UNet. depths: transformer blocks of an attention in each level, from the finest; 0: no attention."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    middle: int
    """Transformer blocks of the attention in the middle."""
    context: int
    """Width of the text states."""
    linear: bool = True
    """Whether attentions begin and end with a Linear; a 1x1 convolution otherwise."""
    added: int = 0
    """Width of what is embedded beside the time."""


@dataclass(frozen=True)
class _Text:
    width: int
    layers: int
    projected: bool = False


_UNETS = {
    "sd1": _UNet((320, 640, 1280, 1280), (1, 1, 1, 0), 1, 768, linear=False),
    "sd2": _UNet((320, 640, 1280, 1280), (1, 1, 1, 0), 1, 1024),
    "sdxl": _UNet((320, 640, 1280), (0, 2, 10), 10, 2048, added=2816),
}
_TEXTS = {
    "sd1": {"text_encoder": _Text(768, 12)},
    "sd2": {"text_encoder": _Text(1024, 23)},
    "sdxl": {"text_encoder": _Text(768, 12), "text_encoder_2": _Text(1280, 32, projected=True)},
}
FAMILIES = tuple(_UNETS)
TOKEN_WIDTHS = {768: ("sd1", "text_encoder"), 1024: ("sd2", "text_encoder"), 1280: ("sdxl", "text_encoder_2")}
"""Width of a learned token's vectors → the family that it tells, and the text encoder that they are for."""

_LAYERS = 2
_TARGETS = {
    "transformer": r"unet\..*\.attentions\.",
    "locon": r"unet\..*\.(attentions|resnets|\w+samplers)\.",
    "text": r"text_encoder(_2)?\..*\.layers\.",
}


def count(family: str, target: str, part: str | None = None) -> int:
    """How many modules a target set of kohya's has: `transformer` or `locon` of the UNet, or `text`."""
    table = modules(family)
    names = (f"{name}.{path}" for name, paths in table.items() if part in (None, name) for path in paths)
    return sum(re.match(_TARGETS[target], name) is not None for name in names)


@cache
def modules(family: str) -> Table:
    """Every module of a family's UNet and text encoders, in the order of diffusers' forward pass."""
    texts = {part: dict(_text(text)) for part, text in _TEXTS[family].items()}
    return {"unet": dict(_unet(_UNETS[family])), **texts}


def _unet(sizes: _UNet) -> Iterator[tuple[str, Shape]]:
    widths, depths, last = sizes.widths, sizes.depths, len(sizes.widths) - 1
    time = 4 * widths[0]
    yield "conv_in", (widths[0], 4, 3, 3)
    yield "time_embedding.linear_1", (time, widths[0])
    yield "time_embedding.linear_2", (time, time)
    if sizes.added:
        yield "add_embedding.linear_1", (time, sizes.added)
        yield "add_embedding.linear_2", (time, time)
    for level, width in enumerate(widths):
        block = f"down_blocks.{level}"
        for index in range(_LAYERS):
            before = width if index else widths[max(level - 1, 0)]
            yield from _resnet(f"{block}.resnets.{index}", before, width, time)
            yield from _attention(f"{block}.attentions.{index}", width, depths[level], sizes)
        if level < last:
            yield f"{block}.downsamplers.0.conv", (width, width, 3, 3)
    for index in range(2):
        yield from _resnet(f"mid_block.resnets.{index}", widths[-1], widths[-1], time)
    yield from _attention("mid_block.attentions.0", widths[-1], sizes.middle, sizes)
    for up in range(last + 1):
        level = last - up
        width, block = widths[level], f"up_blocks.{up}"
        for index in range(_LAYERS + 1):
            before = width if index else widths[min(level + 1, last)]
            skipped = width if index < _LAYERS else widths[max(level - 1, 0)]
            yield from _resnet(f"{block}.resnets.{index}", before + skipped, width, time)
            yield from _attention(f"{block}.attentions.{index}", width, depths[level], sizes)
        if level:
            yield f"{block}.upsamplers.0.conv", (width, width, 3, 3)
    yield "conv_out", (4, widths[0], 3, 3)


def _resnet(block: str, before: int, width: int, time: int) -> Iterator[tuple[str, Shape]]:
    yield f"{block}.conv1", (width, before, 3, 3)
    yield f"{block}.time_emb_proj", (width, time)
    yield f"{block}.conv2", (width, width, 3, 3)
    if before != width:
        yield f"{block}.conv_shortcut", (width, before, 1, 1)


def _attention(block: str, width: int, depth: int, sizes: _UNet) -> Iterator[tuple[str, Shape]]:
    if not depth:
        return
    ends = (width, width) if sizes.linear else (width, width, 1, 1)
    yield f"{block}.proj_in", ends
    for index in range(depth):
        inner = f"{block}.transformer_blocks.{index}"
        for attention, context in (("attn1", width), ("attn2", sizes.context)):
            yield f"{inner}.{attention}.to_q", (width, width)
            yield f"{inner}.{attention}.to_k", (width, context)
            yield f"{inner}.{attention}.to_v", (width, context)
            yield f"{inner}.{attention}.to_out.0", (width, width)
        yield f"{inner}.ff.net.0.proj", (8 * width, width)
        yield f"{inner}.ff.net.2", (width, 4 * width)
    yield f"{block}.proj_out", ends


def _text(sizes: _Text) -> Iterator[tuple[str, Shape]]:
    width = sizes.width
    for index in range(sizes.layers):
        layer = f"encoder.layers.{index}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield f"{layer}.self_attn.{name}", (width, width)
        yield f"{layer}.mlp.fc1", (4 * width, width)
        yield f"{layer}.mlp.fc2", (width, 4 * width)
    if sizes.projected:
        yield "text_projection", (width, width)


# ---- telling families apart


def fits(shape: Shape, weight: Shape) -> bool:
    """Whether an update of `shape` is one for `weight`, be a 1x1 convolution stored as a Linear or the other way."""
    return shape == weight or (
        shape[:2] == weight[:2] and {*shape[2:], *weight[2:]} <= {1} and {len(shape), len(weight)} <= {2, 4}
    )


def flat(shape: Shape) -> Shape:
    """Outputs by numbers for each."""
    return (shape[0], math.prod(shape[1:]))


def families_of(shapes: Mapping[tuple[str, str], Shape]) -> dict[str, list[tuple[str, str]]]:
    """Family → those of `shapes`, by part and path, that are no module of it, or of another size.

    What counts is outputs and numbers for each: not all tensors tell a kernel from more inputs.
    """
    return {
        family: [
            (part, path)
            for (part, path), shape in shapes.items()
            if (weight := modules(family).get(part, {}).get(path)) is None or flat(shape) != flat(weight)
        ]
        for family in FAMILIES
    }


# ---- spellings


def kohya_name(family: str, part: str, path: str) -> str:
    """What kohya's files call a module: by diffusers' names, but by SGM's in the UNet of SDXL."""
    if part == "unet":
        return "lora_unet_" + (sgm_name(family, path) if family == "sdxl" else path).replace(".", "_")
    prefix = {"text_encoder": "lora_te1" if family == "sdxl" else "lora_te", "text_encoder_2": "lora_te2"}[part]
    return f"{prefix}_{text_path(path)}".replace(".", "_")


def sgm_name(family: str, path: str) -> str:
    """What the first program of a family called a module of its UNet, with dots."""
    attends = frozenset(level for level, depth in enumerate(reversed(_UNETS[family].depths)) if depth)
    return to_sgm(path, attends)


def text_path(path: str) -> str:
    """A text encoder's module as all files know it: inside `text_model`, but for the projection behind it."""
    return path if path == "text_projection" else f"text_model.{path}"


def diffusers_name(part: str, path: str) -> str:
    """What diffusers' own files call a module."""
    return f"{part}.{path if part == 'unet' else text_path(path)}"


# ---- the order of cloneofsimo's lora

ORDERS = ("legacy", "current", "attention")
"""How the modules of a transformer block follow each other: up to diffusers 0.14, from 0.15 on, and without GEGLU."""
_GEGLU = ("ff.net.0.proj",)
_ATTN1, _ATTN2 = (tuple(f"{name}.to_{x}" for x in ("q", "k", "v", "out.0")) for name in ("attn1", "attn2"))
_BLOCK = {
    "legacy": (*_ATTN1, *_GEGLU, *_ATTN2),
    "current": (*_ATTN1, *_ATTN2, *_GEGLU),
    "attention": (*_ATTN1, *_ATTN2),
}
_RESNET = ("conv1", "time_emb_proj", "conv2", "conv_shortcut")


@cache
def numbered(family: str, part: str, order: str = "current", extended: bool = False) -> tuple[str, ...]:
    """Paths in the order by which cloneofsimo's files number them: depth first, as the modules are registered.

    That is the way down, the way up, then the middle; in each block the attentions before the resnets, where `extended`
    has these too.
    """
    table = modules(family)[part]
    if part != "unet":
        return tuple(path for path in table if ".self_attn." in path)
    levels = len(_UNETS[family].widths)
    blocks = (*(f"{side}_blocks.{level}" for side in ("down", "up") for level in range(levels)), "mid_block")
    return tuple(path for block in blocks for path in _ordered(block, table, order, extended))


def _ordered(block: str, table: Mapping[str, Shape], order: str, extended: bool) -> Iterator[str]:
    inside = [path for path in table if path.startswith(f"{block}.")]
    inner = dict.fromkeys(found[0] for path in inside if (found := re.match(r".+\.transformer_blocks\.\d+", path)))
    resnets = dict.fromkeys(found[0] for path in inside if (found := re.match(r".+\.resnets\.\d+", path)))
    yield from (f"{name}.{layer}" for name in inner for layer in _BLOCK[order])
    if extended:
        names = chain.from_iterable((f"{name}.{layer}" for layer in _RESNET) for name in resnets)
        yield from (name for name in names if name in table)
