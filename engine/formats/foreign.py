"""What else is found in adapter files: keys that are no plain LoRA in kohya's naming, told apart by their shape.

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


_EXPORT = "export it in kohya's naming (lora_unet_….lora_down.weight) with the program that made it"
_APART = "export the LoRA without them with the program that made it"
_NOT_PLAIN = "read as a plain LoRA it would draw other pictures: train or export a plain LoRA"

KINDS = (
    _kind(r"\.dora_scale$|lora_magnitude_vector", "magnitudes of a DoRA", _NOT_PLAIN),
    _kind(r"\.hada_[wt]\d", "factors of a LoHa", _NOT_PLAIN),
    _kind(r"\.lokr_[wt]\d", "factors of a LoKr", _NOT_PLAIN),
    _kind(r"\.oft_blocks$|\.oft_diag$|\.rescale$|^oft_", "blocks of an OFT", _NOT_PLAIN),
    _kind(r"\.lora_mid\.weight$", "cores of a Tucker-decomposed LoCon (lora_mid)", _NOT_PLAIN),
    _kind(r"\.[ab][12]\.weight$", "factors of a GLoRA", _NOT_PLAIN),
    _kind(r"\.on_input$", "scales of an IA3", _NOT_PLAIN),
    _kind(r"\.diff(_b)?$", "full-rank differences (diff)", _NOT_PLAIN),
    _kind(r"\.[wb]_norm$", "trained norms", _NOT_PLAIN),
    _kind(r"^bundle_emb\.", "embeddings bundled with a LoRA", _APART),
    _kind(r"\.lora_[AB](\.|$)", "factors in PEFT's naming", _EXPORT),
    _kind(r"\.processor\..*lora\.|_lora\.(down|up)\.|\.lora(_linear_layer)?\.(down|up)\.",
          "factors in an old naming of diffusers", _EXPORT),
    _kind(r"^(unet|text_encoder):\d+:(up|down)$", "factors of cloneofsimo's lora", _EXPORT),
    _kind(r"^<[^>]+>$", "learned tokens of cloneofsimo's lora", _APART),
    _kind(r"^(emb_params|clip_[lg]|string_to_param\..*)$", "a textual inversion embedding",
          "it is used as a word of the prompt, not as an adapter"),
    _kind(r"^(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\.",
          "weights of a whole model", "name it as the base (model.base), not as an adapter"),
    _kind(r"^(conv_(in|out|norm_out)|(down|up)_blocks|mid_block|time_embedding|encoder|decoder|(post_)?quant_conv|"
          r"text_model|embeddings|final_layer_norm)\.",
          "weights of a part of a diffusers model", "name its folder as the base (model.base), not as an adapter"),
)  # fmt: skip
"""Specific marks before general ones."""

_UNKNOWN = Kind(re.compile(""), "keys of no kind known here", "choose a LoRA in kohya's naming")


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
            expected="a plain LoRA in kohya's naming",
            found=f"{kind.name} ({len(groups[kind])} {'key' if len(groups[kind]) == 1 else 'keys'})",
            advice=kind.advice,
        )
        for kind in (*KINDS, _UNKNOWN)
        if kind in groups
    ]
