"""The grid of samples: its window, its cursor, what it says, and that only what is new is read and painted."""

from __future__ import annotations

import threading

import pytest
from PIL import Image
from textual.geometry import Size

from loratui import picture_files
from loratui.widgets.sample_grid import SampleGrid, window

PROMPTS = ["a cat [/foo]", "[best quality] a dog"]


@pytest.fixture(autouse=True)
def coloured(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def samples(tmp_path):
    """`samples(0, 100)`: what `show` takes, with a picture file for each of these steps and both prompts."""

    def make(*steps: int, prompts=PROMPTS):
        pictures = {(step, index): tmp_path / f"{step}-{index}.png" for step in steps for index in range(len(prompts))}
        for path in pictures.values():
            Image.new("RGB", (64, 64), "white").save(path)
        return list(steps), prompts, pictures

    return make


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that were read."""
    names, read = [], picture_files.read_picture
    monkeypatch.setattr(picture_files, "read_picture", lambda path, box: names.append(path.stem) or read(path, box))
    return names


async def settle(stage) -> None:
    """Until the thumbnails in view are there."""
    await stage.app.workers.wait_for_complete()
    await stage.pilot.pause()


def said(stage, kind=SampleGrid.Selected) -> list[tuple]:
    return [(message.step, message.prompt_index, message.path and message.path.stem) for message in stage.of(kind)]


async def test_steps_stand_above_prompts_beside_and_neither_is_markup(staged, samples):
    async with staged(SampleGrid(), 30, 11) as stage:
        stage.widget.show(*samples(0, 100))
        await settle(stage)
        thumbs = [" ▀▀▀▀▀▀▀▀ ▐▀▀▀▀▀▀▀▀▌"] * 4
        others = [" ▀▀▀▀▀▀▀▀  ▀▀▀▀▀▀▀▀"] * 4
        assert stage.screen() == [" 0        ▸100", "▸a cat [/foo]", *thumbs, " [best quality] a dog", *others]


async def test_an_empty_grid_says_so(staged, samples):
    async with staged(SampleGrid(), 30, 5) as stage:
        assert stage.screen()[2].strip() == "no samples yet"
        await stage.press("left", "down", "end", "enter")
        stage.widget.select(5)
        stage.widget.show(*samples(0))
        await settle(stage)
        stage.widget.show([], [], {})
        await settle(stage)
        assert stage.screen()[2].strip() == "no samples yet"


async def test_keys_move_the_cursor_and_say_where_it_is(staged, samples):
    async with staged(SampleGrid(), 40, 11) as stage:
        stage.widget.show(*samples(0, 100, 200))
        for key, cell in [
            ("left", (100, 0, "100-0")),
            ("h", (0, 0, "0-0")),
            ("j", (0, 1, "0-1")),
            ("l", (100, 1, "100-1")),
            ("k", (100, 0, "100-0")),
            ("end", (200, 0, "200-0")),
            ("home", (0, 0, "0-0")),
            ("down", (0, 1, "0-1")),
            ("right", (100, 1, "100-1")),
            ("up", (100, 0, "100-0")),
        ]:
            await stage.press(key)
            assert said(stage) == [cell], key
        await stage.press("up")
        assert said(stage) == [], "at the edge nothing moves"
        await stage.press("enter")
        assert said(stage, SampleGrid.Opened) == [(100, 0, "100-0")]


async def test_a_cell_without_a_picture_is_selected_but_not_opened(staged, samples):
    steps, prompts, pictures = samples(0, 100)
    del pictures[(0, 0)]
    async with staged(SampleGrid(), 40, 11) as stage:
        stage.widget.show(steps, prompts, pictures)
        await stage.press("left", "enter")
        await settle(stage)
        assert said(stage) == [(0, 0, None)]
        assert said(stage, SampleGrid.Opened) == []
        assert "·" in stage.screen()[3]


async def test_select_goes_to_the_nearest_step_and_says_nothing(staged, samples):
    async with staged(SampleGrid(), 60, 11) as stage:
        stage.widget.show(*samples(0, 100, 200))
        for step, header in [(149, " 0        ▸100"), (-5, "▸0"), (999, "▸200"), (50, "▸0")]:
            stage.widget.select(step)
            await settle(stage)
            assert header in stage.screen()[0]
        assert said(stage) == []


async def test_the_newest_step_stays_selected_as_steps_arrive_and_an_older_one_too(staged, samples):
    async with staged(SampleGrid(), 60, 11) as stage:
        stage.widget.show(*samples(0))
        stage.widget.show(*samples(0, 100))
        await settle(stage)
        assert "▸100" in stage.screen()[0]
        await stage.press("left")
        stage.widget.show(*samples(0, 100, 200))
        await settle(stage)
        assert stage.screen()[0].startswith("▸0")
        assert said(stage) == [(0, 0, "0-0")]


async def test_the_window_follows_the_cursor_and_tells_that_there_is_more(staged, samples):
    async with staged(SampleGrid(), 20, 11) as stage:
        stage.widget.show(*samples(0, 100, 200, 300))
        await settle(stage)
        assert stage.screen()[0] == " ← 200    ▸300"
        await stage.press("left", "left")
        assert stage.screen()[0] == "▸← 100     200 →"
        await stage.press("home")
        assert stage.screen()[0] == "▸0         100 →"


async def test_prompts_that_do_not_fit_are_scrolled_to(staged, samples):
    async with staged(SampleGrid(), 24, 11) as stage:
        stage.widget.show(*samples(0, prompts=["one", "two", "three", "four"]))
        await settle(stage)
        assert [stage.screen()[line] for line in (1, 6)] == ["▸one", " ↓ two"]
        await stage.press("down", "down")
        assert [stage.screen()[line] for line in (1, 6)] == [" ↑ two", "▸↓ three"]


async def test_long_prompts_are_cut_and_what_steers_terminals_is_not_passed_on(staged, samples):
    async with staged(SampleGrid(), 20, 8) as stage:
        stage.widget.show(*samples(0, prompts=["a very long prompt, \x1b[31mred"]))
        assert stage.screen()[1] == "▸a very long prompt…"
        await stage.pilot.resize_terminal(40, 8)
        await settle(stage)
        assert stage.screen()[1] == "▸a very long prompt, ·[31mred"


async def test_only_what_is_in_view_is_read_and_the_newest_first(staged, samples, reads):
    async with staged(SampleGrid(), 20, 11) as stage:
        stage.widget.show(*samples(*range(0, 1000, 100)))
        await settle(stage)
        assert reads == ["900-0", "900-1", "800-0", "800-1"]
        await stage.press("left", "left")
        await settle(stage)
        assert reads[4:] == ["700-0", "700-1"]
        await stage.press("end")
        await settle(stage)
        assert reads[6:] == [], "what was read is remembered"


async def test_a_new_step_reads_and_paints_only_its_own_column(staged, samples, reads):
    async with staged(SampleGrid(), 60, 11) as stage:
        stage.widget.show(*samples(0, 100))
        await stage.press("left")
        await settle(stage)
        reads.clear()
        stage.cells()
        stage.widget.show(*samples(0, 100, 200))
        await settle(stage)
        assert reads == ["200-0", "200-1"]
        column = {(x, y) for x in range(20, 30) for y in range(11)}
        painted = {(x, y) for region in stage.regions for y in region.line_range for x in range(*region.column_span)}
        assert painted and painted <= column


async def test_the_same_samples_again_cost_nothing(staged, samples, reads):
    shown = samples(0, 100)
    async with staged(SampleGrid(), 60, 11) as stage:
        stage.widget.show(*shown)
        await settle(stage)
        reads.clear()
        stage.cells()
        stage.widget.show(*shown)
        await settle(stage)
        assert (reads, stage.cells()) == ([], 0)


async def test_a_move_of_the_cursor_paints_bars_and_labels_only(staged, samples):
    async with staged(SampleGrid(), 60, 11) as stage:
        stage.widget.show(*samples(0, 100))
        await settle(stage)
        stage.cells()
        await stage.press("left")
        assert {region.y for region in stage.regions} == {0, 2, 3, 4, 5}, "the steps, and one row of thumbnails"
        assert max(region.right for region in stage.regions) <= 20


async def test_a_file_that_cannot_be_shown_has_a_sign_and_is_tried_again(staged, samples, reads):
    steps, prompts, pictures = samples(0)
    good = pictures[(0, 0)].read_bytes()
    pictures[(0, 0)].write_bytes(good[:50])
    async with staged(SampleGrid(), 24, 11) as stage:
        stage.widget.show(steps, prompts, pictures)
        await settle(stage)
        assert stage.screen()[3].strip("▐▌ ") == "✗"
        pictures[(0, 0)].write_bytes(good)
        stage.widget.show(steps, prompts, pictures)
        await settle(stage)
        assert stage.screen()[4] == "▐▀▀▀▀▀▀▀▀▌"
        assert reads == ["0-0", "0-1", "0-0"]


async def test_a_cell_that_gets_another_file_is_painted_again(staged, samples, tmp_path, reads):
    steps, prompts, pictures = samples(0)
    async with staged(SampleGrid(), 24, 11) as stage:
        stage.widget.show(steps, prompts, pictures)
        await settle(stage)
        other = tmp_path / "other.png"
        Image.new("RGB", (64, 32), "red").save(other)
        stage.widget.show(steps, prompts, pictures | {(0, 1): other})
        await settle(stage)
        assert reads[2:] == ["other"]
        assert [line.strip() for line in stage.screen()[7:11]] == ["", "▀▀▀▀▀▀▀▀", "▀▀▀▀▀▀▀▀", ""]


async def test_a_picture_that_left_while_it_was_read_is_thrown_away(staged, samples, monkeypatch):
    begun, go_on, read = threading.Event(), threading.Event(), picture_files.read_picture

    def slowly(path, box):
        begun.set()
        assert go_on.wait(20)
        return read(path, box)

    monkeypatch.setattr(picture_files, "read_picture", slowly)
    async with staged(SampleGrid(), 24, 11) as stage:
        stage.widget.show(*samples(0, prompts=["one"]))
        stage.widget.show([], [], {})
        go_on.set()
        await settle(stage)
        assert "no samples yet" in "\n".join(stage.screen())


async def test_a_click_selects_and_two_open(staged, samples):
    async with staged(SampleGrid(), 60, 11) as stage:
        stage.widget.show(*samples(0, 100))
        await settle(stage)
        await stage.pilot.click(stage.widget, offset=(5, 8))
        assert said(stage) == [(0, 1, "0-1")]
        await stage.pilot.click(stage.widget, offset=(5, 8), times=2)
        assert said(stage, SampleGrid.Opened) == [(0, 1, "0-1")]
        await stage.pilot.click(stage.widget, offset=(45, 8))
        await stage.pilot.click(stage.widget, offset=(5, 0))
        assert said(stage) == []


@pytest.mark.parametrize(
    ("size", "steps", "prompts", "rows", "across", "down"),
    [
        ((60, 11), 20, 2, 4, 6, 2),  # the least: 8×4 cells
        ((70, 30), 20, 3, 8, 3, 3),  # 64×64 px at 16×8 cells
        ((200, 60), 20, 1, 16, 5, 1),  # the most
        ((40, 60), 20, 1, 9, 2, 1),  # two steps beside each other, at least
        ((8, 3), 20, 4, 4, 1, 1),  # too small for anything: one cell, cut
    ],
)
def test_cells_are_as_large_as_show_all_prompts_and_two_steps(size, steps, prompts, rows, across, down):
    part = window(Size(*size), steps, prompts, (steps - 1, 0), None)
    assert (part.rows, len(part.columns), len(part.prompts)) == (rows, across, down)
    assert part.columns.stop == steps


async def test_without_colours_thumbnails_are_weights(staged, samples, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    async with staged(SampleGrid(), 24, 6) as stage:
        stage.widget.show(*samples(0, prompts=["one"]))
        await settle(stage)
        assert stage.screen()[2:6] == ["▐@@@@@@@@▌"] * 4


async def test_losing_the_focus_shows_on_the_labels_of_the_selected_cell_only(staged, samples):
    async with staged(SampleGrid(), 60, 11) as stage:
        stage.widget.show(*samples(0, 100))
        await settle(stage)

        def looks():
            header, *_ = stage.app.screen._compositor.render_strips()
            return [segment.style.color for segment in header if segment.text.strip()]

        older, newest = looks()
        stage.app.screen.set_focus(None)
        await settle(stage)
        assert looks()[0] == older
        assert looks()[1] != newest
