"""Painting as little as possible: what a terminal costs over SSH is the cells that are sent.

`PaintsChanges` is for widgets that draw line by line. It remembers what it last gave to the screen, and `repaint`
compares that with what the widget shows now and refreshes the cells that differ. `PaintsSpans` is for the app: Textual
8.2 writes a refreshed span from the left edge of its widget, so that one new point at the right of a chart would send
the whole row; with it, a span is written from its own start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import zip_longest

from rich.cells import get_character_cell_size
from rich.color import ColorSystem
from rich.console import Console, RenderableType
from rich.control import Control
from rich.style import Style
from textual._compositor import ChopsUpdate
from textual.app import App
from textual.color import Color, ColorParseError
from textual.geometry import Region
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget

WORTH_A_JUMP = 32
"""Equal cells between two changes that cost more to send than the move and the colours of a second span."""

_ASCII_OR_ONE = re.compile(r"[\x00-\x7f]+|[^\x00-\x7f]").findall


class PaintsChanges(Widget):
    """A widget whose lines come from `line(y)`, and of which only changed cells are painted again."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._painted: dict[int, Strip] = {}

    def line(self, y: int) -> Strip:
        """What line `y` of the content shows now."""
        raise NotImplementedError

    def render_line(self, y: int) -> Strip:
        strip = self._painted[y] = self.line(y)
        return strip

    def repaint(self, lines: Iterable[int] | None = None) -> None:
        """Refresh the cells of these lines (all, where none are named) that are not what the screen has."""
        height = self.size.height
        if not height:
            # Hidden: what it showed before is kept, and would come back with it.
            self.refresh()
        for y in range(height) if lines is None else lines:
            # A line that was never painted is on its way to the screen anyhow.
            if 0 <= y < height and (painted := self._painted.get(y)) is not None:
                for start, stop in changed_spans(painted, self.line(y)):
                    self.refresh(Region(start, y, stop - start, 1))


def changed_spans(old: Strip, new: Strip) -> Iterator[tuple[int, int]]:
    """The cells (start, stop) in which two strips differ; spans lie at least `WORTH_A_JUMP` cells apart."""
    if old is new or old == new:
        return
    start = stop = None
    (before, before_styles), (after, after_styles) = _cells(old), _cells(new)
    cells = zip_longest(before, after, before_styles, after_styles)
    for x, (was, now, was_style, now_style) in enumerate(cells):
        if was == now and (was_style is now_style or _look(was, was_style) == _look(now, now_style)):
            continue
        if start is not None and x - stop >= WORTH_A_JUMP:
            yield start, stop
            start = None
        if start is None:
            start = x
        stop = x + 1
    if start is not None:
        yield start, stop


def theme_style(widget: Widget, name: str) -> Style:
    """The colour of a theme variable (`primary`, `accent`, …) as a foreground; no colour where there is no such one."""
    try:
        return Style(color=Color.parse(widget.app.theme_variables.get(name, "")).rich_color)
    except ColorParseError:
        return Style()


class PaintsSpans(App):
    """An app that writes a refreshed span from its own left edge instead of its widget's."""

    def _display(self, screen: Screen, renderable: RenderableType | None) -> None:
        if isinstance(renderable, ChopsUpdate):
            renderable = SpansUpdate(renderable.chops, renderable.spans, renderable.chop_ends)
        super()._display(screen, renderable)


class SpansUpdate(ChopsUpdate):
    """The update of some spans of the screen. `chops` are the pieces of each line by their first cell."""

    def render_segments(self, console: Console) -> str:
        written: list[str] = []
        color_system = console._color_system or ColorSystem.TRUECOLOR
        colours = ""
        for x, y, strip in self._pieces():
            written.append(Control.move_to(x, y).segment.text)
            for text, style, _ in strip:
                # Colours are sent where they change, and not again with every piece.
                wanted = Strip.render_ansi(style, color_system) if style and not style.link else ""
                if wanted != colours:
                    written.append(f"\x1b[0;{wanted}m" if wanted else "\x1b[0m")
                    colours = wanted
                written.append(Strip.render_style(style, text, color_system) if style and style.link else text)
        return "".join([*written, "\x1b[0m"])

    def _pieces(self) -> Iterator[tuple[int, int, Strip]]:
        """What to write where."""
        for y, x1, x2 in self.spans:
            for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                start, stop = max(x, x1), min(end, x2)
                if strip is not None and start < stop:
                    yield start, y, strip.crop(start - x, stop - x)


def _cells(strip: Strip) -> tuple[list[str], list[Style | None]]:
    """What is in each cell, and its style. The second half of a wide character holds what no other cell does."""
    characters: list[str] = []
    styles: list[Style | None] = []
    for text, style, _ in strip:
        for piece in _ASCII_OR_ONE(text):
            if piece.isascii():
                characters += piece
            elif width := get_character_cell_size(piece):
                characters += [piece, f"{piece}…"][:width]
            elif characters:
                characters[-1] += piece
        styles += [style] * (len(characters) - len(styles))
    return characters, styles


def _look(character: str | None, style: Style | None) -> object:
    """What can be seen of a style. A blank has no colour, so it may carry the style of its neighbours."""
    return (style.bgcolor, style.reverse, style.underline, style.strike) if style and character == " " else style
