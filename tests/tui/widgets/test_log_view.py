"""A log is followed until one scrolls up, keeps its place, and paints seldom."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from textual.events import MouseScrollDown, MouseScrollUp

from loratui.widgets import log_view
from loratui.widgets.log_lines import MOST_CHARACTERS, MOST_LINES, LogLines
from loratui.widgets.log_view import LogView, _about


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """The clock of the log view, which the test turns."""
    time = [1000.0]
    monkeypatch.setattr(log_view, "monotonic", lambda: time[0])
    return time


@pytest.fixture
def painted_at_once(monkeypatch) -> None:
    """What is appended is painted with the next turn of the event loop."""
    monkeypatch.setattr(log_view, "PERIOD", 0.0)


async def shown(stage) -> list[str]:
    """The screen once nothing waits to be painted."""
    async with asyncio.timeout(10):
        while stage.widget._timer is not None:
            await asyncio.sleep(0)
            await stage.pilot.pause()
    await stage.settle()
    return stage.screen()


def many(count: int, start: int = 0) -> str:
    return "\n".join(f"line {number}" for number in range(start, start + count))


async def test_the_end_is_followed(staged, painted_at_once):
    async with staged(LogView(), 30, 5) as stage:
        stage.widget.append("first [/foo]")
        assert await shown(stage) == ["first [/foo]", "", "", "", ""]
        stage.widget.append(many(100))
        assert await shown(stage) == [f"line {number}" for number in range(95, 100)]
        assert stage.widget.following


async def test_scrolling_up_stops_following_and_says_how_much_is_new(staged, painted_at_once):
    async with staged(LogView(), 30, 5) as stage:
        log = stage.widget
        log.append(many(100))
        await shown(stage)
        await stage.press("k")
        assert not log.following
        before = stage.screen()
        assert before[-1] == "line 98"
        log.append("one more")
        assert await shown(stage) == before
        assert log.border_subtitle == "1 new line"
        log.append(many(30))
        assert await shown(stage) == before
        assert log.border_subtitle == "20+ new lines"
        await stage.press("G")
        assert log.following
        assert (log.border_subtitle or "") == ""
        assert stage.screen()[-1] == "line 29"


async def test_scrolling_down_to_the_end_follows_again(staged, painted_at_once):
    async with staged(LogView(), 30, 5) as stage:
        stage.widget.append(many(20))
        await shown(stage)
        await stage.press("pageup", "up")
        assert stage.screen()[0] == "line 9"
        await stage.press("down", "pagedown")
        assert stage.widget.following
        await stage.press("home")
        assert stage.screen()[0] == "line 0"
        assert not stage.widget.following


async def test_the_place_one_reads_at_stays_while_old_lines_are_dropped(staged, painted_at_once):
    async with staged(LogView(), 30, 5) as stage:
        log = stage.widget
        log.append(many(MOST_LINES))
        await shown(stage)
        await stage.press("pageup")
        before = stage.screen()
        log.append(many(MOST_LINES // 2, MOST_LINES))
        assert await shown(stage) == before
        log.append(many(MOST_LINES, MOST_LINES + MOST_LINES // 2))
        assert (await shown(stage))[0] == f"line {MOST_LINES + MOST_LINES // 2}", "the oldest that is left"


async def test_a_flood_of_lines_is_painted_once_a_period(staged, now, monkeypatch):
    async with staged(LogView(), 30, 5) as stage:
        log = stage.widget
        due, painted = [], []
        monkeypatch.setattr(
            log, "set_timer", lambda delay, then: due.append((now[0] + delay, then)) or SimpleNamespace(stop=due.clear)
        )
        monkeypatch.setattr(log, "repaint", lambda: painted.append(now[0]))
        for _ in range(200):
            now[0] += 0.01
            log.append("a line")
            assert len(due) == 1
            if due[0][0] <= now[0]:
                due[0][1]()
                assert not due
        assert 8 <= len(painted) <= 9, "four times a second"
        now[0] += 60
        log.append("a line after a pause")
        assert due[0][0] - now[0] < 0.1, "is not kept waiting"
        log._timer = None


async def test_nothing_waits_when_nothing_can_change(staged, painted_at_once):
    async with staged(LogView(), 30, 5) as stage:
        log = stage.widget
        assert log._timer is None
        log.append(many(60))
        assert log._timer is not None
        await shown(stage)
        assert log._timer is None
        await stage.press("k")
        log.append(many(60))
        await shown(stage)
        log.append("one of those that are new already")
        assert log._timer is None


async def test_a_new_line_paints_no_line_that_looks_the_same(staged, painted_at_once):
    async with staged(LogView(), 30, 10) as stage:
        stage.widget.append("a\nb\nc")
        await shown(stage)
        stage.cells()
        stage.widget.append("d")
        await shown(stage)
        assert stage.cells() == 1


async def test_a_search_goes_upwards_from_the_end_and_round(staged, painted_at_once):
    async with staged(LogView(), 40, 5) as stage:
        log = stage.widget
        log.append("\n".join(f"step {number} {'Loss' if number % 40 == 0 else 'ok'}" for number in range(200)))
        await shown(stage)
        assert log.find("loss") == 5
        await stage.settle()
        assert log.border_subtitle == "hit 5"
        assert "step 160 Loss" in stage.screen()
        await stage.press("N")
        assert "step 120 Loss" in stage.screen()
        await stage.press("n", "n")
        assert "step 0 Loss" in stage.screen()
        assert log.border_subtitle == "hit 1"
        await stage.press("N")
        assert "step 160 Loss" in stage.screen()
        assert not log.following
        log.append("the loss is nan")
        await stage.press("n")
        assert "the loss is nan" in await shown(stage)
        assert log.find("LOSS") == 0
        assert log.find("[/foo](") == 0
        assert log.find("") == 0
        await stage.press("n", "N")


async def test_what_is_found_stands_out(staged, painted_at_once):
    async with staged(LogView(), 40, 5) as stage:
        stage.widget.append("a cat and a cat\na dog\nanother cat")
        await shown(stage)
        stage.widget.find("cat")
        await stage.settle()
        first, _, third, *_ = stage.app.screen._compositor.render_strips()
        assert [text for text, style, _ in first if style.underline] == ["cat", "cat"]
        assert [text for text, style, _ in third if style.reverse] == ["cat"]


async def test_the_slash_asks_the_owner_for_a_text(staged):
    async with staged(LogView()) as stage:
        await stage.press("slash")
        assert [said.control for said in stage.of(LogView.Search)] == [stage.widget]


async def test_long_lines_can_be_read_to_their_end(staged, painted_at_once):
    async with staged(LogView(), 20, 3) as stage:
        stage.widget.append("/a/very/long/path/to/日本語/some/file.py: not found")
        assert (await shown(stage))[0] == "/a/very/long/path/to"
        await stage.press("l", "right")
        assert stage.screen()[0] == "/file.py: not found"
        await stage.press("h", "left", "left")
        assert stage.screen()[0] == "/a/very/long/path/to"


async def test_a_cleared_log_follows_anew(staged, painted_at_once):
    async with staged(LogView(), 20, 3) as stage:
        stage.widget.append(many(50))
        await shown(stage)
        await stage.press("g")
        stage.widget.clear()
        assert await shown(stage) == ["", "", ""]
        stage.widget.append("new")
        assert (await shown(stage))[0] == "new"


async def test_lines_that_come_before_the_view_is_there_are_shown(staged):
    log = LogView()
    log.append(many(3))
    async with staged(log, 20, 5) as stage:
        assert stage.screen()[:3] == ["line 0", "line 1", "line 2"]


async def test_a_storm_of_resizes_keeps_the_end_in_view(staged, painted_at_once):
    async with staged(LogView(), 30, 5) as stage:
        stage.widget.append(many(100))
        for size in [(60, 20), (1, 1), (10, 30), (250, 80), (30, 5)]:
            await stage.pilot.resize_terminal(*size)
        assert (await shown(stage))[-1] == "line 99"


async def test_the_wheel_scrolls(staged, painted_at_once):
    async with staged(LogView(), 30, 5) as stage:
        stage.widget.append(many(50))
        await shown(stage)
        await stage.pilot._post_mouse_events([MouseScrollUp], widget=stage.widget, button=0)
        assert (await shown(stage))[0] == "line 42"
        await stage.pilot._post_mouse_events([MouseScrollDown], widget=stage.widget, button=0)
        assert (await shown(stage))[0] == "line 45"
        assert stage.widget.following


def test_colours_control_characters_and_earlier_states_of_a_progress_bar_are_taken_out():
    lines = LogLines()
    lines.append(
        "\x1b[1;31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07\x1b(B\n 10%|█ |\r 20%|██|\r\ntab\tbed\x07\r\n"
    )
    assert [lines[number] for number in range(lines.end)] == ["red link", " 20%|██|", "tab bed·"]
    lines.append("x" * (2 * MOST_CHARACTERS))
    assert len(lines[lines.end - 1]) == MOST_CHARACTERS


def test_old_lines_are_dropped_with_their_hits_and_numbers_go_on():
    lines = LogLines()
    lines.search("7")
    lines.append("\n".join(str(number) for number in range(MOST_LINES + 100)))
    assert (lines.first, lines.end) == (100, MOST_LINES + 100)
    assert lines[100] == "100"
    assert lines.hits[0] == 107
    assert list(lines.found(177)) == [(1, 2), (2, 3)]


def test_letters_that_grow_when_made_small_do_not_shift_what_is_found():
    lines = LogLines()
    lines.append("İİ loss")
    lines.search("loss")
    assert list(lines.found(0)) == [(3, 7)]


def test_counts_are_rounder_the_larger_they_are():
    assert [_about(count) for count in (1, 9, 10, 49, 99, 100, 12_345)] == [
        "1", "9", "10+", "20+", "50+", "100+", "10,000+",
    ]  # fmt: skip
