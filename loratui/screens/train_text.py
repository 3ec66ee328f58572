"""A list as text, to be edited at full size: prompts one a line, tables as TOML. What is wrong is told as one types."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

import tomli_w
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static, TextArea

from engine.config import describe, fields, help_of
from loratui.actions import bindings
from loratui.draft_fields import Leaf, storable

SHOWN = 4
"""Complaints that there is room for."""


def list_as_text(leaf: Leaf, value: Any) -> str:
    """A list of lines as lines, a list of tables as TOML; a draft's value that is neither as it is."""
    if not isinstance(value, list):
        return "" if value is None else str(value)
    if leaf.way == "lines":
        return "\n".join(map(str, value))
    if value and all(isinstance(item, dict) for item in value):
        return "\n".join(f"[[{leaf.name}]]\n{tomli_w.dumps(item)}" for item in value)
    return _example(leaf)


def list_from_text(leaf: Leaf, text: str) -> list[Any]:
    """The list that a text stands for. Raises ValueError for what is no TOML, or another table's."""
    if leaf.way == "lines":
        return [line.strip() for line in text.splitlines() if line.strip()]
    tables = tomllib.loads(text)
    if set(tables) - {leaf.name}:
        raise ValueError(f"expected nothing but [[{leaf.name}]], found {', '.join(sorted(set(tables) - {leaf.name}))}")
    value = tables.get(leaf.name, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"expected [[{leaf.name}]] before each table")
    return [{key: storable(inner) for key, inner in item.items()} for item in value]


def _example(leaf: Leaf) -> str:
    """What an empty list of tables begins with: one of them, commented out."""
    lines = [f"# [[{leaf.name}]]"]
    lines += [f"# {name} =   # {help_of(kind)}: {describe(kind)}" for name, (kind, _) in fields(leaf.item).items()]
    return "\n".join(lines) + "\n"


class TextEdit(ModalScreen[str | None]):
    """Gives the text, or None. Nothing is taken while `check` has something to say of it."""

    DEFAULT_CSS = """
    TextEdit { align: center middle; background: $background 60%; }
    TextEdit .box { width: 110; max-width: 96%; height: 24; max-height: 90%; padding: 0 1; background: $surface;
        border: round $border; border-title-color: $text; border-subtitle-color: $text-muted; }
    TextEdit TextArea { height: 1fr; border: none; padding: 0; }
    TextEdit Static { height: auto; color: $text-muted; }
    TextEdit #wrong { max-height: 4; color: $text-error; }
    TextEdit Horizontal { height: auto; }
    TextEdit Button { margin: 0 2 0 0; min-width: 10; }
    """
    BINDINGS = [*bindings("dialog"), Binding("ctrl+o", "keep", show=False)]

    def __init__(self, title: str, note: str, text: str, check: Callable[[str], list[str]]):
        super().__init__()
        self._title, self._note, self._text, self._check = title, note, text, check

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content("^o keeps, esc gives up")
            yield Static(self._note, markup=False)
            area = TextArea(self._text, tab_behavior="focus", soft_wrap=True)
            area.cursor_blink = False
            yield area
            yield Static("", id="wrong", markup=False)
            with Horizontal():
                yield Button("Keep (^o)", id="keep", variant="primary", compact=True)
                yield Button("Give up (esc)", id="close", compact=True)

    def on_mount(self) -> None:
        area = self.query_one(TextArea)
        area.focus()
        area.move_cursor(area.document.end)

    @on(TextArea.Changed)
    def _typed(self) -> None:
        wrong = self._check(self.query_one(TextArea).text)
        self.query_one("#wrong", Static).update("\n".join(f"✗ {one}" for one in wrong[:SHOWN]))

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "keep":
            self.action_keep()
        else:
            self.action_close()

    def action_keep(self) -> None:
        text = self.query_one(TextArea).text
        if self._check(text):
            self._typed()
        else:
            self.dismiss(text)

    def action_close(self) -> None:
        self.dismiss(None)
