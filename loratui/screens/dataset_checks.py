"""Checks of the images in the Dataset panel, and the ways to an image: by its path, from one problem to the next.

The check is the host's, in a process of its own; this asks for it, tells how far it is, and keeps what it found.
"""

from __future__ import annotations

from engine.config import UserError
from engine.protocol.browse import CheckImages, ImagesChecked
from loratui.client import HostError, HostGone
from loratui.screens import dataset_shelves as shelves
from loratui.screens import dataset_words as words
from loratui.screens.dataset_findings import next_stop
from loratui.screens.dataset_view import DatasetView
from loratui.screens.finder import Entry
from loratui.widgets.columns import clean

UNASKED = 500
"""Images up to which a project is checked when it is first shown: a few seconds, with pictures from a camera."""


class DatasetChecks(DatasetView):
    """The panel with its check, and without what changes anything."""

    def on_mount(self) -> None:
        self.bench.images_checked.subscribe(self, self._checked)
        self.bench.host_back.subscribe(self, lambda _: self._ask_again())

    def loaded(self) -> None:
        few = 0 < sum(shelf.images for shelf in self.shelves) <= UNASKED
        if few and not (self.check.finished or self.check.running or self.check.failed):
            self.run_worker(self.do_check(), group="dataset.check", exclusive=True, exit_on_error=False)

    def go_to(self, path: str) -> None:
        """Show an image of the project."""
        self.run_worker(self.reach(path), group="go", exclusive=True, exit_on_error=False)

    async def reach(self, path: str) -> None:
        """Put the cursor on an image of any folder, once the folders are known; or say that there is no such one."""
        await self.known.wait()
        if self.shelf is not None and self.shelf.path == words.folder(path):
            found = await self.listed.go(path)
            self.show_filter(self.listed.find)
        else:
            shelf = next((shelf for shelf in self.shelves if shelf.path == words.folder(path)), None)
            found = shelf is not None
            if shelf is not None:
                self.bring(shelf, path)
        if not found:
            self.bench.say(f"{clean(path)} is in no folder of this project", "warning")

    # --- check --------------------------------------------------------------------------------------------------------

    async def do_check(self) -> None:
        identity = self.check.begin()
        self.tell()
        try:
            wanted = CheckImages(config=shelves.to_check(self.config), id=identity)
            await self.bench.call("images.check", wanted)
        except (UserError, HostError) as error:
            self.check.give_up(str(error))
            self.bench.say(f"check: {error}", "error")
        except HostGone:
            self.check.give_up()
        self.tell()

    def _checked(self, told: ImagesChecked) -> None:
        if not self.check.take(told):
            return
        if told.failed:
            self.bench.say(f"check: {told.failed}", "error")
        if not self.check.running:
            self.listed.invalidate()
            self.look()
            self.bench.look_at_actions()
        self.tell()

    def _ask_again(self) -> None:
        """The host that was checking has died, and there is another."""
        if self.check.running:
            self.run_worker(self.do_check(), group="dataset.check", exclusive=True, exit_on_error=False)

    async def do_problem(self) -> None:
        await self._jump(1)

    async def do_problem_before(self) -> None:
        await self._jump(-1)

    async def _jump(self, step: int) -> None:
        listed, places = self.listed, [shelf.path for shelf in self.shelves]

        async def precedes(path: str) -> bool:
            index = await listed.index_of(path, listed.find)
            return index is not None and index < listed.cursor

        at = self.shelf.path, listed.at_cursor.path if listed.at_cursor else ""
        if path := await next_stop(self.check.stops(places), places, at, step, precedes):
            await self.reach(path)

    async def do_findings(self) -> None:
        signs = words.SIGNS
        entries = [
            Entry(f"{signs[one.severity]} {words.name(one.path)}  {words.short(one.text)}", one, words.folder(one.path))
            for one in sorted(self.check.all(), key=lambda one: one.severity != "problem")
        ]
        chosen = await self.bench.choose("What the check found", entries, "! can't be used   ~ worth a look")
        about = next((shelf for shelf in self.shelves if chosen and shelf.path == chosen.path), None)
        if about is not None:
            self.bring(about)
        elif chosen is not None and any(shelf.path == words.folder(chosen.path) for shelf in self.shelves):
            await self.reach(chosen.path)
