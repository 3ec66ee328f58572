"""A list of any length draws what is in view, and a move of the cursor costs two lines."""

from __future__ import annotations

import pytest
from rich.text import Text
from textual.events import MouseScrollDown

from loratui.widgets.virtual_list import VirtualList

MILLION = 1_000_000


class Names:
    """Rows that note which of them were drawn."""

    def __init__(self, prefix: str = "row") -> None:
        self.prefix = prefix
        self.drawn: list[int] = []

    def __call__(self, index: int, width: int) -> Text:
        self.drawn.append(index)
        return Text(f"{self.prefix} {index}")

    def take(self) -> list[int]:
        drawn, self.drawn = self.drawn, []
        return drawn


@pytest.fixture
def names() -> Names:
    return Names()


async def test_a_million_rows_draw_only_those_in_view(staged, names):
    async with staged(VirtualList(names), 40, 10) as stage:
        stage.widget.set_count(MILLION)
        await stage.settle()
        assert set(names.take()) == set(range(10))
        await stage.press("pagedown")
        assert stage.screen()[0].split() == ["▸", "row", "10"]
        assert set(names.take()) <= set(range(9, 20))
        await stage.press("G")
        assert stage.screen()[9].split()[:3] == ["▸", "row", str(MILLION - 1)]
        assert len(names.take()) <= 11
        await stage.press("g")
        assert len(names.take()) <= 2
        assert stage.screen()[0].split()[:3] == ["▸", "row", "0"]


async def test_a_move_within_the_view_repaints_two_lines(staged, names):
    async with staged(VirtualList(names), 40, 10) as stage:
        stage.widget.set_count(5)
        await stage.settle()
        stage.cells()
        await stage.press("j")
        assert {region.y for region in stage.regions} == {0, 1}
        assert stage.cells() <= 80
        assert [line.rstrip() for line in stage.screen()[:3]] == ["  row 0", "▸ row 1", "  row 2"]


async def test_a_changed_row_sends_only_the_cells_that_changed(staged):
    loss = ["0.081"] * 20
    async with staged(VirtualList(lambda index, width: Text(f"run {index:<10} {loss[index]}")), 40, 10) as stage:
        stage.widget.set_count(20)
        await stage.settle()
        stage.cells()
        loss[3] = "0.079"
        loss[15] = "0.001"
        stage.widget.refresh_rows(0, 20)
        await stage.settle()
        assert stage.cells() == 2
        assert stage.screen()[3].endswith("0.079")
        stage.widget.set_count(20)
        await stage.settle()
        assert stage.cells() == 0


async def test_rows_that_changed_out_of_view_are_drawn_anew_when_they_come_into_it(staged, names):
    async with staged(VirtualList(names), 40, 10) as stage:
        stage.widget.set_count(100)
        await stage.press("pagedown", "pageup")
        names.prefix = "new"
        stage.widget.refresh_rows(12, 13)
        await stage.press("pagedown")
        assert stage.screen()[2].strip() == "new 12"
        stage.widget.invalidate()
        await stage.settle()
        assert stage.screen()[3].strip() == "new 13"


async def test_the_cursor_is_clamped_and_scrolls_as_little_as_it_can(staged, names):
    async with staged(VirtualList(names), 40, 10) as stage:
        rows = stage.widget
        rows.set_count(50, cursor=99)
        await stage.settle()
        assert (rows.cursor, rows.in_view) == (49, range(40, 50))
        rows.cursor = 39
        assert rows.in_view == range(39, 49)
        rows.to(-5)
        assert (rows.cursor, rows.in_view) == (0, range(0, 10))
        rows.move(10)
        assert rows.in_view == range(1, 11)
        rows.set_count(3)
        await stage.settle()
        assert (rows.cursor, rows.in_view) == (2, range(0, 3))


async def test_it_says_where_the_cursor_went_what_was_chosen_and_what_is_in_view(staged, names):
    async with staged(VirtualList(names, header=lambda width: Text("name")), 40, 11) as stage:
        rows = stage.widget
        rows.set_count(100)
        await stage.settle()
        assert [said.rows for said in stage.of(VirtualList.Visible)] == [range(0, 10)]
        assert not stage.of(VirtualList.Moved), "an owner that sets the rows knows where the cursor is"
        await stage.press("down", "j", "k", "pagedown", "enter")
        moved = stage.of(VirtualList.Moved)
        assert moved[-1].index == 11
        assert {said.control for said in moved} == {rows}
        assert [said.index for said in stage.of(VirtualList.Chosen)] == [11]
        assert [said.rows for said in stage.of(VirtualList.Visible)] == [range(10, 20)]
        await stage.press("up", "end", "home")
        assert stage.of(VirtualList.Moved)[-1].index == 0


