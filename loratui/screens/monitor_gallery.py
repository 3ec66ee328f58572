"""The samples of a run: thumbnails by prompt and step, and the picture under their cursor, which opens large.

The gallery says `Moved` where a person went to a step; `select` goes to one and says nothing.
"""

from __future__ import annotations

from pathlib import Path

from textual import on
from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.message import Message

from loratui.screens import monitor_samples as samples
from loratui.screens.monitor_picture import Large
from loratui.screens.monitor_text import Seen
from loratui.widgets.picture import Picture
from loratui.widgets.sample_grid import SampleGrid


class Gallery(Container):
    """A grid and a picture."""

    class Moved(Message):
        """A person went to the samples of this step."""

        def __init__(self, step: int):
            super().__init__()
            self.step = step

    def __init__(self, *, id: str | None = None):
        super().__init__(id=id)
        self._table = samples.Table()
        self._told = ("", -1)

    def compose(self) -> ComposeResult:
        grid = SampleGrid(id="samples", classes="framed")
        grid.border_title = Content("samples: prompt ↓ step →")
        yield grid
        yield Picture(id="picture", classes="framed")

    def tell(self, seen: Seen, step: int | None) -> None:
        """Show the samples of a run, with the cursor on those nearest to a step, or where it was."""
        now = seen.id, seen.history.samples_version
        if now == self._told or seen.row is None:
            return
        self._told = now
        make = samples.by_step if seen.trains else samples.by_number
        self._table = make(seen.history, Path(seen.row.path))
        self._grid.show(self._table.steps, self._table.prompts, self._table.pictures)
        self.select(step)

    def select(self, step: int | None) -> None:
        """Go to the samples nearest to a step; None: stay."""
        if step is not None:
            self._grid.select(step)
        cell = self._grid.selected
        note = self._table.notes.get(cell, "no picture here" if cell else "")
        self.query_one(Picture).show(self._table.pictures.get(cell), note)

    def newest(self) -> None:
        """Go to the newest samples, and stay with the newest."""
        self.select(self._table.steps[-1] if self._table.steps else None)

    def path(self) -> str:
        """The picture under the cursor, where the thumbnails have the focus."""
        cell = self._grid.selected if self._grid.has_focus else None
        return str(self._table.pictures.get(cell, ""))

    @property
    def _grid(self) -> SampleGrid:
        return self.query_one(SampleGrid)

    @on(SampleGrid.Selected)
    def _moved(self, event: SampleGrid.Selected) -> None:
        self.select(None)
        self.post_message(self.Moved(event.step))

    @on(SampleGrid.Opened)
    def _opened(self, event: SampleGrid.Opened) -> None:
        self.app.push_screen(Large(self._table, (event.step, event.prompt_index)), self._left)

    def _left(self, cell: samples.Cell | None) -> None:
        """The large picture was closed at this cell."""
        if cell is not None and cell != self._grid.selected:
            self._grid.select(*cell)
            self.select(None)
            self.post_message(self.Moved(cell[0]))
