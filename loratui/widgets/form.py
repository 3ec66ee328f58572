"""A form of any length as one widget: its rows are drawn, and one input lies over the value that is being typed.

The owner gives the rows and decides what they mean: it hears which row was moved to, chosen or typed into, and gives
rows again. Only rows that look different are drawn again, so giving all of them after every key costs little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input

from loratui.actions import bindings
from loratui.widgets.form_rows import FormRow, Looks, draw, editor_width, label_width
from loratui.widgets.painting import theme_style
from loratui.widgets.virtual_list import GUTTER, VirtualList


def looks_of(widget: Widget) -> Looks:
    """The colours of the theme as it is now."""
    return Looks(theme_style(widget, "accent"), theme_style(widget, "error"))


class FieldList(VirtualList):
    """The rows. A click goes to a row, a click on the row of the cursor chooses it; a heading needs one click."""

    heads: frozenset[int] = frozenset()
    """Rows that a single click chooses."""

    def on_click(self, event: events.Click) -> None:
        event.prevent_default()
        index = self._index_at(event.y)
        if index is None:
            return
        again = index == self.cursor
        self.to(index)
        if again or index in self.heads:
            self.action_choose()


class Editor(Input):
    """Where a value is typed. Enter, up, down and tab are done with it; escape gives up."""

    BINDINGS = [
        *bindings("dialog"),
        Binding("up,shift+tab", "leave(-1)", show=False),
        Binding("down,tab", "leave(1)", show=False),
    ]
    DEFAULT_CSS = """
    Editor { layer: editor; position: absolute; height: 1; border: none; padding: 0; display: none;
        background: $boost; color: $foreground; }
    Editor:focus { border: none; background-tint: transparent; }
    Editor.-on { display: block; }
    """

    class Left(Message):
        """Typing is over. `step`: rows to go on by; None: what was typed is given up."""

        def __init__(self, step: int | None):
            super().__init__()
            self.step = step

    def action_leave(self, step: int) -> None:
        self.post_message(self.Left(step))

    def action_close(self) -> None:
        self.post_message(self.Left(None))

    def on_blur(self) -> None:
        if self.app.app_focus:  # a terminal that loses the focus ends nothing
            self.post_message(self.Left(0))


class Form(Container):
    """Rows to move over, of which one at a time can be typed into."""

    DEFAULT_CSS = """
    Form { layers: rows editor; height: 1fr; }
    Form FieldList { layer: rows; height: 1fr; }
    """

    class Said(Message):
        """What a form says about the row `key`."""

        def __init__(self, key: str):
            super().__init__()
            self.key = key

    class Moved(Said):
        """The cursor is on another row."""

    class Chosen(Said):
        """By enter, or by a click on the row of the cursor."""

    class Typed(Said):
        """The text so far."""

        def __init__(self, key: str, text: str):
            super().__init__(key)
            self.text = text

    class Entered(Typed):
        """The text is meant to be the value."""

    class GaveUp(Said):
        """What was typed is not meant."""

    def __init__(self, empty: str = "", *, id: str | None = None):
        super().__init__(id=id)
        self._empty = empty
        self._rows: list[FormRow] = []
        self._typing = ""
        """Key of the row that is typed into; empty for none."""
        self._wide = False

    def compose(self) -> ComposeResult:
        yield FieldList(self._draw, empty=self._empty, classes="start")
        editor = Editor()
        editor.cursor_blink = False
        yield editor

    # --- rows ---------------------------------------------------------------------------------------------------------

    @property
    def fields(self) -> FieldList:
        return self.query_one(FieldList)

    @property
    def editor(self) -> Editor:
        return self.query_one(Editor)

    @property
    def key(self) -> str | None:
        """The key of the row that the cursor is on; None in an empty form."""
        return self._rows[self.fields.cursor].key if self._rows else None

    @property
    def typing(self) -> str:
        """The key of the row that is typed into; empty for none."""
        return self._typing

    def show(self, rows: Sequence[FormRow], key: str | None = None) -> None:
        """Show these rows. The cursor stays with what it was on, or goes to `key`."""
        before, self._rows = self._rows, list(rows)
        if [row.key for row in before] == [row.key for row in rows]:
            for index, (old, new) in enumerate(zip(before, rows, strict=True)):
                if old != new:
                    self.fields.refresh_rows(index, index + 1)
            if key is not None:
                self.go(key)
            return
        was = before[self.fields.cursor].key if before else None
        self.fields.heads = frozenset(index for index, row in enumerate(rows) if row.sort in ("section", "more"))
        self.fields.set_count(len(rows), self._index(was if key is None else key, self.fields.cursor))
        self._place()

    def go(self, key: str) -> None:
        """Bring the cursor to a row, if it is there."""
        self.fields.to(self._index(key, self.fields.cursor))

    def repaint(self) -> None:
        """Colours have changed."""
        self.fields.invalidate()

    def _index(self, key: str | None, otherwise: int) -> int:
        return next((index for index, row in enumerate(self._rows) if row.key == key), otherwise)

    def _draw(self, index: int, width: int) -> Text:
        row = self._rows[index]
        typing = editor_width(width, self._wide) if row.key == self._typing else 0
        return draw(row, width, looks_of(self), typing)

    @on(VirtualList.Moved)
    def _moved(self, event: VirtualList.Moved) -> None:
        event.stop()
        if self._rows:
            self.post_message(self.Moved(self._rows[event.index].key))

    @on(VirtualList.Chosen)
    def _chosen(self, event: VirtualList.Chosen) -> None:
        event.stop()
        self.post_message(self.Chosen(self._rows[event.index].key))

    # --- typing -------------------------------------------------------------------------------------------------------

    def edit(self, text: str, sort: Literal["number", "text"]) -> None:
        """Let the user type over the value of the cursor's row. A number is selected, a text gone on with."""
        self._typing, self._wide = self.key or "", sort == "text"
        self.go(self._typing)
        editor = self.editor
        editor.select_on_focus = sort == "number"
        editor.value = text
        editor.cursor_position = len(text)
        editor.add_class("-on")
        self._place()
        self.fields.invalidate(self.fields.cursor)
        editor.focus()

    def _place(self) -> None:
        """Bring the input over its value, and the value into view. Typing is void where its row is gone."""
        if not self._typing:
            return
        index, rows = self._index(self._typing, -1), self.fields
        if index < 0:
            self._leave(None)
            return
        if index not in rows.in_view:
            rows.to(index)
        width = rows.size.width - rows.scrollbar_size_vertical - GUTTER
        self.editor.styles.offset = GUTTER + label_width(width), index - rows.in_view.start
        self.editor.styles.width = editor_width(width, self._wide)

    @on(VirtualList.Visible)
    def _scrolled(self, event: VirtualList.Visible) -> None:
        event.stop()
        self._place()

    def on_resize(self) -> None:
        self.call_after_refresh(self._place)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        if self._typing:
            self.post_message(self.Typed(self._typing, event.value))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._leave(0)

    @on(Editor.Left)
    def _left(self, event: Editor.Left) -> None:
        event.stop()
        self._leave(event.step)

    def _leave(self, step: int | None) -> None:
        """End typing; what was typed is meant unless `step` is None."""
        key, self._typing = self._typing, ""
        if not key:
            return
        text = self.editor.value
        self.post_message(self.GaveUp(key) if step is None else self.Entered(key, text))
        if self.editor.has_focus:
            self.fields.focus(scroll_visible=False)
        self.editor.remove_class("-on")
        self.fields.invalidate(self._index(key, self.fields.cursor))
        if step:
            self.fields.move(step)
