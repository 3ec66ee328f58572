"""Lines of styled text, wrapped to the width that there is; of another text only the cells that differ are sent."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.text import Text
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from loratui.actions import bindings
from loratui.widgets.movement import Movement
from loratui.widgets.painting import PaintsChanges

Line = Text | tuple[Text, Text]
"""A line, or a head and a body: of a body that is wrapped, the rest stands below its beginning."""


class Lines(Movement, PaintsChanges, ScrollView, can_focus=True, inherit_bindings=False):
    """Scrolls by the keys of lists. What it is given must hold nothing that steers a terminal: see `columns.clean`."""

    ALLOW_SELECT = False
    TARGET = "list"
    BINDINGS = bindings("list")
    DEFAULT_CSS = """
    Lines { overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; }
    """

    def __init__(self, *, id: str | None = None, can_focus: bool = True):
        super().__init__(id=id)
        self.can_focus = can_focus
        self._given: list[Line] = []
        self._wrapped: list[Text] = []

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines in place of others."""
        self._given = list(lines)
        self._wrap()
        self.repaint()

    def _wrap(self) -> None:
        width = max(1, self.size.width - self.scrollbar_size_vertical)
        self._wrapped = [part for line in self._given for part in self._parts(line, width)]
        self.virtual_size = Size(0, len(self._wrapped))

    def _parts(self, line: Line, width: int) -> list[Text]:
        """A line as the lines that it takes."""
        head, body = (Text(), line) if isinstance(line, Text) else line
        wrapped = body.wrap(self.app.console, max(1, width - head.cell_len)) or [Text()]
        heads = [head] + [Text(" " * head.cell_len)] * (len(wrapped) - 1)
        return [Text.assemble(head, part) for head, part in zip(heads, wrapped, strict=True)]

    def on_resize(self) -> None:
        self._wrap()
        self.repaint()

    def line(self, y: int) -> Strip:
        style = self.rich_style
        index = self.scroll_offset.y + y
        segments: list[Segment] = []
        if index < len(self._wrapped):
            segments = list(Segment.apply_style(self._wrapped[index].render(self.app.console), style))
        return Strip(segments).adjust_cell_length(self.size.width, style)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        # In the place of ScrollView's, which refreshes the whole widget.
        if self.show_vertical_scrollbar:
            self.vertical_scrollbar.position = new_value
        self.repaint()

    def move(self, delta: int) -> None:
        self._scroll(self.scroll_offset.y + delta)

    def page(self, delta: int) -> None:
        self.move(delta * max(1, self.size.height - 1))

    def first(self) -> None:
        self._scroll(0)

    def last(self) -> None:
        self._scroll(len(self._wrapped))

    def _scroll(self, top: int) -> None:
        self.scroll_to(y=top, animate=False, force=True)
