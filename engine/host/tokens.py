"""Token counts of captions while they are typed: the counter of a base is kept, and so is, for a while, its refusal."""

from __future__ import annotations

import time
from collections.abc import Sequence

from engine.errors import UserError
from engine.host.kept import Kept
from engine.models.counting import Counter, counter
from engine.protocol.browse import TokenCounts

REFUSED_FOR = 30.0
"""Seconds. To look for a base that is not there may take a network's patience, and a count is asked for at each key."""

_counters = Kept(4)
_refusals: dict[str, tuple[float, UserError]] = {}


def count(base: str, texts: Sequence[str]) -> TokenCounts:
    """Tokens of each text by the base's own tokenizer. Raises UserError for a base that can't be read."""
    counted = _counters.get(base, None, lambda: _counter(base))
    return TokenCounts(tokens=list(map(counted, texts)), limit=counted.limit)


def _counter(base: str) -> Counter:
    until, refusal = _refusals.get(base, (0.0, None))
    if refusal is not None and time.monotonic() < until:
        raise refusal
    _refusals.clear()
    try:
        return counter(base)
    except UserError as error:
        _refusals[base] = time.monotonic() + REFUSED_FOR, error
        raise
