"""A list of 0 to 1,000,000 rows, of which only those in view are ever drawn.

The owner gives a function that draws row `index` at a width, and says how many there are; the list adds the cursor,
the marks and the mouse. It keeps the rows that it drew: an owner whose data changed says so by `set_count`,
`refresh_rows` or `invalidate`, and then only cells that look different are sent to the terminal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.cache import LRUCache
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from loratui.actions import bindings
from loratui.widgets.columns import cleaned
from loratui.widgets.movement import Movement
from loratui.widgets.painting import PaintsChanges

CURSOR, MARK = "▸", "•"
GUTTER = 2
"""Cells at the left of every row: one for the cursor, one for the mark, so that neither is told by colour alone."""

KEPT_ROWS = 1024
"""Drawn rows that are kept: several screens, so that going back costs nothing."""


class Rows(PaintsChanges, ScrollView):
    """What a list looks like: which row is on which line, and the lines that were drawn before."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "virtual-list--header",
        "virtual-list--cursor",
        "virtual-list--marked",
        "virtual-list--hover",
        "virtual-list--empty",
    }

    def __init__(
        self,
        render_row: Callable[[int, int], Text],
        *,
        header: Callable[[int], Text] | None = None,
        empty: str = "",
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self.marked: set[int] = set()
        self._render_row = render_row
        self._header = header
        self._empty = empty
        self._count = 0
        self._cursor = 0
        self._hover: int | None = None
        self._head = 0 if header is None else 1
        self._looks: dict[tuple[str, ...], Style] = {}
        self._strips: LRUCache[int, dict[tuple, Strip]] = LRUCache(KEPT_ROWS)

    @property
    def count(self) -> int:
        return self._count

    @property
    def in_view(self) -> range:
        """The rows on the screen."""
        start = self.scroll_offset.y
        return range(start, max(start, min(self._count, start + self._room)))

    def refresh_rows(self, start: int, stop: int) -> None:
        """Rows `start` up to `stop` have changed."""
        for index in filter(range(start, stop).__contains__, self._strips.keys()):
            self._strips.get(index, {}).clear()
        self._repaint_rows(*range(max(start, self.in_view.start), min(stop, self.in_view.stop)))

    def invalidate(self, index: int | None = None) -> None:
        """Row `index`, or every row, has changed."""
        if index is not None:
            self.refresh_rows(index, index + 1)
        else:
            self._strips.clear()
            self.repaint()

    def line(self, y: int) -> Strip:
        width = self._width
        if y < self._head:
            return self._strip(self._header(width - GUTTER), " " * GUTTER, "header")
        index = self.scroll_offset.y + y - self._head
        if index >= self._count:
            return self._strip(Text(self._empty if index == 0 else ""), " " * GUTTER, "empty")
        drawn = self._strips.get(index)
        if drawn is None:
            drawn = self._strips[index] = {}
        state = (width, index == self._cursor, index in self.marked, y == self._hover)
        if state not in drawn:
            drawn[state] = self._row(index, *state)
        return drawn[state]

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._looks.clear()
        self._strips.clear()
        # Focus shows on the cursor's row. What else a new theme changes, Textual paints by itself.
        self.call_later(lambda: self._repaint_rows(self._cursor))

    @property
    def _width(self) -> int:
        """Cells of a row. Textual counts the scrollbar, which lies over the last one, as content."""
        return self.size.width - self.scrollbar_size_vertical

    @property
    def _room(self) -> int:
        """Lines for rows."""
        return max(0, self.size.height - self._head)

    def _repaint_rows(self, *rows: int) -> None:
        top = self.scroll_offset.y - self._head
        self.repaint([row - top for row in rows if row - top >= self._head])

    def _row(self, index: int, width: int, cursor: bool, marked: bool, hover: bool) -> Strip:
        gutter = (CURSOR if cursor else " ") + (MARK if marked else " ")
        looks = [look for look, on in (("hover", hover), ("marked", marked), ("cursor", cursor)) if on]
        row = self._render_row(index, width - GUTTER)
        return self._strip(row if row.plain.isprintable() else cleaned(row), gutter, *looks)

    def _look(self, looks: tuple[str, ...]) -> Style:
        """The style of these parts. Kept, because Textual forgets its own with every refresh."""
        if looks not in self._looks:
            names = [f"virtual-list--{look}" for look in looks]
            self._looks[looks] = self.get_component_rich_style(*names) if names else self.rich_style
        return self._looks[looks]

    def _strip(self, text: Text, gutter: str, *looks: str) -> Strip:
        """A line as wide as the list; what is too long is cut."""
        style = self._look(looks)
        if text.spans or text.style:
            segments = [Segment(gutter, style), *Segment.apply_style(text.render(self.app.console), style)]
        else:
            segments = [Segment(gutter + text.plain, style)]
        return Strip(segments).adjust_cell_length(self._width, style)


class VirtualList(Movement, Rows, can_focus=True, inherit_bindings=False):
    """A list whose rows are drawn by `render_row(index, width)`, one line each, as plain `Text` without markup.

    `header(width)` draws a line that stays at the top; `empty` is shown where there are no rows.
    """

    TARGET = "list"
    """What the table of actions calls it."""
    BINDINGS = bindings("list")
    DEFAULT_CSS = """
    VirtualList {
        overflow-x: hidden;
        overflow-y: auto;
        scrollbar-size-vertical: 1;
        & > .virtual-list--header { color: $text-muted; text-style: bold; }
        & > .virtual-list--empty { color: $text-muted; }
        & > .virtual-list--hover { background: $boost; }
        & > .virtual-list--marked { color: $accent; }
        & > .virtual-list--cursor { background: $block-cursor-blurred-background; text-style: none; }
        &:focus > .virtual-list--cursor {
            color: $block-cursor-foreground;
            background: $block-cursor-background;
            text-style: $block-cursor-text-style;
        }
    }
    """

    class Said(Message):
        """What a list says. `list` is the one."""

        def __init__(self, list: VirtualList) -> None:
            super().__init__()
            self.list = list

        @property
        def control(self) -> VirtualList:
            return self.list

    class Moved(Said):
        """The cursor went to row `index`."""

        def __init__(self, list: VirtualList, index: int) -> None:
            super().__init__(list)
            self.index = index

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, VirtualList.Moved) and message.list is self.list

    class Chosen(Said):
        """Row `index` was chosen, by enter or a double click."""

        def __init__(self, list: VirtualList, index: int) -> None:
            super().__init__(list)
            self.index = index

    class Visible(Said):
        """`rows` are now in view."""

        def __init__(self, list: VirtualList, rows: range) -> None:
            super().__init__(list)
            self.rows = rows

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, VirtualList.Visible) and message.list is self.list

    _told = range(0)
    """The rows that the last `Visible` named."""

    @property
    def cursor(self) -> int:
        """The row that the cursor is on; 0 in an empty list. Setting it is `to`."""
        return self._cursor

    @cursor.setter
    def cursor(self, index: int) -> None:
        self.to(index)

    def set_count(self, count: int, cursor: int | None = None) -> None:
        """The list now has `count` rows, none of them necessarily as before.

        The cursor stays where it was, or goes to `cursor`; either is clamped. Nothing is said of that: the owner knows.
        """
        self._strips.clear()
        self._count = count
        self.marked = {index for index in self.marked if index < count}
        self._cursor = self._clamped(self._cursor if cursor is None else cursor)
        self.virtual_size = Size(0, count + self._head)
        self._reveal()
        self._tell_view()
        self.repaint()

    def move(self, delta: int) -> None:
        """Move the cursor by `delta` rows."""
        self.to(self._cursor + delta)

    def page(self, delta: int) -> None:
        """Move the cursor, and the view with it, by `delta` screens."""
        rows = delta * max(1, self._room)
        if self._cursor in self.in_view:
            self._scroll(self.scroll_offset.y + rows)
        self.to(self._cursor + rows)

    def to(self, index: int) -> None:
        """Move the cursor to row `index`, or to the nearest that there is, and say `Moved` if it was elsewhere."""
        before, self._cursor = self._cursor, self._clamped(index)
        self._reveal()
        if self._cursor != before:
            self._repaint_rows(before, self._cursor)
            self.post_message(self.Moved(self, self._cursor))

    def first(self) -> None:
        self.to(0)

    def last(self) -> None:
        self.to(self._count - 1)

    def toggle_mark(self) -> None:
        """Mark the row at the cursor, or take its mark away."""
        if self._count:
            self.marked ^= {self._cursor}
            self._repaint_rows(self._cursor)

    def action_choose(self) -> None:
        if self._count:
            self.post_message(self.Chosen(self, self._cursor))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        # In the place of ScrollView's, which refreshes the whole list.
        if self.show_vertical_scrollbar:
            self.vertical_scrollbar.position = new_value
        if round(old_value) != round(new_value):
            self._tell_view()
            self.repaint()

    def on_resize(self) -> None:
        self._reveal()
        self._tell_view()

    def on_click(self, event: events.Click) -> None:
        index = self._index_at(event.y)
        if index is not None:
            self.to(index)
            if event.chain == 2:
                self.action_choose()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self._set_hover(event.y - self.gutter.top)

    def on_leave(self) -> None:
        self._set_hover(None)

    def _clamped(self, index: int) -> int:
        return max(0, min(index, self._count - 1))

    def _index_at(self, y: int) -> int | None:
        """The row at line `y` of the widget, its border included."""
        line = y - self.gutter.top - self._head
        index = self.scroll_offset.y + line
        return index if 0 <= line < self._room and index < self._count else None

    def _scroll(self, top: int) -> None:
        # Forced: whether a list may scroll is decided by its scrollbar, which comes with the next layout only.
        self.scroll_to(y=top, animate=False, force=True)

    def _reveal(self) -> None:
        """Scroll as little as brings the cursor into view."""
        if self._room:
            top = self.scroll_offset.y
            self._scroll(min(max(top, self._cursor - self._room + 1), self._cursor))

    def _set_hover(self, line: int | None) -> None:
        before, self._hover = self._hover, line
        if before != line:
            self.repaint([y for y in (before, line) if y is not None])

    def _tell_view(self) -> None:
        rows = self.in_view
        if rows != self._told:
            self._told = rows
            self.post_message(self.Visible(self, rows))
