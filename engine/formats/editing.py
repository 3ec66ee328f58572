"""The metadata of an adapter file changed, and nothing else in it: the tensors' bytes are copied as they stand."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from engine.errors import Problem, UserError
from engine.files import replace_file
from engine.formats.container import Header, file_order, read_header, shown
from engine.formats.hashes import adapter_hashes
from engine.formats.saving import OWN
from engine.formats.streams import LazyTensor
from engine.formats.weights import open_weights


def edit_metadata(path: Path, out: Path, changes: Mapping[str, str], removed: tuple[str, ...] = ()) -> dict[str, str]:
    """Write the file at `path` to `out`, which may be the same, with other metadata. Returns the metadata.

    changes: entry → its new text. Where the file has sd-scripts' hashes they are made anew, since one of them depends
    on the `ss_*` entries. Raises UserError for a file that is not safetensors, an entry to remove that isn't there, and
    hashes, which are not for anybody to set.
    """
    header = read_header(path)
    problems = [_problem(path, key, "an entry of the file", "none of that name", "see `loratui adapter inspect`")
                for key in removed if key not in header.metadata]  # fmt: skip
    problems += [_problem(path, key, "an entry that may be set", "a hash, which the file decides", "leave it out")
                 for key in changes if key in OWN]  # fmt: skip
    problems += [_problem(path, key, "a name and a text", "nothing", "give a name") for key in changes if not key]
    if problems:
        raise UserError(problems)
    metadata = {key: value for key, value in header.metadata.items() if key not in removed} | dict(changes)
    if {"sshs_model_hash", "sshs_legacy_hash"} & metadata.keys():
        layout = header.tensors
        metadata |= adapter_hashes(layout, _pieces(path, header), metadata)
    with path.open("rb") as source, replace_file(out) as temporary, temporary.open("wb") as target:
        target.write(_header(source, metadata))
        shutil.copyfileobj(source, target, 1 << 20)
    return metadata


def _problem(path: Path, key: str, expected: str, found: str, advice: str) -> Problem:
    return Problem(where=str(path), field=shown(key), expected=expected, found=found, advice=advice)


def _pieces(path: Path, header: Header) -> Iterator[memoryview]:
    """The tensors' bytes in the order in which sd-scripts would have written them."""
    tensor = open_weights(path).reader()

    def made(key: str) -> Callable:
        return lambda: tensor(key)

    for key in file_order(header.tensors):
        yield LazyTensor(header.tensors[key], made(key)).bytes()


def _header(source: BinaryIO, metadata: Mapping[str, str]) -> bytes:
    """The header of an open file with other metadata; leaves the file where the tensors begin."""
    (length,) = struct.unpack("<Q", source.read(8))
    content = json.loads(source.read(length))
    content.pop("__metadata__", None)
    entries = {"__metadata__": dict(metadata)} | content if metadata else content
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
