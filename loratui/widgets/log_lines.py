"""The lines of a log in memory: bounded, numbered, searched.

A line keeps its number when older ones are dropped, so that neither the place that one reads at nor what was found
moves. Lines are made harmless when they come in: no control characters, no colours, of a progress bar its last state.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

from loratui.widgets.columns import clean

MOST_LINES = 10_000
MOST_CHARACTERS = 4_000
"""Of a line. What is longer is data that nobody reads here."""

TAB = 4

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and cursor movements
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # titles and links
    r"|\x1b[()].|\x1b[@-Z\\-_]"
)


class LogLines:
    """The last lines of a log, by number: from `first` up to, and not including, `end`."""

    def __init__(self) -> None:
        self.first = 0
        self.pattern = ""
        self.hits: list[int] = []
        """The numbers of the lines that hold the pattern, in ascending order."""
        self._lines: list[str] = []

    @property
    def end(self) -> int:
        return self.first + len(self._lines)

    def __getitem__(self, number: int) -> str:
        return self._lines[number - self.first]

    def append(self, text: str) -> int:
        """Add a line, or several; gives how many."""
        lines = [_plain(line) for line in text.removesuffix("\n").split("\n")]
        self.hits += [self.end + at for at, line in enumerate(lines) if self._holds(line)]
        self._lines += lines
        excess = max(0, len(self._lines) - MOST_LINES)
        del self._lines[:excess]
        self.first += excess
        del self.hits[: bisect_left(self.hits, self.first)]
        return len(lines)

    def search(self, pattern: str) -> None:
        """Find a text. Capitals count only if it has some."""
        self.pattern = pattern
        self.hits = [self.first + at for at, line in enumerate(self._lines) if self._holds(line)]

    def found(self, number: int) -> Iterator[tuple[int, int]]:
        """Where (start, stop) in a line the pattern stands."""
        line = self._cased(self[number])
        start = line.find(self.pattern) if self.pattern else -1
        while start >= 0:
            yield start, start + len(self.pattern)
            start = line.find(self.pattern, start + len(self.pattern))

    def _holds(self, line: str) -> bool:
        return bool(self.pattern) and self.pattern in self._cased(line)

    def _cased(self, line: str) -> str:
        lowered = line.lower()
        # A few letters become two when they are made small, and what is found would not be where it stands.
        exact = self.pattern != self.pattern.lower() or len(lowered) != len(line)
        return line if exact else lowered


def _plain(line: str) -> str:
    shown = _ESCAPES.sub("", line).rstrip("\r").rpartition("\r")[2]
    return clean(shown.expandtabs(TAB)[:MOST_CHARACTERS])
