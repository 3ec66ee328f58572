"""What lies in folders: adapters by their headers, images by their headers and captions.

Folders hold a hundred thousand files and change under us. A listing is kept for as long as its folder is untouched, a
file's header for as long as the file is; only the page that is asked for is looked into. Whatever is wrong with one
file is said of that file.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import msgspec

from engine.errors import Problem, UserError
from engine.protocol.browse import (
    AdapterHeader,
    Adapters,
    FolderRef,
)

MOST = 10_000
"""Entries of a page."""
LONGEST_VALUE = 1000
"""Characters of a metadata value that a list shows; kohya's tag counts run to hundreds of thousands."""
SETTLED_NS = 2_000_000_000
"""Age from which a folder's time can be trusted: two changes within one tick of its clock look like one."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""The only readers of picture headers that are tried; some of Pillow's others start programs."""
_ORIENTATION, _ON_THEIR_SIDE = 0x0112, (5, 6, 7, 8)
"""EXIF's tag, and its values for pictures that are stored lying on their side."""


class Kept:
    """Values that hold for as long as their stamp does; of more than `most` the one unused for longest is dropped."""

    def __init__(self, most: int):
        self._most = most
        self._values: OrderedDict[Hashable, tuple[Any, Any]] = OrderedDict()
        self._mutex = threading.Lock()

    def get(self, key: Hashable, stamp: Any, make: Callable[[], Any], lasting: bool = True) -> Any:
        """The value under `key`, made anew unless it was made at the same stamp."""
        with self._mutex:
            if key in self._values and self._values[key][0] == stamp:
                self._values.move_to_end(key)
                return self._values[key][1]
        value = make()
        with self._mutex:
            if lasting:
                self._values[key] = (stamp, value)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value


_listings, _metadata, _headers, _pictures = Kept(8), Kept(4), Kept(2_000), Kept(50_000)


def adapters(params: FolderRef) -> Adapters:
    """The safetensors files of a folder. Raises UserError for a folder that can't be listed."""
    folder, names = _listing(params, frozenset({".safetensors"}))
    page = names[params.offset : params.offset + params.limit]
    return Adapters(total=len(names), adapters=[_adapter(folder / name) for name in page])


def _listing(params: FolderRef, suffixes: frozenset[str]) -> tuple[Path, list[str]]:
    """A folder, and the names of its files with these suffixes in natural order. Hidden files do not count."""
    if not (params.offset >= 0 and 1 <= params.limit <= MOST):
        found = f"offset {params.offset}, limit {params.limit}"
        raise UserError(Problem(where="page", expected=f"an offset from 0 on and 1 to {MOST} entries", found=found))
    try:
        folder = Path(params.path).expanduser().absolute()
        changed = folder.stat().st_mtime_ns
        settled = time.time_ns() - changed > SETTLED_NS
        key = folder, suffixes
        return folder, _listings.get(key, changed, lambda: _names(folder, suffixes), lasting=settled)
    except (OSError, RuntimeError, ValueError) as error:  # no such home, a null character in the path
        found = "a file" if isinstance(error, NotADirectoryError) else getattr(error, "strerror", None) or str(error)
        advice = "check the path and its permissions"
        raise UserError(Problem(where=params.path, expected="a folder", found=found.lower(), advice=advice)) from None


def _names(folder: Path, suffixes: frozenset[str]) -> list[str]:
    from engine.data.natural import in_natural_order

    with os.scandir(folder) as entries:
        files = [
            Path(entry.name)
            for entry in entries
            if os.path.splitext(entry.name)[1].lower() in suffixes and entry.name[0] != "." and not entry.is_dir()
        ]
    return in_natural_order(path.name for path in files)


def _regular(path: Path) -> os.stat_result | str:
    """The file's facts, or why it is none that could be read. A pipe of that name would never end."""
    try:
        facts = path.stat()
    except OSError as error:
        return (error.strerror or "it can't be read").lower()
    return facts if stat.S_ISREG(facts.st_mode) else "no regular file"


def _stamp(facts: os.stat_result) -> tuple[int, int, int]:
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def _adapter(path: Path) -> AdapterHeader:
    facts = _regular(path)
    if isinstance(facts, str):
        return AdapterHeader(path=str(path), bytes=0, modified=0.0, problem=facts)
    return _headers.get(path, _stamp(facts), lambda: _header(path, facts))


def _header(path: Path, facts: os.stat_result) -> AdapterHeader:
    from engine.formats.container import read_header

    about = {"path": str(path), "bytes": facts.st_size, "modified": facts.st_mtime}
    try:
        header = read_header(path)
    except UserError as error:
        problem = str(msgspec.structs.replace(error.problems[0], where=path.name))
        return AdapterHeader(**about, problem=problem)
    metadata = {
        key: value if len(value) <= LONGEST_VALUE else value[: LONGEST_VALUE - 1] + "…"
        for key, value in header.metadata.items()
    }
    return AdapterHeader(**about, metadata=metadata, tensors=len(header.tensors))
