"""One sample picture as large as the screen allows; the arrows go through the table of samples from there."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from loratui.actions import bindings
from loratui.screens.monitor_samples import Cell, Table
from loratui.widgets.picture import Picture


class Large(ModalScreen[Cell]):
    """Gives the cell that it was closed at."""

    DEFAULT_CSS = """
    Large { background: $background; }
    Large Vertical { border: round $border; border-title-color: $text; border-subtitle-color: $text-muted; }
    """
    BINDINGS = [
        *bindings("dialog"),
        Binding("q,enter", "close", show=False),
        Binding("left,h", "move(-1, 0)", show=False),
        Binding("right,l", "move(1, 0)", show=False),
        Binding("up,k", "move(0, -1)", show=False),
        Binding("down,j", "move(0, 1)", show=False),
    ]

    def __init__(self, table: Table, cell: Cell):
        super().__init__()
        self._table, self._cell = table, cell

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_subtitle = Content("arrows: other steps and prompts, esc closes")
            yield Picture()

    def on_mount(self) -> None:
        self._show()

    def action_move(self, steps: int, prompts: int) -> None:
        """Go to the next cell in a direction that has a picture."""
        table, (step, prompt) = self._table, self._cell
        column = table.steps.index(step)
        while True:
            column, prompt = column + steps, prompt + prompts
            if not (0 <= column < len(table.steps) and 0 <= prompt < len(table.prompts)):
                return
            if (table.steps[column], prompt) in table.pictures:
                break
        self._cell = table.steps[column], prompt
        self._show()

    def action_close(self) -> None:
        self.dismiss(self._cell)

    def _show(self) -> None:
        self.query_one(Picture).show(self._table.pictures[self._cell], self._table.notes[self._cell])
