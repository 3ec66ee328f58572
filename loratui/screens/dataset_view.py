"""What the Dataset panel shows: which folders the project has, the images of the one in front, the image at the cursor.

The first rows must not wait for the folders: to tell a folder of 100,000 images from one of folders takes most of a
second. So a guess is listed at once (the folder of last time, or the first of the draft), and set right afterwards.
"""

from __future__ import annotations

import asyncio
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from engine.protocol.browse import Draft, ProjectRef, SubsetFolders, SubsetsRef
from loratui import figures
from loratui.client import HostGone
from loratui.screens import dataset_shelves as shelves
from loratui.screens import dataset_words as words
from loratui.screens.dataset_findings import Check
from loratui.screens.dataset_list import FolderLine, ImageList
from loratui.screens.dataset_shelves import Shelf
from loratui.screens.dataset_side import ImageSide
from loratui.widgets.columns import clean
from loratui.widgets.filter_line import FilterLine
from loratui.widgets.panel import Panel

NO_PROJECT = "No project is open.\n→ 1 shows the projects: ⏎ opens one, n makes one"
NO_FOLDER = "The project has no images yet.\n→ a adds a folder"


class DatasetView(Panel):
    """The panel without what can be done in it. `loaded` is called when the folders of the project are known."""

    DEFAULT_CSS = """
    DatasetView #words { height: auto; padding: 1 2; display: none; }
    DatasetView #words.-some { display: block; }
    DatasetView ImageList { height: 1fr; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.check = Check()
        self.config: dict[str, Any] = {}
        """The project's draft, as it was read last."""
        self.shelves: list[Shelf] = []
        """The folders of the project; empty until they are known."""
        self.known = asyncio.Event()
        """Whether they are."""
        self.wanted = ""
        """The path of a folder to put in front when the folders are known."""
        self._project = ""
        self._recalled: dict[str, str] = {}

    def compose(self) -> ComposeResult:
        with Vertical(classes="main framed") as main:
            main.border_title = Content(self.title)
            yield FolderLine()
            yield FilterLine()
            yield Static("", id="words", markup=False)
            yield ImageList(self.check.of, classes="start")
        yield ImageSide(classes="side framed")

    def on_mount(self) -> None:
        self.bench.project_changed.subscribe(self, lambda _: self.load())
        self.bench.host_back.subscribe(self, lambda _: self.load())

    @property
    def listed(self) -> ImageList:
        return self.query_one(ImageList)

    @property
    def side(self) -> ImageSide:
        return self.query_one(ImageSide)

    @property
    def shelf(self) -> Shelf | None:
        """The folder in front."""
        return self.listed.shelf

    def loaded(self) -> None:
        """The folders of the project are known."""

    # --- session ------------------------------------------------------------------------------------------------------

    def shown(self) -> None:
        self.load()

    def remembered(self) -> dict[str, Any]:
        if self._recalled:  # not taken up yet
            return self._recalled
        entry = self.listed.at_cursor
        where = {"folder": self.shelf.path if self.shelf else "", "image": entry.path if entry else ""}
        return {"project": self._project, "find": self.listed.find} | where

    def recall(self, state: dict[str, Any]) -> None:
        self._recalled = {name: value for name, value in state.items() if isinstance(value, str)}

    # --- folders ------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Look at the project again: its draft, its folders, the images of the one in front."""
        if self.display:
            self.run_worker(self._load(), group="load", exclusive=True, exit_on_error=False)

    async def _load(self) -> None:
        if self.bench.project != self._project or not self._project:
            self._start_over()
        if not self._project:
            self.say(NO_PROJECT)
            return
        draft: Draft | None = await self.bench.tried("drafts.read", ProjectRef(name=self._project))
        if draft is None:
            return
        self.config = draft.config
        self.side.base = shelves.base(draft.config)
        self.side.recount()
        tables = shelves.subsets(draft.config)
        if not tables:
            self.shelves = []
            self.bring(None)
            self.say(
                f"✗ {draft.problem}\n→ a adds a folder, and keeps the old draft aside" if draft.problem else NO_FOLDER
            )
        else:
            await self._load_folders(tables)
        self.known.set()
        self.loaded()
        self.bench.look_at_actions()

    async def _load_folders(self, tables: list[shelves.Table]) -> None:
        recalled, self._recalled = self._recalled, {}
        mine = recalled if recalled.get("project") == self._project else {}
        if self.shelf is None:
            guess = shelves.guess(tables, mine.get("folder", ""))
            self.show_filter(mine.get("find", ""))
            self.listed.show(guess, mine.get("find", ""), mine.get("image", ""))
        else:
            self.listed.reload()
        await self.listed.settled()
        found: SubsetFolders | None = await self.bench.tried("images.subsets", SubsetsRef(subsets=tables))
        if found is not None:
            self.shelves = shelves.shelves(tables, found)
            self.bring(self._front())

    def _front(self) -> Shelf:
        """The folder to put in front: a wanted one, or the one that was there, or the first."""
        wanted, self.wanted = self.wanted, ""
        added = (shelf for shelf in self.shelves if wanted and shelf.table.get("path") == wanted)
        before = (shelf for shelf in self.shelves if self.shelf and shelf.path == self.shelf.path)
        return [*added, *before, self.shelves[0]][0]

    def _start_over(self) -> None:
        self._project = self.bench.project
        self.known.clear()
        self.check.forget()
        self.shelves = []
        self.show_filter("")
        self.listed.show(None)
        title = f"{self.title} · {clean(self._project)}" if self._project else self.title
        self.query_one(".main").border_title = Content(title)
        self.tell()

    def bring(self, shelf: Shelf | None, goal: str = "") -> None:
        """Put a folder in front, with the cursor on the image `goal`, and then without a filter."""
        if goal:
            self.show_filter("")
        self.listed.show(shelf, "" if goal else self.listed.find, goal)
        self.tell()

    def show_filter(self, find: str) -> None:
        """Show what the list is filtered by; `listed.show` filters it."""
        line = self.query_one(FilterLine)
        with line.prevent(FilterLine.Changed):
            line.value = find
        line.set_class(bool(find), "-on")

    # --- what is said -------------------------------------------------------------------------------------------------

    def say(self, told: str | Content) -> None:
        """Say something in the place of the first rows; an empty text takes it away."""
        place = self.query_one("#words", Static)
        place.update(told)
        place.set_class(bool(told), "-some")

    def tell(self) -> None:
        """Say what is known of the folder in front, and why it has no images."""
        shelf, listed = self.shelf, self.listed
        line = self.query_one(FolderLine)
        if shelf is None:
            line.tell("", [])
            return
        told = [progress] if (progress := self.check.progress()) else []
        if self.check.finished:
            problems, notes = (self.check.count(severity, shelf.path) for severity in ("problem", "note"))
            told += words.checked(problems, notes, self.check.elsewhere(shelf.path))
        facts = words.folder_facts(shelf, listed.total, bool(listed.find.split()), told)
        if len(self.shelves) > 1 and shelf in self.shelves:
            facts.insert(0, f"{self.shelves.index(shelf) + 1} of {len(self.shelves)}")
        line.tell(figures.at_home(shelf.path), facts)
        if shelf.problems and not shelf.images:
            self.say(words.refusal(shelf))
        elif listed.total == 0 and self.known.is_set():
            self.say("nothing has these words\n→ esc shows all" if listed.find.split() else "no images here")
        elif listed.total is not None:
            self.say("")

    def look(self) -> None:
        """Show the image at the cursor as it is known now."""
        entry = self.listed.at_cursor
        found = self.check.of(entry.path) if entry else ()
        self.side.show(entry, self.shelf, found, entry is not None and self.check.is_edited(entry.path))

    @on(ImageList.Selected)
    def _selected(self) -> None:
        self.look()
        self.bench.look_at_actions()

    @on(ImageList.Counted)
    def _counted(self) -> None:
        self.tell()

    @on(ImageList.Failed)
    def _failed(self, event: ImageList.Failed) -> None:
        self.tell()
        if self.known.is_set() and not isinstance(event.error, HostGone) and not (self.shelf and self.shelf.problems):
            self.say(f"✗ {event.error}")
