"""Train: set a run up in a form made from the schema, see what it comes to, and start it.

The keeper holds the draft and what the host knows of it, the pane shows the form; the panel has the actions, of which
those that ask something first are in `train_steps`.
"""

from __future__ import annotations

from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content

from loratui import actions
from loratui.draft_fields import spelled
from loratui.screens import train_steps
from loratui.screens.train_keeper import Keeper
from loratui.screens.train_pane import FieldPane
from loratui.screens.train_rows import counted
from loratui.screens.train_side import side_lines
from loratui.widgets.form import Form, looks_of
from loratui.widgets.form_lines import Lines
from loratui.widgets.panel import Panel


class TrainPanel(Panel):
    """The form, and beside it what the run comes to."""

    name_ = "train"
    BINDINGS = actions.bindings("train", "do('{id}')")
    DEFAULT_CSS = """
    TrainPanel .side { width: 36%; }
    TrainPanel #this-run { padding: 0 1; height: 1fr; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.keeper = Keeper(self, self._show)
        self._submitting = False

    def compose(self) -> ComposeResult:
        yield FieldPane(self.keeper)
        with Vertical(classes="side framed", id="side"):
            yield Lines(id="this-run")

    def on_mount(self) -> None:
        self.bench.project_changed.subscribe(self, self.keeper.open)
        self.bench.host_back.subscribe(self, lambda _: self.keeper.back())
        self.app.theme_changed_signal.subscribe(self, lambda _: self._recolour())
        self.keeper.open(self.bench.project)

    def shown(self) -> None:
        if self.keeper.setup is not None:
            self.keeper.read(self.bench.project)

    @property
    def pane(self) -> FieldPane:
        return self.query_one(FieldPane)

    def _show(self) -> None:
        """Bring everything up to date with the keeper."""
        keeper, setup = self.keeper, self.keeper.setup
        self.pane.show()
        problems = keeper.problems()
        base, plan, trouble = keeper.base_in_words(), keeper.plan, keeper.trouble
        lines = side_lines(base, plan, trouble, problems, looks_of(self)) if setup else []
        self.query_one("#this-run", Lines).show(lines)
        self.query_one("#side").border_title = Content("this run …" if setup and keeper.planning else "this run")
        title = [self.title]
        if setup is not None:
            changes = counted(len(setup.changed_paths()), "change")
            title += [setup.project, f"preset {setup.preset}", changes, *([f"✗ {len(problems)}"] if problems else [])]
        self.pane.border_title = Content(" · ".join(title))
        self.bench.look_at_actions()

    def _recolour(self) -> None:
        self.pane.recolour()
        self._show()

    @on(Form.Moved)
    def _moved(self) -> None:
        self.bench.look_at_actions()

    # --- actions ------------------------------------------------------------------------------------------------------

    def why_not(self, verb: str) -> str:
        setup, leaf = self.keeper.setup, self.pane.leaf
        if setup is None:
            return "no project is open: 1 shows them"
        match verb:
            case "undo":
                return "" if self.keeper.undoable else "nothing was changed"
            case "reset" if leaf is None:
                return "" if setup.sets(self.pane.section) else "nothing is set here"
            case "reset":
                return "" if setup.changed(leaf.path) else "it is as the preset has it"
            case "forward" | "back":
                return "" if leaf is None or leaf.way in ("switch", "choice") else "⏎ edits this field"
        return ""

    def do_start(self) -> None:
        self._submit(first=True)

    def do_queue(self) -> None:
        self._submit(first=False)

    def _submit(self, first: bool) -> None:
        if not self._submitting:  # a key that is pressed twice starts one run
            self._submitting = True
            self.run_worker(self._until_submitted(first), group="submit")

    async def _until_submitted(self, first: bool) -> None:
        try:
            await train_steps.submit(self, first)
        finally:
            self._submitting = False

    def do_edit(self) -> None:
        self.pane.edit()

    def do_forward(self) -> None:
        self.pane.turn(1)

    def do_back(self) -> None:
        self.pane.turn(-1)

    async def do_preset(self) -> None:
        await train_steps.choose_preset(self)

    async def do_find(self) -> None:
        await train_steps.find_field(self)

    async def do_reset(self) -> None:
        if leaf := self.pane.leaf:
            self.keeper.apply(self.keeper.setup.without(leaf.path))
        else:
            await train_steps.reset_section(self, self.pane.section)

    def do_undo(self) -> None:
        self.keeper.undo()

    def do_changes(self) -> None:
        self.pane.only_changes()

    def do_advanced(self) -> None:
        self.pane.all_advanced()

    async def do_write(self) -> None:
        await train_steps.write_file(self)

    async def do_open(self) -> None:
        await train_steps.open_file(self)

    def copied(self) -> tuple[str, str]:
        """The field as `--set` takes it."""
        leaf, setup = self.pane.leaf, self.keeper.setup
        return (f"{leaf.path}={spelled(setup.value(leaf.path))}", leaf.path) if leaf and setup else ("", "")

    # --- session ------------------------------------------------------------------------------------------------------

    def remembered(self) -> dict[str, Any]:
        return self.pane.remembered()

    def recall(self, state: dict[str, Any]) -> None:
        self.pane.recall(state)
