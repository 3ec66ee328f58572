"""One picture file, fitted into the widget: half blocks everywhere, pixels where the terminal draws them.

Reading and reducing happen in a thread, one picture at a time, and the newest wish wins: whoever runs down a list of
10,000 images with a key held reads only those that he rests on. Until the next picture is there the last one stands.
Pixels come as a `Paint` from `loratui.widgets.pixels`; what has to be drawn over the cells (sixels) is added where
lines are handed to the compositor, behind everything that measures, caches or filters text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.control import Control
from rich.segment import ControlType, Segment
from rich.style import Style
from rich.text import Text
from textual import work
from textual.app import App
from textual.geometry import Offset, Region
from textual.strip import Strip

from loratui.picture_files import PictureCache, Unreadable
from loratui.pictures import WEIGHTS, Painted, cells
from loratui.widgets.columns import clean, cut
from loratui.widgets.painting import PaintsChanges

if TYPE_CHECKING:
    from PIL.Image import Image

Paint = Callable[["Image", int, int], Painted]
"""Draws an RGB picture into at most so many columns and rows. Called in a thread."""

FINE = 16, 32
"""Pixels read per cell for a terminal that draws pixels, which then scales to its own size of a cell."""
FINEST = 1600
"""Pixels read per side at most, whatever the size of the widget."""
_DRAWN = [(ControlType.CURSOR_FORWARD, 0)]
"""Marks a segment as taking no cells."""


@dataclass(frozen=True)
class Wish:
    """What the widget should show now, and on what. Two wishes are never equal, as a file may change between them."""

    path: Path
    columns: int
    rows: int
    weights: str
    number: int


def weights_for(app: App) -> str:
    """What `cells` needs of the app: "" where it has colours, or the characters that stand for brightness."""
    if app.console.color_system is not None and not app.no_color:
        return ""
    return WEIGHTS if app.current_theme.dark else WEIGHTS[::-1]


class Picture(PaintsChanges):
    """Shows a picture file, centred, above one line of text. Neither the text nor a file's name is ever markup."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "Picture { width: 1fr; height: 1fr; }"

    def __init__(self, paint: Paint | None = None, *, id: str | None = None, classes: str | None = None):
        super().__init__(id=id, classes=classes)
        self._paint = paint
        self._cache = PictureCache()
        self._path: Path | None = None
        self._note = ""
        self._wish: Wish | None = None
        self._wishes = 0
        self._reading = False
        self._source: tuple | None = None
        self._shown: Painted | str = ""

    def show(self, path: Path | None, note: str = "") -> None:
        """Show this file, or nothing. `note` stands dim below the picture, or alone in the middle.

        A file shown already is looked at again, and painted again only if it changed.
        """
        self._path, self._note = path, note
        if path is None:
            self._wish = None
            self._put(None, note)
        else:
            self._ask()
            self.repaint([self.size.height - 1])

    def on_resize(self) -> None:
        self._ask()

    def _ask(self) -> None:
        """Wish for the picture at the widget's present size; a hidden widget waits until it has one."""
        if self._path is None or self.size.width < 1 or self._rows < 1:
            return
        self._wishes += 1
        self._wish = Wish(self._path, self.size.width, self._rows, weights_for(self.app), self._wishes)
        if not self._reading:
            self._reading = True
            self._read()

    @work(group="picture")
    async def _read(self) -> None:
        """Fulfil wishes until the last one is. One thread at a time; wishes made meanwhile replace one another."""
        done = None
        try:
            while (wish := self._wish) not in (None, done):
                done = wish
                try:
                    source, picture = await asyncio.to_thread(self._make, wish, self._source)
                except Unreadable as error:
                    source, picture = None, f"can't be shown: {error}"
                if wish is self._wish and picture is not None:
                    self._put(source, picture)
        finally:
            self._reading = False

    def _make(self, wish: Wish, shown: tuple | None) -> tuple[tuple, Painted | None]:
        """In the thread: what a picture is made of and its cells, or no cells where just that is `shown`."""
        if self._paint is not None and not wish.weights:
            # A drawing is written before the last cell of its line, so that one stays free.
            columns = max(1, wish.columns - 1)
            image = self._cache.read(wish.path, (min(columns * FINE[0], FINEST), min(wish.rows * FINE[1], FINEST)))
            source = image, columns, wish.rows
            with suppress(Exception):  # of another package, which does not draw every shape: then cells do
                return source, None if source == shown else self._paint(image, columns, wish.rows)
        image = self._cache.read(wish.path, (wish.columns, wish.rows * 2))
        source = image, wish.columns, wish.rows, wish.weights
        return source, None if source == shown else Painted(cells(image, wish.weights), image.width)

    def _put(self, source: tuple | None, shown: Painted | str) -> None:
        drawn = [picture for picture in (self._shown, shown) if isinstance(picture, Painted) and picture.overlay]
        self._source, self._shown = source, shown
        if drawn:
            # What lies over the cells can't be compared by them.
            self.refresh()
        else:
            self.repaint()

    @property
    def _rows(self) -> int:
        """The lines that the picture may take."""
        return self.size.height - bool(self._note and self._path)

    def line(self, y: int) -> Strip:
        if self._path and self._note and y == self.size.height - 1:
            return self._centred([Segment(cut(clean(self._note), self.size.width), Style(dim=True))])
        lines = self._lines()
        row = y - max(0, (self._rows - len(lines)) // 2)
        return self._centred(lines[row] if 0 <= row < len(lines) else [])

    def _lines(self) -> list[list[Segment]]:
        if isinstance(self._shown, Painted):
            return self._shown.lines
        wrapped = Text(clean(self._shown)).wrap(self.app.console, max(1, self.size.width))
        return [[Segment(line.plain.rstrip(), Style(dim=True))] for line in wrapped] if self._shown else []

    def _centred(self, line: list[Segment]) -> Strip:
        strip = Strip(line)
        left = max(0, (self.size.width - strip.cell_length) // 2)
        padded = Strip([Segment(" " * left), *strip] if left else line)
        return padded.adjust_cell_length(self.size.width).apply_style(self.rich_style)

    def render_lines(self, crop: Region) -> list[Strip]:
        strips = super().render_lines(crop)
        shown = self._shown
        # Below a dialog Textual dims what it finds in the text of strips, and a drawing is no text.
        if isinstance(shown, str) or not shown.overlay or not self.screen.is_active:
            return strips
        left = (self.size.width - shown.width) // 2
        top = (self._rows - len(shown.lines)) // 2
        last = top + len(shown.lines) - 1 - crop.y
        if crop.x <= left and left + shown.width < crop.right and crop.y <= top and last < len(strips):
            start = self.region.offset + Offset(left, top)
            drawing = f"\x1b7{Control.move_to(*start)}{shown.overlay}\x1b8"
            before, after = strips[last].divide([left + shown.width - crop.x, crop.width])
            strips[last] = Strip([*before, Segment(drawing, None, _DRAWN), *after], crop.width)
        return strips
