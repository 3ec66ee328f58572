"""Samples as a table of thumbnails: a row a prompt, a column a step, the newest at the right.

The grid shows a window of whole cells, moved by the cursor, and reads only the pictures inside it, one at a time in a
thread. Where the newest step is selected it stays selected as steps arrive. The selected cell stands between bars and
its labels carry marks, so that it is not told by colour alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events, work
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip

from loratui.actions import bindings
from loratui.picture_files import PictureCache, Unreadable
from loratui.pictures import cells
from loratui.widgets.columns import clean, cut
from loratui.widgets.painting import PaintsChanges
from loratui.widgets.picture import weights_for

LEAST_ROWS, MOST_ROWS = 4, 16
"""Lines of a thumbnail; it is twice as many cells wide, which makes it square."""
BARS = 2
"""Cells beside a thumbnail, one on each side, for the bars of the selected one."""
REMEMBERED = 4 << 20
"""Bytes of thumbnails that are kept: a thousand of 32×32 pixels."""
MISSING, WAITING, FAILED = "·", "…", "✗"
EMPTY = "no samples yet"
BLANK = Segment(" ")

Cell = tuple[int, int]
"""A step and the index of a prompt."""
Lines = list[list[Segment]]


@dataclass(frozen=True)
class Window:
    """The part of the table that is in view."""

    rows: int
    """Lines of a thumbnail."""
    columns: range
    """Of the steps, by index."""
    prompts: range

    @property
    def pitch(self) -> int:
        """Cells from one column to the next."""
        return 2 * self.rows + BARS


def window(size: Size, steps: int, prompts: int, cursor: tuple[int, int], before: Window | None) -> Window:
    """The window on a table of so many steps and prompts: its cells as large as show all prompts and two steps.

    It lies as it did `before`, moved as little as brings the cursor (indices of step and prompt) into it.
    """
    rows = min((size.height - 1) // max(1, prompts) - 1, (size.width // 2 - BARS) // 2)
    rows = max(LEAST_ROWS, min(rows, MOST_ROWS))
    across, down = size.width // (2 * rows + BARS), (size.height - 1) // (rows + 1)
    left, top = (before.columns.start, before.prompts.start) if before else (0, 0)
    return Window(rows, _part(steps, across, cursor[0], left), _part(prompts, down, cursor[1], top))


def _part(count: int, room: int, cursor: int, start: int) -> range:
    room = max(1, room)
    start = min(max(start, cursor - room + 1), cursor, max(0, count - room))
    return range(start, min(count, start + room))


class SampleGrid(PaintsChanges, can_focus=True, inherit_bindings=False):
    """Thumbnails by prompt and step. It says `Selected` as its cursor is moved by keys or mouse, and `Opened`."""

    ALLOW_SELECT = False
    TARGET = "grid"
    """What the table of actions calls it."""
    BINDINGS = bindings("grid")
    COMPONENT_CLASSES: ClassVar[set[str]] = {"sample-grid--label", "sample-grid--selected", "sample-grid--missing"}
    DEFAULT_CSS = """
    SampleGrid {
        width: 1fr;
        height: 1fr;
        & > .sample-grid--label, & > .sample-grid--missing { color: $text-muted; }
        & > .sample-grid--selected { text-style: bold; }
        &:focus > .sample-grid--selected { color: $accent; text-style: bold; }
    }
    """

    class Said(Message):
        """What the grid says of one cell; `path` is None where it has no picture."""

        def __init__(self, step: int, prompt_index: int, path: Path | None) -> None:
            super().__init__()
            self.step, self.prompt_index, self.path = step, prompt_index, path

    class Selected(Said):
        """The cursor was moved to this cell."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, SampleGrid.Selected)

    class Opened(Said):
        """The picture of this cell is wanted large."""

    def __init__(self, *, id: str | None = None, classes: str | None = None):
        super().__init__(id=id, classes=classes)
        self._cache = PictureCache(REMEMBERED)
        self._steps: list[int] = []
        self._prompts: list[str] = []
        self._pictures: dict[Cell, Path] = {}
        self._thumbs: dict[Cell, Lines | str] = {}
        self._step = self._prompt = 0
        """Indices of the selected cell."""
        self._window: Window | None = None
        self._reading = False

    def show(self, steps: Sequence[int], prompts: Sequence[str], pictures: Mapping[Cell, Path]) -> None:
        """Show these, in place of what was shown. Only cells that are new or have another file are read and painted.

        The cursor stays on its step, unless that was the newest: then it goes to what is the newest now.
        """
        steps, prompts, pictures = sorted(set(steps)), [clean(prompt) for prompt in prompts], dict(pictures)
        failed = {cell for cell, thumb in self._thumbs.items() if thumb == FAILED}
        if not failed and (steps, prompts, pictures) == (self._steps, self._prompts, self._pictures):
            return
        newest = self._step >= len(self._steps) - 1
        self._step = len(steps) - 1 if newest else _nearest(steps, self._steps[self._step])
        self._prompt = max(0, min(self._prompt, len(prompts) - 1))
        for cell in failed | {cell for cell in self._thumbs if pictures.get(cell) != self._pictures[cell]}:
            del self._thumbs[cell]
        self._steps, self._prompts, self._pictures = steps, prompts, pictures
        self._look()

    @property
    def selected(self) -> Cell | None:
        """The cell under the cursor; None in an empty table."""
        return self._cell(self._step, self._prompt) if self._steps and self._prompts else None

    def select(self, step: int, prompt: int | None = None) -> None:
        """Move the cursor to the step nearest to this one, and to a prompt by its index. Nothing is said of it."""
        if self._steps:
            self._step = _nearest(self._steps, step)
            self._prompt = self._prompt if prompt is None else max(0, min(prompt, len(self._prompts) - 1))
            self._look()

    def action_left(self) -> None:
        self._go(self._step - 1, self._prompt)

    def action_right(self) -> None:
        self._go(self._step + 1, self._prompt)

    def action_up(self) -> None:
        self._go(self._step, self._prompt - 1)

    def action_down(self) -> None:
        self._go(self._step, self._prompt + 1)

    def action_first(self) -> None:
        self._go(0, self._prompt)

    def action_last(self) -> None:
        self._go(len(self._steps) - 1, self._prompt)

    def action_open(self) -> None:
        cell = self._cell(self._step, self._prompt) if self._window else None
        if cell in self._pictures:
            self.post_message(self.Opened(*cell, self._pictures[cell]))

    def on_click(self, event: events.Click) -> None:
        if self._window is None or event.y < 1:
            return
        column = event.x // self._window.pitch + self._window.columns.start
        prompt = (event.y - 1) // (self._window.rows + 1) + self._window.prompts.start
        if column in self._window.columns and prompt in self._window.prompts:
            self._go(column, prompt)
            if event.chain == 2:
                self.action_open()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_left()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_right()

    def on_resize(self) -> None:
        self._look()

    def _go(self, step: int, prompt: int) -> None:
        """Move the cursor to these indices, or as far as the table goes, and say so if it was elsewhere."""
        if self._window is None:
            return
        before = self._step, self._prompt
        self._step = max(0, min(step, len(self._steps) - 1))
        self._prompt = max(0, min(prompt, len(self._prompts) - 1))
        if (self._step, self._prompt) != before:
            self._look()
            cell = self._cell(self._step, self._prompt)
            self.post_message(self.Selected(*cell, self._pictures.get(cell)))

    def _cell(self, step: int, prompt: int) -> Cell:
        return self._steps[step], prompt

    def _look(self) -> None:
        """Bring the cursor into view, and what is in view to the screen."""
        if not (self._steps and self._prompts and self.size):
            self._window = None
        else:
            before, at = self._window, (self._step, self._prompt)
            self._window = window(self.size, len(self._steps), len(self._prompts), at, before)
            same = before is not None and before.rows == self._window.rows
            seen = set(self._in_view()) if same else set()
            self._thumbs = {cell: thumb for cell, thumb in self._thumbs.items() if cell in seen}
        self.repaint()
        if not self._reading and self._next() is not None:
            self._reading = True
            self._read()

    def _in_view(self) -> Iterator[Cell]:
        """The cells in view, in the order in which they are read: what was last drawn comes first."""
        if self._window:
            for column in reversed(self._window.columns):
                for prompt in self._window.prompts:
                    yield self._cell(column, prompt)

    def _next(self) -> Cell | None:
        wanted = (cell for cell in self._in_view() if cell in self._pictures and cell not in self._thumbs)
        return next(wanted, None)

    @work(group="samples")
    async def _read(self) -> None:
        """Read what is in view until all of it is there. A picture that nobody wants any more is thrown away."""
        try:
            while (cell := self._next()) is not None:
                path, rows = self._pictures[cell], self._window.rows
                thumb = await asyncio.to_thread(_thumbnail, self._cache, path, rows, weights_for(self.app))
                if self._window and self._window.rows == rows and self._pictures.get(cell) == path:
                    self._thumbs[cell] = thumb
                    self.repaint(self._lines_of(cell[1]))
        finally:
            self._reading = False

    def _lines_of(self, prompt: int) -> range:
        """The lines of the widget that show the thumbnails of a prompt."""
        if prompt not in self._window.prompts:
            return range(0)
        first = 2 + self._window.prompts.index(prompt) * (self._window.rows + 1)
        return range(first, first + self._window.rows)

    def line(self, y: int) -> Strip:
        if self._window is None:
            text = EMPTY if y == self.size.height // 2 else ""
            segments = [Segment(cut(text, self.size.width).center(self.size.width), self._look_of("missing"))]
        elif y == 0:
            segments = self._header()
        else:
            row, inside = divmod(y - 1, self._window.rows + 1)
            if row >= len(self._window.prompts):
                segments = []
            elif inside == 0:
                segments = self._label(self._window.prompts[row])
            else:
                segments = self._thumbnails(self._window.prompts[row], inside - 1)
        return Strip(segments).adjust_cell_length(self.size.width).apply_style(self.rich_style)

    def _header(self) -> list[Segment]:
        """The steps, each over its column; arrows where there are more."""
        columns, pitch = self._window.columns, self._window.pitch
        segments = []
        for column in columns:
            before = "← " if column == columns.start > 0 else ""
            after = " →" if column == columns.stop - 1 < len(self._steps) - 1 else ""
            chosen = column == self._step
            text = cut(f"{'▸' if chosen else ' '}{before}{self._steps[column]}{after}", pitch).ljust(pitch)
            segments.append(Segment(text, self._look_of("selected" if chosen else "label")))
        return segments

    def _label(self, prompt: int) -> list[Segment]:
        prompts, chosen = self._window.prompts, prompt == self._prompt
        above = "↑ " if prompt == prompts.start > 0 else ""
        below = "↓ " if prompt == prompts.stop - 1 < len(self._prompts) - 1 else ""
        text = cut(f"{'▸' if chosen else ' '}{above}{below}{self._prompts[prompt]}", self.size.width)
        return [Segment(text, self._look_of("selected" if chosen else "label"))]

    def _thumbnails(self, prompt: int, row: int) -> list[Segment]:
        """Line `row` of the thumbnails of a prompt, the selected one between bars."""
        segments, sign = [], self._look_of("missing")
        for column in self._window.columns:
            cell = self._cell(column, prompt)
            thumb = self._thumbs.get(cell, WAITING if cell in self._pictures else MISSING)
            part = _part_of(thumb, row, self._window.rows, sign)
            if (column, prompt) == (self._step, self._prompt):
                bar = self._look_of("selected")
                segments += [Segment("▐", bar), *part, Segment("▌", bar)]
            else:
                segments += [BLANK, *part, BLANK]
        return segments

    def _look_of(self, part: str) -> Style:
        return self.get_component_rich_style(f"sample-grid--{part}")


def _nearest(steps: Sequence[int], step: int) -> int:
    """The index of the step nearest to this one; the earlier of two. `steps` are sorted; -1 where there are none."""
    return min(range(len(steps)), key=lambda index: abs(steps[index] - step), default=-1)


def _thumbnail(cache: PictureCache, path: Path, rows: int, weights: str) -> Lines | str:
    """The lines of a thumbnail, or the sign for a file that can't be shown. Called in a thread."""
    try:
        return cells(cache.read(path, (2 * rows, 2 * rows)), weights)
    except Unreadable:
        return FAILED


def _part_of(thumb: Lines | str, row: int, rows: int, sign: Style) -> list[Segment]:
    """Line `row` of the `rows` that a thumbnail may take, centred; of a sign, in this style, where it is one."""
    if isinstance(thumb, str):
        thumb = [[Segment(thumb, sign)]]
    row -= (rows - len(thumb)) // 2
    line = thumb[row] if 0 <= row < len(thumb) else []
    left = (2 * rows - Segment.get_line_length(line)) // 2
    return Segment.adjust_line_length([*([BLANK] * left), *line], 2 * rows)
