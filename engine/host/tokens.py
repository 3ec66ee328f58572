"""Token counts of captions while they are typed."""

from __future__ import annotations

from collections.abc import Sequence

from engine.host.kept import Kept
from engine.models.counting import counter
from engine.protocol.browse import TokenCounts

_counters = Kept(4)


def count(base: str, texts: Sequence[str]) -> TokenCounts:
    """Tokens of each text by the base's own tokenizer. Raises UserError for a base that can't be read."""
    counted = _counters.get(base, None, lambda: counter(base))
    return TokenCounts(tokens=list(map(counted, texts)), limit=counted.limit)
