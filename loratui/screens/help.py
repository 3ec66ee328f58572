"""`?`: the keys of where one is, then those of everywhere; typing narrows them. Made from the table of actions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input

from loratui.actions import TARGETS, Action, bindings, of, shown
from loratui.widgets.virtual_list import VirtualList
from loratui.words import match

KEYS = 14


class Help(ModalScreen[None]):
    """`targets`: what has the focus, nearest first; the others follow where they are everywhere."""

    DEFAULT_CSS = """
    Help { align: center middle; background: $background 60%; }
    Help .box { width: 110; max-width: 96%; height: 90%; background: $surface; border: round $border;
        border-title-color: $text; border-subtitle-color: $text-muted; }
    Help Input, Help Input:focus { border: none; height: 1; padding: 0 1; background: $surface; }
    Help VirtualList { height: 1fr; background: $surface; }
    """
    BINDINGS = bindings("dialog")

    def __init__(self, targets: Iterable[str], keys_of: Callable[[Action], str], why_not: Callable[[Action], str]):
        super().__init__()
        self._targets = list(dict.fromkeys([*targets, "app"]))
        self._keys_of, self._why_not = keys_of, why_not
        self._rows: list[Action | str] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = Content(f"Keys: {TARGETS[self._targets[0]]}")
            box.border_subtitle = Content("type to search, esc closes")
            field = Input(placeholder="search")
            field.cursor_blink = False
            yield field
            yield VirtualList(self._row, empty="no action has these words")

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self._narrow("")

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._narrow(event.value)

    def on_key(self, event) -> None:
        """The list moves while the search field has the focus."""
        moves = {"up": -1, "down": 1, "pageup": -10, "pagedown": 10}
        if event.key in moves:
            event.stop()
            self.query_one(VirtualList).move(moves[event.key])

    def _narrow(self, find: str) -> None:
        self._rows = []
        for target in self._targets:
            found = [
                one
                for one in of(target)
                if match(find, (one.label, one.help, TARGETS[target], shown(self._keys_of(one))))
            ]
            if found:
                self._rows += [TARGETS[target], *found]
        listed = self.query_one(VirtualList)
        listed.set_count(len(self._rows), 0)

    def _row(self, index: int, width: int) -> Text:
        row = self._rows[index]
        if isinstance(row, str):
            return Text(row, style="bold")
        reason = self._why_not(row)
        keys = shown(self._keys_of(row)) or "palette"
        text = Text(f"{keys:<{KEYS}} ", style="bold", no_wrap=True)
        text.append(f"{row.label:<14} ", "dim" if reason else "")
        text.append(f"✗ {reason}" if reason else row.help, "not bold dim" if reason else "not bold")
        text.truncate(width, overflow="ellipsis")
        return text

    def action_close(self) -> None:
        self.dismiss(None)
