"""A history in a line, and a bar in eighths."""

from __future__ import annotations

import math

import pytest
from rich.cells import cell_len

from loratui.widgets.sparkline import Sparkline, bar, levels


def test_levels_go_from_the_lowest_to_the_highest_value_or_between_limits():
    assert levels([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert levels([0, 50, 100], 0, 100) == "▁▅█"
    assert levels([-50, 150], 0, 100) == "▁█"
    assert levels([40, 60], 0, 100) == "▄▅"


def test_constants_gaps_and_nothing_are_shown_too():
    assert levels([3.0, 3.0]) == "▅▅"
    assert levels([1, math.nan, 2, math.inf, -math.inf]) == "▁ █  "
    assert levels([math.nan]) == " "
    assert levels([]) == ""


@pytest.mark.parametrize(
    ("fraction", "shown"),
    [
        (0, "░░░░"), (1, "████"), (0.5, "██░░"), (0.5 + 1 / 32, "██▏░"), (1 - 1 / 32, "███▉"), (1 / 64 - 1e-9, "░░░░"),
        (7, "████"), (-1, "░░░░"), (math.nan, "░░░░"), (math.inf, "░░░░"),
    ],
)  # fmt: skip
def test_a_bar_is_filled_in_eighths(fraction, shown):
    assert bar(fraction, 4).plain == shown


def test_a_bar_is_as_wide_as_asked_for():
    assert all(cell_len(bar(share / 97, width).plain) == width for share in range(98) for width in (0, 1, 7, 30))


async def test_a_history_shows_its_newest_values_at_the_right(staged):
    async with staged(Sparkline(), 8, 3) as stage:
        stage.widget.show([0, 100], 0, 100)
        await stage.settle()
        assert stage.screen() == ["      ▁█", "", ""]
        stage.widget.show([100] * 20 + [0] * 7, 0, 100)
        await stage.settle()
        assert stage.screen()[0] == "█▁▁▁▁▁▁▁"


async def test_only_the_bars_that_changed_are_painted(staged):
    async with staged(Sparkline(), 60, 3) as stage:
        stage.widget.show([50] * 60, 0, 100)
        await stage.settle()
        stage.cells()
        stage.widget.show([50] * 59 + [51], 0, 100)
        await stage.settle()
        assert stage.cells() == 0
        stage.widget.show([50] * 57 + [90, 50, 50], 0, 100)
        await stage.settle()
        assert stage.cells() == 1
