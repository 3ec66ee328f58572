"""Pictures as half blocks: the cells that are printed, and what becomes of them on poorer terminals."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from rich.console import Console

from loratui.pictures import cells, fitted, half_blocks, reduced, side_by_side


def printed(renderable, width=40, **options) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, _environ={}, **options)
    console.print(renderable)
    return console.file.getvalue()


def stripes(width: int, height: int) -> Image.Image:
    """Rows that are red and blue in turn."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    for y in range(1, height, 2):
        image.paste((0, 0, 255), (0, y, width, y + 1))
    return image


def test_a_cell_holds_the_upper_pixel_in_front_and_the_lower_behind():
    text = printed(half_blocks(stripes(1, 2), 10), color_system="truecolor")
    assert text == "\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[0m\n"


def test_a_picture_keeps_its_proportions_at_two_pixels_a_cell():
    lines = printed(half_blocks(Image.new("RGB", (64, 32)), 16), color_system=None).splitlines()
    assert [len(line) for line in lines] == [16] * 4


def test_a_picture_is_never_enlarged():
    lines = printed(half_blocks(Image.new("RGB", (8, 8)), 30), color_system=None).splitlines()
    assert [len(line) for line in lines] == [8] * 4


def test_an_odd_height_is_filled_and_a_flat_picture_still_has_a_row():
    assert printed(half_blocks(stripes(3, 7), 3), color_system=None).count("\n") == 4
    assert printed(half_blocks(Image.new("RGB", (100, 1)), 20), color_system=None).count("\n") == 1


def test_256_colours_are_brought_down_from_truecolor():
    text = printed(half_blocks(stripes(1, 2), 10), color_system="256")
    assert text == "\x1b[38;5;196;48;5;21m▀\x1b[0m\n"


def test_without_colours_bright_is_heavy_and_dark_is_light():
    image = Image.new("RGB", (2, 2))
    image.paste((255, 255, 255), (1, 0, 2, 2))
    assert printed(half_blocks(image, 2), color_system=None) == " @\n"
    assert printed(half_blocks(image, 2), color_system="truecolor", no_color=True) == " @\n"


def test_transparency_is_shown_over_a_checker_and_other_modes_as_rgb():
    clear = Image.new("RGBA", (1, 2), (255, 255, 255, 0))
    assert "38;2;96;96;96;48;2;128;128;128" in printed(half_blocks(clear, 1), color_system="truecolor")
    grey = Image.new("L", (1, 2), 7)
    assert "38;2;7;7;7;48;2;7;7;7" in printed(half_blocks(grey, 1), color_system="truecolor")


def test_what_is_half_transparent_is_mixed_with_the_checker():
    half = Image.new("RGBA", (1, 2), (255, 255, 255, 128))
    assert printed(half_blocks(half, 1), color_system="truecolor").startswith("\x1b[38;2;176;176;176;48;2;192;192;192m")


def test_equal_cells_beside_each_other_are_coloured_once():
    text = printed(half_blocks(Image.new("RGB", (9, 2), (1, 2, 3)), 9), color_system="truecolor")
    assert text == "\x1b[38;2;1;2;3;48;2;1;2;3m▀▀▀▀▀▀▀▀▀\x1b[0m\n"


@pytest.mark.parametrize(
    ("size", "box", "shown"),
    [
        ((64, 64), (70, 78), (64, 64)),
        ((64, 64), (140, 200), (128, 128)),
        ((64, 64), (50, 60), (50, 50)),
        ((1000, 500), (100, 100), (100, 50)),
        ((1, 5000), (60, 40), (1, 40)),
        ((5000, 1), (60, 40), (60, 1)),
        ((1, 1), (60, 40), (40, 40)),
    ],
)
def test_a_picture_is_enlarged_by_whole_numbers_or_reduced_to_fit(size, box, shown):
    assert fitted(size, box) == shown


def test_an_enlarged_picture_has_no_colours_that_it_had_not_before():
    assert {colour for _, colour in reduced(stripes(4, 4), (17, 17)).getcolors()} == {(255, 0, 0), (0, 0, 255)}


def test_a_reduced_picture_averages():
    assert reduced(stripes(8, 8), (4, 4)).getcolors() == [(16, (128, 0, 128))]


def test_the_half_of_a_cell_below_the_last_row_has_no_colour():
    bottom = cells(Image.new("RGB", (2, 3)))[-1]
    assert [(segment.text, segment.style.bgcolor) for segment in bottom] == [("▀▀", None)]


def test_pictures_stand_side_by_side_below_titles_that_are_no_markup():
    pair = [("[red]base", stripes(16, 16)), ("a title that is too long to fit", stripes(16, 16))]
    lines = printed(side_by_side(pair, 40), color_system=None).splitlines()
    assert lines[0].rstrip() == "[red]base         a title that is…"
    assert len({line.rstrip() for line in lines[1:9]}) == 1


def test_pictures_that_do_not_fit_beside_each_other_wrap_into_rows():
    four = [(str(number), stripes(64, 64)) for number in range(4)]
    lines = printed(side_by_side(four, 40), color_system=None).splitlines()
    titles = [line.split() for line in lines if line[:1].isdigit()]
    assert titles == [["0", "1"], ["2", "3"]]
    assert max(map(len, lines)) <= 40


def test_the_same_picture_prints_the_same_characters():
    image = Image.linear_gradient("L").resize((50, 50))
    first, second = (printed(half_blocks(image, 20), color_system="truecolor") for _ in range(2))
    assert first == second
