"""Blend files: adapters and their weights, in TOML. Wherever an adapter file is taken, a blend is too.

    kind = "blend"
    [[adapters]]
    path = "cat.safetensors"
    weight = 0.7
    [adapters.blocks]
    "unet.up_blocks" = 0.9

A relative path is taken from the blend's folder. `blocks` are beginnings of `part.module.path`, and of those that fit a
layer the longest has its weight. Light: no torch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from msgspec import to_builtins

from engine.config.schema import check
from engine.config.sources import read_file
from engine.config.structs import Section, _m
from engine.errors import Problem, UserError

SUFFIX = ".toml"


class Ingredient(Section):
    """One adapter of a blend."""

    path: Annotated[str, _m("adapter file", min_length=1)]
    weight: Annotated[float, _m("strength of all layers that no block names", ge=-10, le=10)] = 1.0
    blocks: Annotated[
        dict[str, Annotated[float, _m("strength of these layers", ge=-10, le=10)]],
        _m("strengths of layers by the beginning of their names, such as `unet.up_blocks.1`"),
    ] = {}

    def weight_of(self, part: str, path: str) -> float:
        """The strength of one layer."""
        name = f"{part}.{path}."
        fitting = [block for block in self.blocks if name.startswith(f"{block}.")]
        return self.blocks[max(fitting, key=len)] if fitting else self.weight


class Blend(Section):
    """Adapters with their weights."""

    adapters: Annotated[list[Ingredient], _m("adapters of the blend", min_length=1)]
    kind: Annotated[Literal["blend"], _m("what this file is")] = "blend"
    about: Annotated[str, _m("how it came about", advanced=True)] = ""


def is_blend(path: str | Path) -> bool:
    """Whether a path can only be meant as a blend's."""
    return str(path).lower().endswith(SUFFIX)


def read_blend(path: Path) -> Blend:
    """The blend in a file, its paths made whole. Raises UserError with everything that is wrong with it."""
    blend, problems = check(Blend, read_file(path), lambda _: str(path))
    problems += [
        Problem(
            where=str(path),
            field=f"adapters[{index}].path",
            expected="an adapter file",
            found="another blend",
            advice="put that blend's adapters here",
        )
        for index, one in enumerate(blend.adapters if blend else ())
        if is_blend(one.path)
    ]
    if problems:
        raise UserError(problems)
    adapters = [
        Ingredient(os.path.normpath(path.absolute().parent / os.path.expanduser(one.path)), one.weight, one.blocks)
        for one in blend.adapters
    ]
    return Blend(adapters, blend.kind, blend.about)


def to_text(blend: Blend, folder: Path) -> str:
    """A blend as TOML; paths below `folder`, where the file will be, are written relative to it."""
    adapters = []
    for one in blend.adapters:
        path = Path(one.path).absolute()
        inside = path.is_relative_to(folder.absolute())
        shown = str(path.relative_to(folder.absolute()) if inside else path)
        adapters.append({"path": shown, "weight": one.weight} | ({"blocks": one.blocks} if one.blocks else {}))
    about = {"about": blend.about} if blend.about else {}
    return tomli_w.dumps(to_builtins({"kind": blend.kind, **about, "adapters": adapters}))
