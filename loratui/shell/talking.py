"""Words between app and user: toasts, questions, choices, the clipboard. All text is data, never markup."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from textual.app import App

from loratui import clipboard
from loratui.bench import Severity

KEPT = 200
"""Messages that are kept for being read again."""


class Talking(App):
    """See `bench.Bench` for what each of these is to a panel."""

    now: Callable[[], float]

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[float, str]] = []
        """When, and what."""

    def say(self, text: str, severity: Severity = "information") -> None:
        self.said = [*self.said[1 - KEPT :], (self.now(), text)]
        self.notify(text, severity=severity, markup=False)

    async def confirm(self, title: str, text: str, yes: str) -> bool:
        from loratui.screens.dialogs import Confirm

        return bool(await self.push_screen_wait(Confirm(title, text, yes)))

    async def ask(
        self, title: str, text: str = "", value: str = "", check: Callable[[str], str] | None = None
    ) -> str | None:
        from loratui.screens.dialogs import Ask

        return await self.push_screen_wait(Ask(title, text, value, check))

    async def choose(self, title: str, entries: list[Any], note: str = "", **more: Any) -> Any | None:
        from loratui.screens.finder import Finder

        return await self.push_screen_wait(Finder(title, entries, note, **more))

    def copy(self, text: str, what: str) -> None:
        try:
            way = clipboard.copy(text, os.environ, self._driver.write)
        except ValueError as error:
            self.say(f"{what}: {error}", "error")
        else:
            self.say(f"copied {what} ({way})")
