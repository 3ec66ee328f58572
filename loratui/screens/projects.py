"""Projects: what there is, what runs, what waits, what went wrong and what to do about it.

Everything shown is the board's, which the host keeps up to date; only the words about one run are asked for.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from engine.protocol.browse import Draft, ProjectRef, RenameProject, SubsetsRef
from engine.protocol.messages import Control, JobDetails, JobRef, JobSummary, Move, Remove
from loratui import actions, figures
from loratui.screens.projects_rows import Rows, run_row, runs_header, story_of
from loratui.widgets.columns import Column, fit, row
from loratui.widgets.filter_line import FilterLine
from loratui.widgets.painting import theme_style
from loratui.widgets.panel import Panel
from loratui.widgets.virtual_list import VirtualList

ENDED = ("done", "stopped", "failed", "refused", "crashed", "released")


class ProjectsPanel(Panel):
    """Three lists: projects, the runs of the open one, and the queue of all."""

    name_ = "projects"
    narrow_below = 72
    BINDINGS = actions.bindings("projects", "do('{id}')")
    DEFAULT_CSS = """
    ProjectsPanel .side { width: 26; }
    ProjectsPanel #runs { height: 1fr; }
    ProjectsPanel #waiting { height: auto; max-height: 8; display: none; }
    ProjectsPanel #waiting.-some { display: block; }
    ProjectsPanel #queue { height: auto; max-height: 6; }
    ProjectsPanel #story { height: auto; max-height: 12; padding: 0 1; color: $text-muted; }
    ProjectsPanel #facts { height: auto; padding: 0 1; color: $text-muted; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._projects: list[str] = []
        self._runs: list[JobSummary] = []
        self._waiting: list[JobSummary] = []
        self._filters = {"projects": "", "runs": ""}
        self._rows = Rows(style=lambda state: theme_style(self, f"state-{state}"))
        self._wanted_run = ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="side framed", id="left") as left:
            left.border_title = Content(self.title)
            yield FilterLine(id="filter-projects")
            yield VirtualList(self._project_row, empty="none: n makes one", id="projects", classes="start")
        with Vertical(classes="main"):
            with Vertical(classes="framed", id="right"):
                yield FilterLine(id="filter-runs")
                yield VirtualList(self._run_row, header=runs_header, empty="no runs yet: 3 sets one up", id="runs")
                yield Static("", id="story", markup=False)
                yield Static("", id="facts", markup=False)
            with Vertical(classes="framed", id="waiting") as waiting:
                waiting.border_title = Content("queue")
                yield VirtualList(self._waiting_row, id="queue")

    def on_mount(self) -> None:
        self.bench.board_changed.subscribe(self, lambda _: self._show())
        self.bench.project_changed.subscribe(self, lambda _: self._opened())
        self.bench.devices_changed.subscribe(self, self._name_devices)
        self.app.theme_changed_signal.subscribe(self, lambda _: self._repaint())
        self._show()
        self._opened()

    def shown(self) -> None:
        self._facts()

    def _repaint(self) -> None:
        for listed in self.query(VirtualList):
            listed.invalidate()

    # --- what is shown ------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        """Bring the lists up to date with the board; cursors stay on what they were on."""
        board, find = self.bench.board, self._filters
        projects = [one.name for one in board.projects if self._rows.match(find["projects"], one.name)]
        runs = [run for run in board.runs(self.bench.project) if self._rows.match_run(find["runs"], run)]
        at_project, at_run = self._project() or self.bench.project, self._wanted_run or _identity(self._run())
        at_waiting = _identity(self._at("#queue", self._waiting))
        self._rows.now, self._rows.board = self.bench.now(), board
        if projects != self._projects or runs != self._runs or board.waiting() != self._waiting:
            self._projects, self._runs, self._waiting = projects, runs, board.waiting()
            self.query_one("#waiting").set_class(bool(self._waiting), "-some")
            self._fill("#projects", len(projects), _index(projects, at_project))
            self._fill("#runs", len(runs), _index([run.id for run in runs], at_run))
            self._fill("#queue", len(self._waiting), _index([run.id for run in self._waiting], at_waiting))
            if self._wanted_run and _identity(self._run()) == self._wanted_run:
                self._wanted_run = ""
            self._tell_story()
        if not self.bench.project and len(board.projects) == 1:
            self.bench.open_project(board.projects[0].name)
        self.bench.look_at_actions()

    def _fill(self, which: str, count: int, cursor: int) -> None:
        self.query_one(which, VirtualList).set_count(count, cursor)

    def _opened(self) -> None:
        """Another project is open."""
        name = self.bench.project
        self.on_resize()
        self._runs = []
        self._show()
        if name in self._projects:
            self.query_one("#projects", VirtualList).to(self._projects.index(name))
        self._facts()

    def on_resize(self) -> None:
        """Where the list of projects is folded away, the runs' frame says which panel this is."""
        told = self.bench.project or "no project is open: ⏎ opens one"
        folded = self.has_class("-narrow") and not self.has_class("-side")
        self.query_one("#right").border_title = Content(f"{self.title} · {told}" if folded else told)

    def _facts(self) -> None:
        if self.bench.project:
            self.run_worker(partial(self._ask_facts, self.bench.project), group="facts", exclusive=True)
        else:
            self.query_one("#facts", Static).update("")

    async def _ask_facts(self, project: str) -> None:
        """Images, base and preset of the project's draft."""
        draft: Draft | None = await self.bench.tried("drafts.read", ProjectRef(name=project))
        if draft is None:
            return
        subsets = draft.config.get("dataset", {}).get("subsets") or []
        told = "no images yet: 2 adds a folder"
        if subsets:
            listed = await self.bench.tried("images.subsets", SubsetsRef(subsets=subsets))
            images = sum(folder.images for folder in listed.folders) if listed else 0
            wrong = f" · {len(listed.problems)} folders can't be read" if listed and listed.problems else ""
            told = f"{images:,} images{wrong}"
        base = draft.config.get("model", {}).get("base", "")
        self.query_one("#facts", Static).update(f"{told}   base {base or '–'}   preset {draft.preset}")

    def _name_devices(self, devices) -> None:
        self._rows.gpus = {gpu.uuid: gpu.index for gpu in devices.gpus}

    def _project_row(self, index: int, width: int) -> Text:
        name = self._projects[index]
        columns = [Column("", flex=1), Column("", width=7, align="right")]
        sign = self._rows.project_sign(name)
        opened = Text(name, style="bold") if name == self.bench.project else Text(name)
        return row(columns, fit(columns, width), [opened, sign])

    def _run_row(self, index: int, width: int) -> Text:
        return run_row(self._runs[index], width, self._rows)

    def _waiting_row(self, index: int, width: int) -> Text:
        waiting = self._waiting[index]
        columns = [Column("", width=3, align="right"), Column("", flex=2), Column("", flex=1)]
        return row(columns, fit(columns, width), [str(waiting.position), waiting.name, waiting.project])

    @on(VirtualList.Moved, "#projects")
    @on(VirtualList.Moved, "#queue")
    def _moved(self) -> None:
        self.bench.look_at_actions()

    @on(VirtualList.Moved, "#runs")
    def _tell_story(self) -> None:
        """Say in words what became of the run at the cursor."""
        run = self._run()
        self.query_one("#story", Static).update(story_of(run, None) if run else "")
        if run is not None and run.state in ("failed", "refused", "crashed", "stalled"):
            self.run_worker(partial(self._ask_story, run), group="story", exclusive=True)
        self.bench.look_at_actions()

    async def _ask_story(self, run: JobSummary) -> None:
        details: JobDetails | None = await self.bench.tried("jobs.show", JobRef(job=run.id))
        if details is not None and _identity(self._run()) == run.id:
            self.query_one("#story", Static).update(story_of(run, details))

    @on(VirtualList.Chosen, "#projects")
    @on(VirtualList.Chosen, "#runs")
    @on(VirtualList.Chosen, "#queue")
    def do_open(self) -> None:
        run = self._selected()
        if run is not None:
            self.bench.open_run(run.id)
        elif self._project():
            self.bench.open_project(self._project())
            self.query_one("#runs").focus()

    # --- what is selected ---------------------------------------------------------------------------------------------

    def _at(self, which: str, rows: list[Any]) -> Any | None:
        index = self.query_one(which, VirtualList).cursor
        return rows[index] if 0 <= index < len(rows) else None

    def _project(self) -> str:
        return self._at("#projects", self._projects) or ""

    def _run(self) -> JobSummary | None:
        return self._at("#runs", self._runs)

    def _selected(self) -> JobSummary | None:
        """The run that an action is about; None where the focus is on the projects."""
        if self.query_one("#queue").has_focus:
            return self._at("#queue", self._waiting)
        return None if self._on_projects else self._run()

    @property
    def _on_projects(self) -> bool:
        return self.query_one("#left").has_focus_within

    def copied(self) -> tuple[str, str]:
        run = self._selected()
        if run is not None:
            return run.path, "the run's folder"
        found = next((one.path for one in self.bench.board.projects if one.name == self._project()), "")
        return found, "the project's folder"

    def why_not(self, verb: str) -> str:
        run = self._selected()
        match verb:
            case "new" | "search":
                return ""
            case "rename":
                return "" if self._project() else "there is no project"
            case "open" | "trash":
                return "" if run or (self._on_projects and self._project()) else "nothing is selected"
            case _ if run is None:
                return "no run is selected"
            case "retry":
                return "" if run.state in ENDED else f"it is {figures.STATES[run.state][2:]}"
            case "earlier" | "later" | "unqueue":
                return "" if run.position else "it is not in the queue"
            case "stop":
                return "" if run.state in figures.LIVE else "it is not live"
        return ""

    # --- actions ------------------------------------------------------------------------------------------------------

    def do_search(self) -> None:
        self.query_one("#filter-projects" if self._on_projects else "#filter-runs", FilterLine).open()

    @on(FilterLine.Filtered)
    def _filtered(self, event: FilterLine.Filtered) -> None:
        self._filters[event.line.id.removeprefix("filter-")] = event.words
        self._show()

    @on(FilterLine.Left)
    def _left(self, event: FilterLine.Left) -> None:
        self.query_one("#" + event.line.id.removeprefix("filter-")).focus()

    async def do_new(self) -> None:
        name = await self.bench.ask("New project", "A name, which becomes a folder's.", check=self._new_name)
        if name and await self.bench.tried("projects.create", ProjectRef(name=name)):
            self.bench.open_project(name)

    def _new_name(self, name: str) -> str:
        taken = {one.name for one in self.bench.board.projects}
        if not name.strip() or name[0] == "." or set(name) & set("/\\") or not name.isprintable() or len(name) > 80:
            return "a plain name of at most 80 characters, without slashes, that does not begin with a dot"
        return f"there is a project {name} already" if name in taken else ""

    async def do_rename(self) -> None:
        old = self._project() if self._on_projects else self.bench.project
        name = await self.bench.ask(f"Rename {old}", value=old, check=lambda name: name != old and self._new_name(name))
        if not name or name == old:
            return
        if await self.bench.tried("projects.rename", RenameProject(name=old, to=name)) and old == self.bench.project:
            self.bench.open_project(name)

    async def do_trash(self) -> None:
        run = self._selected()
        if run is None:
            await self._trash_project(self._project())
            return
        live = run.state in figures.LIVE
        text = f"{run.id} of {run.project}, with its checkpoints and samples.\nIt is moved to the workspace's trash."
        text += "\nIt is live: it will be stopped first." if live else ""
        if await self.bench.confirm("Trash this run?", text, "Trash"):
            await self.bench.tried("jobs.remove", Remove(job=run.id, force=live))

    async def _trash_project(self, name: str) -> None:
        runs = len(self.bench.board.runs(name))
        text = f"The project {name} with its {runs} runs is moved to the workspace's trash."
        text += "\nIts images stay where they are."
        if await self.bench.confirm("Trash this project?", text, "Trash") and await self.bench.tried(
            "projects.remove", ProjectRef(name=name)
        ):
            if name == self.bench.project:
                self.bench.open_project("")
            self.bench.say(f"{name} is in the trash")

    async def do_retry(self) -> None:
        if (run := self._selected()) and await self.bench.tried("jobs.retry", JobRef(job=run.id)):
            self.bench.say(f"{run.name} waits in the queue again")

    async def do_stop(self) -> None:
        run = self._selected()
        text = f"{run.name} is saved and ends; retry goes on from there."
        if run and await self.bench.confirm("Stop this run?", text, "Stop"):
            await self.bench.tried("jobs.control", Control(job=run.id, name="stop"))

    async def do_earlier(self) -> None:
        await self._shift(-1)

    async def do_later(self) -> None:
        await self._shift(1)

    async def _shift(self, places: int) -> None:
        run = self._selected()
        if run and run.position and run.position + places >= 1:
            await self.bench.tried("queue.move", Move(job=run.id, position=run.position + places))

    async def do_unqueue(self) -> None:
        if run := self._selected():
            await self.bench.tried("queue.cancel", JobRef(job=run.id))

    # --- session ------------------------------------------------------------------------------------------------------

    def remembered(self) -> dict[str, Any]:
        return {"run": _identity(self._run()), **{f"find_{name}": words for name, words in self._filters.items()}}

    def recall(self, state: dict[str, Any]) -> None:
        self._wanted_run = str(state.get("run", ""))
        for name in self._filters:
            if words := str(state.get(f"find_{name}", "")):
                line = self.query_one(f"#filter-{name}", FilterLine)
                line.value = words
                line.add_class("-on")


def _index(values: list[str], wanted: str) -> int:
    return values.index(wanted) if wanted in values else 0


def _identity(run: JobSummary | None) -> str:
    return run.id if run else ""
