"""What else is found in adapter files: keys that no reader here understands, told apart by their shape.

A reader that met one of these and went on would load a different adapter from the one that was trained, so each kind
has its name and its advice. The first pattern that matches a key decides; a reader for a kind takes its row away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from engine.errors import Problem
from engine.formats.container import listed


class Kind(NamedTuple):
    """One kind of foreign key."""

    pattern: re.Pattern[str]
    name: str
    advice: str


def _kind(pattern: str, name: str, advice: str) -> Kind:
    return Kind(re.compile(pattern), name, advice)


_NO_READER = "without them it would draw other pictures: train or export a LoRA, LoCon, LoHa, LoKr or DoRA"

KINDS = (
    _kind(r"\.oft_blocks$|\.oft_diag$|\.rescale$|^oft_", "blocks of an OFT", _NO_READER),
    _kind(r"\.[ab][12]\.weight$", "factors of a GLoRA", _NO_READER),
    _kind(r"\.on_input$", "scales of an IA3", _NO_READER),
    _kind(r"\.diff_b$", "differences of biases (diff_b)", _NO_READER),
    _kind(r"\.[wb]_norm$", "trained norms", _NO_READER),
    _kind(r"^(emb_params|clip_[lg]|string_to_param\..*)$", "a textual inversion embedding beside an adapter",
          "split the file with the program that made it"),
    _kind(r"^(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\.",
          "weights of a whole model", "name it as the base (model.base), not as an adapter"),
    _kind(r"^(conv_(in|out|norm_out)|(down|up)_blocks|mid_block|time_embedding|encoder|decoder|(post_)?quant_conv|"
          r"text_model|embeddings|final_layer_norm)\.",
          "weights of a part of a diffusers model", "name its folder as the base (model.base), not as an adapter"),
)  # fmt: skip
"""Specific marks before general ones."""

_UNKNOWN = Kind(re.compile(""), "keys of no kind known here", "choose an adapter: a LoRA, LoCon, LoHa, LoKr or DoRA")


def problems(where: str, keys: Iterable[str]) -> list[Problem]:
    """One problem for each kind among `keys`, in the order of the table."""
    groups: dict[Kind, list[str]] = {}
    for key in keys:
        kind = next((kind for kind in KINDS if kind.pattern.search(key)), _UNKNOWN)
        groups.setdefault(kind, []).append(key)
    return [
        Problem(
            where=where,
            field=listed(groups[kind]),
            expected="tensors of an adapter",
            found=f"{kind.name} ({len(groups[kind])} {'key' if len(groups[kind]) == 1 else 'keys'})",
            advice=kind.advice,
        )
        for kind in (*KINDS, _UNKNOWN)
        if kind in groups
    ]
