"""The monitor: one run, live or long over, as its journal tells it.

Events only go into the history. The screen is brought up to date from it by a timer that exists while there is
something new, at most every 0.75 s, and not at all while another panel is in front. So what a run costs the terminal
does not depend on how much it says.
"""

from __future__ import annotations

import time
from typing import Any

from textual.app import ComposeResult
from textual.timer import Timer

from engine.protocol.messages import DeviceFigures
from loratui import actions
from loratui.screens import monitor_commands as commands
from loratui.screens import monitor_text as text
from loratui.screens.monitor_actions import Actions
from loratui.screens.monitor_lines import Lines
from loratui.screens.monitor_run import Followed
from loratui.screens.monitor_text import Seen
from loratui.screens.monitor_view import RunView
from loratui.widgets.panel import Panel

PERIOD = 0.75
"""Seconds between two updates of the screen."""
PROMPT = 0.03
"""Seconds in which what comes together is shown together."""
PULSE = 15.0
"""Seconds between two looks at the clock while a run is live: it may have fallen silent."""


class MonitorPanel(Actions, Panel):
    """The panel of one run. `open` shows another; else it is the live one, or the newest of the project."""

    name_ = "monitor"
    BINDINGS = actions.bindings("monitor", "do('{id}')")
    DEFAULT_CSS = """
    MonitorPanel { layout: vertical; }
    MonitorPanel #title { height: 1; background: $boost; }
    MonitorPanel #commands { height: 1; }
    MonitorPanel RunView.-drawing .side { display: block; height: 1fr; width: 1fr; max-width: 100%; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent = []
        self.run = Followed(self.bench, self._news)
        self.logarithmic = False
        self._front = False
        self._timer: Timer | None = None
        self._pulse: Timer | None = None
        self._allowed: tuple | None = None
        """What the answers of `why_not` hung on when the footer was last drawn."""
        self._told = 0.0
        """When the screen was last brought up to date, monotonic seconds."""

    def compose(self) -> ComposeResult:
        yield Lines(id="title")
        yield RunView(self.title)
        yield Lines(id="commands")

    def on_mount(self) -> None:
        self.bench.board_changed.subscribe(self, self._board_changed)
        self.bench.devices_changed.subscribe(self, self._devices_changed)
        self.bench.project_changed.subscribe(self, lambda _: self._another_project())

    # --- life ---------------------------------------------------------------------------------------------------------

    def shown(self) -> None:
        self._front = True
        self.call_later(self._begin)

    def _begin(self) -> None:
        """The panel is in front: choose a run, unless one was opened with it, and show what came meanwhile."""
        if self._front:
            self.run.choose()
            self._bring()
            if self.view.log_shown:
                self.view.show_log(True)

    def hidden(self) -> None:
        self._front = False
        self._rest()
        self.view.rest()

    def on_resize(self) -> None:
        self._news()

    def _rest(self) -> None:
        for timer in (self._timer, self._pulse):
            if timer is not None:
                timer.stop()
        self._timer = self._pulse = None

    def remembered(self) -> dict[str, Any]:
        followed = self.run
        run = followed.job if followed.chosen else followed.wanted
        return {"run": run, "smoothing": followed.smoothing, "logarithmic": self.logarithmic}

    def recall(self, state: dict[str, Any]) -> None:
        self.run.wanted = str(state.get("run", ""))
        smoothing = state.get("smoothing")
        if isinstance(smoothing, float) and 0 <= smoothing < 1:
            self.run.smoothing = smoothing
        self.logarithmic = self.view.chart.log_y = state.get("logarithmic") is True

    def open(self, job: str) -> None:
        """Show this run, until another is chosen."""
        self.run.open(job)

    def _another_project(self) -> None:
        self.run.leave_unless_in(self.bench.project)
        if self._front:
            self.run.choose()

    def _board_changed(self, changed: set[str]) -> None:
        if self.run.job in changed or not self.run.job:
            self._news()

    def _devices_changed(self, told: DeviceFigures) -> None:
        if self._front:
            self.view.tell_devices(told)

    # --- what is shown ------------------------------------------------------------------------------------------------

    @property
    def seen(self) -> Seen | None:
        """The run as it is now; None where none is shown."""
        return self.run.seen

    @property
    def view(self) -> RunView:
        return self.query_one(RunView)

    def _news(self) -> None:
        """Bring the screen up to date before long, together with what else comes until then."""
        if self._front and self._timer is None:
            wait = max(PROMPT, PERIOD - (time.monotonic() - self._told))
            self._timer = self.set_timer(wait, self._bring)

    def _bring(self) -> None:
        """Bring the screen up to date."""
        self._rest()
        self._told = time.monotonic()
        if not self.run.job:
            self.run.choose()
        seen = self.seen
        title = self.query_one("#title", Lines)
        if seen is None:
            title.tell([text.nothing(self.title, self.bench.board.told)])
        else:
            title.tell([text.title(seen, self.size.width or self.app.size.width)])
            if seen.live:
                self._pulse = self.set_timer(PULSE, self._bring)
            if self.run.wants_details:
                self.run_worker(self.run.ask_details(), group="details", exclusive=True, exit_on_error=False)
        self.view.tell(seen)
        if self.bench.devices is not None:
            self.view.tell_devices(self.bench.devices)
        self.tell_commands()
        allowed = seen and (seen.id, seen.state, seen.trains, bool(seen.history.step))
        if allowed != self._allowed:
            self._allowed = allowed
            self.bench.look_at_actions()

    def tell_commands(self) -> None:
        """Show how far the last commands to this run have come, the newest first."""
        seen = self.seen
        sent = [one for one in self.sent if seen and one.job == seen.id][-commands.SHOWN :]
        lines = [
            commands.told(one, seen.history.outcomes.of(one.id), not seen.live, seen.now) for one in reversed(sent)
        ]
        self.query_one("#commands", Lines).tell([commands.in_line(lines)])

    def why_not(self, verb: str) -> str:
        if verb == "run":
            return "" if self.bench.board.runs() else "there are no runs"
        seen = self.seen
        return commands.why_not(verb, seen, pointed=seen is not None and self.view.chart.cursor_x is not None)

    def copied(self) -> tuple[str, str]:
        row = self.bench.board.run(self.run.job)
        picture = self.view.gallery.path()
        return (picture, "the picture's path") if picture else (row.path if row else "", "the run's folder")
