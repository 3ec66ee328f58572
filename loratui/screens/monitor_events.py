"""The last lines of what a run said, but for its steps. All of them can be read in a dialog."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.text import Text

from loratui.history import History, Line
from loratui.screens.monitor_lines import Lines
from loratui.widgets.columns import clean


class Events(Lines):
    """As many of the last lines as there is room for, the newest at the bottom."""

    _told: Sequence[Line] = ()
    _last: Sequence[Line] | None = None
    """Those that are shown."""

    def show(self, lines: Sequence[Line]) -> None:
        """Show the last of these lines."""
        self._told = lines
        last = lines[max(0, len(lines) - self.size.height) :]
        if last != self._last:
            self._last = last
            self.tell([_row(line) for line in last] or [Text("nothing yet", style="dim")])

    def on_resize(self) -> None:
        self.show(self._told)


def everything(history: History) -> str:
    """All lines that are kept, the newest first."""
    return "\n".join(_row(line).plain for line in reversed(history.lines))


def _row(line: Line) -> Text:
    moment = time.strftime("%H:%M ", time.localtime(line.t))
    return Text(moment, style="dim").append(clean(line.text), "not dim")
