"""An adapter that lies in several files: cloneofsimo's .pt, with its text encoder and its tokens in files beside it.

`read_adapter` reads the one file that it is given and mentions the others; `read_whole` joins them, and is what
everything that works with an adapter calls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

from engine.errors import Problem, UserError
from engine.formats.adapter import Adapter
from engine.formats.container import listed
from engine.formats.opening import beside
from engine.formats.reading import read_adapter


def read_whole(path: Path, named: Collection[Path] = ()) -> Adapter:
    """The adapter in a file and in those that belong to it, but for companions that are `named` beside it anyway.

    Raises UserError with everything that is wrong with any of them, or where two are for different bases or hold the
    same part.
    """
    companions = [file for file in beside(path) if file not in named]
    if not companions:
        return _without_mention(read_adapter(path), path)
    adapters, problems = [], []
    for file in (path, *companions):
        try:
            adapters.append(read_adapter(file))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    whole = _without_mention(adapters[0], path)
    for file, adapter in zip(companions, adapters[1:], strict=True):
        whole = _joined(whole, adapter, path, file)
    return whole


def _without_mention(adapter: Adapter, path: Path) -> Adapter:
    """The adapter without its notices about files beside it, which begin with their names."""
    names = tuple(f"{file.name} beside it" for file in beside(path))
    return dataclasses.replace(adapter, notices=tuple(text for text in adapter.notices if not text.startswith(names)))


def _joined(whole: Adapter, other: Adapter, path: Path, file: Path) -> Adapter:
    found = ""
    if whole.family and other.family and whole.family != other.family:
        found = f"one for {other.family} beside {path.name}, which is for {whole.family}"
    elif both := (whole.parts.keys() & other.parts.keys()) | (whole.tokens.keys() & other.tokens.keys()):
        found = f"one that holds the same as another file: {listed(sorted(both))}"
    if found:
        expected = f"another part of the adapter in {path.name}"
        advice = "move it elsewhere, or give one of the two another name"
        raise UserError(Problem(where=str(file), expected=expected, found=found, advice=advice))
    return dataclasses.replace(
        whole,
        parts=whole.parts | other.parts,
        tokens=whole.tokens | other.tokens,
        family=whole.family or other.family,
        notices=(*whole.notices, *other.notices, f"{file.name} is a part of it"),
    )
