"""The log of a run: what its worker printed. It is asked for only while it is looked at, and again only while the run
is live."""

from __future__ import annotations

from collections.abc import Callable

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.timer import Timer

from engine.protocol.messages import LogRef
from loratui.widgets.log_view import LogView

INTERVAL = 1.0
"""Seconds between two looks at the log of a live run."""
MOST = 4 << 20
"""Bytes of a log that are shown, from its end."""


class RunLog(Vertical):
    """Shows the log of one run at a time."""

    DEFAULT_CSS = "RunLog { height: 1fr; }"

    def __init__(self, live: Callable[[], bool], title: str, *, id: str | None = None):
        """`live`: whether more may come. `title`: of the panel."""
        super().__init__(id=id)
        self._title = title
        self._live = live
        self._job = ""
        self._end = -MOST
        self._watching = False
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        log = LogView(classes="framed start")
        log.border_title = Content(f"{self._title} · log")
        yield log

    def follow(self, job: str) -> None:
        """Show the log of a run, and what is added to it until `rest`."""
        if job != self._job:
            self._job = job
            self._begin()
        self.rest()
        self._watching = True
        self._look()

    def rest(self) -> None:
        """Ask for nothing more."""
        self._watching = False
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def _begin(self) -> None:
        self._end = -MOST
        self.query_one(LogView).clear()

    def _look(self) -> None:
        self._timer = None
        self.run_worker(self._read(self._job), group="log", exclusive=True, exit_on_error=False)

    async def _read(self, job: str) -> None:
        """Read to the end of the log, and look again later where more may come."""
        again = self._live()
        while (piece := await self.app.tried("jobs.log", LogRef(job=job, offset=self._end))) and job == self._job:
            if piece.size < self._end:
                self._begin()  # it was begun anew
                continue
            self._end = piece.end
            if piece.text:
                self.query_one(LogView).append(piece.text)
            if piece.end >= piece.size or not piece.text:
                break
        if again and self._watching and job == self._job:
            self._timer = self.set_timer(INTERVAL, self._look)

    @on(LogView.Search)
    def _search(self) -> None:
        self.run_worker(self._find(), group="search", exclusive=True, exit_on_error=False)

    async def _find(self) -> None:
        text = await self.app.ask("Search in the log", "A capital makes capitals count. Nothing ends the search.")
        if text is not None:
            hits = self.query_one(LogView).find(text)
            if text:
                found = f"{hits:,} lines have" if hits > 1 else "1 line has" if hits else "no line has"
                self.app.say(f"{found} {text}")
