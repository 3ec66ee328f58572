"""What an adapter file is, told by its header: for lists of thousands, in a millisecond or less each and without torch.

Names and shapes tell the format, the ranks and what is adapted; many files of a library have the same ones, so they are
looked into once. Alpha lies among the tensors, so a few bytes are read
for each kind of module. A file that is only in part of a known format says what else is in it, since a reader that took
the known part alone would draw other pictures.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from engine.formats import foreign, keys
from engine.formats.container import MAX_HEADER, read_header, shown
from engine.formats.embeddings import BUNDLED, MARKED
from engine.formats.said import alphas_said, family_said, trigger_said

MOST_ALPHAS, MOST_RANKS = 16, 64
"""Alphas that are read, one for each rank in each part, and ranks that are told."""


class _Tensor(msgspec.Struct, gc=False):
    dtype: str = ""
    shape: list[int] = []
    data_offsets: tuple[int, int] = (0, 0)


class _Metadata(msgspec.Struct):
    metadata: dict[str, str] = msgspec.field(name="__metadata__", default={})


class _Parted(msgspec.Struct):
    metadata: msgspec.Raw = msgspec.field(name="__metadata__", default=msgspec.Raw(b"{}"))


Tensors = Mapping[str, _Tensor]
_tensors, _metadata = msgspec.json.Decoder(dict[str, _Tensor]), msgspec.json.Decoder(_Metadata)
_parted, _texts = msgspec.json.Decoder(_Parted), msgspec.json.Decoder(dict[str, str])


class _Module(NamedTuple):
    """An adapted module. `width`: of its input; `alpha`: the key of the tensor that would hold it."""

    part: str
    name: str
    rank: int
    width: int
    alpha: str


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What a file says. Format, family, ranks, alphas, modules and trigger are those of messages.AdapterHeader."""

    metadata: dict[str, str]
    tensors: int
    format: str = ""
    problem: str = ""
    """What is in it, where that is no format known here."""
    family: str = ""
    ranks: list[int] = field(default_factory=list)
    alphas: list[float] = field(default_factory=list)
    modules: dict[str, int] = field(default_factory=dict)
    trigger: str = ""


def outline(path: Path) -> Outline:
    """What the header of a safetensors file says. Raises UserError where it is none or not whole, and OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        metadata, layout, start = _header(path, descriptor)
        tensors, name = layout.tensors, layout.format
        said = family_said(metadata)
        return Outline(
            metadata=metadata,
            tensors=len(tensors),
            format=name,
            problem="" if name else _strangers(path, tensors),
            family=layout.family if said is None else said,
            ranks=list(layout.ranks),
            alphas=_alphas(layout.alphas, descriptor, start) or _implied_alphas(name, metadata, layout.ranks),
            modules=dict(layout.modules),
            trigger=trigger_said(metadata) or _tokens(path, tensors, name),
        )
    finally:
        os.close(descriptor)


def glance(path: Path) -> tuple[str, str]:
    """Family and trigger of `outline`, in a third of its time where the metadata knows the one. Raises as it does."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            metadata = _metadata.decode(_raw(descriptor)).metadata
            if (family := family_said(metadata)) is not None:
                return family, trigger_said(metadata)
    finally:
        os.close(descriptor)
    whole = outline(path)
    return whole.family, whole.trigger


def _raw(descriptor: int) -> bytes:
    """The header of an open file; empty where it can't have one."""
    prefix = os.pread(descriptor, 8, 0)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    room = os.fstat(descriptor).st_size - 8
    return os.pread(descriptor, length, 8) if 2 <= length <= min(MAX_HEADER, room) else b""


class _Layout:
    """What names and shapes alone tell."""

    def __init__(self, tensors: Tensors):
        self.tensors = tensors
        self.end = max((tensor.data_offsets[1] for tensor in tensors.values()), default=-1)
        self.format, modules = _recognised(tensors)
        self.ranks = sorted({module.rank for module in modules if module.rank})[:MOST_RANKS]
        self.family = _family(tensors, modules, self.format)
        self.modules = Counter(module.part for module in modules)
        occurring = {(module.part, module.rank): module.alpha for module in modules if module.alpha in tensors}
        self.alphas = [tensors[key] for key in list(occurring.values())[:MOST_ALPHAS]]


@lru_cache(maxsize=64)
def _layout(table: bytes) -> _Layout:
    """Of a header without its metadata. Raises as msgspec does where it is none."""
    tensors = _tensors.decode(table)
    tensors.pop("__metadata__", None)
    return _Layout(tensors)


