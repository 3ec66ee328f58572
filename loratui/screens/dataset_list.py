"""The images of one folder as a list, fetched a page at a time, under a line about the folder.

The cursor stays on its image while the folder changes under it. Whoever shows what is selected listens to `Selected`,
which also comes when what is known of the image at the cursor has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.segment import Segment
from rich.text import Text
from textual import on
from textual.message import Message
from textual.strip import Strip

from engine.config import UserError
from engine.protocol.browse import FolderRef, ImageEntry, ImageFinding, Images
from loratui.client import HostError, HostGone
from loratui.paging import Fetch, Pages
from loratui.screens import dataset_words as words
from loratui.screens.dataset_shelves import Shelf
from loratui.widgets.painting import PaintsChanges, theme_style
from loratui.widgets.virtual_list import VirtualList

if TYPE_CHECKING:
    from loratui.bench import Bench


class FolderLine(PaintsChanges):
    """Which folder it is, and facts about it, as many as fit."""

    DEFAULT_CSS = "FolderLine { height: 1; color: $text-muted; }"

    def __init__(self) -> None:
        super().__init__()
        self._place, self._facts = "", []

    def tell(self, place: str, facts: list[str]) -> None:
        self._place, self._facts = place, facts
        self.repaint()

    def line(self, y: int) -> Strip:
        told = words.folder_line(self._place, self._facts, self.size.width - 2)
        return Strip([Segment(f" {told}", self.rich_style)]).adjust_cell_length(self.size.width, self.rich_style)


class ImageList(VirtualList):
    """Images of the shelf that `show` was told. `findings` gives what a check said of an image, by its path."""

    class Selected(Message):
        """The cursor is on this image now, or on none that is known yet."""

        def __init__(self, entry: ImageEntry | None):
            super().__init__()
            self.entry = entry

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, ImageList.Selected)

    class Counted(Message):
        """So many images are in the list."""

        def __init__(self, total: int):
            super().__init__()
            self.total = total

    class Failed(Message):
        """The folder could not be listed."""

        def __init__(self, error: Exception):
            super().__init__()
            self.error = error

    def __init__(self, findings: Callable[[str], Sequence[ImageFinding]], **more: str):
        super().__init__(self._image_row, header=words.header, **more)
        self._findings = findings
        self._pages: Pages[ImageEntry] = Pages(self._came, self._counted, self._failed)
        self.shelf: Shelf | None = None
        self.find = ""
        self.entry: ImageEntry | None = None
        """The image that `Selected` told last."""
        self._goal = ""
        """Path of the image that the cursor belongs to; empty: to the first."""
        self._seeking = False
        """The goal's place is being asked for: what is at the cursor meanwhile is there by accident."""
        self._settled = asyncio.Event()

    @property
    def bench(self) -> Bench:
        return self.app  # type: ignore[return-value]

    @property
    def total(self) -> int | None:
        """Images that the filter leaves; None as long as nobody knows, though those of the last filter still stand."""
        return self._pages.total if self._settled.is_set() else None

    def on_unmount(self) -> None:
        self._pages.stop()

    # --- what is listed -----------------------------------------------------------------------------------------------

    def show(self, shelf: Shelf | None, find: str = "", goal: str = "") -> None:
        """List the images of a shelf that hold these words, the cursor on the image `goal` if it is among them.

        A list that is shown already stays; what the shelf now says of it is drawn.
        """
        same_folder = shelf is not None and self.shelf is not None and shelf.path == self.shelf.path
        same = same_folder and find.split() == self.find.split()
        repaint, self.shelf, self.find = shelf != self.shelf, shelf, find
        if repaint and same_folder and self.entry is not None:
            self.post_message(self.Selected(self.entry))
        if same:
            if repaint:
                self.invalidate()
            return
        self._goal = goal
        self._settled.clear()
        if not same_folder:
            self.set_count(0, 0)
            self._select(None)
        if shelf is None:
            self._pages.stop()
        else:
            self._pages.show(self._fetch(shelf.path, find), keep=same_folder)

    def reload(self) -> None:
        """Look at the folder again. What has not changed is not drawn again."""
        if self.shelf is not None:
            self._pages.reload()

    async def settled(self) -> None:
        """Wait until something is known of what `show` was told last: how many images there are, or a failure."""
        await self._settled.wait()

    def _fetch(self, path: str, find: str) -> Fetch[ImageEntry]:
        async def fetch(offset: int, limit: int) -> tuple[int, list[ImageEntry]]:
            ref = FolderRef(path=path, offset=offset, limit=limit, find=find)
            listed: Images = await self.bench.call("images.list", ref)
            return listed.total, listed.images

        return fetch

    async def go(self, path: str) -> bool:
        """Put the cursor on an image of the folder; where the filter hides it, without the filter. False for none."""
        for find in dict.fromkeys((self.find, "")):
            index = await self.index_of(path, find)
            if index is None:
                continue
            self._goal = path
            if find != self.find:
                self.show(self.shelf, find, path)
            elif index < self.count:
                self.to(index)
            return True
        return False

    async def index_of(self, path: str, find: str) -> int | None:
        """The place of an image among those that hold these words; None where it is not among them."""
        if self.shelf is None:
            return None
        ref = FolderRef(path=self.shelf.path, find=find, limit=1, at=path)
        listed: Images | None = await self.bench.tried("images.list", ref)
        found = listed is not None and [entry.path for entry in listed.images] == [path]
        return listed.offset if found else None

    @property
    def at_cursor(self) -> ImageEntry | None:
        """The image at the cursor at this moment, also where `Selected` has not been heard yet."""
        return self._pages.get(self.cursor) if self.count else None

    def put(self, entry: ImageEntry) -> None:
        """The image at the cursor is this now, as whoever changed it knows."""
        self._pages.put(self.cursor, entry)

    # --- what comes ---------------------------------------------------------------------------------------------------

    def _counted(self, total: int) -> None:
        self._settled.set()
        self.set_count(total, None if self._goal else 0)
        self.post_message(self.Counted(total))
        if self._goal and total:
            self._seeking = True
            self.run_worker(self._seek(self._goal), group="seek", exclusive=True, exit_on_error=False)
        elif not total:
            self._select(None)

    async def _seek(self, path: str) -> None:
        index = await self.index_of(path, self.find)
        self._seeking = False
        if index is not None:
            self.to(index)
        self._moved()

    def _came(self, start: int, stop: int) -> None:
        self.refresh_rows(start, stop)
        if start <= self.cursor < stop and not self._seeking:
            self._moved()

    def _failed(self, error: UserError | HostError | HostGone) -> None:
        self._settled.set()
        if not isinstance(error, HostGone):
            self.set_count(0)
            self._select(None)
        self.post_message(self.Failed(error))

    @on(VirtualList.Visible)
    def _visible(self, event: VirtualList.Visible) -> None:
        self._pages.want(event.rows.start, event.rows.stop)

    @on(VirtualList.Moved)
    def _moved(self) -> None:
        entry = self.at_cursor
        if entry is not None:
            self._goal = entry.path
        self._select(entry)

    def _select(self, entry: ImageEntry | None) -> None:
        if entry != self.entry:
            self.entry = entry
            self.post_message(self.Selected(entry))

    def _image_row(self, index: int, width: int) -> Text:
        entry = self._pages.get(index)
        found = self._findings(entry.path) if entry is not None else ()
        return words.image_row(entry, self.shelf, found, width, lambda name: theme_style(self, name))
