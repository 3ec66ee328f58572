"""The last lines of what a run said, but for its steps. All of them can be read in a dialog."""

from __future__ import annotations

import time

from rich.text import Text

from loratui.history import History, Line
from loratui.screens.monitor_lines import Lines
from loratui.widgets.columns import clean


class Events(Lines):
    """As many of the last lines as there is room for, the newest at the bottom."""

    _last: tuple[Line, ...] = ()

    def show(self, history: History) -> None:
        """Show the last lines of a run."""
        last = tuple(history.lines[-self.size.height :]) if self.size.height else ()
        if last != self._last or not last:
            self._last = last
            self.tell([_row(line) for line in last] or [Text("nothing yet", style="dim")])


def everything(history: History) -> str:
    """All lines that are kept, the newest first."""
    return "\n".join(_row(line).plain for line in reversed(history.lines))


def _row(line: Line) -> Text:
    moment = time.strftime("%H:%M ", time.localtime(line.t))
    return Text(moment, style="dim").append(clean(line.text), "not dim")
