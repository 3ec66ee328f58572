"""The list of what a run said, but for its steps. It follows the newest line while the cursor is on the last."""

from __future__ import annotations

import time

from rich.text import Text

from loratui.history import History
from loratui.widgets.columns import clean
from loratui.widgets.virtual_list import VirtualList


class Events(VirtualList):
    """One line an event, with its time of day."""

    def __init__(self, *, id: str | None = None, classes: str | None = None):
        super().__init__(self._line_of, empty="nothing yet", id=id, classes=classes)
        self._history = History()
        self._told = (0, 0, "")

    def tell(self, history: History) -> None:
        """Show the lines of a run."""
        follows = history is not self._history or self.cursor >= self.count - 1
        now = history.lines_gone, len(history.lines), history.lines[-1].text if history.lines else ""
        if history is not self._history or now != self._told:
            self._history, self._told = history, now
            self.set_count(len(history.lines), len(history.lines) - 1 if follows else None)

    def _line_of(self, index: int, width: int) -> Text:
        line = self._history.lines[index]
        text = Text(time.strftime("%H:%M ", time.localtime(line.t)), style="dim", no_wrap=True)
        text.append(clean(line.text), "not dim")
        text.truncate(width, overflow="ellipsis")
        return text