async def test_moves_that_nobody_has_heard_yet_are_told_as_one(staged, names):
    async with staged(VirtualList(names)) as stage:
        moved = [VirtualList.Moved(stage.widget, index) for index in (1, 2)]
        assert moved[1].can_replace(moved[0])
        assert not moved[1].can_replace(VirtualList.Moved(VirtualList(names), 1))
        assert not moved[1].can_replace(VirtualList.Chosen(stage.widget, 1))


async def test_the_header_stays_and_the_mouse_knows_of_it(staged, names):
    async with staged(VirtualList(names, header=lambda width: Text("name".rjust(width))), 40, 6) as stage:
        rows = stage.widget
        rows.set_count(3)
        await stage.settle()
        assert stage.screen()[0].endswith("name")
        await stage.pilot.click(rows, offset=(5, 3))
        assert rows.cursor == 2
        await stage.pilot.click(rows, offset=(5, 0))
        await stage.pilot.click(rows, offset=(5, 5))
        assert rows.cursor == 2
        await stage.pilot.click(rows, offset=(5, 1), times=2)
        assert [said.index for said in stage.of(VirtualList.Chosen)] == [0]
        rows.set_count(50, cursor=49)
        await stage.settle()
        assert stage.screen()[0].rstrip().endswith("name")
        assert stage.screen()[5].split()[:3] == ["▸", "row", "49"]


async def test_the_wheel_scrolls_and_leaves_the_cursor(staged, names):
    async with staged(VirtualList(names), 40, 10) as stage:
        rows = stage.widget
        rows.set_count(100)
        await stage.settle()
        await stage.pilot._post_mouse_events([MouseScrollDown], widget=rows, offset=(3, 3), button=0)
        await stage.settle()
        assert rows.cursor == 0
        assert rows.in_view.start > 0
        await stage.press("j")
        assert rows.cursor == 1
        assert rows.in_view.start == 1


async def test_marks_are_signs_and_go_with_the_rows_that_go(staged, names):
    async with staged(VirtualList(names), 40, 5) as stage:
        rows = stage.widget
        rows.set_count(5)
        await stage.settle()
        stage.cells()
        rows.toggle_mark()
        await stage.press("j")
        rows.toggle_mark()
        await stage.settle()
        assert [line.rstrip() for line in stage.screen()[:3]] == [" •row 0", "▸•row 1", "  row 2"]
        assert stage.cells() <= 80
        rows.set_count(1)
        assert rows.marked == {0}
        rows.toggle_mark()
        assert rows.marked == set()


async def test_an_empty_list_says_so_and_nothing_can_be_chosen(staged, names):
    async with staged(VirtualList(names, empty="no images [/foo]")) as stage:
        await stage.press("j", "pagedown", "G", "enter", "up")
        stage.widget.toggle_mark()
        assert stage.screen()[0].strip() == "no images [/foo]"
        assert not stage.of(VirtualList.Moved) + stage.of(VirtualList.Chosen)
        stage.widget.set_count(1)
        await stage.settle()
        assert stage.screen()[0].rstrip() == "▸ row 0"
        stage.widget.set_count(0)
        await stage.settle()
        assert stage.screen()[0].strip() == "no images [/foo]"


async def test_what_stands_in_a_row_is_never_markup_and_never_reaches_the_terminal_as_control(staged):
    rows = [
        Text("[/foo] [best quality]"),
        Text("日本語のとても長いキャプションがここにあります"),
        Text.assemble("a\x1b[2Jb\n", ("c\x01", "bold")),
        Text(""),
    ]
    async with staged(VirtualList(lambda index, width: rows[index]), 20, 5) as stage:
        stage.widget.set_count(4)
        await stage.settle()
        first, second, third, fourth, _ = stage.screen()
        assert first == "▸ [/foo] [best quali"
        assert second == "  日本語のとても長い"
        assert third == "  a·[2Jb·c·"
        assert fourth == ""


async def test_a_storm_of_resizes_leaves_the_cursor_in_view(staged, names):
    async with staged(VirtualList(names, header=lambda width: Text("name")), 80, 24) as stage:
        rows = stage.widget
        rows.set_count(MILLION, cursor=500_000)
        for size in [(60, 20), (250, 80), (1, 1), (20, 2), (80, 24)] * 3:
            await stage.pilot.resize_terminal(*size)
            assert rows.size.height < 2 or 500_000 in rows.in_view
        names.take()
        assert stage.screen()[0].strip() == "name"
        assert any(line.startswith("▸ row 500000") for line in stage.screen())
        assert len(names.take()) <= 24


async def test_the_cursor_looks_different_when_the_list_loses_focus(staged, names):
    async with staged(VirtualList(names), 40, 5) as stage:
        stage.widget.set_count(3)
        await stage.settle()
        focused = stage.app.screen._compositor.render_strips()[0]
        stage.app.set_focus(None)
        await stage.settle()
        blurred = stage.app.screen._compositor.render_strips()[0]
        assert focused.text == blurred.text
        assert focused != blurred
