"""The files of cloneofsimo's lora, whose modules are numbered and not named.

A safetensors file has `unet:0:up`, `unet:0:down` and so on, a .pt file is a bare list of up, down, up, down … The
number is the module's place in a walk through the model, which changed with diffusers 0.15 and with what was trained,
and no file says which walk it was. The shapes do: of the walks known, one fits all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from engine.formats.container import TensorInfo
from engine.formats.findings import Findings, times
from engine.formats.names import FAMILIES, ORDERS, Shape, fits, modules, numbered

KEY = re.compile(r"(\w+):(\d{1,6}):(up|down)")
PARTS = ("unet", "text_encoder")

Module = tuple[str, str]
"""A part and the path of a module in it."""
Keys = dict[str, str]
"""Role → key in the file."""


def modules_of(tensors: Mapping[str, TensorInfo], findings: Findings) -> tuple[dict[Module, Keys], str]:
    """The modules that numbered keys are for, and the family that has them; what is wrong goes to `findings`.

    A part of no name ("" of a .pt file) is whichever part of a model fits.
    """
    groups: dict[str, dict[int, Keys]] = {}
    for key in tensors:
        if found := KEY.fullmatch(key):
            groups.setdefault(found[1], {}).setdefault(int(found[2]), {})[f"lora_{found[3]}"] = key
    found, families = {}, None
    for name, group in groups.items():
        if not _whole(name, group, findings):
            continue
        placed = {
            (part, family): paths for part in ((name,) if name in PARTS else PARTS) for family in FAMILIES
            if (paths := _walk(family, part, [_shape(keys, tensors) for _, keys in sorted(group.items())]))
        }  # fmt: skip
        known = name in PARTS or name == NAMELESS
        if not placed or not known:
            expected = "modules of SD1 or SD2, in an order of cloneofsimo's lora" if known else "unet or text_encoder"
            first = times(_shape(group[0], tensors))
            findings.add(name, expected, f"{len(group)} modules, the first for a {first} weight",
                         "convert it with the program that made it")  # fmt: skip
            continue
        families = {family for _, family in placed} & (families or set(FAMILIES))
        part, family = next(iter(placed))
        for keys, path in zip((group[number] for number in sorted(group)), placed[part, family], strict=True):
            found[part, path] = keys
    if families == set():
        findings.add("", "parts of one family", "a UNet and a text encoder of different ones", "split it")
    return found, next((family for family in FAMILIES if family in (families or ())), "")


NAMELESS = "pt"
"""The part of the keys that a bare list gets."""


def named(count: int) -> list[str]:
    """Keys for the tensors of a bare list."""
    return [f"{NAMELESS}:{index // 2}:{('up', 'down')[index % 2]}" for index in range(count)]


def classes(part: str, paths: Iterable[str]) -> list[str]:
    """The classes of modules that a file says it was injected into, as its own program writes them."""
    if part != "unet":
        return ["CLIPAttention"]
    paths = list(paths)
    found = ["CrossAttention", "Attention"]
    found += ["GEGLU"] if any(path.endswith("ff.net.0.proj") for path in paths) else []
    return found + (["ResnetBlock2D"] if any(".resnets." in path for path in paths) else [])


def _whole(name: str, group: Mapping[int, Keys], findings: Findings) -> bool:
    expected, advice = "up and down of every module, numbered from 0", "the file is incomplete: write it again"
    for number, keys in group.items():
        if len(keys) != 2:
            findings.add(f"{name}:{number}", expected, f"only {' '.join(keys)}", advice)
    if sorted(group) != list(range(len(group))):
        findings.add(name, expected, f"{len(group)} modules numbered up to {max(group)}", advice)
        return False
    return all(len(keys) == 2 for keys in group.values())


def _shape(keys: Keys, tensors: Mapping[str, TensorInfo]) -> Shape:
    """Of the update that a pair makes, as far as it has one."""
    return (*tensors[keys["lora_up"]].shape[:1], *tensors[keys["lora_down"]].shape[1:])


def _walk(family: str, part: str, shapes: Iterable[Shape]) -> tuple[str, ...] | None:
    """The paths of a walk through a part of a family whose weights have just these shapes, the plain walks first."""
    shapes, table = list(shapes), modules(family)[part]
    for extended in (False, True):
        for order in ORDERS:
            paths = numbered(family, part, order, extended)
            if len(paths) == len(shapes) and all(
                fits(shape, table[path]) for shape, path in zip(shapes, paths, strict=True)
            ):
                return paths
    return None
