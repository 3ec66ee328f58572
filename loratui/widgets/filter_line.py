"""The line over a list in which one types what its rows must hold. It is there while it has the focus or a text."""

from __future__ import annotations

from textual import on
from textual.binding import Binding
from textual.message import Message
from textual.widgets import Input


class FilterLine(Input):
    """Enter goes back to the list, Escape clears first; `Filtered` tells every change."""

    DEFAULT_CSS = """
    FilterLine { height: 1; border: none; padding: 0 1; background: $surface; display: none; }
    FilterLine:focus { border: none; display: block; }
    FilterLine.-on { display: block; }
    """
    BINDINGS = [
        Binding("escape", "clear", show=False, id="filter.clear"),
        Binding("enter,down", "leave", show=False, id="filter.leave"),
    ]

    class Filtered(Message):
        """The rows must now hold `words`."""

        def __init__(self, line: FilterLine, words: str):
            super().__init__()
            self.line, self.words = line, words

        @property
        def control(self) -> FilterLine:
            return self.line

    class Left(Message):
        """The list may have the focus back."""

        def __init__(self, line: FilterLine):
            super().__init__()
            self.line = line

        @property
        def control(self) -> FilterLine:
            return self.line

    def __init__(self, *, id: str | None = None):
        super().__init__(placeholder="words, -without", id=id, select_on_focus=False)
        self.cursor_blink = False

    def open(self) -> None:
        """Show the line and take the focus."""
        self.add_class("-on")
        self.focus()

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Filtered(self, event.value))

    def action_clear(self) -> None:
        self.value = ""
        self.action_leave()

    def action_leave(self) -> None:
        self.set_class(bool(self.value), "-on")
        self.post_message(self.Left(self))
