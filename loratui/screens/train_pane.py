"""The form of the train panel with the help of its field below: what the keys do to the field at the cursor.

The pane only shows and asks; every change is another setup, which it hands to the keeper.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.events import DescendantBlur, DescendantFocus

from loratui.draft import SUBSETS, absolute
from loratui.draft_fields import Leaf, choices, leaves, parsed, spelled
from loratui.screens import train_steps
from loratui.screens.train_rows import ADVANCED, BASE, PROJECT, View, field_of, help_lines, rows, sections
from loratui.widgets.form import Form, looks_of
from loratui.widgets.form_lines import Lines

if TYPE_CHECKING:
    from loratui.screens.train import TrainPanel
    from loratui.screens.train_keeper import Keeper

NO_PROJECT = "no project is open: 1 shows them, and n makes one there"


class FieldPane(Vertical):
    """The form and its help. `keeper`: whose setup it shows."""

    DEFAULT_CSS = """
    FieldPane #help { height: 4; padding: 0 2; color: $text-muted; }
    """

    def __init__(self, keeper: Keeper):
        super().__init__(classes="main framed")
        self._keeper = keeper
        self._view = View()
        self._wanted: str | None = None
        """The row that the cursor is to be on, once it is there."""

    def compose(self) -> ComposeResult:
        yield Form(NO_PROJECT)
        yield Lines(id="help", can_focus=False)

    @property
    def form(self) -> Form:
        return self.query_one(Form)

    @property
    def key(self) -> str:
        """The key of the row at the cursor."""
        return self.form.key or ""

    @property
    def leaf(self) -> Leaf | None:
        """The field at the cursor; None on a heading."""
        return field_of(self.key)

    @property
    def section(self) -> str:
        """The section of the heading at the cursor."""
        return self.key.removesuffix(ADVANCED)

    # --- what is shown ------------------------------------------------------------------------------------------------

    def show(self, typed: Any = None) -> None:
        """Show what the keeper has; `typed`: the value so far of the field that is being typed into."""
        setup, typing = self._keeper.setup, self.form.typing
        if setup is None:
            self.form.show([])
            self._help.show([])
            return
        if typing and typed is not None:
            setup = setup.with_value(typing, typed)
        problems = self._keeper.problems(setup, typing)
        wanted, self._wanted = self._wanted, None
        self.form.show(rows(setup, problems, self._view, {BASE: self._keeper.base_in_words()}, typing), wanted)
        self._help.show(help_lines(setup, problems, self.key, looks_of(self)))

    @property
    def _help(self) -> Lines:
        return self.query_one("#help", Lines)

    @on(Form.Moved)
    def _moved(self) -> None:
        if setup := self._keeper.setup:
            self._help.show(help_lines(setup, self._keeper.problems(), self.key, looks_of(self)))

    @on(DescendantFocus)
    @on(DescendantBlur)
    def _focused(self) -> None:
        """Say how typing ends, as soon as what is typed goes into the field."""
        self.border_subtitle = Content("⏎ takes it, esc leaves it as it was" if self.form.editor.has_focus else "")

    def recolour(self) -> None:
        """The theme is another one."""
        self.form.repaint()
        self.show()

    def reveal(self, path: str) -> None:
        """Bring the cursor to a field or section, whatever hides it."""
        if leaf := field_of(path):
            self._view.reveal(leaf)
        self._wanted = path
        self.show()

    def only_changes(self) -> None:
        """Show what differs from the preset and nothing else, or everything again."""
        self._view.changes = not self._view.changes
        self.show()

    def all_advanced(self) -> None:
        """Show the advanced fields of all sections, or fold them."""
        self._view.advanced = not self._view.advanced
        self._view.unfolded.clear()
        self.show()

    # --- the field at the cursor --------------------------------------------------------------------------------------

    @on(Form.Chosen)
    def edit(self) -> None:
        """Change the value at the cursor in the way that its type asks for; fold or unfold a heading."""
        leaf, setup = self.leaf, self._keeper.setup
        if setup is None:
            return
        if leaf is None:
            self._fold(self.key)
        elif leaf.path == SUBSETS:
            self._panel.bench.show_panel("dataset")
        elif leaf.path == PROJECT:
            self._panel.bench.say("the run belongs to the open project: 1 opens another", "warning")
        elif leaf.way in ("switch", "choice"):
            self._turn(leaf, 1)
        elif leaf.way in ("lines", "tables"):
            editing = train_steps.edit_list(self._panel, leaf)
            self.run_worker(editing, group="edit", exclusive=True)
        else:
            number = not isinstance(parsed(leaf.kind, "1"), str)
            self.form.edit(spelled(setup.value(leaf.path)), "number" if number else "text")

    def turn(self, step: int) -> None:
        """Left and right: another value of a choice; a heading opens and closes."""
        if self.leaf is None:
            self._fold(self.key, step < 0)
        elif self.leaf.way in ("switch", "choice"):
            self._turn(self.leaf, step)

    def _turn(self, leaf: Leaf, step: int) -> None:
        setup = self._keeper.setup
        values, value = choices(leaf), setup.value(leaf.path)
        index = values.index(value) + step if value in values else 0
        self._keeper.apply(setup.with_value(leaf.path, values[index % len(values)]))

    def _fold(self, key: str, fold: bool | None = None) -> None:
        """Fold a section or its advanced fields, or unfold them; without `fold` the other way than it is."""
        name, advanced = key.removesuffix(ADVANCED), key.endswith(ADVANCED)
        marked = self._view.unfolded if advanced else self._view.folded
        add = name not in marked if fold is None else fold != advanced
        (marked.add if add else marked.discard)(name)
        self.show()

    @on(Form.Typed)
    def _typed(self, event: Form.Typed) -> None:
        if event.key == self.form.typing:
            self.show(parsed(leaves()[event.key].kind, event.text))

    @on(Form.Entered)
    async def _entered(self, event: Form.Entered) -> None:
        value = parsed(leaves()[event.key].kind, event.text)
        if isinstance(value, str):
            value = await asyncio.to_thread(absolute, event.key, value)
        if setup := self._keeper.setup:
            self._keeper.apply(setup.with_value(event.key, value))
            self.show()

    @on(Form.GaveUp)
    def _gave_up(self) -> None:
        self.show()

    @property
    def _panel(self) -> TrainPanel:
        return self.parent

    # --- session ------------------------------------------------------------------------------------------------------

    def remembered(self) -> dict[str, Any]:
        """The row of the cursor, and what is folded."""
        view = self._view
        folds = {"folded": sorted(view.folded), "unfolded": sorted(view.unfolded)}
        return {"row": self.form.key, **folds, "advanced": view.advanced, "changes": view.changes}

    def recall(self, state: dict[str, Any]) -> None:
        """Take up what was remembered, as far as it makes sense."""
        view = self._view
        for name, marked in (("folded", view.folded), ("unfolded", view.unfolded)):
            listed = state.get(name)
            marked.update(set(sections()).intersection(listed) if isinstance(listed, list) else ())
        view.advanced, view.changes = state.get("advanced") is True, state.get("changes") is True
        self._wanted = state["row"] if isinstance(state.get("row"), str) else None
        self.show()
