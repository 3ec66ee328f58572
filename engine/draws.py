"""Chance as a pure function: a draw is computed from a seed and a path that names it, never from a running generator.

`uniform(seed, "flip", epoch, index)` is the same number on every machine, in every process and after every resume,
whatever was drawn before it. Changing anything here (the encoding, the hash, how a number is made from its bits)
changes every run that was ever started, and a resumed run would no longer continue the one that was killed: recorded
values in the tests stand guard.

A path is any sequence of integers and strings. Begin it with a word that says what is drawn ("noise", "order"), so that
two uses can never share a draw by accident. `bits` seeds a `torch.Generator` where a whole tensor is wanted.
"""

from __future__ import annotations

from hashlib import blake2b
from operator import index

BITS = 63
"""Bits in a draw: the most that fits a signed 64-bit integer without touching its sign."""


def _encode(part: int | str) -> bytes:
    """Tag, length and content, so that no two different paths have the same bytes (("a", "b") is not ("ab",))."""
    if isinstance(part, str):
        tag, content = b"s", part.encode("utf-8", "surrogatepass")
    else:
        tag, content = b"i", str(index(part)).encode("ascii")
    return tag + str(len(content)).encode("ascii") + b":" + content


def _prefix(seed: int, path: tuple[int | str, ...]) -> blake2b:
    return blake2b(b"".join(map(_encode, (seed, *path))), digest_size=8, usedforsecurity=False)


def _take(digest: blake2b) -> int:
    return int.from_bytes(digest.digest(), "big") >> (64 - BITS)


def _below(n: int, digest: blake2b) -> int:
    """Uniform in 0..n-1 without bias: the few highest draws that would favour small numbers are drawn again."""
    limit = (1 << BITS) - (1 << BITS) % n
    drawn = _take(digest)
    while drawn >= limit:
        digest.update(b"again")
        drawn = _take(digest)
    return drawn % n


def bits(seed: int, *path: int | str) -> int:
    """63 uniform bits, as an integer 0 ≤ x < 2⁶³. TypeError for a part that is neither an integer nor a string."""
    return _take(_prefix(seed, path))


def uniform(seed: int, *path: int | str) -> float:
    """A float 0 ≤ x < 1, one of 2⁵³ equally spaced ones."""
    return (bits(seed, *path) >> (BITS - 53)) / (1 << 53)


def integer(n: int, seed: int, *path: int | str) -> int:
    """An integer 0 ≤ x < n, each equally likely. ValueError unless 1 ≤ n ≤ 2⁶³."""
    if not 1 <= n <= 1 << BITS:
        raise ValueError(f"cannot draw one of {n}")
    return _below(n, _prefix(seed, path))


def shuffled(n: int, seed: int, *path: int | str) -> list[int]:
    """The numbers 0..n-1 in an order drawn uniformly from all n! (Fisher and Yates, Durstenfeld's form)."""
    order = list(range(n))
    prefix = _prefix(seed, path)
    for last in range(n - 1, 0, -1):
        digest = prefix.copy()
        digest.update(_encode(last))
        other = _below(last + 1, digest)
        order[last], order[other] = order[other], order[last]
    return order