def _header(path: Path, descriptor: int) -> tuple[dict[str, str], _Layout, int]:
    """Metadata, layout and where tensors' bytes begin. What is odd is left to the reader that finds words for it."""
    raw, size = _raw(descriptor), os.fstat(descriptor).st_size
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        said = bytes(_parted.decode(raw).metadata)
        metadata, layout = _texts.decode(said), _layout(raw.replace(said, b"{}", 1))
        if layout.end == size - 8 - len(raw):
            return metadata, layout, 8 + len(raw)
    header = read_header(path)
    tensors, end = {}, 0
    for key, info in header.tensors.items():  # in the order of their bytes, without gaps
        tensors[key] = _Tensor(info.dtype, list(info.shape), (end, end + info.size))
        end += info.size
    return header.metadata, _Layout(tensors), size - end


# ---- formats


_KOHYA = tuple(keys.KOHYA)
_STARTS = ("lora_", "lycoris_")
_RANKED = ("lora_down", "hada_w1_b")
"""Tensors in kohya's naming whose sizes are the rank and the width of the input."""
_KRONECKER = ("lokr_w1", "lokr_w1_b")
_KOHYA_PARTS = {"te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2", "te3": "text_encoder_3"}
_PART = re.compile(r"(unet|transformer|text_encoder(_\d)?|diffusion_model)\.")
_CLONEOFSIMO = re.compile(r"(\w+):(\d+):(up|down)|<[^>]+>")
_EMBEDDED = frozenset({"emb_params", "clip_l", "clip_g"})
_TEXT_WIDTHS = {768: "sd1", 1024: "sd2", 1280: "sdxl"}
"""Width of a text encoder, and of its tokens → family."""
_STATE_WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
"""Width of the text states that a UNet reads → family."""


def _recognised(tensors: Tensors) -> tuple[str, list[_Module]]:
    """The format whose keys are all that the file holds, or none; and the modules, of kohya's naming where it is none.

    Kohya's comes first, as nearly all files are of it.
    """
    whole, kohya = _kohya(tensors)
    if kohya and whole:
        return "kohya", kohya
    if tensors and all(map(_CLONEOFSIMO.fullmatch, tensors)) and (found := list(_cloneofsimo(tensors))):
        return "cloneofsimo", found
    spelling, dotted = _dotted(tensors)
    if dotted:
        return spelling, dotted
    return "embedding" if _is_embedding(tensors) else "", kohya


def _kohya(tensors: Tensors) -> tuple[bool, list[_Module]]:
    """Whether all keys are of kohya's naming, and the modules that they name."""
    whole, modules = True, []
    for key, tensor in tensors.items():
        dot = key.find(".")
        role = keys.KOHYA.get(key[dot:]) if key.startswith(_STARTS) else None
        if role in _RANKED:
            if _is_down(tensor):
                modules.append(_flattened(key[:dot], *tensor.shape[:2]))
        elif role in _KRONECKER and len(tensor.shape) == 2:
            low = tensors.get(f"{key[:dot]}.lokr_w2_b", tensor if role == "lokr_w1_b" else None)
            wide = tensors.get(f"{key[:dot]}.lokr_w2", low)
            width = tensor.shape[1] * wide.shape[1] if wide and len(wide.shape) > 1 else 0
            modules.append(_flattened(key[:dot], low.shape[0] if low and low.shape else 0, width))
        elif role is None and not BUNDLED.fullmatch(key):
            whole = False
    return whole, modules


def _flattened(stem: str, rank: int, width: int) -> _Module:
    part = stem.split("_", 2)[1] if stem.startswith("lora_") else _guessed_part(stem)
    return _Module(_KOHYA_PARTS.get(part, part), stem, rank, width, f"{stem}.alpha")


def _dotted(tensors: Tensors) -> tuple[str, list[_Module]]:
    """Format and modules of a file whose keys have dots in their modules' names; no modules where it has others too."""
    modules, spelling = [], "peft"
    for key, tensor in tensors.items():
        if (found := keys.split(key)) is None:
            return "", []
        stem, role, suffix = found
        if stem.startswith(keys.COMFYUI):
            spelling = "comfyui"
        elif suffix == "diffusers" or ".processor." in stem:
            spelling = "diffusers"
        if role == "lora_down" and "." in stem and _is_down(tensor):
            part = _PART.match(stem)
            modules.append(_Module(part[1] if part else _guessed_part(stem), stem, *tensor.shape[:2], f"{stem}.alpha"))
    return spelling, modules


def _guessed_part(stem: str) -> str:
    """The part that a module must be of whose name has no word for it."""
    return "text_encoder" if re.search(r"self_attn|text_model|[._]mlp[._]", stem) else "unet"


