"""Axes have few round labels, keep still while data grows, and are not stretched by a spike."""

from __future__ import annotations

import math

import pytest

from loratui.widgets.axes import Scale, figure, held, label, log_ticks, step, ticks, x_range, y_range
from loratui.widgets.decimate import Extent


def extents(values) -> list[Extent]:
    return [Extent(value, value, (x, value), (x, value)) for x, value in enumerate(values)]


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.06, 0.14, ["0.06", "0.08", "0.10", "0.12", "0.14"]),
        (0, 1500, ["0", "500", "1000", "1500"]),
        (0, 30_000, ["0", "10k", "20k", "30k"]),
        (0, 1e-4, ["0", "5e-5", "1e-4"]),
        (-1, 1, ["-1.0", "-0.5", "0", "0.5", "1.0"]),
        (0.0985, 0.099, ["0.0986", "0.0988", "0.0990"]),
    ],
)
def test_labels_are_round_and_short(low, high, labels):
    assert [text for _, text in ticks(low, high, 4)] == labels


@pytest.mark.parametrize(("low", "high"), [(0, 0.19), (0.11, 0.28), (3, 4), (0.999, 1.001), (-7e-9, 3e12)])
@pytest.mark.parametrize("most", [1, 2, 5])
def test_an_axis_has_two_labels_at_least_and_they_differ(low, high, most):
    values = ticks(low, high, most)
    assert len({text for _, text in values}) == len(values) >= 2
    assert all(low - 1e-9 <= value <= high * (1 + 1e-9) for value, _ in values)


def test_steps_are_one_two_or_five():
    assert [step(span, 4) for span in (1, 4, 4.1, 9, 30, 0.004)] == pytest.approx([0.5, 1, 2, 5, 10, 0.001])


def test_a_logarithmic_axis_has_powers_of_ten_and_more_where_there_is_room():
    assert [text for _, text in log_ticks(0.02, 0.2, 4)] == ["0.02", "0.05", "0.1", "0.2"]
    assert [text for _, text in log_ticks(1e-12, 1, 4)] == ["1e-12", "1e-9", "1e-6", "0.001", "1"]


def test_values_are_read_to_four_digits():
    assert [figure(value) for value in (0.081234, 1e-4, 8.1e-05, 12345.6, math.nan, math.inf)] == [
        "0.08123", "0.0001", "8.1e-5", "1.235e4", "nan", "inf",
    ]  # fmt: skip
    assert label(0.1 + 0.2 - 0.3, 0.1) == "0"


def test_the_x_axis_of_a_growing_run_changes_seven_times_while_the_run_grows_tenfold():
    ranges = [x_range(0, last) for last in range(101, 1000)]
    assert len(set(ranges)) == 7
    assert all(start == 0 and stop >= last for (start, stop), last in zip(ranges, range(101, 1000), strict=True))


@pytest.mark.parametrize(("low", "high"), [(0, 0), (5, 5), (-3, -3), (1000, 1100), (1e6, 1e6), (0, 1e-5), (-5, 5)])
def test_every_x_range_holds_its_points_and_is_not_empty(low, high):
    start, stop = x_range(low, high)
    assert start <= low <= high <= stop
    assert start < stop


def test_a_rare_spike_does_not_flatten_the_rest():
    values = [0.1 + 0.001 * (x % 10) for x in range(100)]
    assert y_range(extents([9.0, 5.0, *values]), False, 4)[1] < 0.2
    assert y_range(extents([0.13, *values]), False, 4)[1] >= 0.13, "what is three times as far is no spike"
    assert y_range(extents([9.0] * 20 + values), False, 4)[1] >= 9, "what is often so is no spike"


def test_a_constant_has_room_around_it():
    for value in (0.0, 3.0, -3.0, 1e-4):
        for count in (1, 50):
            low, high = y_range(extents([value] * count), False, 4)
            assert low <= value <= high
            assert low < high


def test_a_logarithmic_range_is_of_what_is_positive():
    assert y_range(extents([0.0, -1.0, 0.03, 4.0]), True, 4) == pytest.approx((0.02, 5))
    low, high = y_range(extents([3.0]), True, 4)
    assert 0 < low <= 3 <= high
    assert y_range(extents([0.0, -1.0]), True, 4)[0] > 0
    assert y_range([None, Extent(math.inf, -math.inf, (0, math.nan), (0, math.nan))], False, 4) == (0.0, 1.0)


def test_a_range_is_held_until_the_data_leaves_it_or_fills_too_little_of_it():
    assert held((0.0, 1.0), (0.1, 0.9), False) == (0.0, 1.0)
    assert held((0.0, 1.0), (0.1, 1.1), False) == (0.1, 1.1)
    assert held((0.0, 1.0), (0.1, 0.2), False) == (0.1, 0.2)
    assert held((1e-6, 1.0), (1e-5, 0.1), True) == (1e-6, 1.0)
    assert held((-1.0, 1.0), (0.1, 0.9), True) == (0.1, 0.9)
    assert held(None, (0.0, 1.0), False) == (0.0, 1.0)


def test_the_corners_of_a_scale_are_the_corners_of_the_picture():
    scale = Scale(0, 100, 1, 100)
    assert (scale.column(0, 10), scale.column(99.9, 10), scale.rows(5)(100), scale.rows(5)(1)) == (0, 9, 0, 4)
    assert Scale(0, 1, 1, 100, log=True).rows(5)(10) == 2
    assert Scale(0, 1, 1, 100, log=True).rows(5)(0) > 4, "what is not positive lies below"
    assert scale.rows(5)(1e300) < 0
