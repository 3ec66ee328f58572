"""Braille drawings are compared as pictures: a test shows what it expects."""

from __future__ import annotations

import math

from loratui.widgets.braille import CROSS, DASHED, EMPTY, Canvas, draw_dots, draw_line, draw_steps
from loratui.widgets.decimate import Decimated

NAN = math.nan


def drawn(xs, ys, draw, width: int = 8, height: int = 2, start: float | None = None, **options) -> list[str]:
    """A series drawn so that x and y are pixels, y upwards."""
    canvas = Canvas(width, height)
    series = Decimated()
    series.follow(xs, ys)
    start = 0 if start is None else start
    columns = series.columns(start, start + canvas.columns - 1e-9, canvas.columns)

    def row(y):
        return canvas.lines - 1 - round(y)

    ends = [
        point and (math.floor(point[0] - start), row(point[1])) for point in series.beside(start, start + 2 * width)
    ]
    if draw is draw_line:
        options["beside"] = ends
    elif draw is draw_steps:
        options["before"] = ends[0]
    draw(canvas, columns, row, 0, **options)
    return [text for text, _ in canvas.rows()]


def test_neighbouring_points_are_joined():
    assert drawn([0, 15], [0, 7], draw_line) == ["    ⣀⡤⠖⠋", "⣠⠴⠚⠉⠁   "]
    assert drawn([0, 4, 8, 12], [0, 7, 0, 7], draw_line) == [" ⣰⢳⡀ ⣰⠃ ", "⡼⠁ ⠹⡼⠁  "]
    assert drawn([0, 1, 2, 3, 4], [0, 7, 0, 7, 0], draw_line) == ["⢸⢸      ", "⡏⡏⡇     "]


def test_what_is_not_finite_is_a_gap():
    for gap in (NAN, math.inf, -math.inf):
        assert drawn([0, 4, 5, 8, 12], [0, 7, gap, 0, 7], draw_line) == [" ⣰⠃  ⣰⠃ ", "⡼⠁  ⡼⠁  "]
        assert drawn([0, 4, 7, 10], [0, 7, gap, 3], draw_steps) == ["  ⡏⠉    ", "⣀⣀⡇  ⠉⠉⠉"]
        assert drawn([0, 4], [gap, gap], draw_dots) == [" " * 8] * 2


def test_a_line_comes_from_outside_and_goes_on_outside():
    assert drawn([-30, 30], [-30, 30], draw_line) == ["  ⡤⠏⠁   ", "⡤⠏⠁     "]
    assert drawn([2, 6], [-99, 99], draw_line, height=1) == ["  ⡇     "]


def test_steps_hold_each_value_until_the_next():
    assert drawn([0, 4, 10], [0, 7, 3], draw_steps) == ["  ⡏⠉⠉⡇  ", "⣀⣀⡇  ⠉⠉⠉"]
    assert drawn([-3, 4, 10, 20], [1, 7, 3, 0], draw_steps) == ["  ⡏⠉⠉⡇  ", "⠤⠤⠇  ⠉⠉⠉"]


def test_dots_have_shapes():
    assert drawn([2, 8, 15], [4, 7, 0], draw_dots) == [" ⣀  ⠛   ", " ⠉     ⢀"]
    assert drawn([2, 8], [4, 4], draw_dots, shape=CROSS) == ["⢀⣄ ⢀⣄   ", " ⠁  ⠁   "]


def test_one_point_is_seen_also_where_its_pattern_has_a_gap():
    assert drawn([7], [3], draw_line) == [" " * 8, "   ⠈    "]
    assert drawn([7], [3], draw_line, pattern=DASHED) == [" " * 8, "   ⠈    "]
    assert drawn(list(range(16)), [3] * 16, draw_line, pattern=DASHED) == [" " * 8, "⠉⠉⠉  ⠉⠉⠉"]


def test_a_column_of_many_points_shows_how_far_they_reach():
    assert drawn([4.0, 4.1, 4.2, 4.3], [2, 6, 1, 3], draw_line) == ["  ⡆     ", "  ⠇     "]


def test_a_cell_shows_the_series_drawn_into_it_last_and_nothing_of_the_others():
    canvas = Canvas(2, 1)
    canvas.stroke(0, 0, 3, series=1)
    canvas.stroke(2, 0, 3, series=1)
    canvas.stroke(1, 2, 2, series=0)
    assert canvas.rows() == [("⠠⡇", bytes([0, 1]))]
    assert Canvas(2, 1).rows() == [("  ", bytes([EMPTY, EMPTY]))]


def test_what_lies_outside_is_left_out():
    canvas = Canvas(2, 1)
    for column, top, bottom in [(-1, 0, 3), (4, 0, 3), (0, -9, -1), (0, 4, 9), (0, 3, 0)]:
        canvas.stroke(column, top, bottom, series=0)
    canvas.line((-1000, -500), (-1, 2), 0, (True,))
    assert canvas.rows()[0][0] == "  "
