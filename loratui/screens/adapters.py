"""Adapters: the files of the open project's runs and of the library's folders, by what their headers say.

The host reads the headers, a page at a time; no file is opened here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine.protocol.browse import AdapterHeader, Adapters, AdaptersRef, FileRef
from loratui import actions, figures
from loratui.paging import Pages
from loratui.screens.adapters_words import adapter_row, adapters_header, details, name_of
from loratui.widgets.filter_line import FilterLine
from loratui.widgets.panel import Panel
from loratui.widgets.virtual_list import VirtualList

NONE = "none: runs leave theirs here, and app.adapters in settings.toml names more folders"


class AdaptersPanel(Panel):
    """A list of files, and what is known of the one at the cursor."""

    name_ = "adapters"
    BINDINGS = actions.bindings("adapters", "do('{id}')")
    DEFAULT_CSS = """
    AdaptersPanel #listed { height: 1fr; }
    AdaptersPanel #details { height: auto; padding: 0 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._pages: Pages[AdapterHeader] = Pages(self._came, self._counted, self._failed)
        self._find = ""
        self._all = False
        """Whether all of the metadata is shown."""
        self._wanted = ""
        """Path that the cursor is to go to when its row comes."""
        self._stale = True

    def compose(self) -> ComposeResult:
        with Vertical(classes="main framed", id="left") as left:
            left.border_title = Content(self.title)
            yield FilterLine(id="filter")
            yield VirtualList(self._row, header=adapters_header, empty=NONE, id="listed", classes="start")
        with VerticalScroll(classes="side framed", id="right", can_focus=True):
            yield Static("", id="details", markup=False)

    def on_mount(self) -> None:
        self.bench.project_changed.subscribe(self, lambda _: self._outdated())
        self.bench.board_changed.subscribe(self, self._runs_changed)
        self.bench.host_back.subscribe(self, lambda _: self._outdated())
        self.app.theme_changed_signal.subscribe(self, lambda _: self.query_one(VirtualList).invalidate())

    # --- what is shown ------------------------------------------------------------------------------------------------

    def shown(self) -> None:
        if self._stale:
            self._list()

    def _outdated(self) -> None:
        self._stale = True
        if self.display:
            self._list()

    def _runs_changed(self, changed: set[str]) -> None:
        """A run that has ended may have left files."""
        rows = [self.bench.board.run(identity) for identity in changed]
        if any(row is None or (row.project == self.bench.project and row.state not in figures.LIVE) for row in rows):
            self._outdated()

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
        selected = self._selected()
        self._wanted = self._wanted or (selected.path if selected else "")
        self.query_one(VirtualList).set_count(total)
        self._tell()

    def _came(self, start: int, stop: int) -> None:
        listed = self.query_one(VirtualList)
        for index in range(start, stop) if self._wanted else ():
            found = self._pages.get(index)
            if found is not None and found.path == self._wanted:
                self._wanted = ""
                listed.to(index)
        listed.refresh_rows(start, stop)
        self._tell()

    def _failed(self, error: Exception) -> None:
        self.query_one("#left").border_subtitle = Content("the host did not answer")
        self.bench.say(str(error), "error")

    def _row(self, index: int, width: int) -> Text:
        found = self._pages.get(index)
        return adapter_row(found, width, self.bench.now()) if found else Text("…", style="dim")

    def _selected(self) -> AdapterHeader | None:
        return self._pages.get(self.query_one(VirtualList).cursor)

    @on(VirtualList.Visible)
    def _visible(self, event: VirtualList.Visible) -> None:
        self._pages.want(event.rows.start, event.rows.stop)

    @on(VirtualList.Moved)
    def _tell(self) -> None:
        found = self._selected()
        right = self.query_one("#right")
        right.border_title = Content(name_of(found) if found else "")
        right.border_subtitle = Content("all metadata" if self._all else "")
        self.query_one("#details", Static).update(details(found, self._all, self.bench.now()) if found else "")
        self.bench.look_at_actions()

    # --- actions ------------------------------------------------------------------------------------------------------

    def why_not(self, verb: str) -> str:
        if verb in ("details", "copy", "trash") and self._selected() is None:
            return "no file is selected"
        return ""

    def copied(self) -> tuple[str, str]:
        found = self._selected()
        return (found.path, "the file's path") if found else ("", "")

    def go_to(self, path: str) -> None:
        """Put the cursor on a file. The filter is taken off, which may hide it."""
        self._wanted = path
        self.query_one(FilterLine).action_clear()
        self._outdated()

    def do_search(self) -> None:
        self.query_one(FilterLine).open()

    @on(FilterLine.Filtered)
    def _filtered(self, event: FilterLine.Filtered) -> None:
        if event.words != self._find:
            self._find = event.words
            self._outdated()

    @on(FilterLine.Left)
    def _left(self) -> None:
        self.query_one(VirtualList).focus()

    @on(VirtualList.Chosen)
    def do_details(self) -> None:
        self._all = not self._all
        self._tell()

    def do_copy(self) -> None:
        self.bench.copy(*self.copied())

    def do_reload(self) -> None:
        self._outdated()

    async def do_trash(self) -> None:
        found = self._selected()
        if found is None:
            return
        text = f"{found.path}\n{figures.size(found.bytes)}. It is moved to the workspace's trash."
        if not await self.bench.confirm("Trash this file?", text, "Trash"):
            return
        thrown = await self.bench.tried("adapters.remove", FileRef(path=found.path))
        if thrown:
            self.bench.say(f"{name_of(found)} is in the trash: {thrown.trash}")
            self._outdated()

    # --- session ------------------------------------------------------------------------------------------------------

    def remembered(self) -> dict[str, Any]:
        found = self._selected()
        return {"path": found.path if found else "", "find": self._find}

    def recall(self, state: dict[str, Any]) -> None:
        self._wanted = str(state.get("path", ""))
        if words := str(state.get("find", "")):
            self._find = words
            line = self.query_one(FilterLine)
            line.value = words
            line.add_class("-on")
