"""Finding by a few letters: the palette, the fuzzy finder and every choice from a list are this one screen.

Entries are plain text. Matching is Textual's fuzzy matcher on what contains the letters in order; of very many entries
only the first thousand that contain them are ranked. Moving over an entry may preview it; Escape undoes the preview.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.fuzzy import FuzzySearch
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from loratui.actions import bindings
from loratui.widgets.virtual_list import VirtualList

RANKED = 1000
MANY = 2000
"""Entries from which on matching leaves the event loop."""


@dataclass(frozen=True)
class Entry:
    """Something to choose."""

    text: str
    value: Any
    hint: str = ""
    """Shown at the right: a key, a place, a state."""
    why_not: str = ""
    """Why it can't be chosen now; shown in place of the hint."""
    spelled: str = ""
    """What is typed to find it, where that is more than the text: the path to a name."""

    @property
    def typed(self) -> str:
        """What the letters are looked for in."""
        return self.spelled or self.text


def ranked(query: str, entries: Sequence[Entry]) -> list[Entry]:
    """The entries whose spelling or hint holds the letters of `query` in order; best first, equals as they came."""
    if not query.strip():
        return list(entries)
    letters = [letter for letter in query.lower() if not letter.isspace()]
    holding = []
    for entry in entries:
        if _holds(entry.typed.lower(), letters) or _holds(f"{entry.typed} {entry.hint}".lower(), letters):
            holding.append(entry)
            if len(holding) == RANKED:
                break
    search = FuzzySearch()
    query = query.strip()

    def score(entry: Entry) -> float:
        whole = 2.0 * (query.lower() in entry.typed.lower())
        return whole + search.match(query, entry.typed)[0] or search.match(query, f"{entry.typed} {entry.hint}")[0] / 2

    return sorted(holding, key=score, reverse=True)


def _holds(text: str, letters: list[str]) -> bool:
    place = 0
    for letter in letters:
        place = text.find(letter, place) + 1
        if not place:
            return False
    return True


class Finder(ModalScreen[Any]):
    """Type to narrow, arrows to move, Enter to take; gives the entry's value, or None."""

    DEFAULT_CSS = """
    Finder { align: center top; background: $background 60%; }
    Finder .box { width: 90; max-width: 96%; height: auto; max-height: 80%; margin-top: 2; background: $surface;
        border: round $border; border-title-color: $text; border-subtitle-color: $text-muted; }
    Finder Input, Finder Input:focus { border: none; height: 1; padding: 0 1; background: $surface; }
    Finder VirtualList { height: 16; background: $surface; }
    Finder #note { height: auto; padding: 0 1; color: $text-muted; }
    """
    BINDINGS = [
        *bindings("dialog"),
        Binding("up,ctrl+k", "move(-1)", show=False),
        Binding("down,ctrl+j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
    ]

    def __init__(
        self,
        title: str,
        entries: Sequence[Entry],
        note: str = "",
        query: str = "",
        preview: Callable[[Any], None] | None = None,
        more: Callable[[str], Any] | None = None,
    ):
        """`preview` gets the value under the cursor, and None when nothing is chosen. `more`: an awaitable function
        from what was typed to further entries, for what is too much to hold."""
        super().__init__()
        self._title, self._entries, self._note, self._query = title, entries, note, query
        self._preview, self._more = preview, more
        self._found: list[Entry] = list(entries)
        self._answered = ""
        """What was typed when the entries on the screen were found."""
        self._taken = False
        """Whether Enter was pressed before its entries were found: then the best of them is meant."""

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = Content(self._title)
            field = Input(self._query, placeholder="type some letters")
            field.cursor_blink = False
            yield field
            listed = VirtualList(self._row, empty="nothing has these letters")
            listed.can_focus = False
            yield listed
            if self._note:
                yield Static(self._note, id="note", markup=False)

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self._show(self._found)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self.run_worker(partial(self._search, event.value), group="search", exclusive=True)

    async def _search(self, query: str) -> None:
        entries = self._entries
        if self._more and query.strip():
            entries = [*entries, *await self._more(query)]
        if len(entries) > MANY:
            found = await asyncio.to_thread(ranked, query, entries)
        else:
            found = ranked(query, entries)
        self._answered = query
        self._show(found)
        if self._taken:
            self._taken = False
            self._chosen()

    def _show(self, found: list[Entry]) -> None:
        self._found = found
        listed = self.query_one(VirtualList)
        listed.set_count(len(found), 0)
        self.query_one(".box").border_subtitle = Content(f"{len(found):,}")
        self._previewed()

    def _row(self, index: int, width: int) -> Text:
        entry = self._found[index]
        aside = entry.why_not or entry.hint
        row = Text(entry.text, style="dim" if entry.why_not else "", no_wrap=True)
        aside = Text(aside, style="dim italic" if entry.why_not else "dim", no_wrap=True)
        aside.truncate(max(0, width - min(row.cell_len, width // 2) - 2), overflow="ellipsis")
        row.truncate(max(0, width - aside.cell_len - 2), overflow="ellipsis")
        row.append(" " * max(2, width - row.cell_len - aside.cell_len))
        return row.append_text(aside)

    def action_move(self, rows: int) -> None:
        self.query_one(VirtualList).move(rows)

    def action_page(self, pages: int) -> None:
        self.query_one(VirtualList).page(pages)

    @on(VirtualList.Moved)
    def _previewed(self) -> None:
        index = self.query_one(VirtualList).cursor
        if self._preview and 0 <= index < len(self._found):
            self._preview(self._found[index].value)

    @on(Input.Submitted)
    @on(VirtualList.Chosen)
    def _chosen(self) -> None:
        if self.query_one(Input).value != self._answered:
            self._taken = True
            return
        index = self.query_one(VirtualList).cursor
        if not 0 <= index < len(self._found):
            return
        entry = self._found[index]
        if entry.why_not:
            self.query_one(".box").border_subtitle = Content(f"✗ {entry.why_not}")
            return
        self.dismiss(entry.value)

    def action_close(self) -> None:
        if self._preview:
            self._preview(None)
        self.dismiss(None)
