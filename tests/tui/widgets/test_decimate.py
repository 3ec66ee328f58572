"""Decimated series show what the points themselves would, however they came in."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from loratui.widgets.decimate import BLOCK, Decimated, extent

NAN, INF = math.nan, math.inf


def made(xs, ys) -> Decimated:
    series = Decimated()
    series.follow(xs, ys)
    return series


def slowly(xs, ys, start, stop, count):
    """The same by looking at every point."""
    edges = [start + (stop - start) / count * column for column in range(count)] + [INF]
    found = []
    for left, right in pairwise(edges):
        inside = [(x, y) for x, y in zip(xs, ys, strict=True) if left <= x < right and x <= stop]
        finite = [y for _, y in inside if math.isfinite(y)]
        low, high = min(finite, default=INF), max(finite, default=-INF)
        found.append((low, high, repr(inside[0]), repr(inside[-1])) if inside else None)
    return found


@pytest.mark.parametrize("points", [0, 1, 2, BLOCK, BLOCK + 1, 5000])
@pytest.mark.parametrize(("start", "stop"), [(0, 5000), (100, 101), (-50, 7000), (4000, 4900)])
def test_columns_are_those_of_all_points_in_them(points, start, stop):
    draw = random.Random(points)
    xs = sorted(draw.uniform(0, 5000) for _ in range(points))
    ys = [draw.choice([draw.gauss(0, 1)] * 20 + [NAN, INF, -INF]) for _ in xs]
    fast = made(xs, ys).columns(start, stop, 60)
    shown = [column and (column.low, column.high, repr(column.first), repr(column.last)) for column in fast]
    assert shown == slowly(xs, ys, start, stop, 60)


def test_appended_points_count_and_nothing_else_is_looked_at_again():
    class Watched(list):
        read = 0

        def __getitem__(self, key):
            Watched.read += len(range(*key.indices(len(self)))) if isinstance(key, slice) else 1
            return super().__getitem__(key)

    xs, ys = Watched(range(100_000)), Watched([1.0] * 100_000)
    series = made(xs, ys)
    xs.append(100_000)
    ys.append(7.0)
    Watched.read = 0
    series.follow(xs, ys)
    columns = series.columns(0, 100_000, 200)
    assert columns[-1].high == 7.0
    assert Watched.read < 200 * (2 * BLOCK + 60)


def test_other_points_than_before_are_taken_in_anew():
    xs, ys = [0, 1, 2], [1.0, NAN, NAN]
    series = made(xs, ys)
    assert series.gaps == [1, 2]
    series.follow(xs, ys)
    assert series.gaps == [1, 2]
    ys[2] = 5.0
    series.follow(xs, ys)
    assert series.gaps == [1]
    del xs[1:], ys[1:]
    series.follow(xs, ys)
    assert series.gaps == []
    series.follow([7], [INF])
    assert (series.gaps, series.columns(0, 10, 1)[0].first) == ([7], (7, INF))


def test_the_points_beside_a_range_are_those_that_its_ends_are_joined_to():
    series = made([0, 10, 20, 30], [1.0, 2.0, 3.0, 4.0])
    assert series.beside(10, 20) == ((0, 1.0), (30, 4.0))
    assert series.beside(11, 12) == ((10, 2.0), (20, 3.0))
    assert series.beside(-5, 99) == (None, None)


def test_an_extent_has_only_finite_values():
    assert extent([]) == (INF, -INF)
    assert extent([NAN, INF]) == (INF, -INF)
    assert extent([NAN, 2, -INF, 1]) == (1, 2)
    assert extent([1e308, 1e308]) == (1e308, 1e308)
