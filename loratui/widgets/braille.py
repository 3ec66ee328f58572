"""Columns of values drawn in braille: a character is 2×4 dots, so that a chart of w×h characters has 2w×4h pixels.

Pure functions on a `Canvas`, which knows no colours: each of its cells belongs to the series that was drawn into it
last, and shows nothing of the others, so that a line stays a line in the thick of another's noise. Pixels count from
the top left, and whatever lies outside is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from loratui.widgets.decimate import Extent, Point

EMPTY = 255
"""The series of a cell that nothing was drawn into."""

SOLID = (True,)
DASHED = (True,) * 6 + (False,) * 4
DOTTED = (True, True, False, False)
"""In which columns of pixels a line is drawn, over and over."""

SQUARE = ((0, 0), (1, 0), (0, 1), (1, 1))
CROSS = ((-1, 0), (0, -1), (0, 0), (0, 1), (1, 0))
"""The pixels of a dot."""

Pixel = tuple[int, int]

_SIDES = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The dots of a braille character, left and right, from top to bottom."""

_RUNS = [[[sum(side[first : last + 1]) for last in range(4)] for first in range(4)] for side in _SIDES]
"""`_RUNS[side][first][last]`: all dots of a side from one height to another."""


class Canvas:
    """`width`×`height` characters to draw on."""

    def __init__(self, width: int, height: int) -> None:
        self.columns, self.lines = 2 * width, 4 * height
        self._dots = [bytearray(width) for _ in range(height)]
        self._series = [bytearray([EMPTY]) * width for _ in range(height)]

    def stroke(self, column: int, top: int, bottom: int, series: int) -> None:
        """A vertical stroke from one line of pixels down to another, both included."""
        if not 0 <= column < self.columns:
            return
        top, bottom = max(0, top), min(self.lines - 1, bottom)
        cell, runs = column >> 1, _RUNS[column & 1]
        for row in range(top >> 2, (bottom >> 2) + 1):
            if self._series[row][cell] != series:
                self._series[row][cell], self._dots[row][cell] = series, 0
            self._dots[row][cell] |= runs[max(0, top - 4 * row)][min(3, bottom - 4 * row)]

    def line(self, start: Pixel, stop: Pixel, series: int, pattern: Sequence[bool]) -> None:
        """A straight line between two pixels, the left one first."""
        (left, y0), (right, y1) = start, stop
        slope = (y1 - y0) / max(1, right - left)
        for column in range(max(left, 0), min(right, self.columns - 1) + 1):
            if pattern[column % len(pattern)]:
                one = round(y0 + slope * (max(column - 0.5, left) - left))
                other = round(y0 + slope * (min(column + 0.5, right) - left))
                self.stroke(column, min(one, other), max(one, other), series)

    def rows(self) -> list[tuple[str, bytes]]:
        """Each row: its text, with blanks where nothing was drawn, and the series of each of its cells."""
        return [
            ("".join([chr(0x2800 + dots) if dots else " " for dots in row]), bytes(series))
            for row, series in zip(self._dots, self._series, strict=True)
        ]


def draw_line(
    canvas: Canvas,
    columns: Sequence[Extent | None],
    row: Callable[[float], int],
    series: int,
    pattern: Sequence[bool] = SOLID,
    beside: tuple[Pixel | None, Pixel | None] = (None, None),
) -> None:
    """Neighbouring points joined by straight lines. `row` gives the line of pixels of a value; `beside` is where the
    points before and after these columns lie."""
    before, top, bottom = beside[0], 0, -1
    for column, extent in enumerate(columns):
        if extent is None:
            continue
        old_top, old_bottom = top, bottom
        top, bottom = _ends(extent, row)
        first = _at(column, extent.first, row)
        touches = before and before[0] == column - 1 and top <= old_bottom + 1 and old_top <= bottom + 1
        if before and first and not touches:
            canvas.line(before, first, series, pattern)
        # A point that nothing leads to is drawn in the gaps of a pattern too: it may be the only one.
        if pattern[column % len(pattern)] or not before:
            canvas.stroke(column, top, bottom, series)
        before = _at(column, extent.last, row)
    if before and beside[1]:
        canvas.line(before, beside[1], series, pattern)


def draw_steps(
    canvas: Canvas,
    columns: Sequence[Extent | None],
    row: Callable[[float], int],
    series: int,
    before: Pixel | None = None,
) -> None:
    """Each value holds until the next point; that of the point `before` these columns until the first."""
    for column, extent in enumerate(columns):
        if before:
            canvas.stroke(column, before[1], before[1], series)
        if extent is None:
            continue
        first = _at(column, extent.first, row)
        if before and first:
            canvas.stroke(column, min(before[1], first[1]), max(before[1], first[1]), series)
        canvas.stroke(column, *_ends(extent, row), series)
        before = _at(column, extent.last, row)


def draw_dots(
    canvas: Canvas,
    columns: Sequence[Extent | None],
    row: Callable[[float], int],
    series: int,
    shape: Sequence[Pixel] = SQUARE,
) -> None:
    """A dot at the lowest and the highest point of each column of pixels."""
    for column, extent in enumerate(columns):
        if extent and extent.low <= extent.high:
            for line in set(_ends(extent, row)):
                for x, y in shape:
                    canvas.stroke(column + x, line + y, line + y, series)


def _ends(extent: Extent, row: Callable[[float], int]) -> tuple[int, int]:
    """Where a column is drawn from and to; upside down where it has no value, which draws nothing."""
    return (row(extent.high), row(extent.low)) if extent.low <= extent.high else (0, -1)


def _at(column: int, point: Point, row: Callable[[float], int]) -> Pixel | None:
    """The pixel of a point; None for a gap."""
    return (column, row(point[1])) if math.isfinite(point[1]) else None
