"""Which run the monitor follows, and what it knows of it: history, state, details.

Where nobody has chosen a run it is the one from the last time, the live one, or the newest of the project. What the run
says may come thousands of times a second: it is taken in, and the owner is told that something is new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.protocol.messages import JobDetails, JobEvents, JobRef
from loratui import figures
from loratui.curves import Smoothed
from loratui.history import SMOOTHING, History
from loratui.screens.monitor_text import TROUBLE, Seen

if TYPE_CHECKING:
    from loratui.bench import Bench


class Followed:
    """The run that is followed, if any. `news` is called when something of it has changed."""

    def __init__(self, bench: Bench, news: Callable[[], None]):
        self._bench, self._news = bench, news
        self.job = ""
        self.chosen = False
        """Whether a person chose the run."""
        self.wanted = ""
        """The run that was chosen the last time, until it is seen whether it is still there."""
        self.smoothing = SMOOTHING
        self._gone = ""
        """The run whose folder has just vanished: the board may not know yet."""
        self._history = History()
        self._state = ""
        self._details: JobDetails | None = None
        self.wants_details = False
        """Whether the run is in trouble that the host could tell more of, and has not been asked."""

    @property
    def seen(self) -> Seen | None:
        """The run as it is now; None where none is followed."""
        if not self.job:
            return None
        row = self._bench.board.run(self.job)
        state = self._state or (row.state if row else "")
        return Seen(self.job, self._history, state, row, self._bench.now(), self._details)

    def open(self, job: str) -> None:
        """Follow this run, until another is chosen."""
        self.chosen, self.wanted = True, ""
        self._watch(job)

    def choose(self) -> None:
        """Follow a run, where nobody has said which. One that is live is not left for another."""
        board, project = self._bench.board, self._bench.project
        if not board.told or self.chosen:
            return
        if self.wanted and board.run(self.wanted):
            self.open(self.wanted)
            return
        shown = board.run(self.job)
        if shown is None or shown.state not in figures.LIVE:
            live = board.live()
            own = [row for row in live if row.project == project]
            rows = [row for row in (*own, *live, *board.runs(project)) if row.id != self._gone]
            if rows:
                self._watch(rows[0].id)

    def leave_unless_in(self, project: str) -> None:
        """Another project is open: a run of the one before is no longer the chosen one."""
        row = self._bench.board.run(self.job)
        if row is None or row.project != project:
            self.chosen, self.wanted = False, ""

    async def smooth(self, decay: float) -> None:
        """Smooth the losses as much as this; of a million steps the mean is made in a thread."""
        self.smoothing = decay
        while (steps := self._history.steps).smoothed.decay != decay == self.smoothing:
            losses = steps.losses
            smoothed = await asyncio.to_thread(Smoothed(decay).extend, losses[:])
            if losses is self._history.steps.losses and decay == self.smoothing:
                self._history.smooth(smoothed)
        self._news()

    async def ask_details(self) -> None:
        """What the host knows of the run beside its events."""
        job, self.wants_details = self.job, False
        details = await self._bench.tried("jobs.show", JobRef(job=job))
        if job == self.job and details is not None:
            self._details = details
            self._news()

    def _watch(self, job: str) -> None:
        if job != self.job:
            self._leave()
            self.job = job
            self._bench.follow(job, self._heard)
            self._news()

    def _leave(self) -> None:
        if self.job:
            self._bench.unfollow(self.job, self._heard)
        self.job, self._state, self._details = "", "", None
        self._history = History(self.smoothing)

    def _heard(self, told: JobEvents) -> None:
        """Take in what the run says. Nothing is drawn here."""
        if told.id != self.job:
            return
        if told.gone:
            self._bench.say(f"{told.id} is gone: its folder is no longer there", "warning")
            self._leave()
            self.chosen, self._gone = False, told.id
        else:
            if told.restarted:
                self._history = History(self.smoothing)
            self._history.take(told.events)
            if told.state != self._state:
                self._state, self._details = told.state, None
                self.wants_details = told.state in TROUBLE
        self._news()
