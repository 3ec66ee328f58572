"""A chart shows its series, says where its cursor is, and sends the cells that changed."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from loratui.widgets.line_chart import LineChart, Marker, Series

NAN = math.nan


def loss(xs, style: str = "primary", name: str = "loss", kind="line") -> Series:
    return Series(name, list(xs), [0.1 + 0.05 * math.sin(x / 9) for x in xs], style, kind)


async def test_it_shows_names_labels_markers_and_a_line(staged):
    async with staged(LineChart(), 60, 12) as stage:
        chart = stage.widget
        chart.show(
            [loss(range(100)), loss(range(0, 100, 20), "accent", "validation [/foo]", "dots")],
            [Marker(20, "s", "sample"), Marker(80, "c", "checkpoint")],
            x_range=(0, 100),
        )
        await stage.settle()
        legend, *picture, markers, axis = stage.screen()
        assert legend == "── loss  ·· validation [/foo]"
        assert [line[:5].strip() for line in picture if line[:5].strip()] == ["0.15", "0.10", "0.05"]
        assert (markers.index("s"), markers.index("c")) == (6 + 54 * 20 // 100, 6 + 54 * 80 // 100)
        assert axis.split() == ["0", "50", "100"]
        assert all(line[6:].strip() for line in picture)


async def test_a_point_that_is_added_costs_a_few_cells(staged):
    draw = random.Random(3)
    async with staged(LineChart(), 120, 40) as stage:
        chart = stage.widget
        xs, ys = list(range(500)), [draw.gauss(0.1, 0.01) for _ in range(500)]
        series = [Series("train", xs, ys, "primary")]
        chart.show(series, x_range=(0, 1000))
        await stage.settle()
        stage.cells()
        spent = []
        for x in range(500, 520):
            xs.append(x)
            ys.append(min(max(ys), max(min(ys), draw.gauss(0.1, 0.01))))
            chart.show(series, x_range=(0, 1000))
            await stage.settle()
            assert None not in stage.regions
            spent.append(stage.cells())
        assert sum(spent) > 0
        assert max(spent) <= 40, "the height of the chart in one column"


async def test_the_same_picture_again_costs_nothing(staged):
    async with staged(LineChart(), 60, 12) as stage:
        stage.widget.show([loss(range(100))])
        await stage.settle()
        stage.cells()
        stage.widget.show([loss(range(100))])
        stage.widget.log_y = False
        stage.widget.cursor_x = None
        await stage.settle()
        assert stage.cells() == 0


async def test_what_was_painted_piece_by_piece_is_what_the_chart_shows(staged):
    draw = random.Random(5)
    xs, ys = [], []
    async with staged(LineChart(), 60, 14) as stage:
        chart = stage.widget
        for x in range(40):
            xs.append(x)
            ys.append(draw.choice([draw.gauss(1, 0.1)] * 30 + [NAN, 50.0]))
            chart.show([Series("a", xs, ys, "primary")], [Marker(9, "s")][: x > 20])
            chart.cursor_x = draw.choice([None, None, x])
            await stage.settle()
            assert stage.screen() == [chart.line(y).text.rstrip() for y in range(14)]


async def test_the_cursor_goes_from_point_to_point_and_says_so(staged):
    async with staged(LineChart(), 106, 20) as stage:
        chart = stage.widget
        chart.show([loss(range(0, 1000, 10))], [Marker(505, "s", "sample p0")], x_range=(0, 1000))
        await stage.press("left")
        assert chart.cursor_x == 990
        assert stage.screen()[0].startswith("990  ── loss 0.")
        assert "▏" in stage.screen()[5]
        await stage.press("h")
        assert chart.cursor_x == 980
        await stage.press("H", "shift+left")
        assert chart.cursor_x == 780
        await stage.press("home", "left")
        assert chart.cursor_x == 0
        await stage.press("end", "right", "L")
        assert chart.cursor_x == 990
        assert [said.x for said in stage.of(LineChart.Inspected)] == [990, 980, 880, 780, 0, 990]
        chart.cursor_x = 500
        await stage.settle()
        await stage.press("left", "right")
        assert chart.cursor_x == 505, "a marker is what there is to look at"
        assert stage.screen()[0].rstrip().endswith("s sample p0")
        stage.of(LineChart.Inspected)
        chart.cursor_x = None
        await stage.settle()
        assert not stage.of(LineChart.Inspected), "who sets it knows"
        assert stage.screen()[0] == "── loss"


@pytest.mark.parametrize("width", [30, 47, 61, 106])
async def test_every_press_of_a_key_goes_on_until_there_is_nothing_more(staged, width):
    draw = random.Random(width)
    xs = sorted({round(draw.uniform(0, 7), 2) for _ in range(60)})
    async with staged(LineChart(), width, 10) as stage:
        chart = stage.widget
        chart.show([Series("loss", xs, [1.0] * len(xs), "primary")], x_range=(0, 7))
        await stage.settle()
        for forth, back in [("left", "right"), ("far_left", "far_right")]:
            for name, end, sense in [(forth, "last", -1), (back, "first", 1)]:
                getattr(chart, f"action_{end}")()
                way = [chart.cursor_x]
                for _ in range(width):
                    getattr(chart, f"action_{name}")()
                    way.append(chart.cursor_x)
                stopped = way.index(way[-1])
                assert all((after - before) * sense > 0 for before, after in pairwise(way[: stopped + 1]))
                getattr(chart, f"action_{'first' if end == 'last' else 'last'}")()
                assert chart.cursor_x == way[-1], "it ends at the other end"


async def test_a_click_puts_the_cursor_there(staged):
    async with staged(LineChart(), 106, 20) as stage:
        stage.widget.show([loss(range(0, 1001, 10))], x_range=(0, 1000))
        await stage.settle()
        await stage.pilot.click(stage.widget, offset=(6 + 25, 8))
        assert stage.widget.cursor_x == 250
        assert [said.control for said in stage.of(LineChart.Inspected)] == [stage.widget]


async def test_inspections_that_nobody_has_heard_yet_are_told_as_one(staged):
    async with staged(LineChart()) as stage:
        first, second = (LineChart.Inspected(stage.widget, x) for x in (1, 2))
        assert second.can_replace(first)
        assert not second.can_replace(LineChart.Inspected(LineChart(), 1))


async def test_values_that_are_not_finite_are_marked_and_left_out(staged):
    async with staged(LineChart(), 56, 10) as stage:
        ys = [1.0, 2.0, NAN, 2.0, 1.0, math.inf]
        stage.widget.show([Series("loss", range(6), ys, "primary")], x_range=(0, 10))
        await stage.settle()
        markers = stage.screen()[-2]
        assert [cell for cell, sign in enumerate(markers) if sign == "!"] == [6 + 10, 6 + 25]
        stage.widget.cursor_x = 2
        await stage.settle()
        assert stage.screen()[0] == "2  ── loss nan"


async def test_a_spike_is_cut_off_with_a_sign(staged):
    async with staged(LineChart(), 56, 10) as stage:
        ys = [500.0] + [1.0 + 0.1 * (x % 3) for x in range(99)]
        stage.widget.show([Series("loss", range(100), ys, "primary")])
        await stage.settle()
        assert stage.screen()[1][6] == "▲"
        assert "500" not in "".join(line[:6] for line in stage.screen()[:-1])


async def test_a_logarithmic_axis_shows_what_is_small(staged):
    async with staged(LineChart(), 56, 14) as stage:
        stage.widget.show([Series("loss", range(9), [10.0**-x for x in range(9)], "primary")], x_range=(0, 8))
        await stage.settle()
        assert stage.screen()[1][:5].strip() == "1.0"
        stage.widget.log_y = True
        await stage.settle()
        labels = [line[:6].strip() for line in stage.screen()[1:-1]]
        assert [text for text in labels if text] == ["1", "0.01", "1e-4", "1e-6", "1e-8"]
        assert all(line[6:].strip() for line in stage.screen()[1:-1])


ODD = [
    [],
    [Series("none", [], [], "primary")],
    [Series("one", [5], [0.5], "primary")],
    [Series("one", [0], [0.0], "no-such-colour", "dots")],
    [Series("nan", [1], [NAN], "primary")],
    [Series("constant", range(50), [3.0] * 50, "primary", "steps")],
    [Series("negative", range(50), [-1e300] * 50, "primary")],
    [Series("both", range(3), [math.inf, -math.inf, NAN], "primary"), Series("日本\x1b[2J\n", [1], [1], "accent")],
]


@pytest.mark.parametrize("log_y", [False, True])
async def test_any_data_at_any_size_is_shown_without_a_fault(staged, log_y):
    async with staged(LineChart("nothing yet"), 80, 24) as stage:
        stage.widget.log_y = log_y
        for size in [(1, 1), (3, 2), (12, 4), (20, 5), (200, 60), (7, 3), (80, 24)]:
            await stage.pilot.resize_terminal(*size)
            for series in ODD:
                stage.widget.cursor_x = None
                stage.widget.show(series, [Marker(1, "s", "[/foo]")])
                stage.widget.action_left()
                stage.widget.action_far_left()
                assert len(stage.screen()) == size[1]
                stage.widget.action_last()
                shown = stage.screen()
                assert "\x1b" not in "".join(shown)
                if size == (80, 24):
                    assert (series[0].name if series and len(series[0].xs) else "nothing yet") in "".join(shown)


async def test_lines_of_a_kind_differ_by_sign_as_well_as_colour(staged):
    async with staged(LineChart(), 80, 10) as stage:
        stage.widget.show([loss(range(50), "primary", name) for name in ("a", "b", "c")])
        await stage.settle()
        assert stage.screen()[0] == "── a  ╌╌ b  ┄┄ c"


async def test_where_names_have_no_room_the_values_still_have(staged):
    async with staged(LineChart(), 40, 10) as stage:
        stage.widget.show(
            [loss(range(50), "primary", "a very long name of a run"), loss(range(50), "accent", "another")]
        )
        await stage.press("left")
        assert stage.screen()[0] == "49  ── 0.06281  ╌╌ 0.06281"


async def test_a_theme_changes_the_colours_of_the_series(staged):
    async with staged(LineChart(), 40, 10) as stage:
        stage.widget.show([loss(range(50))])
        await stage.settle()
        before = stage.app.screen._compositor.render_strips()
        stage.app.theme = "nord"
        await stage.settle()
        await stage.settle()
        after = stage.app.screen._compositor.render_strips()
        assert [strip.text for strip in before] == [strip.text for strip in after]
        assert {style.color for _, style, _ in before[0]} != {style.color for _, style, _ in after[0]}
