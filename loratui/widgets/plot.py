"""A chart without a terminal: series and a size in, rows of braille and what belongs around them out.

`Plotter` remembers between two pictures what must not change without need: the ranges of the axes, and what it knows of
each series' points.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from loratui.widgets import axes, braille
from loratui.widgets.decimate import Decimated, Extent

Kind = Literal["line", "dots", "steps"]

SIGNS: dict[Kind, tuple[str, ...]] = {"line": ("──", "╌╌", "┄┄"), "dots": ("··", "++"), "steps": ("▁▔",)}
"""What stands before a name, for the first series of a kind, the second, …: each is drawn so."""

PATTERNS = (braille.SOLID, braille.DASHED, braille.DOTTED)
SHAPES = (braille.SQUARE, braille.CROSS)

ROWS_PER_MARK, MOST_MARKS = 3, 5
"""Rows of a y axis to a label, and the most intervals between labels."""


@dataclass(frozen=True, slots=True)
class Series:
    """Values over steps. `xs` ascend; a `y` that is not finite is a gap. `style` is a colour variable of the theme.

    Both lists may grow between two `show`s, which is cheap; where their past changes, they must be other lists.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    style: str
    kind: Kind = "line"

    def at(self, x: float) -> float | None:
        """The value that holds at `x`: that of the last point before it or on it."""
        index = bisect_right(self.xs, x) - 1
        return self.ys[index] if index >= 0 else None


@dataclass(frozen=True, slots=True)
class Marker:
    """Something that happened at `x`: a letter on the row above the axis, and a text for who looks at it."""

    x: float
    letter: str
    text: str = ""


class Plot(NamedTuple):
    """A picture: its scale, its rows (text, series of each cell), the cells whose top is cut off, and the labels of
    the y axis with their rows."""

    scale: axes.Scale
    width: int
    rows: list[tuple[str, bytes]]
    cut: set[int]
    marks: list[tuple[int, str]]

    def cell(self, x: float) -> int | None:
        """The cell that `x` lies in; None outside of the picture."""
        if not self.scale.x0 <= x <= self.scale.x1:
            return None
        return min(self.width - 1, int((x - self.scale.x0) / (self.scale.x1 - self.scale.x0) * self.width))

    def edges(self, cell: int) -> tuple[float, float]:
        """The x at the two sides of a cell."""
        width = (self.scale.x1 - self.scale.x0) / self.width
        return self.scale.x0 + cell * width, self.scale.x0 + (cell + 1) * width


class Plotter:
    """Draws the same chart again and again, as its series grow."""

    def __init__(self) -> None:
        self._known: list[Decimated] = []
        self._range: tuple[float, float] | None = None
        self._log = False

    def follow(self, series: Sequence[Series]) -> list[float]:
        """Take in what is new in the points; gives the x of those that are not finite."""
        self._known = self._known[: len(series)] + [Decimated() for _ in series[len(self._known) :]]
        for one, known in zip(series, self._known, strict=True):
            known.follow(one.xs, one.ys)
        return [x for known in self._known for x in known.gaps]

    def plot(
        self, series: Sequence[Series], x_range: tuple[float, float] | None, width: int, height: int, log: bool
    ) -> Plot:
        """The `series` last followed, the first on top, in `width`×`height` cells; without a range, all of their x."""
        if log != self._log:
            self._range, self._log = None, log
        x0, x1 = x_range or _whole(series)
        x1 = x1 if x1 > x0 else x0 + 1.0
        columns = [known.columns(x0, x1, 2 * width) for known in self._known]
        marks = max(1, min(MOST_MARKS, height // ROWS_PER_MARK))
        everything = [extent for extents in columns for extent in extents if extent]
        self._range = axes.held(self._range, axes.y_range(everything, log, marks), log)
        scale = axes.Scale(x0, x1, *self._range, log)
        canvas = braille.Canvas(width, height)
        row = scale.rows(canvas.lines)
        for index in reversed(range(len(series))):
            self._draw(canvas, series, index, columns[index], scale)
        labels = (axes.log_ticks if log else axes.ticks)(scale.low, scale.high, marks)
        return Plot(
            scale,
            width,
            canvas.rows(),
            {column // 2 for extents in columns for column, extent in enumerate(extents) if _above(extent, scale)},
            [(row(y) // 4, text) for y, text in labels],
        )

    def _draw(
        self,
        canvas: braille.Canvas,
        series: Sequence[Series],
        index: int,
        columns: Sequence[Extent | None],
        scale: axes.Scale,
    ) -> None:
        kind, nth, row = series[index].kind, order(series, index), scale.rows(canvas.lines)
        before, after = (
            (scale.column(point[0], canvas.columns), row(point[1])) if point and math.isfinite(point[1]) else None
            for point in self._known[index].beside(scale.x0, scale.x1)
        )
        if kind == "dots":
            braille.draw_dots(canvas, columns, row, index, SHAPES[nth % len(SHAPES)])
        elif kind == "steps":
            braille.draw_steps(canvas, columns, row, index, before)
        else:
            braille.draw_line(canvas, columns, row, index, PATTERNS[nth % len(PATTERNS)], (before, after))


def order(series: Sequence[Series], index: int) -> int:
    """How many series of the same kind come before this one."""
    return sum(one.kind == series[index].kind for one in series[:index])


def sign(series: Sequence[Series], index: int) -> str:
    """How a series is drawn, in two characters."""
    signs = SIGNS[series[index].kind]
    return signs[order(series, index) % len(signs)]


def nearest(xs: Sequence[float], start: float, stop: float) -> float | None:
    """The last of these ascending x from `start` up to, and not including, `stop`."""
    index = bisect_left(xs, stop) - 1
    return xs[index] if index >= 0 and xs[index] >= start else None


def _whole(series: Sequence[Series]) -> tuple[float, float]:
    xs = [one.xs for one in series if len(one.xs)]
    return axes.x_range(min(x[0] for x in xs), max(x[-1] for x in xs)) if xs else (0.0, 1.0)


def _above(extent: Extent | None, scale: axes.Scale) -> bool:
    return extent is not None and extent.high > scale.high
