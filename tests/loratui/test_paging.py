"""What is asked for when a long list is scrolled, and what is shown meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from engine.config import Problem, UserError
from loratui.paging import Pages

BAD = UserError(Problem(where="/x", expected="a folder", found="a file"))


class Host:
    """A list elsewhere whose replies come when the test says so."""

    def __init__(self, rows):
        self.rows = list(rows)
        self.asked: list[int] = []
        self.given_up: list[int] = []
        self._waiting: dict[int, asyncio.Future] = {}
        self.told: list = []
        self.pages: Pages[str] = Pages(
            lambda start, stop: self.told.append((start, stop)),
            lambda total: self.told.append(total),
            self.told.append,
            page=10,
            kept=4,
        )

    async def fetch(self, offset: int, limit: int):
        self.asked.append(offset)
        future = self._waiting[offset] = asyncio.get_running_loop().create_future()
        try:
            await future
        except asyncio.CancelledError:
            self.given_up.append(offset)
            raise
        return len(self.rows), self.rows[offset : offset + limit]

    async def answer(self, offset: int, error: Exception | None = None) -> None:
        """Let the reply to the page at `offset` arrive."""
        await settle()
        future = self._waiting.pop(offset)
        future.set_exception(error) if error else future.set_result(None)
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def host():
    host = Host(f"row {number}" for number in range(100))
    yield host
    host.pages.stop()


async def shown(host: Host, start: int = 0, stop: int = 8) -> None:
    """Show the list as far as the page after the view."""
    host.pages.show(host.fetch)
    await host.answer(0)
    host.pages.want(start, stop)
    await host.answer(10)


async def test_the_page_in_view_is_asked_for_first_and_then_the_one_after_it(host):
    host.pages.show(host.fetch)
    host.pages.want(0, 8)
    await settle()
    assert host.asked == [0] and host.pages.get(3) is None
    await host.answer(0)
    assert host.pages.get(3) == "row 3" and host.pages.total == 100
    assert host.told == [100, (0, 10)]
    assert host.asked == [0, 10]
    await host.answer(10)
    assert host.asked == [0, 10]


async def test_a_page_that_left_the_view_before_it_came_is_given_up(host):
    await shown(host)
    host.pages.want(40, 48)
    await settle()
    host.pages.want(80, 88)
    await settle()
    assert host.asked[2:] == [40, 80] and host.given_up == [40]
    await host.answer(80)
    assert host.pages.get(85) == "row 85" and host.pages.get(45) is None


async def test_the_page_after_the_view_is_not_given_up_when_the_view_moves_into_it(host):
    await shown(host)
    host.pages.want(9, 17)
    await settle()
    host.pages.want(12, 20)
    await host.answer(20)
    assert host.asked == [0, 10, 20] and host.given_up == []


async def test_a_view_across_two_pages_gets_both(host):
    await shown(host)
    host.pages.want(35, 43)
    await host.answer(30)
    await host.answer(40)
    assert [host.pages.get(index) for index in (35, 42)] == ["row 35", "row 42"]


async def test_nothing_is_asked_for_behind_the_end(host):
    await shown(host)
    host.pages.want(92, 100)
    await host.answer(90)
    assert max(host.asked) == 90


async def test_a_row_that_is_not_there_is_none_whatever_its_index(host):
    host.rows = host.rows[:3]
    host.pages.show(host.fetch)
    await host.answer(0)
    assert [host.pages.get(index) for index in (2, 3, 1000)] == ["row 2", None, None]


async def test_reloading_what_has_not_changed_says_nothing_and_hides_nothing(host):
    await shown(host)
    host.told.clear()
    host.pages.reload()
    await settle()
    assert host.pages.get(3) == "row 3"
    await host.answer(0)
    await host.answer(10)
    assert host.told == []


async def test_reloading_tells_of_the_pages_that_changed(host):
    await shown(host)
    host.told.clear()
    host.rows[12] = "another"
    host.pages.reload()
    await host.answer(0)
    await host.answer(10)
    assert host.told == [(10, 20)] and host.pages.get(12) == "another"


async def test_a_list_of_another_length_is_told_and_asked_for_again(host):
    await shown(host)
    host.told.clear()
    host.rows.insert(0, "new")
    host.pages.reload()
    await host.answer(0)
    assert host.told == [101, (0, 10)]
    assert host.pages.get(0) == "new" and host.pages.get(15) is None
    await host.answer(10)
    assert host.pages.get(15) == "row 14"


async def test_another_list_hides_the_rows_of_the_last_at_once(host):
    await shown(host)
    host.pages.show(host.fetch)
    assert host.pages.get(3) is None and host.pages.total is None


async def test_a_filtered_list_leaves_the_rows_standing_until_its_first_page_comes(host):
    await shown(host)
    host.told.clear()
    host.rows = [row for row in host.rows if row.endswith("7")] + ["row"] * 90
    host.pages.show(host.fetch, keep=True)
    await settle()
    assert host.pages.get(3) == "row 3"
    await host.answer(0)
    assert host.pages.get(0) == "row 7" and host.pages.get(13) is None
    assert host.told == [100, (0, 10)]


async def test_only_so_many_pages_are_kept_those_unused_for_longest_go(host):
    await shown(host)
    for start in (40, 60, 80):
        host.pages.want(start, start + 8)
        await host.answer(start)
    assert host.pages.get(0) is None and host.pages.get(85) == "row 85"
    host.pages.want(0, 8)
    await host.answer(0)
    assert host.pages.get(0) == "row 0"


async def test_after_a_refusal_nothing_is_asked_until_somebody_says_so(host):
    host.pages.show(host.fetch)
    await host.answer(0, BAD)
    assert host.told == [BAD]
    host.pages.want(0, 8)
    await settle()
    assert host.asked == [0]
    host.pages.reload()
    await host.answer(0)
    assert host.pages.get(0) == "row 0"


async def test_a_row_that_its_owner_changed_is_shown_without_asking(host):
    await shown(host)
    host.told.clear()
    host.pages.put(4, "mine")
    host.pages.put(95, "not there")
    assert host.pages.get(4) == "mine" and host.told == [(4, 5)] and host.asked == [0, 10]
