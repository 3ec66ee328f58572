"""The screen of one run: what is shown where, from what is known of it at a moment.

`tell` brings everything up to date and costs what has changed. The cursor of the chart and that of the samples are one:
each is moved to the step that the other was moved to, or the nearest that it has.
"""

from __future__ import annotations

from pathlib import Path

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content

from engine.protocol.messages import DeviceFigures
from loratui.screens import monitor_samples as samples
from loratui.screens import monitor_text as text
from loratui.screens.monitor_charts import loss_series, markers, rate_series
from loratui.screens.monitor_events import Events
from loratui.screens.monitor_lines import Lines
from loratui.screens.monitor_log import RunLog
from loratui.screens.monitor_machine import Machine
from loratui.screens.monitor_picture import Large
from loratui.screens.monitor_text import Seen
from loratui.widgets.line_chart import LineChart
from loratui.widgets.picture import Picture
from loratui.widgets.sample_grid import SampleGrid

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
    RunView #large { display: none; height: 1fr; }
    RunView #figures { height: 2; color: $text-muted; }
    RunView.-short #figures { height: 1; }
    RunView #events { height: 7; }
    RunView.-tall #events { height: 10; }
    RunView.-short #events { display: none; }
    RunView #picture { display: none; height: 1fr; }
    RunView.-tall #picture { display: block; }
    RunView #log { display: none; }
    RunView.-waiting #story { display: block; }
    RunView.-waiting #charts, RunView.-waiting #figures { display: none; }
    RunView.-waiting #events, RunView.-troubled #events { display: none; }
    RunView.-tall #events { display: block; }
    RunView.-drawing #charts, RunView.-drawing #figures, RunView.-drawing #picture { display: none; }
    RunView.-drawing #large { display: block; }
    RunView.-drawing #story { display: block; height: 6; }
    RunView.-over #machine { display: none; }
    RunView.-nothing #body { display: none; }
    RunView.-logging #body { display: none; }
    RunView.-logging #log { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: Seen | None = None
        self.table = samples.Table()
        self._table_of = ("", -1)
        self._shown_face = ""

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
                yield Picture(id="large", classes="framed")
                yield Events(id="events", classes="framed")
            with Vertical(classes="side"):
                yield Machine(id="machine", classes="framed")
                yield SampleGrid(id="samples", classes="framed")
                yield Picture(id="picture", classes="framed")
        yield RunLog(lambda: self.seen is not None and self.seen.live, id="log")

    def on_mount(self) -> None:
        titles = {"loss": "loss", "rates": "learning rates", "events": "events", "machine": "machine"}
        for name, title in {**titles, "samples": "samples: prompt ↓ step →", "story": "run"}.items():
            self.query_one(f"#{name}").border_title = Content(title)

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.height < SHORT, "-short")
        self.set_class(event.size.height >= TALL, "-tall")
        self.set_class(event.size.width >= WIDE, "-wide")
        if self.seen:
            self.call_after_refresh(self._tell_texts, self.seen)

    # --- what is shown ------------------------------------------------------------------------------------------------

    def tell(self, seen: Seen | None) -> None:
        """Show a run as it is now; None: there is none."""
        self.set_class(seen is None, "-nothing")
        if seen is None:
            self.seen = None
            return
        other = self.seen is None or self.seen.id != seen.id
        self.seen = seen
        if other:
            self._start_over()
        self.set_class(not seen.live, "-over")
        self._face(seen)
        self._tell_texts(seen)
        self._tell_charts(seen)
        self.query_one(Events).show(seen.history.lines)
        self._tell_samples(seen)

    def _face(self, seen: Seen) -> None:
        """Show what there is to see of this run, and keep the focus on something that is shown."""
        face = "drawing" if not seen.trains else "training" if seen.history.step else "waiting"
        if face != self._shown_face:
            self._shown_face = face
            for name, start in FACES.items():
                self.set_class(name == face, f"-{name}")
                self.query_one(start).set_class(name == face, "start")
            self.call_after_refresh(self._keep_focus)

    def _keep_focus(self) -> None:
        focused = self.screen.focused
        lost = focused is None or (
            focused.is_attached and not all(node.display for node in focused.ancestors_with_self)
        )
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
        trouble, story = self.query_one("#trouble", Lines), self.query_one("#story Lines", Lines)
        wrong = text.trouble(seen)
        if self.has_class("-waiting"):
            width = story.size.width or self.size.width - 4
            story.tell([*wrong, *([Text("")] if wrong else []), *text.story(seen, width)])
            story.styles.height = story.height_at(width)
            wrong = []
        self.set_class(bool(wrong), "-troubled")
        trouble.tell(wrong)
        trouble.styles.height = min(
            max(2, self.size.height // 3), trouble.height_at(self.query_one(".main").size.width - 2)
        )
        self._tell_figures()

    def _tell_charts(self, seen: Seen) -> None:
        if not seen.history.step:
            return
        self.chart.show(loss_series(seen.history), markers(seen.history))
        if self.has_class("-wide"):
            self.query_one("#rates", LineChart).show(rate_series(seen.history))

    def _tell_figures(self) -> None:
        cursor = self.chart.cursor_x
        step = None if cursor is None else round(cursor)
        self.query_one("#figures", Lines).tell(text.at_step(self.seen.history, step))

    def tell_devices(self, told: DeviceFigures) -> None:
        """Show what the machine does, while the run is live."""
        if self.seen is not None and self.seen.live:
            self.query_one(Machine).tell(told, self.seen.row.device if self.seen.row else "")

    # --- samples ------------------------------------------------------------------------------------------------------

    @property
    def chart(self) -> LineChart:
        return self.query_one("#loss", LineChart)

    @property
    def _grid(self) -> SampleGrid:
        return self.query_one("#samples", SampleGrid)

    def _tell_samples(self, seen: Seen) -> None:
        now = seen.id, seen.history.samples_version
        if now == self._table_of or seen.row is None:
            return
        self._table_of = now
        make = samples.by_step if seen.trains else samples.by_number
        self.table = make(seen.history, Path(seen.row.path))
        self._grid.show(self.table.steps, self.table.prompts, self.table.pictures)
        if self.chart.cursor_x is not None:
            self._grid.select(round(self.chart.cursor_x))
        self._show_picture()

    def _show_picture(self) -> None:
        """Show the picture under the grid's cursor, where there is room for it."""
        cell = self._grid.selected
        shown = self.query_one("#picture" if self.seen.trains else "#large", Picture)
        shown.show(self.table.pictures.get(cell), self.table.notes.get(cell, "no picture here" if cell else ""))

    @on(LineChart.Inspected)
    def _inspected(self, event: LineChart.Inspected) -> None:
        for chart in self.query(LineChart):
            chart.cursor_x = event.x
        self._grid.select(round(event.x))
        self._show_picture()
        self._tell_figures()

    @on(SampleGrid.Selected)
    def _selected(self, event: SampleGrid.Selected) -> None:
        if self.seen.trains:
            for chart in self.query(LineChart):
                chart.cursor_x = event.step
            self._tell_figures()
        self._show_picture()

    @on(SampleGrid.Opened)
    def _opened(self, event: SampleGrid.Opened) -> None:
        self.app.push_screen(Large(self.table, (event.step, event.prompt_index)), self._go_to)

    def _go_to(self, cell: samples.Cell | None) -> None:
        """Put both cursors where the large picture was closed."""
        if cell is not None and cell != self._grid.selected:
            self._grid.select(*cell)
            self._selected(SampleGrid.Selected(*cell, self.table.pictures.get(cell)))

    # --- what the panel's actions change ------------------------------------------------------------------------------

    def copied(self) -> tuple[str, str] | None:
        """The picture under the cursor, where the samples have the focus."""
        cell = self._grid.selected if self._grid.has_focus else None
        path = self.table.pictures.get(cell)
        return (str(path), "the picture's path") if path else None

    def newest(self) -> None:
        """Have both cursors follow the newest step again."""
        for chart in self.query(LineChart):
            chart.cursor_x = None
        if self.table.steps:
            self._grid.select(self.table.steps[-1])
            self._show_picture()
        self._tell_figures()

    @property
    def log_shown(self) -> bool:
        return self.has_class("-logging")

    def show_log(self, shown: bool) -> None:
        """Put the log in the place of everything, or everything back."""
        log = self.query_one(RunLog)
        self.set_class(shown, "-logging")
        if shown:
            log.watch(self.seen.id)
        else:
            log.rest()
        wanted = "#log .start" if shown else "#body .start"
        self.call_after_refresh(self._focus_first, wanted)

    def _focus_first(self, wanted: str) -> None:
        focused = next((widget for widget in self.query(wanted) if widget.focusable), None)
        if focused is not None:
            focused.focus()
