"""A chart of series over steps, in braille, that is cheap to keep on a screen far away.

`show` draws the picture in memory and paints the cells that differ from the last one; `plot` and `axes` see to it that
few do. A cursor of its own inspects the values at one x: the chart says `Inspected`, and an owner that ties several
charts together sets `cursor_x` of the others, of which nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from loratui.actions import bindings
from loratui.widgets import chart_lines
from loratui.widgets.chart_lines import Looks
from loratui.widgets.painting import PaintsChanges, theme_style
from loratui.widgets.plot import Marker, Plot, Plotter, Series, nearest

__all__ = ["LineChart", "Marker", "Series"]

LABELS = 6
"""Cells at the left for the labels of the y axis, and a blank; more where a label is longer."""

LABELS_FROM = 20
"""Width from which there is room for them."""

LEGEND_FROM, AXIS_FROM, MARKERS_FROM = 2, 4, 5
"""Heights from which a chart has room for these lines beside the picture."""


class LineChart(PaintsChanges, Widget, can_focus=True, inherit_bindings=False):
    """Series over a common x axis. `empty` is shown while there is nothing to draw."""

    ALLOW_SELECT = False
    TARGET = "chart"
    """What the table of actions calls it."""
    BINDINGS = bindings("chart")
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "line-chart--axis",
        "line-chart--legend",
        "line-chart--marker",
        "line-chart--alarm",
        "line-chart--cursor",
    }
    DEFAULT_CSS = """
    LineChart {
        & > .line-chart--axis { color: $text-muted; }
        & > .line-chart--legend { color: $text; }
        & > .line-chart--marker { color: $accent; }
        & > .line-chart--alarm { color: $error; text-style: bold; }
        & > .line-chart--cursor { color: $accent; }
    }
    """

    class Inspected(Message):
        """The user moved the chart's cursor to `x`."""

        def __init__(self, chart: LineChart, x: float) -> None:
            super().__init__()
            self.chart = chart
            self.x = x

        @property
        def control(self) -> LineChart:
            return self.chart

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, LineChart.Inspected) and message.chart is self.chart

    def __init__(
        self, empty: str = "", *, name: str | None = None, id: str | None = None, classes: str | None = None
    ) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self._empty = empty
        self._series: Sequence[Series] = ()
        self._markers: list[Marker] = []
        self._marker_xs: list[float] = []
        self._x_range: tuple[float, float] | None = None
        self._log_y = False
        self._cursor_x: float | None = None
        self._plotter = Plotter()
        self._plot: Plot | None = None
        self._labels = LABELS
        self._strips: list[Strip] = []
        self._drawn: object = None

    def show(
        self,
        series: Sequence[Series],
        markers: Sequence[Marker] = (),
        x_range: tuple[float, float] | None = None,
    ) -> None:
        """Show these series, the first on top, from `x_range` or from all the x that there are."""
        self._series, self._markers, self._x_range = tuple(series), sorted(markers, key=attrgetter("x")), x_range
        self._marker_xs = [marker.x for marker in self._markers]
        self._draw_again()

    @property
    def log_y(self) -> bool:
        """Whether the y axis is logarithmic. Values that are not positive lie below it."""
        return self._log_y

    @log_y.setter
    def log_y(self, log_y: bool) -> None:
        self._log_y = log_y
        self._draw_again()

    @property
    def cursor_x(self) -> float | None:
        """Where the values are inspected; None: nowhere. Setting it says nothing."""
        return self._cursor_x

    @cursor_x.setter
    def cursor_x(self, x: float | None) -> None:
        if x != self._cursor_x:
            self._cursor_x = x
            self._draw_again()

    def line(self, y: int) -> Strip:
        if self._drawn != self.size:
            self._draw()
            self._drawn = self.size
        return self._strips[y]

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.call_later(self._draw_again)

    def on_click(self, event: events.Click) -> None:
        if self._plot is not None:
            cell = event.x - self.gutter.left - self._labels
            self._inspect(self._point_in(min(max(cell, 0), self._plot.width - 1)))

    def action_left(self) -> None:
        self._move(-1)

    def action_right(self) -> None:
        self._move(1)

    def action_far_left(self) -> None:
        self._move(-max(1, self._plot.width // 10) if self._plot else 0)

    def action_far_right(self) -> None:
        self._move(max(1, self._plot.width // 10) if self._plot else 0)

    def action_first(self) -> None:
        if self._plot is not None:
            self._inspect(self._search(range(self._plot.width)))

    def action_last(self) -> None:
        if self._plot is not None:
            self._inspect(self._search(reversed(range(self._plot.width))))

    def _draw_again(self) -> None:
        self._drawn = None
        self.repaint()

    def _draw(self) -> None:
        """Make the strips for the present size."""
        width, height = self.size
        looks = self._looks()
        blank = Strip.blank(width, looks.base)
        self._plot = None
        self._strips = [blank] * height
        if not width or not height:
            return
        if not any(len(one.xs) for one in self._series):
            text = Segment(self._empty.center(width), looks.axis)
            self._strips[height // 2] = Strip([text]).adjust_cell_length(width, looks.base)
            return
        lines = self._lines(width, height, looks)
        self._strips = [Strip(segments).adjust_cell_length(width, looks.base) for segments in lines]

    def _lines(self, width: int, height: int, looks: Looks) -> list[list[Segment]]:
        top, bottom = height >= LEGEND_FROM, height >= AXIS_FROM
        gaps = self._plotter.follow(self._series)
        marked = height >= MARKERS_FROM and bool(self._markers or gaps)
        plot, labels = self._plot_at(width, height - top - bottom - marked)
        self._plot, self._labels = plot, labels
        cursor = None if self._cursor_x is None else plot.cell(self._cursor_x)
        lines = chart_lines.picture(plot, labels, cursor, looks)
        if marked:
            lines.append(chart_lines.markers_line(plot, labels, self._markers, gaps, cursor, looks))
        if bottom:
            lines.append(chart_lines.x_axis(plot, labels, looks))
        if top and self._cursor_x is None:
            lines.insert(0, chart_lines.legend(self._series, looks))
        elif top:
            lines.insert(0, chart_lines.values(self._series, self._markers, self._cursor_x, width, looks))
        return lines

    def _plot_at(self, width: int, height: int) -> tuple[Plot, int]:
        """The plot, and the cells at its left that the labels of the y axis take."""
        labels = LABELS if width >= LABELS_FROM else 0
        while True:
            plot = self._plotter.plot(self._series, self._x_range, width - labels, height, self._log_y)
            needed = max((len(text) + 1 for _, text in plot.marks), default=0)
            if not labels or needed <= labels or needed > width // 2:
                return plot, labels
            labels = needed

    def _looks(self) -> Looks:
        base = self.rich_style
        parts = ("axis", "legend", "marker", "alarm", "cursor")
        return Looks(
            base,
            *(self.get_component_rich_style(f"line-chart--{part}") for part in parts),
            [base + theme_style(self, one.style) for one in self._series],
        )

    def _move(self, cells: int) -> None:
        """Move the cursor by this many cells, or on to the next that has a point; from nowhere to the last point."""
        if self._plot is None or not cells:
            return
        x, last = self._cursor_x, self._plot.width - 1
        here = None if x is None else self._plot.cell(x)
        if here is None:
            self.action_last()
            return
        direction = 1 if cells > 0 else -1
        aim = min(max(here + cells, 0), last)
        # Where there is nothing further on, the way back: a move by a tenth ends at the last point.
        onwards, back = range(aim, last + 1 if direction > 0 else -1, direction), range(aim, here, -direction)
        found = (self._point_in(cell) for cell in (*onwards, *back))
        self._inspect(next((at for at in found if at is not None and (at - x) * direction > 0), None))

    def _search(self, cells: Iterable[int]) -> float | None:
        """The x of the first point in these cells."""
        return next((x for x in map(self._point_in, cells) if x is not None), None)

    def _point_in(self, cell: int) -> float | None:
        """The x of a marker in a cell, or else of a series' point: pictures and checkpoints are at markers."""
        start, stop = self._plot.edges(cell)
        stop = math.nextafter(stop, math.inf) if cell == self._plot.width - 1 else stop
        found = (nearest(xs, start, stop) for xs in (self._marker_xs, *(one.xs for one in self._series)))
        return next((x for x in found if x is not None), None)

    def _inspect(self, x: float | None) -> None:
        if x is not None and x != self._cursor_x:
            self.cursor_x = x
            self.post_message(self.Inspected(self, x))
