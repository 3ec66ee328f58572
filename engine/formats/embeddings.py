"""Learned tokens (textual inversion, Gal et al. 2022) in all the files that hold them.

A token is a word and its vectors, one or more for each text encoder. Files name it in their own ways: AUTOMATIC1111's
.pt by `string_to_param`, its safetensors by nothing but the file's name, diffusers' by the token itself, SDXL's by the
encoder (`clip_l`, `clip_g`), and adapters carry tokens along. No torch: what is told here is which key is whose.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from engine.formats.container import TensorInfo
from engine.formats.names import TOKEN_WIDTHS

EMBED = "<embed>"
"""What cloneofsimo's metadata says of a token's key."""
A1111 = "emb_params"
STRING = "string_to_param."
ENCODERS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
"""Keys of SDXL's embeddings → part."""

MARKED = re.compile(r"<[^<>]+>")
BUNDLED = re.compile(r"bundle_emb\.(.+?)\.(string_to_param\..+|emb_params|clip_[lg])")


class Token(NamedTuple):
    """Whose vectors a tensor holds."""

    word: str
    encoder: str


def in_adapter(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> dict[str, Token]:
    """Key → token, of the tokens that an adapter carries along: cloneofsimo's, and AUTOMATIC1111's bundles."""
    found = {}
    for key, info in tensors.items():
        if bundled := BUNDLED.fullmatch(key):
            found[key] = Token(bundled[1], ENCODERS.get(bundled[2]) or _encoder(info))
        elif MARKED.fullmatch(key) or metadata.get(key) == EMBED:
            found[key] = Token(key, _encoder(info))
    return found


def alone(tensors: Mapping[str, TensorInfo], name: str) -> dict[str, Token]:
    """Key → token, of a file that holds nothing else; empty where it holds something else.

    name: the word of a token that the file itself has no word for.
    """
    if not tensors or not all(1 <= len(info.shape) <= 2 for info in tensors.values()):
        return {}
    if tensors.keys() <= ENCODERS.keys():
        return {key: Token(name, ENCODERS[key]) for key in tensors}
    if len(tensors) == 1 and (key := next(iter(tensors))).startswith((A1111, STRING)):
        return {key: Token(name, _encoder(tensors[key]))}
    if all(MARKED.fullmatch(key) or info.shape[-1] in TOKEN_WIDTHS for key, info in tensors.items()) and not any(
        "." in key for key in tensors
    ):
        return {key: Token(key, _encoder(info)) for key, info in tensors.items()}
    return {}


def key_of(word: str, width: int) -> str:
    """The key of a token's vectors in a file of their own: its word, as diffusers has it.

    `A1111` where no reader would take the word for one: the token then goes by the file's name.
    """
    found = alone({word: TensorInfo("F32", (1, width))}, "")
    return word if found and found[word].word == word else A1111


def family(encoders: Mapping[str, int]) -> str:
    """The family that tokens are for. encoders: part → width of the vectors."""
    if "text_encoder_2" in encoders:
        return "sdxl"
    return TOKEN_WIDTHS.get(encoders.get("text_encoder", 0), ("", ""))[0]


def _encoder(info: TensorInfo) -> str:
    """The text encoder that vectors of this width are for; the first where the width is of no base known here."""
    return TOKEN_WIDTHS.get(info.shape[-1] if info.shape else 0, ("", "text_encoder"))[1]
