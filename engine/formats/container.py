"""The safetensors container: its header read without torch and distrusted, and written the same on every run.

Layout: 8 bytes of little-endian header length, a JSON header padded with spaces to a multiple of 8, then the tensors'
bytes without gaps. The safetensors library writes the metadata in an order drawn anew by each process; files here must
be the same bits for the same run, so `pack_header` writes them sorted and is otherwise equal to it.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from engine.errors import Problem, UserError

ITEM_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
MAX_HEADER = 100_000_000
"""Bytes of header that the safetensors library accepts at most."""

_MARKS = (
    (b"PK\x03\x04", "a zip archive, as PyTorch writes .pt and .ckpt files"),
    (b"\x80\x02", "a Python pickle, as old PyTorch .pt files are"),
    (b"version https://git-lfs", "a Git LFS pointer in place of the file; run `git lfs pull` where it lies"),
    (b"<!DOCTYPE", "a web page; the download went wrong"),
    (b"<html", "a web page; the download went wrong"),
    (b"\x89PNG", "a PNG image"),
    (b"GGUF", "a GGUF file"),
)


class TensorInfo(NamedTuple):
    """What a header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * ITEM_SIZES[self.dtype]


class Header(NamedTuple):
    """The header of a safetensors file."""

    metadata: dict[str, str]
    tensors: dict[str, TensorInfo]


def read_header(path: Path) -> Header:
    """The metadata and the tensors' dtypes and shapes of a safetensors file, without reading a tensor.

    Checks that the tensors lie inside the file, without gaps and whole. Raises UserError otherwise.
    """
    try:
        with path.open("rb") as file:
            total = file.seek(0, 2)
            file.seek(0)
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            fits = 2 <= length <= min(MAX_HEADER, total - 8)
            raw = file.read(length if fits else 64)
    except OSError as error:
        advice = "name the file inside the folder" if isinstance(error, IsADirectoryError) else "check the path"
        raise UserError(
            Problem(where=str(path), expected="a readable file", found=error.strerror or str(error), advice=advice)
        ) from error
    if not fits or not raw.lstrip().startswith(b"{"):
        _refuse_stranger(path, prefix + raw, total)
    try:
        content = json.loads(raw, object_pairs_hook=_table)
    except _Twice as error:
        _refuse(path, "the name twice", str(error))
    except (ValueError, RecursionError) as error:
        _refuse(path, f"a header that is no JSON ({error})")
    metadata = content.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _refuse(path, "metadata that is not a table of texts")
    return Header(metadata, _checked(path, content, total - 8 - length))


class _Twice(Exception):
    """A name that comes twice in one table, of which a reader would see the last one alone."""


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise _Twice(next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1))
    return table


def _checked(path: Path, content: dict[str, Any], room: int) -> dict[str, TensorInfo]:
    """The tensors named by a header, in the order of the file, once they are known to fill `room` bytes."""
    spans = {}
    for key, entry in content.items():
        match entry:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if (
                dtype in ITEM_SIZES and all(isinstance(side, int) and side >= 0 for side in shape)
            ):
                info = TensorInfo(dtype, tuple(shape))
            case _:
                _refuse(path, f"{shown(json.dumps(entry))} in place of dtype, shape and offsets", key)
        if end - begin != info.size:
            _refuse(path, f"{end - begin} bytes for a tensor of {info.size}", key)
        spans[key] = (begin, end, info)
    at = 0
    for key, (begin, end, _) in sorted(spans.items(), key=lambda item: item[1][:2]):
        if begin != at:
            _refuse(path, f"tensor data that begins at byte {begin}, not {at}", key)
        at = end
    if at > room:
        raise UserError(
            Problem(
                where=str(path),
                expected=f"{at} bytes of tensors, as its header says",
                found=f"{room}",
                advice="the file was cut short: copy or download it again",
            )
        )
    if at < room:
        _refuse(path, f"{room - at} bytes behind the last tensor")
    ordered = sorted(spans.items(), key=lambda item: item[1][:2])
    return {key: info for key, (_, _, info) in ordered}


def _refuse(path: Path, found: str, key: str = "") -> NoReturn:
    advice = "the file is damaged: copy, download or write it again"
    raise UserError(
        Problem(where=str(path), field=shown(key), expected="a whole safetensors file", found=found, advice=advice)
    )


def _refuse_stranger(path: Path, start: bytes, total: int) -> NoReturn:
    found = "an empty file" if total == 0 else f"{total} bytes of something else"
    for mark, name in _MARKS:
        if start.startswith(mark):
            found = name
    raise UserError(
        Problem(where=str(path), expected="a safetensors file", found=found, advice="choose a .safetensors file")
    )


def file_order(tensors: Mapping[str, TensorInfo]) -> list[str]:
    """The keys in the order of their bytes: widest item first, so that all stay aligned, then by name."""
    return sorted(tensors, key=lambda key: (-ITEM_SIZES[tensors[key].dtype], key))


def pack_header(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> bytes:
    """The length and header of a file that holds `tensors` in `file_order`, up to where their bytes begin."""
    content: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    at = 0
    for key in file_order(tensors):
        info = tensors[key]
        content[key] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [at, at + info.size]}
        at += info.size
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def shown(text: str) -> str:
    """Text out of a file as a terminal may see it: short, and without control characters."""
    short = text if len(text) <= 100 else text[:99] + "…"
    return "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in short)


def listed(names: Iterable[str], most: int = 3) -> str:
    """The first few of many names, and how many more there are."""
    ordered = sorted(names)
    more = len(ordered) - most
    return ", ".join(map(shown, ordered[:most])) + (f" and {more} more" if more > 0 else "")
