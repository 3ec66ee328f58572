"""Adapters: the files of the open project and of the library's folders, what is known of each, and the blend.

The host reads the headers, a page at a time; tensors are read by the engine, in a process for the file at the cursor
(`adapters_side`) and in jobs (`adapters_steps` asks for them, `adapters_jobs` follows them). No file is opened here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content

from engine.protocol.browse import AdapterHeader, Adapters, AdaptersRef
from engine.protocol.operations import Difference
from loratui import actions, answers, figures
from loratui.paging import Pages
from loratui.screens import adapters_steps
from loratui.screens.adapters_actions import Actions
from loratui.screens.adapters_blend import Blend, spelled
from loratui.screens.adapters_compare import Comparison
from loratui.screens.adapters_jobs import Task, Tasks
from loratui.screens.adapters_side import Side
from loratui.screens.adapters_words import adapter_row, adapters_header
from loratui.screens.monitor_lines import Lines
from loratui.widgets.filter_line import FilterLine
from loratui.widgets.panel import Panel
from loratui.widgets.virtual_list import VirtualList

NONE = "none: runs leave theirs here, and app.adapters in settings.toml names more folders"


class AdaptersPanel(Actions, Panel):
    """A list of files, and beside it what is known of the one at the cursor, and the blend."""

    name_ = "adapters"
    BINDINGS = actions.bindings("adapters", "do('{id}')")
    DEFAULT_CSS = """
    AdaptersPanel #listed { height: 1fr; }
    AdaptersPanel #tasks { display: none; padding: 0 1; }
    AdaptersPanel #tasks.-some { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._pages: Pages[AdapterHeader] = Pages(self._came, self._counted, self._failed)
        self._find = ""
        self.everything = False
        """Whether all of the metadata is shown."""
        self._wanted = ""
        """Path that the cursor is to go to when its row comes."""
        self._stale = True
        self.blend = Blend()
        self.tasks = Tasks(self.bench, self._tell_tasks, self._task_ended)

    def compose(self) -> ComposeResult:
        with Vertical(classes="main framed", id="left") as left:
            left.border_title = Content(self.title)
            yield FilterLine(id="filter")
            yield VirtualList(self._row, header=self._header, empty=NONE, id="listed", classes="start")
            yield Lines(id="tasks")
        yield Side(self.blend)

    def on_mount(self) -> None:
        self.bench.project_changed.subscribe(self, lambda _: self.outdated())
        self.bench.board_changed.subscribe(self, self._runs_changed)
        self.bench.host_back.subscribe(self, lambda _: self.outdated())
        self.app.theme_changed_signal.subscribe(self, lambda _: self.query_one(VirtualList).invalidate())
        self.tasks.find(self.bench.board.runs(self.bench.project))

    def on_resize(self) -> None:
        self.call_after_refresh(self._tell_tasks)

    # --- what is shown ------------------------------------------------------------------------------------------------

    def shown(self) -> None:
        if self._stale:
            self._list()
        else:
            self.tell()

    def hidden(self) -> None:
        self.query_one(Side).rest()

    def outdated(self) -> None:
        self._stale = True
        if self.display:
            self._list()

    def _runs_changed(self, changed: set[str]) -> None:
        """A run that has ended may have left files."""
        rows = [self.bench.board.run(identity) for identity in changed]
        self.tasks.find(row for row in rows if row is not None and row.project == self.bench.project)
        if any(row is None or (row.project == self.bench.project and row.state not in figures.LIVE) for row in rows):
            self.outdated()

    def _list(self) -> None:
        self._stale = False
        project, folders, find = self.bench.project, self.bench.library, self._find

        async def fetch(offset: int, limit: int) -> tuple[int, Sequence[AdapterHeader]]:
            asked = AdaptersRef(folders=folders, project=project, offset=offset, limit=limit, find=find)
            found: Adapters = await self.bench.call("adapters.list", asked)
            return found.total, found.adapters

        self._pages.show(fetch, keep=True)

    def _counted(self, total: int) -> None:
        where = [self.bench.project] if self.bench.project else []
        count = len(self.bench.library)
        where += [f"{count} library folder{'s' * (count > 1)}"] if count else []
        counted = f"{total:,} file{'s' * (total != 1)}"
        self.query_one("#left").border_title = Content(" · ".join([f"{self.title} ── {' + '.join(where)}", counted]))
        selected = self.selected
        self._wanted = self._wanted or (selected.path if selected else "")
        self.query_one(VirtualList).set_count(total)
        self.tell()

    def _came(self, start: int, stop: int) -> None:
        listed = self.query_one(VirtualList)
        for index in range(start, stop) if self._wanted else ():
            found = self._pages.get(index)
            if found is not None and found.path == self._wanted:
                self._wanted = ""
                listed.to(index)
        known = filter(None, map(self._pages.get, range(start, stop) if len(self.blend) else ()))
        if any([self.blend.note(found) for found in known]):
            self.reweighed()
        listed.refresh_rows(start, stop)
        self.tell()

    def _failed(self, error: Exception) -> None:
        self.query_one("#left").border_subtitle = Content("the host did not answer")
        self.bench.say(str(error), "error")

    def _row(self, index: int, width: int) -> Text:
        found = self._pages.get(index)
        if found is None:
            return Text("…", style="dim")
        weight = self.blend.weight(found.path)
        shown = "" if weight is None else spelled(weight)
        return adapter_row(found, width, self.bench.now(), shown if len(self.blend) else None)

    def _header(self, width: int) -> Text:
        return adapters_header(width, blending=bool(len(self.blend)))

    @on(VirtualList.Visible)
    def _visible(self, event: VirtualList.Visible) -> None:
        self._pages.want(event.rows.start, event.rows.stop)

    @on(VirtualList.Moved)
    def tell(self) -> None:
        """Tell of the file at the cursor."""
        self.query_one(Side).show(self.selected, self.everything, self.bench.now(), self.display)
        self.bench.look_at_actions()

    # --- blend and jobs -----------------------------------------------------------------------------------------------

    def reweighed(self) -> None:
        """The blend is another: at the foot of the side, in the list, and in short below it."""
        self.query_one(Side).tell_blend()
        self.query_one(VirtualList).invalidate()
        told = f"blend of {len(self.blend)}: {self.blend.why_not() or self.blend.outlook()}"
        self.query_one("#left").border_subtitle = Content(told if len(self.blend) else "")
        self.bench.look_at_actions()

    def _tell_tasks(self) -> None:
        shown = self.query_one("#tasks", Lines)
        lines = self.tasks.lines(max(20, self.query_one("#left").size.width - 4))
        shown.set_class(bool(lines), "-some")
        shown.styles.height = len(lines)
        shown.tell(lines)
        self.bench.look_at_actions()

    def _task_ended(self, task: Task) -> None:
        """Say what went wrong, or show what was made: the new file, the comparison."""
        if problems := task.problems():
            self.bench.say(f"{task.name}: {problems}", "error")
        elif isinstance(task.answer, Difference):
            self._show_difference(task)
        made = next((path for path in task.outputs if self._lists(path)), "")
        if made:
            self.query_one(VirtualList).to(0)  # the newest comes first
            self.go_to(made)
        elif task.outputs:
            self.bench.say(f"{task.name}: wrote {', '.join(task.outputs)}")

    def _show_difference(self, task: Task) -> None:
        if self.display and self.screen.is_active:
            self.app.push_screen(Comparison(task.name, task.answer))
        else:
            self.bench.say(f"{task.name}: {answers.in_a_line(task.answer)}")

    def _lists(self, path: str) -> bool:
        """Whether a file lies where this panel looks."""
        folders = [*self.bench.library, adapters_steps.home_of(self.bench)]
        return any(path.startswith(f"{folder.rstrip('/')}/") for folder in folders)

    # --- where the cursor is ------------------------------------------------------------------------------------------

    @property
    def selected(self) -> AdapterHeader | None:
        """The file at the cursor."""
        return self._pages.get(self.query_one(VirtualList).cursor)

    def copied(self) -> tuple[str, str]:
        found = self.selected
        return (found.path, "the file's path") if found else ("", "")

    def go_to(self, path: str) -> None:
        """Put the cursor on a file. The filter is taken off, which may hide it."""
        self._wanted = path
        self.query_one(FilterLine).action_clear()
        self.outdated()

    @on(VirtualList.Chosen)
    def _chosen(self) -> None:
        self.do_details()

    @on(FilterLine.Filtered)
    def _filtered(self, event: FilterLine.Filtered) -> None:
        if event.words != self._find:
            self._find = event.words
            self.outdated()

    @on(FilterLine.Left)
    def _left(self) -> None:
        self.query_one(VirtualList).focus()

    # --- session ------------------------------------------------------------------------------------------------------

    def remembered(self) -> dict[str, Any]:
        found = self.selected
        return {"path": found.path if found else "", "find": self._find, "blend": self.blend.remembered()}

    def recall(self, state: dict[str, Any]) -> None:
        self._wanted = str(state.get("path", ""))
        self.blend.recall(state.get("blend"))
        self.reweighed()
        if words := str(state.get("find", "")):
            self._find = words
            line = self.query_one(FilterLine)
            line.value = words
            line.add_class("-on")
