"""Asking for a path: a line in which Tab completes, with what lies there below it.

What is slow about a path, a look at its folder above all, happens in a thread. Names out of folders are data.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from loratui.actions import bindings
from loratui.screens.dialogs import FRAME
from loratui.widgets.columns import clean

NAMED = 12
"""Names that are shown under a half-typed path."""


def absolute(text: str) -> str:
    """What was typed as an absolute path; a `~` is the user's home."""
    return os.path.abspath(os.path.expanduser(text.strip()))


def completions(text: str, suffixes: Sequence[str] = ()) -> tuple[str, list[str]]:
    """What is typed, with as much added as all names have in common that begin like it; and these names.

    Names of folders, which end in a slash, and of files with one of the suffixes.
    """
    head, _, begun = text.rpartition("/")
    within = os.path.expanduser(head + "/") if "/" in text else "."
    try:
        with os.scandir(within) as entries:
            found = sorted(
                (entry.name, entry.is_dir())
                for entry in entries
                if entry.name.startswith(begun)
                and (begun or entry.name[0] != ".")
                and (entry.name.lower().endswith(tuple(suffixes)) or entry.is_dir())
            )
    except (OSError, ValueError):
        return text, []
    names = [name + "/" * is_folder for name, is_folder in found]
    if not names:
        return text, []
    # Letter by letter is what is wanted: these are names, and half a name is a completion.
    common = os.path.commonprefix(names)  # noqa: RUF071
    return (f"{head}/{common}" if "/" in text else common), names


class AskPath(ModalScreen[str | None]):
    """A line for a path; `check` says what is wrong with it, and takes its time."""

    DEFAULT_CSS = (
        FRAME.format(name="AskPath")
        + """
    AskPath Input { margin-top: 1; }
    AskPath #inside { color: $text-muted; }
    AskPath #wrong { color: $text-error; }
    """
    )
    BINDINGS = bindings("dialog")

    def __init__(
        self,
        title: str,
        text: str,
        value: str,
        check: Callable[[str], Awaitable[str]],
        suffixes: Sequence[str] = (),
        meant: Callable[[str], str] = absolute,
    ):
        """`check`: from what is meant to what is wrong with it, or an empty text. `suffixes`: of files that Tab
        completes beside folders. `meant`: from what was typed, which is not empty, to the answer."""
        super().__init__()
        self._title, self._text, self._value = title, text, value
        self._check, self._suffixes, self._meant = check, suffixes, meant

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = Content(self._title)
            if self._text:
                yield Static(self._text, markup=False)
            field = _PathLine(self._value, select_on_focus=False)
            field.cursor_blink = False
            yield field
            yield Static("", id="inside", markup=False)
            yield Static("", id="wrong", markup=False)

    @on(Input.Changed)
    def _changed(self) -> None:
        self.query_one("#wrong", Static).update("")
        self.run_worker(self._look(complete=False), group="look", exclusive=True, exit_on_error=False)

    def complete(self) -> None:
        """Type on as far as there is but one way."""
        self.run_worker(self._look(complete=True), group="look", exclusive=True, exit_on_error=False)

    async def _look(self, complete: bool) -> None:
        field = self.query_one(Input)
        typed = field.value
        longer, names = await asyncio.to_thread(completions, typed, self._suffixes)
        if complete and field.value == typed and longer != typed:
            field.value, field.cursor_position = longer, len(longer)
            return
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        self.query_one("#inside", Static).update("  ".join(map(clean, names[:NAMED])) + more)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        self.run_worker(self._take(event.value), group="take", exclusive=True, exit_on_error=False)

    async def _take(self, typed: str) -> None:
        path = self._meant(typed) if typed.strip() else ""
        wrong = await self._check(path) if path else "give a path"
        if wrong:
            self.query_one("#wrong", Static).update(f"✗ {wrong}")
        else:
            self.dismiss(path)

    def action_close(self) -> None:
        self.dismiss(None)


class _PathLine(Input):
    BINDINGS = [("tab", "complete", "complete")]

    def action_complete(self) -> None:
        self.screen.complete()
