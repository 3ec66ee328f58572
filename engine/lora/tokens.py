"""Learned tokens of several adapters side by side, and on the way from one to another.

A token's vectors are looked up by its name, so two different ones can't share it in one prompt: the later one gets
another name, and whoever writes the file says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

Vectors = dict[str, Tensor]
"""Text encoder → vectors of a token, n × width."""
Tokens = Mapping[str, Vectors]


def gathered(files: Iterable[tuple[str, Tokens]]) -> tuple[dict[str, Vectors], dict[str, str]]:
    """All tokens of files that have names, and which of them had to be renamed: `name: <s1>` → `<s1-2>`.

    The same vectors under the same name are one token.
    """
    result: dict[str, Vectors] = {}
    renamed: dict[str, str] = {}
    files = list(files)
    taken = {token for _, tokens in files for token in tokens}
    for name, tokens in files:
        for token, vectors in tokens.items():
            there = result.get(token)
            if there is None:
                result[token] = vectors
            elif not same(there, vectors):
                free = _free(token, taken)
                taken.add(free)
                result[free] = vectors
                renamed[f"{name}: {token}"] = free
    return result, renamed


def same(first: Vectors, second: Vectors) -> bool:
    """Whether two tokens have equal vectors for the same encoders."""
    return first.keys() == second.keys() and all(
        first[encoder].shape == second[encoder].shape and torch.equal(first[encoder], second[encoder])
        for encoder in first
    )


def _free(token: str, taken: set[str]) -> str:
    """`<s1>` → `<s1-2>`, or the next number that no token has."""
    bare, end = re.fullmatch(r"(.*?)(>?)", token, re.DOTALL).groups()
    number = 2
    while f"{bare}-{number}{end}" in taken:
        number += 1
    return f"{bare}-{number}{end}"


def between(first: Tokens, second: Tokens, t: float) -> dict[str, Vectors]:
    """Tokens on the way from one file's to another's: (1 − t) · e₁ + t · e₂ where both have one of the same name and
    number of vectors; all others as they are, the second's beside the first's where only the name is the same."""
    mixed: dict[str, Vectors] = {}
    rest: dict[str, Vectors] = {}
    for token, vectors in second.items():
        there = first.get(token)
        if there and {key: v.shape for key, v in there.items()} == {key: v.shape for key, v in vectors.items()}:
            mixed[token] = {key: torch.lerp(there[key].float(), vectors[key].float(), t) for key in there}
        else:
            rest[token] = vectors
    return gathered([("first", dict(first) | mixed), ("second", rest)])[0]
