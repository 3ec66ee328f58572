"""Only what changed is sent, and a terminal that puts it together shows what the app shows."""

from __future__ import annotations

import random
import re

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import App
from textual.containers import Horizontal
from textual.strip import Strip

from loratui.widgets.painting import WORTH_A_JUMP, PaintsChanges, PaintsSpans, SpansUpdate, changed_spans, theme_style
from loratui.widgets.virtual_list import VirtualList

RED, BLUE = Style(color="red"), Style(color="blue")


def strip(*parts: tuple[str, Style | None] | str) -> Strip:
    return Strip([Segment(*((part, None) if isinstance(part, str) else part)) for part in parts])


def spans(old: Strip, new: Strip) -> list[tuple[int, int]]:
    return list(changed_spans(old, new))


def test_strips_that_look_alike_have_no_changes_however_they_are_cut():
    assert spans(strip("abc"), strip("abc")) == []
    assert spans(strip(("abc", RED)), strip(("a", RED), ("bc", RED))) == []
    assert spans(strip(("a  ", RED)), strip(("a", RED), ("  ", BLUE))) == []


def test_a_change_of_character_colour_or_length_is_a_change():
    assert spans(strip("abcd"), strip("abxd")) == [(2, 3)]
    assert spans(strip(("abcd", RED)), strip(("ab", RED), ("c", BLUE), ("d", RED))) == [(2, 3)]
    assert spans(strip("ab"), strip("abcd")) == [(2, 4)]
    reverse = Style(reverse=True)
    assert spans(strip("a "), strip("a", (" ", reverse))) == [(1, 2)]


def test_a_wide_character_is_sent_whole():
    assert spans(strip("a日b"), strip("a本b")) == [(1, 3)]
    assert spans(strip("a日b"), strip("axyb")) == [(1, 3)]
    assert spans(strip("xyzw"), strip("x日w")) == [(1, 3)]


def test_near_changes_are_one_span_and_distant_ones_two():
    near, far = "-" * (WORTH_A_JUMP - 1), "-" * WORTH_A_JUMP
    assert spans(strip(f"a{near}a"), strip(f"b{near}b")) == [(0, WORTH_A_JUMP + 1)]
    assert spans(strip(f"a{far}a"), strip(f"b{far}b")) == [(0, 1), (WORTH_A_JUMP + 1, WORTH_A_JUMP + 2)]


class Terminal:
    """As much of a terminal as is needed: it moves the cursor and writes."""

    def __init__(self, width: int, height: int) -> None:
        self.cells = [[" "] * width for _ in range(height)]
        self.written = 0

    def write(self, data: str) -> None:
        self.written += len(data.encode())
        x = y = 0
        for row, column, text in re.findall(r"\x1b\[(\d+);(\d+)H|\x1b\[[\d;]*m|([^\x1b])", data):
            if row:
                x, y = int(column) - 1, int(row) - 1
            elif text == "\n":
                x, y = 0, y + 1
            elif text:
                width = cell_len(text)
                self.cells[y][x : x + width] = [text, *[""] * (width - 1)]
                x += width

    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.cells]


async def test_what_is_sent_makes_the_screen_and_is_less_than_textual_sends():
    generator = random.Random(7)
    words = ["cat", "[/foo]", "日本語", "é", "a longer one", ""]
    data = {index: generator.choices(words, k=6) for index in range(40)}
    lists = [VirtualList(lambda index, width: Text(" ".join(data[index]))) for _ in range(2)]
    terminal, textuals = Terminal(60, 12), Terminal(60, 12)

    class Two(PaintsSpans):
        CSS = "VirtualList { width: 1fr; border: round blue; }"

        def compose(self):
            yield Horizontal(*lists)

        def _display(self, screen, renderable):
            if isinstance(renderable, ChopsUpdate):
                update = SpansUpdate(renderable.chops, renderable.spans, renderable.chop_ends)
                terminal.write(update.render_segments(self.console))
                textuals.write(renderable.render_segments(self.console))
            elif isinstance(renderable, LayoutUpdate):
                terminal.write(renderable.render_segments(self.console))
            super()._display(screen, renderable)

    app = Two()
    async with app.run_test(size=(60, 12)) as pilot:
        for rows in lists:
            rows.set_count(40)
        await pilot.pause()
        for _ in range(60):
            rows = generator.choice(lists)
            index = generator.choice(list(rows.in_view))
            data[index] = generator.choices(words, k=6)
            for other in lists:
                other.invalidate(index)
            rows.move(generator.choice([-9, -1, 0, 1, 1, 12]))
            await pilot.pause()
            shown = [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]
            assert terminal.lines() == shown
    assert terminal.written < textuals.written


class Told(PaintsChanges):
    """One line of text."""

    text = "before"

    def line(self, y: int) -> Strip:
        return strip(self.text if y == 0 else "").adjust_cell_length(self.size.width)


class Holder(App):
    def compose(self):
        with Horizontal():
            yield Told()


async def test_what_changed_while_a_widget_was_hidden_is_shown_with_it():
    app = Holder()
    async with app.run_test(size=(12, 3)) as pilot:
        await pilot.pause()
        app.query_one(Horizontal).display = False
        await pilot.pause()
        told = app.query_one(Told)
        told.text = "after"
        told.repaint()
        app.query_one(Horizontal).display = True
        await pilot.pause()
        assert app.screen._compositor.render_strips()[0].text.rstrip() == "after"


async def test_a_colour_is_a_variable_of_the_theme(staged):
    async with staged(VirtualList(lambda index, width: Text("row"))) as stage:
        assert theme_style(stage.widget, "primary").color is not None
        assert theme_style(stage.widget, "primary") != theme_style(stage.widget, "error")
        assert theme_style(stage.widget, "no-such-variable") == Style()


def test_the_app_writes_spans_and_hands_everything_else_on(monkeypatch):
    written = []
    monkeypatch.setattr(App, "_display", lambda self, screen, renderable: written.append(type(renderable)))
    app = PaintsSpans()
    for renderable in (ChopsUpdate([], [], []), None, Text("x")):
        app._display(None, renderable)
    assert written == [SpansUpdate, type(None), Text]
