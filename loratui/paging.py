"""The rows of a long list that lies with the host, fetched a page at a time as they come into view.

One request is under way at a time: first for the pages in view, then for the page after them. What has left the view
before its page came is given up for what is in view now, so holding a key down asks for little more than where one
stops. Whoever draws asks `get`, which never waits, and draws a placeholder for None; `came` says when to draw again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from engine.config import UserError
from loratui.client import HostError, HostGone

PAGE = 200
"""Rows asked for at a time."""
KEPT = 50
"""Pages kept; of more, those unused for longest are dropped."""

Row = TypeVar("Row")
Fetch = Callable[[int, int], Awaitable[tuple[int, Sequence[Row]]]]
"""From offset and limit to the number of all rows, and the rows that were asked for."""


class Pages(Generic[Row]):
    """Rows by their index. `came(start, stop)`: these rows are there now, or differ from before. `counted(total)`: the
    list has so many rows, and none of them need be what it was. `failed(error)`: UserError, HostError or HostGone;
    nothing more is asked for until `reload` or `show`.
    """

    def __init__(
        self,
        came: Callable[[int, int], None],
        counted: Callable[[int], None],
        failed: Callable[[Exception], None],
        page: int = PAGE,
        kept: int = KEPT,
    ):
        self._came, self._counted, self._failed = came, counted, failed
        self._page, self._kept = page, kept
        self._fetch: Fetch[Row] | None = None
        self._pages: OrderedDict[int, list[Row]] = OrderedDict()
        self._fresh: set[int] = set()
        """Pages as the present list has them; others are shown until they are."""
        self._foreign = False
        """The pages are those of another list, kept only until the first of this one comes."""
        self._view = range(0, 1)
        self._filling: asyncio.Task | None = None
        self._asked: int | None = None
        self._stuck = False
        self.total: int | None = None
        """Rows of the list; None as long as nobody knows."""

    def get(self, index: int) -> Row | None:
        """Row `index`, or None where it has not come yet."""
        rows = self._pages.get(index // self._page)
        place = index % self._page
        return rows[place] if rows is not None and place < len(rows) else None

    def put(self, index: int, row: Row) -> None:
        """Row `index` is this one now, as its owner knows without asking again."""
        rows = self._pages.get(index // self._page)
        if rows is not None and index % self._page < len(rows):
            rows[index % self._page] = row
            self._came(index, index + 1)

    def show(self, fetch: Fetch[Row], keep: bool = False) -> None:
        """Show another list, from its start. `keep`: the rows of the last one stand until the first of this come."""
        self.stop()
        self._fetch, self._view, self._foreign = fetch, range(0, 1), keep
        if not keep:
            self._pages.clear()
            self.total = None
        self.reload()

    def reload(self) -> None:
        """Ask for what is in view again, and for the rest when it comes into view. Until then nothing is hidden."""
        self.stop()
        self._fresh.clear()
        self._stuck = False
        self._fill()

    def want(self, start: int, stop: int) -> None:
        """Rows `start` up to `stop` are in view."""
        self._view = range(start, max(stop, start + 1))
        for number in self._in_view():
            if number in self._pages:
                self._pages.move_to_end(number)
        if self._asked is not None and self._asked not in self._wanted():
            self.stop()
        self._fill()

    def stop(self) -> None:
        """Give up what is asked for."""
        if self._filling is not None:
            self._filling.cancel()
        self._filling = self._asked = None

    def _in_view(self) -> range:
        return range(self._view.start // self._page, (self._view.stop - 1) // self._page + 1)

    def _wanted(self) -> list[int]:
        """Pages in view and the one after them, as far as there are any."""
        last = 0 if self.total is None or self._foreign else max(0, self.total - 1) // self._page
        view = self._in_view()
        return [number for number in range(view.start, view.stop + 1) if number <= last]

    def _missing(self) -> int | None:
        return next((number for number in self._wanted() if number not in self._fresh), None)

    def _fill(self) -> None:
        if self._filling is None and self._fetch is not None and not self._stuck and self._missing() is not None:
            self._filling = asyncio.get_running_loop().create_task(self._fetch_missing())

    async def _fetch_missing(self) -> None:
        while (number := self._missing()) is not None:
            self._asked = number
            try:
                total, rows = await self._fetch(number * self._page, self._page)
            except (UserError, HostError, HostGone) as error:
                self._filling, self._asked, self._stuck = None, None, True
                self._failed(error)
                return
            self._take(number, total, list(rows))
        self._filling = self._asked = None

    def _take(self, number: int, total: int, rows: list[Row]) -> None:
        before = self._pages.get(number)
        if total != self.total or self._foreign:
            self._pages.clear()
            self._fresh.clear()
            self._foreign, self.total, before = False, total, None
            self._counted(total)
        self._pages[number] = rows
        self._fresh.add(number)
        while len(self._pages) > self._kept:
            dropped, _ = self._pages.popitem(last=False)
            self._fresh.discard(dropped)
        if rows != before:
            self._came(number * self._page, number * self._page + len(rows))
