"""Columns fit what there is, and whatever stands in a cell, the row keeps its shape."""

from __future__ import annotations

import pytest
from rich.cells import cell_len
from rich.text import Text

from loratui.widgets.columns import GAP, Column, clean, cleaned, cut, fit, header, row

COLUMNS = [
    Column("name", flex=2),
    Column("size", width=9, align="right"),
    Column("caption", width=4, flex=1, needs=30),
    Column("date", width=8, needs=60),
]
NASTY = [
    "[/foo]",
    "[best quality]",
    "日本語のキャプション",
    "a\tb\nc",
    "\x1b[31mred",
    "e\u0301le\u0300ve",
    "👩\u200d🚀❤\ufe0f",
    "",
    "\u202egnp",
]


def total(widths: list[int]) -> int:
    return sum(widths) + GAP * (sum(map(bool, widths)) - 1)


def test_flexible_columns_share_exactly_what_is_left():
    for width in range(70, 200):
        assert total(fit(COLUMNS, width)) == width
    assert fit(COLUMNS, 101) == [49, 9, 29, 8]


def test_columns_vanish_below_what_they_need_the_neediest_first():
    hidden = {
        width: [column.title for column, cells in zip(COLUMNS, fit(COLUMNS, width), strict=True) if not cells]
        for width in (60, 59, 30, 29)
    }
    assert hidden == {60: [], 59: ["date"], 30: ["date"], 29: ["caption", "date"]}


def test_what_can_vanish_goes_before_anything_is_cut():
    columns = [Column("a", width=10), Column("b", width=10, needs=5), Column("c", width=10, needs=4)]
    assert fit(columns, 22) == [10, 0, 10]
    assert fit(columns, 21) == [10, 0, 0]


@pytest.mark.parametrize("width", [0, 1, 2, 3, 5, 8, 11])
def test_a_list_that_is_too_narrow_for_anything_is_never_overfull(width):
    widths = fit(COLUMNS, width)
    assert all(cells >= 0 for cells in widths)
    assert cell_len(row(COLUMNS, widths, ["name", "1", "2", "3"]).plain) <= width


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("width", [12, 30, 61, 62, 63])
def test_a_row_is_as_wide_as_its_columns_whatever_is_in_it(text, width):
    widths = fit(COLUMNS, width)
    plain = row(COLUMNS, widths, [text, Text(text, style="red"), text * 9, Text.assemble(text, (text, "bold"))]).plain
    assert cell_len(plain) == width == total(widths)
    assert plain.isprintable()


def test_what_is_cut_ends_in_an_ellipsis_and_what_fits_is_whole():
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdef", 5) == "abcd…"
    assert cut("日本語", 5) == "日本…"
    assert cut("日本語", 4) == "日…"
    assert cut("abc", 1) == "…"
    assert cut("abc", 0) == ""
    assert cut("a" * 1_000_000, 5) == "aaaa…"


def test_brackets_are_text_and_no_markup():
    text = row([Column("caption", flex=1)], [20], ["[red]cat[/red] [/foo]"])
    assert text.plain.rstrip() == "[red]cat[/red] [/foo]"[:19] + "…"
    assert not text.spans


def test_control_characters_show_as_dots_and_invisible_ones_not_at_all():
    assert clean("a\x00b\x1b[2J\x7f\x9bc") == "a·b·[2J··c"
    assert clean("one\ntwo\tthree\u2028four") == "one·two·three four"
    assert clean("x\u202ey\u200bz") == "xyz"
    assert clean("lost\udcff") == "lost\ufffd"
    assert clean("déjà vu 日本 ▸") == "déjà vu 日本 ▸"


def test_styles_stay_on_their_characters_when_others_are_taken_away_or_cut():
    text = Text.assemble("a\u200db", ("c\u200dd", "bold"), "e")
    assert [(cleaned(text).plain[span.start : span.end], span.style) for span in cleaned(text).spans] == [
        ("cd", "bold")
    ]
    laid = row([Column("", width=6), Column("", width=4, align="right")], [6, 4], [text, Text("xyzuv", style="red")])
    assert laid.plain == "abcde   xyz…"
    assert [(laid.plain[span.start : span.end], span.style) for span in laid.spans] == [("cd", "bold"), ("xyz…", "red")]


def test_titles_stand_over_their_columns():
    widths = fit(COLUMNS, 70)
    heads = header(COLUMNS, widths).plain
    cells = row(COLUMNS, widths, ["cat", "12x34", "a cat", "today"]).plain
    assert heads.index("caption") == cells.index("a cat")
    assert heads.index("size") + len("size") == cells.index("12x34") + len("12x34")