def _cloneofsimo(tensors: Tensors) -> Iterator[_Module]:
    for key, tensor in tensors.items():
        match = _CLONEOFSIMO.fullmatch(key)
        if match[3] == "down" and _is_down(tensor):
            yield _Module(match[1], match[2], *tensor.shape[:2], "")


def _is_down(tensor: _Tensor) -> bool:
    """Whether it has the shape of a factor: rank by inputs, and perhaps a kernel."""
    return len(tensor.shape) in (2, 4) and 0 < tensor.shape[0] < 1 << 20


def _is_embedding(tensors: Tensors) -> bool:
    """Learned tokens: of A1111's naming, named by themselves, or one alone under the name of its token."""
    if not tensors or not all(1 <= len(tensor.shape) <= 2 for tensor in tensors.values()):
        return False
    named = all(key in _EMBEDDED or MARKED.fullmatch(key) for key in tensors)
    return named or (len(tensors) == 1 and next(iter(tensors.values())).shape[-1] in _TEXT_WIDTHS)


def _tokens(path: Path, tensors: Tensors, name: str) -> str:
    """The words that stand for the learned tokens of a file: their own, or else the file's name, as A1111 has it."""
    bundled = (BUNDLED.fullmatch(key) for key in tensors if key.startswith("bundle_emb."))
    words = {found[1] for found in bundled if found and name}
    if name in ("embedding", "cloneofsimo"):
        tokens = [key for key in tensors if MARKED.fullmatch(key)]
        if name == "embedding" and not tokens:
            tokens = [path.stem] if tensors.keys() <= _EMBEDDED else list(tensors)
        words.update(tokens)
    return shown(", ".join(sorted(words)))


def _strangers(path: Path, tensors: Tensors) -> str:
    """What is in a file of no known format, in the words of the table of foreign keys."""
    others = [key for key in tensors if not (key.startswith(_STARTS) and key.endswith(_KOHYA))]
    found = [problem.found for problem in foreign.problems(path.name, others)]
    return "not understood: " + (" and ".join(found) or "it holds no adapter")


# ---- what the modules tell


def _family(tensors: Tensors, modules: list[_Module], name: str) -> str:
    """By the width of the text states that a UNet reads; else by the text encoders; empty where neither tells."""
    if name == "embedding":
        widths = {tensor.shape[-1] for tensor in tensors.values()}
        return "sdxl" if "clip_g" in tensors else _TEXT_WIDTHS.get(min(widths), "")
    if name == "cloneofsimo":
        widths = {module.width for module in modules}
        return next((family for width, family in _STATE_WIDTHS.items() if width in widths), "")
    for module in modules:
        if module.name.endswith(("attn2_to_k", "attn2.to_k")):
            return _STATE_WIDTHS.get(module.width, "")
    parts = {module.part for module in modules}
    if parts == {"text_encoder", "text_encoder_2"}:
        return "sdxl"
    if parts == {"text_encoder"} and not any(module.name.startswith("lora_te1_") for module in modules):
        return _TEXT_WIDTHS.get(min(module.width for module in modules), "")
    deep = any(re.search(r"(down|up|mid|input|output|middle)_block.*transformer_blocks[_.]1[_.]", module.name)
               for module in modules)  # fmt: skip
    return "sdxl" if deep else ""


def _alphas(tensors: list[_Tensor], descriptor: int, start: int) -> list[float]:
    """The alphas that occur, by one module of each rank in each part."""
    read = (_number(tensor, descriptor, start) for tensor in tensors)
    return sorted({value for value in read if value is not None})


_NUMBERS = {"F64": "<d", "F32": "<f", "F16": "<e", "I64": "<q", "I32": "<i"}


def _number(tensor: _Tensor, descriptor: int, start: int) -> float | None:
    """The value of a tensor of one number; None where it is none that JSON could tell."""
    begin, end = tensor.data_offsets
    try:
        data = os.pread(descriptor, end - begin, start + begin) if 0 < end - begin <= 8 else b""
        if tensor.dtype == "BF16":
            (value,) = struct.unpack("<f", b"\0\0" + data)
        else:
            (value,) = struct.unpack(_NUMBERS.get(tensor.dtype, ""), data)
    except (OSError, ValueError, struct.error):
        return None
    return float(value) if math.isfinite(value) else None


def _implied_alphas(name: str, metadata: Mapping[str, str], ranks: list[int]) -> list[float]:
    """Alphas of a file that holds none: those of the metadata in PEFT's files, else the ranks."""
    if name == "peft":
        return alphas_said(metadata)
    return [float(rank) for rank in ranks] if name else []
