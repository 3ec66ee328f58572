"""The filter language of lists: words that must occur, `-word`s that must not."""

from __future__ import annotations

from collections.abc import Iterable


def match(find: str, texts: Iterable[str]) -> bool:
    """Whether each word of `find` is in one of the texts, and each `-word` in none; upper and lower case are equal."""
    lowered = [text.lower() for text in texts]
    for word in find.lower().split():
        banned = len(word) > 1 and word[0] == "-"
        if any(word[banned:] in text for text in lowered) == banned:
            return False
    return True
