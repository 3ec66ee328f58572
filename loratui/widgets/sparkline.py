"""Values in one line: a history of bars, and a bar that is filled to a fraction.

Levels are eighths of a cell, so that a value that hardly moves sends nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.segment import Segment
from rich.text import Text
from textual.strip import Strip
from textual.widget import Widget

from loratui.widgets.decimate import extent
from loratui.widgets.painting import PaintsChanges

LEVELS = "▁▂▃▄▅▆▇█"
EIGHTHS = " ▏▎▍▌▋▊▉"
FULL, REST = "█", "░"


class Sparkline(PaintsChanges, Widget):
    """The last values of something, the newest at the right. What is not finite is a gap."""

    ALLOW_SELECT = False
    DEFAULT_CSS = """
    Sparkline { height: 1; color: $primary; }
    """

    def __init__(self, *, name: str | None = None, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self._values: Sequence[float] = ()
        self._low: float | None = None
        self._high: float | None = None

    def show(self, values: Sequence[float], low: float | None = None, high: float | None = None) -> None:
        """Show these values between two limits; without them, between the lowest and the highest shown."""
        self._values, self._low, self._high = values, low, high
        self.repaint()

    def line(self, y: int) -> Strip:
        width = self.size.width
        if y or not width:
            return Strip.blank(width, self.rich_style)
        text = levels(self._values[-width:], self._low, self._high)
        return Strip([Segment(text.rjust(width), self.rich_style)], width)


def levels(values: Sequence[float], low: float | None = None, high: float | None = None) -> str:
    """A character a value, from `▁` at `low` to `█` at `high`; without limits, at the lowest and the highest value."""
    least, most = extent(values)
    low, high = least if low is None else low, most if high is None else high
    return "".join(_level(value, low, high) if math.isfinite(value) else " " for value in values)


def bar(fraction: float, width: int) -> Text:
    """A bar of `width` cells, filled to `fraction` (0 to 1) in eighths of a cell."""
    fraction = min(max(fraction, 0.0), 1.0) if math.isfinite(fraction) else 0.0
    full, eighths = divmod(round(fraction * width * 8), 8)
    part = EIGHTHS[eighths] if eighths else ""
    return Text(FULL * full + part + REST * (width - full - len(part)), no_wrap=True, end="")


def _level(value: float, low: float, high: float) -> str:
    # Where all values are the same there is no scale: the middle.
    share = (value - low) / (high - low) if high > low else 0.5
    return LEVELS[min(max(int(share * len(LEVELS)), 0), len(LEVELS) - 1)]
