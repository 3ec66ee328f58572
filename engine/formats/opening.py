"""Adapter files opened: names, shapes and metadata first, tensors mapped when asked for, nothing executed.

What `torch.save` wrote is brought into one form here: a dict of tensors as it is, the bare list of cloneofsimo's .pt
files under numbered keys, and AUTOMATIC1111's nested embedding under dotted ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.errors import Problem, UserError
from engine.formats.container import TensorInfo, listed, shown
from engine.formats.embeddings import STRING
from engine.formats.numbered import named
from engine.formats.pickles import StoredTensor, read_pickle
from engine.formats.weights import PICKLED, SUFFIXES, Weights, open_weights

MOST_TENSORS = 100_000
COMPANIONS = (".text_encoder", ".ti")
"""What cloneofsimo's .pt files have behind their name for the rest of an adapter."""


@dataclass(frozen=True)
class Opened:
    """An adapter file."""

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    tensor: Callable[[str], Tensor]
    """A view of the file."""
    word: str
    """The word of a token that the file has no other word for."""
    notices: tuple[str, ...] = ()


def open_adapter(path: Path) -> Opened:
    """Open a .safetensors, .pt, .bin or .ckpt file, whatever its suffix says. Raises UserError."""
    weights, word, notices = _opened(path)
    if len(weights.tensors) > MOST_TENSORS:
        raise _refusal(path, f"an adapter of up to {MOST_TENSORS} tensors", f"{len(weights.tensors)}")
    try:
        reader = weights.reader()
    except Exception as error:  # of the safetensors library, in words of its own
        raise _refusal(path, "a file that can be mapped", shown(str(error))) from error
    return Opened(path, weights.tensors, weights.metadata, reader, word or path.stem, notices)


def _opened(path: Path) -> tuple[Weights, str, tuple[str, ...]]:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError:
        start = b""  # the weights' own words for it
    if path.suffix.lower() not in SUFFIXES or not start.startswith(PICKLED):
        return open_weights(path), "", ()
    stored, word, left = _flat(path, read_pickle(path))
    for key, tensor in stored.items():
        if tensor.info.size > tensor.storage.size:
            raise _refusal(
                path, "tensors that fill their place in the file", f"{shown(key)}, which repeats its numbers"
            )
    notices = [f"left out what is no tensor: {listed(left)}"] if left else []
    notices += [f"{file.name} beside it is another part of the same adapter" for file in beside(path)]
    return Weights(path, {key: tensor.info for key, tensor in stored.items()}, stored=stored), word, tuple(notices)


def beside(path: Path) -> list[Path]:
    """The files that hold the rest of the adapter that is in this one."""
    if path.suffix.lower() != ".pt":
        return []
    files = [path.with_suffix(f"{companion}{path.suffix}") for companion in COMPANIONS]
    return [file for file in files if file != path and file.is_file()]


def _flat(path: Path, content: Any) -> tuple[dict[str, StoredTensor], str, list[str]]:
    """Tensors by key, the word of an embedding, and the names of what is neither."""
    if isinstance(content, list) and all(isinstance(item, StoredTensor) for item in content):
        if len(content) % 2:
            raise _refusal(path, "pairs of up and down", f"{len(content)} tensors")
        return dict(zip(named(len(content)), content, strict=True)), "", []
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise _refusal(path, "a table or list of tensors", f"a {type(content).__name__}")
    parameters = content.get("string_to_param")
    if isinstance(parameters, dict):
        stored = {f"{STRING}{key}": value for key, value in parameters.items() if isinstance(value, StoredTensor)}
        word = content.get("name")
        return stored, word if isinstance(word, str) else "", []
    stored = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, StoredTensor)}
    return stored, "", [str(key)[:100] for key in content if key not in stored]


def _refusal(path: Path, expected: str, found: str) -> UserError:
    advice = "choose an adapter file, or convert it with the program that made it"
    return UserError(Problem(where=str(path), expected=expected, found=found, advice=advice))
