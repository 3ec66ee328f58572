"""The lines of a chart as segments: legend, picture with its labels, markers, x axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from rich.segment import Segment
from rich.style import Style

from loratui.widgets import axes
from loratui.widgets.braille import EMPTY
from loratui.widgets.columns import clean
from loratui.widgets.plot import Marker, Plot, Series, sign

CUT, CURSOR, NOT_FINITE = "▲", "▏", "!"

CELLS_PER_X_LABEL = 12


class Looks(NamedTuple):
    """The styles of a chart's parts, and of each series."""

    base: Style
    axis: Style
    legend: Style
    marker: Style
    alarm: Style
    cursor: Style
    series: Sequence[Style]


def legend(series: Sequence[Series], looks: Looks) -> list[Segment]:
    """The name of each series, with the sign that it is drawn by."""
    return [
        segment
        for index, one in enumerate(series)
        for segment in (
            Segment(f"{sign(series, index)} ", looks.series[index]),
            Segment(f"{clean(one.name)}  ", looks.legend),
        )
    ]


def values(series: Sequence[Series], markers: Sequence[Marker], x: float, width: int, looks: Looks) -> list[Segment]:
    """What there is at `x`: the value of each series, by name where there is room, and the markers there."""
    here = "".join(f"{marker.letter} {clean(marker.text)}  " for marker in markers if marker.x == x)
    for named in (True, False):
        segments = [Segment(f"{x:g}  ", looks.cursor)]
        for index, one in enumerate(series):
            value = one.at(x)
            if value is not None:
                name = f"{clean(one.name)} " if named else ""
                segments.append(Segment(f"{sign(series, index)} ", looks.series[index]))
                segments.append(Segment(f"{name}{axes.figure(value)}  ", looks.legend))
        segments.append(Segment(here, looks.marker))
        if sum(segment.cell_length for segment in segments) <= width:
            break
    return segments


def picture(plot: Plot, labels: int, cursor: int | None, looks: Looks) -> list[list[Segment]]:
    """The rows of the picture, with the labels of the y axis in the `labels` cells to their left."""
    texts = dict(plot.marks)
    lines = []
    for row, (text, series) in enumerate(plot.rows):
        over = {cell: (CUT, looks.alarm) for cell in plot.cut} if row == 0 else {}
        if cursor is not None:
            over[cursor] = (CURSOR, looks.cursor)
        margin = Segment(f"{texts.get(row, '')} ".rjust(labels) if labels else "", looks.axis)
        lines.append([margin, *_cells(text, series, over, looks)])
    return lines


def markers_line(
    plot: Plot, labels: int, markers: Sequence[Marker], gaps: Sequence[float], cursor: int | None, looks: Looks
) -> list[Segment]:
    """The letters of the markers, and over them an alarm at each of `gaps`, where a value is not finite."""
    over = {} if cursor is None else {cursor: (CURSOR, looks.cursor)}
    for marker in markers:
        if (cell := plot.cell(marker.x)) is not None:
            over[cell] = (marker.letter[:1], looks.marker)
    for x in gaps:
        if (cell := plot.cell(x)) is not None:
            over[cell] = (NOT_FINITE, looks.alarm)
    return [Segment(" " * labels, looks.axis), *_cells(" " * plot.width, bytes([EMPTY]) * plot.width, over, looks)]


def x_axis(plot: Plot, labels: int, looks: Looks) -> list[Segment]:
    """The labels of the x axis, as many as have room, each below its place."""
    line = ""
    for x, text in axes.ticks(plot.scale.x0, plot.scale.x1, max(1, plot.width // CELLS_PER_X_LABEL)):
        start = labels + (plot.cell(x) or 0) - len(text) // 2
        start = max(0, min(start, labels + plot.width - len(text)))
        if not line or start > len(line):
            line = line.ljust(start) + text
    return [Segment(line, looks.axis)]


def _cells(text: str, series: bytes, over: Mapping[int, tuple[str, Style]], looks: Looks) -> list[Segment]:
    """A row of the picture. A blank takes the style of what is before it, which saves the terminal a colour."""
    owners, owner = [], EMPTY
    for cell, own in enumerate(series):
        owner = owner if own == EMPTY else own
        owners.append(~cell if cell in over else owner)
    segments, start = [], 0
    for owner, group in groupby(owners):
        stop = start + len(list(group))
        if owner < 0:
            segments.append(Segment(*over[start]))
        else:
            segments.append(Segment(text[start:stop], looks.base if owner == EMPTY else looks.series[owner]))
        start = stop
    return segments
