"""The screen of one run: what is shown where, from what is known of it at a moment.

`tell` brings everything up to date and costs what has changed. The cursor of the chart and that of the samples are one:
each is moved to the step that the other was moved to, or the nearest that it has.
"""

from __future__ import annotations

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content

from engine.protocol.messages import DeviceFigures
from loratui.screens import monitor_text as text
from loratui.screens.monitor_charts import loss_series, markers, rate_series
from loratui.screens.monitor_events import Events
from loratui.screens.monitor_gallery import Gallery
from loratui.screens.monitor_lines import Lines
from loratui.screens.monitor_log import RunLog
from loratui.screens.monitor_machine import Machine
from loratui.screens.monitor_text import Seen
from loratui.widgets.line_chart import LineChart

SHORT, TALL, WIDE = 20, 34, 160
"""Rows and columns of the view below which only the chart is shown, and from which on there is room for more."""


FACES = {"training": "#loss", "waiting": "#story", "drawing": "#samples"}
"""What a run shows in the first place, and the part of it that takes the focus."""


class RunView(Vertical):
    """Everything about one run but its title and its commands."""

    DEFAULT_CSS = """
    RunView { height: 1fr; }
    RunView #body { height: 1fr; }
    RunView #charts { height: 1fr; }
    RunView #loss { width: 1fr; }
    RunView #rates { display: none; width: 40%; }
    RunView.-wide #rates { display: block; }
    RunView #trouble { display: none; padding: 0 1; }
    RunView.-troubled #trouble { display: block; }
    RunView #story { display: none; height: 1fr; }
    RunView #story Lines { height: auto; padding: 0 1; }
    RunView #figures { height: 2; color: $text-muted; }
    RunView.-short #figures { height: 1; }
    RunView #events { height: 7; }
    RunView.-tall #events { height: 10; }
    RunView.-short #events { display: none; }
    RunView Gallery { height: 1fr; }
    RunView #picture { display: none; height: 1fr; }
    RunView.-tall #picture { display: block; }
    RunView #log { display: none; }
    RunView.-waiting #story { display: block; }
    RunView.-waiting #charts, RunView.-waiting #figures { display: none; }
    RunView.-waiting #events, RunView.-troubled #events { display: none; }
    RunView.-tall #events { display: block; }
    RunView.-drawing #charts, RunView.-drawing #figures { display: none; }
    RunView.-drawing #body { layout: vertical; }
    RunView.-drawing .main { height: auto; width: 1fr; }
    RunView.-drawing #story { display: block; height: auto; max-height: 7; }
    RunView.-drawing #events { height: 7; }
    RunView.-drawing Gallery { layout: horizontal; }
    RunView.-drawing #picture { display: block; height: 1fr; width: 1fr; }
    RunView.-over #machine { display: none; }
    RunView.-files Gallery, RunView.-files.-over .side { display: none; }
    RunView.-nothing #body { display: none; }
    RunView.-logging #body { display: none; }
    RunView.-logging #log { display: block; }
    """

    def __init__(self, title: str) -> None:
        """`title`: of the panel, for the frame of what is shown in the first place."""
        super().__init__(classes="-nothing")
        self._title = title
        self.seen: Seen | None = None
        self._face = ""
        """One of FACES."""

    def compose(self) -> ComposeResult:
        with Horizontal(id="body"):
            with Vertical(classes="main"):
                yield Lines(wrap=True, id="trouble")
                with VerticalScroll(classes="framed", id="story"):
                    yield Lines(wrap=True)
                with Horizontal(id="charts"):
                    yield LineChart(id="loss", classes="framed")
                    yield LineChart(id="rates", classes="framed")
                yield Lines(id="figures")
                yield Events(id="events", classes="framed")
            with Vertical(classes="side"):
                yield Machine(id="machine", classes="framed")
                yield Gallery()
        yield RunLog(lambda: self.seen is not None and self.seen.live, self._title, id="log")

    def on_mount(self) -> None:
        titles = {"loss": f"{self._title} · loss", "story": self._title, "rates": "learning rates", "events": "events"}
        for name, title in {**titles, "machine": "machine"}.items():
            self.query_one(f"#{name}").border_title = Content(title)

    def on_resize(self) -> None:
        self._fit()
        self.call_after_refresh(self._again)

    def _fit(self) -> None:
        """What is shown depends on how much room there is."""
        self.set_class(self.size.height < SHORT, "-short")
        self.set_class(self.size.height >= TALL, "-tall")
        self.set_class(self.size.width >= WIDE, "-wide")

    def _again(self) -> None:
        """How it is shown depends on the room too."""
        if self.seen is not None:
            self.tell(self.seen)

    # --- what is shown ------------------------------------------------------------------------------------------------

    def tell(self, seen: Seen | None) -> None:
        """Show a run as it is now; None: there is none. Before the first layout, which tells how much there is room
        for, nothing is shown."""
        other = seen is not None and (self.seen is None or self.seen.id != seen.id)
        self.seen = seen
        if not self.size:
            return
        self._fit()
        self.set_class(seen is None, "-nothing")
        if seen is None:
            return
        if other:
            self._start_over()
        self.set_class(not seen.live, "-over")
        self.set_class(not seen.trains and not seen.draws, "-files")
        self._turn(seen)
        self._tell_texts(seen)
        self._tell_charts(seen)
        self.query_one(Events).show(seen.history.lines)
        self.gallery.tell(seen, self._step)

    def _turn(self, seen: Seen) -> None:
        """Show the face that this run has now, and keep the focus on something that is shown."""
        face = "drawing" if seen.draws else "training" if seen.history.step else "waiting"
        if face != self._face:
            self._face = face
            for name, start in FACES.items():
                self.set_class(name == face, f"-{name}")
                self.query_one(start).set_class(name == face, "start")
            self.call_after_refresh(self._keep_focus)

    def _keep_focus(self) -> None:
        focused = self.screen.focused
        lost = focused is None or not all(node.display for node in focused.ancestors_with_self)
        if lost and self.screen.is_active and self.parent.display and not self.log_shown:
            self._focus_first("#body .start")

    def _start_over(self) -> None:
        """Another run is shown."""
        for chart in self.query(LineChart):
            chart.cursor_x = None
        if self.log_shown:
            self.show_log(True)

    def rest(self) -> None:
        """The panel is not looked at."""
        self.query_one(RunLog).rest()

    def _tell_texts(self, seen: Seen) -> None:
        wrong = text.trouble(seen)
        if self._face != "training":
            story = self.query_one("#story Lines", Lines)
            width = story.size.width or max(20, self.size.width - 4)
            above = [*wrong, Text("")] if wrong and self._face == "waiting" else []
            story.tell([*above, *text.story(seen, width)])
            story.styles.height = story.height_at(width)
        trouble = self.query_one("#trouble", Lines)
        self.set_class(bool(wrong) and self._face != "waiting", "-troubled")
        trouble.tell(wrong)
        height = trouble.height_at(max(20, self.query_one(".main").size.width - 2))
        trouble.styles.height = min(height, max(2, self.size.height // 3))
        self._tell_figures()

    def _tell_charts(self, seen: Seen) -> None:
        if not seen.history.step:
            return
        self.chart.show(loss_series(seen.history), markers(seen.history))
        if self.has_class("-wide"):
            self.query_one("#rates", LineChart).show(rate_series(seen.history))

    def _tell_figures(self) -> None:
        self.query_one("#figures", Lines).tell(text.at_step(self.seen.history, self._step))

    def tell_devices(self, told: DeviceFigures) -> None:
        """Show what the machine does, while the run is live."""
        if self.seen is not None and self.seen.live:
            self.query_one(Machine).tell(told, self.seen.row.device if self.seen.row else "")

    # --- the cursor ---------------------------------------------------------------------------------------------------

    @property
    def chart(self) -> LineChart:
        return self.query_one("#loss", LineChart)

    @property
    def gallery(self) -> Gallery:
        return self.query_one(Gallery)

    @property
    def _step(self) -> int | None:
        """The step that is inspected; None: the newest."""
        return None if self.chart.cursor_x is None else round(self.chart.cursor_x)

    @on(LineChart.Inspected)
    def _inspected(self, event: LineChart.Inspected) -> None:
        self._point(event.x)
        self.gallery.select(round(event.x))

    @on(Gallery.Moved)
    def _moved(self, event: Gallery.Moved) -> None:
        if self.seen.trains:
            self._point(event.step)

    def newest(self) -> None:
        """Have the cursors follow the newest step again."""
        self._point(None)
        self.gallery.newest()

    def _point(self, x: float | None) -> None:
        """Put the cursor of the charts on a step."""
        for chart in self.query(LineChart):
            chart.cursor_x = x
        self._tell_figures()

    # --- the log ------------------------------------------------------------------------------------------------------

    @property
    def log_shown(self) -> bool:
        return self.has_class("-logging")

    def show_log(self, shown: bool) -> None:
        """Put the log in the place of everything, or everything back."""
        log = self.query_one(RunLog)
        self.set_class(shown, "-logging")
        if shown:
            log.follow(self.seen.id)
        else:
            log.rest()
        wanted = "#log .start" if shown else "#body .start"
        self.call_after_refresh(self._focus_first, wanted)

    def _focus_first(self, wanted: str) -> None:
        focused = next((widget for widget in self.query(wanted) if widget.focusable), None)
        if focused is not None:
            focused.focus()
