"""The tail of a log: followed as it grows, searched, and painted four times a second at most.

`log_lines` has the lines, `LogView` a place in them. The view has no scrollbar on purpose: it would be sent anew with
every line. Whoever changes what makes a view look different should see to it that `append` paints then, and only then.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from time import monotonic
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.cache import LRUCache
from textual.message import Message
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget

from loratui.actions import bindings
from loratui.widgets.log_lines import LogLines
from loratui.widgets.movement import Movement
from loratui.widgets.painting import PaintsChanges

KEPT_LINES = 1024
"""Drawn lines that are kept."""

PERIOD = 0.25
"""Seconds between two paintings."""

SOON = 0.01
"""Seconds until the first line after a pause is painted. A timer has to take some time."""

PAN = 16
"""Cells by which long lines move sideways."""

WHEEL = 3
"""Lines to a notch of the mouse wheel."""


class LogView(Movement, PaintsChanges, Widget, can_focus=True, inherit_bindings=False):
    """A log that follows its end until one scrolls up; `border_subtitle` says how many lines came since."""

    ALLOW_SELECT = False
    TARGET = "log"
    """What the table of actions calls it."""
    BINDINGS = bindings("log")
    COMPONENT_CLASSES: ClassVar[set[str]] = {"log-view--hit", "log-view--current"}
    DEFAULT_CSS = """
    LogView {
        & > .log-view--hit { color: $warning; text-style: bold underline; }
        & > .log-view--current { color: $warning; text-style: bold reverse; }
    }
    """

    class Search(Message):
        """The user wants to search: the owner asks for the text, and calls `find`."""

        def __init__(self, log: LogView) -> None:
            super().__init__()
            self.log_view = log

        @property
        def control(self) -> LogView:
            return self.log_view

    def __init__(self, *, name: str | None = None, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self.following = True
        """Whether the end is kept in view."""
        self._lines = LogLines()
        self._place = 0
        """The line at the top, while the end is not followed."""
        self._unseen = 0
        self._pan = 0
        self._hit: int | None = None
        self._strips: LRUCache[tuple, Strip] = LRUCache(KEPT_LINES)
        self._timer: Timer | None = None
        self._painted_at = -PERIOD

    def clear(self) -> None:
        """Forget all lines, and follow those to come."""
        self._lines = LogLines()
        self._strips.clear()
        self._hit = None
        self._pan = 0
        self.last()

    def append(self, text: str) -> None:
        """Add a line, or several."""
        added = self._lines.append(text)
        self._unseen = 0 if self.following else self._unseen + added
        changed = self.following or self._place < self._lines.first or self._subtitle() != (self.border_subtitle or "")
        if changed and self._timer is None and self.is_mounted:
            self._timer = self.set_timer(max(SOON, self._painted_at + PERIOD - monotonic()), self._paint)

    def find(self, pattern: str) -> int:
        """Show where a text is: the last place in view or above it, else the first below. Gives how many lines have it.

        Letters are compared without regard to case, unless the pattern has a capital. An empty one ends the search.
        """
        self._lines.search(pattern)
        self._strips.clear()
        self._hit = None
        if self._lines.hits:
            self._show_hit(max(0, bisect_right(self._lines.hits, self._top + self.size.height - 1) - 1))
        else:
            self._paint()
        return len(self._lines.hits)

    def move(self, delta: int) -> None:
        """Scroll by lines."""
        self._scroll(self._top + delta)

    def page(self, delta: int) -> None:
        """Scroll by screens."""
        self._scroll(self._top + delta * max(1, self.size.height))

    def first(self) -> None:
        self._scroll(self._lines.first)

    def last(self) -> None:
        """Go to the end, and follow it."""
        self._scroll(self._lines.end)

    def line(self, y: int) -> Strip:
        number = self._top + y
        if number >= self._lines.end:
            return Strip.blank(self.size.width, self.rich_style)
        key = (number, number == self._hit, self._pan, self.size.width)
        if key not in self._strips:
            self._strips[key] = self._draw(number)
        return self._strips[key]

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._strips.clear()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.move(-WHEEL)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.move(WHEEL)

    def action_left(self) -> None:
        self._pan = max(0, self._pan - PAN)
        self.repaint()

    def action_right(self) -> None:
        self._pan += PAN
        self.repaint()

    def action_search(self) -> None:
        self.post_message(self.Search(self))

    def action_next(self) -> None:
        if self._lines.hits:
            after = self._top if self._hit is None else self._hit
            self._show_hit(bisect_right(self._lines.hits, after))

    def action_previous(self) -> None:
        if self._lines.hits:
            before = self._top + self.size.height if self._hit is None else self._hit
            self._show_hit(bisect_left(self._lines.hits, before) - 1)

    @property
    def _top(self) -> int:
        """The number of the line at the top of the view."""
        end = max(self._lines.first, self._lines.end - self.size.height)
        return end if self.following else min(max(self._place, self._lines.first), end)

    def _scroll(self, number: int) -> None:
        """Bring a line to the top. Who arrives at the end follows it."""
        self.following = number >= self._lines.end - self.size.height
        self._place = max(number, self._lines.first)
        self._unseen = 0 if self.following else self._unseen
        self._paint()

    def _show_hit(self, index: int) -> None:
        """Bring a hit into view, the first after the last and the other way round, and stay there."""
        hits = self._lines.hits
        self._hit = hits[index % len(hits)]
        self._place = self._top
        if not self._place <= self._hit < self._place + self.size.height:
            self._place = self._hit - self.size.height // 2
        self.following = False
        self._paint()

    def _subtitle(self) -> str:
        """What the frame says. Large numbers are rounded, because a new text paints the whole view."""
        parts = [f"{_about(self._unseen)} new line{'s' * (self._unseen > 1)}"] if self._unseen else []
        if self._hit is not None and self._hit in self._lines.hits:
            parts.append(f"hit {self._lines.hits.index(self._hit) + 1}")
        return " · ".join(parts)

    def _paint(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self._painted_at = monotonic()
        if self._subtitle() != (self.border_subtitle or ""):
            self.border_subtitle = self._subtitle()
        self.repaint()

    def _draw(self, number: int) -> Strip:
        line, base, end = self._lines[number], self.rich_style, 0
        look = self.get_component_rich_style(f"log-view--{'current' if number == self._hit else 'hit'}")
        segments = []
        for start, stop in self._lines.found(number):
            segments += [Segment(line[end:start], base), Segment(line[start:stop], look)]
            end = stop
        strip = Strip([*segments, Segment(line[end:], base)])
        return strip.crop_extend(self._pan, self._pan + self.size.width, base)


def _about(count: int) -> str:
    """A count, the larger the rounder: 3, 10+, 20+, 50+, 100+."""
    if count < 10:
        return str(count)
    power = 10 ** (len(str(count)) - 1)
    return f"{max(mantissa * power for mantissa in (1, 2, 5) if mantissa * power <= count):,}+"
