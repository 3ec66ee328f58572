"""Dataset: the folders of the project, their images and captions, and what a check finds wrong with them.

Here is what can be done with folders and captions. What is shown is in `dataset_view`, checking and getting from one
finding to the next in `dataset_checks`, the image at the cursor with its editor in `dataset_side`.
"""

from __future__ import annotations

import os

import msgspec
from textual import on
from textual.binding import Binding
from textual.timer import Timer

from engine.protocol.browse import CaptionWritten, ProjectRef
from loratui import actions
from loratui.screens import dataset_folders as folders
from loratui.screens import dataset_words as words
from loratui.screens.dataset_checks import DatasetChecks
from loratui.screens.dataset_list import ImageList
from loratui.screens.dataset_side import ImageSide
from loratui.widgets.columns import clean
from loratui.widgets.filter_line import FilterLine

TYPING = 0.15
"""Seconds without a key after which the list is filtered by what was typed."""


class DatasetPanel(DatasetChecks):
    """The images of one folder, and beside them the image at the cursor."""

    name_ = "dataset"
    BINDINGS = [*actions.bindings("dataset", "do('{id}')"), Binding("escape", "unfilter", show=False)]

    def __init__(self) -> None:
        super().__init__()
        self._written: CaptionWritten | None = None
        """The last change of a caption: it says how many can be undone and redone."""
        self._typing: Timer | None = None
        self._folded = False
        """The side was brought over for the editor, and goes back with it."""

    def on_mount(self) -> None:
        self.bench.project_changed.subscribe(self, lambda _: setattr(self, "_written", None))

    def why_not(self, verb: str) -> str:
        if not self.bench.project:
            return "no project is open"
        match verb:
            case "add":
                return ""
            case "undo" | "redo":
                return f"there is nothing to {verb}" if self._written and not getattr(self._written, verb) else ""
            case _ if self.shelf is None:
                return "the project has no folders: a adds one"
            case "edit":
                return "" if self.listed.at_cursor or self.side.editing else "there is no image here"
            case "check":
                return "one is under way" if self.check.running else ""
            case "problem" | "problem_before" | "findings":
                unknown = "" if self.check.finished else "nothing was checked yet: c checks"
                return unknown or ("" if self.check.all() else "the check found nothing")
            case "next_folder" | "folder_before":
                return "" if len(self.shelves) > 1 else "there is only one folder"
        return ""

    def copied(self) -> tuple[str, str]:
        entry = self.listed.at_cursor
        return (entry.path, "the image's path") if entry else ("", "")

    # --- folders ------------------------------------------------------------------------------------------------------

    async def do_add(self) -> None:
        start = words.folder(str(self.shelf.table.get("path", ""))) if self.shelf else os.getcwd()
        self.wanted = await folders.add(self.bench, f"{start}/")
        self._look_again(bool(self.wanted))

    async def do_remove(self) -> None:
        together = [shelf for shelf in self.shelves if shelf.table == self.shelf.table]
        self._look_again(await folders.remove(self.bench, self.shelf, together))

    async def do_settings(self) -> None:
        self._look_again(await folders.settings(self.bench, self.shelf))

    def _look_again(self, changed: bool) -> None:
        """The folders may be others now, if only because somebody else has changed them."""
        if changed:
            self.check.forget()
        self.load()

    def do_next_folder(self) -> None:
        self._turn(1)

    def do_folder_before(self) -> None:
        self._turn(-1)

    def _turn(self, step: int) -> None:
        number = self.shelves.index(self.shelf) if self.shelf in self.shelves else 0
        self.bring(self.shelves[(number + step) % len(self.shelves)])

    # --- filter -------------------------------------------------------------------------------------------------------

    def do_search(self) -> None:
        self.query_one(FilterLine).open()

    @on(FilterLine.Filtered)
    def _filtered(self) -> None:
        if self._typing is not None:
            self._typing.stop()
        self._typing = self.set_timer(TYPING, self._filter_now)

    def _filter_now(self) -> None:
        self.listed.show(self.shelf, self.query_one(FilterLine).value)
        self.tell()

    @on(FilterLine.Left)
    def _left(self) -> None:
        self._filter_now()
        self.listed.focus()

    def action_unfilter(self) -> None:
        self.query_one(FilterLine).action_clear()

    # --- captions -----------------------------------------------------------------------------------------------------

    @on(ImageList.Chosen)
    def do_edit(self) -> None:
        if reason := self.why_not("edit"):
            self.bench.say(reason, "warning")
            return
        if self.has_class("-narrow") and not self.has_class("-side"):
            self._folded = True
            self.add_class("-side")
        self.side.edit(self.bench.project, self.listed.at_cursor, self.shelf)

    @on(ImageSide.Ended)
    def _ended(self) -> None:
        if self._folded:
            self._folded = False
            self.remove_class("-side")
        self.listed.focus()

    @on(ImageSide.Written)
    def _saved(self, event: ImageSide.Written) -> None:
        self._take(event.written)

    def _take(self, written: CaptionWritten) -> None:
        """A caption has changed."""
        self._written = written
        self.check.edited(written.path)
        entry = self.listed.at_cursor
        if entry is not None and entry.path == written.path:
            self.listed.put(msgspec.structs.replace(entry, caption=written.caption, caption_source=written.source))
        self.listed.reload()
        self.bench.look_at_actions()

    async def do_undo(self) -> None:
        await self._step("undo", "undone")

    async def do_redo(self) -> None:
        await self._step("redo", "redone")

    async def _step(self, verb: str, done: str) -> None:
        written: CaptionWritten | None = await self.bench.tried(f"captions.{verb}", ProjectRef(name=self.bench.project))
        if written is not None:
            self._take(written)
            said = f"says “{clean(written.caption)}”" if written.caption else "has no caption"
            more = f"; {getattr(written, verb)} more to {verb}" if getattr(written, verb) else ""
            self.bench.say(f"{done}: {clean(words.name(written.path))} {said}{more}")
            await self.reach(written.path)
