"""What a column of pixels has to show of a series, without a look at every point for every picture.

`Decimated` keeps the extent of each 64 points, and takes in only the points that were appended since it was last asked,
so that a million points cost a millisecond. Whatever is not finite is a gap.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

BLOCK = 64
"""Points whose extent is kept as one."""

Point = tuple[float, float]


class Extent(NamedTuple):
    """What a column of pixels shows: its lowest and highest finite value (inf and -inf where it has none), and its
    first and last point, which may be gaps."""

    low: float
    high: float
    first: Point
    last: Point


class Decimated:
    """The extents of one series: x ascending, y anything, both only ever appended to."""

    def __init__(self) -> None:
        self._start_over((), ())

    def follow(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        """Take in what was appended since the last call; everything, if these are other points than before."""
        appended = xs is self._xs and ys is self._ys and len(ys) >= self._known
        if not appended or (self._known and self._tip != self._point(self._known - 1)):
            self._start_over(xs, ys)
        count = min(len(xs), len(ys))
        for start in range(self._known, count, BLOCK):
            chunk = ys[start : min(start + BLOCK, count)]
            if not math.isfinite(sum(chunk)):
                self.gaps += [xs[start + at] for at, y in enumerate(chunk) if not math.isfinite(y)]
        for start in range(len(self._extents) * BLOCK, count - BLOCK + 1, BLOCK):
            self._extents.append(extent(ys[start : start + BLOCK]))
        self._known = count
        self._tip = self._point(count - 1) if count else ""

    def columns(self, start: float, stop: float, count: int) -> list[Extent | None]:
        """What `count` columns of pixels between two x show, both included; None for one without a point."""
        xs, ys = self._xs, self._ys
        width = (stop - start) / count
        edges = [bisect_left(xs, start + width * column, 0, self._known) for column in range(count)]
        edges.append(bisect_right(xs, stop, 0, self._known))
        return [
            Extent(*self._between(i, j), (xs[i], ys[i]), (xs[j - 1], ys[j - 1])) if i < j else None
            for i, j in pairwise(edges)
        ]

    def beside(self, start: float, stop: float) -> tuple[Point | None, Point | None]:
        """The points before and after a range, which its first and last are joined to."""
        before = bisect_left(self._xs, start, 0, self._known) - 1
        after = bisect_right(self._xs, stop, 0, self._known)
        return (
            (self._xs[before], self._ys[before]) if before >= 0 else None,
            (self._xs[after], self._ys[after]) if after < self._known else None,
        )

    def _start_over(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        self._xs, self._ys = xs, ys
        self._known = 0
        self._tip = ""
        self._extents: list[tuple[float, float]] = []
        self.gaps: list[float] = []
        """The x of what is not finite."""

    def _point(self, index: int) -> str:
        # As text, because a NaN is not equal to itself.
        return f"{self._xs[index]} {self._ys[index]}"

    def _between(self, start: int, stop: int) -> tuple[float, float]:
        """The extent of points `start` up to `stop`."""
        first, last = -(-start // BLOCK), stop // BLOCK
        if first >= last:
            return extent(self._ys[start:stop])
        parts = [
            extent(self._ys[start : first * BLOCK]),
            *self._extents[first:last],
            extent(self._ys[last * BLOCK : stop]),
        ]
        return min(low for low, _ in parts), max(high for _, high in parts)


def extent(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest finite value; inf and -inf where there is none."""
    if values and math.isfinite(sum(values)):
        return min(values), max(values)
    finite = [value for value in values if math.isfinite(value)]
    return (min(finite), max(finite)) if finite else (math.inf, -math.inf)
