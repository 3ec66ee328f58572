"""The picture widget: what stands in its cells, what it reads, and what it paints again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import pytest
from PIL import Image
from rich.segment import Segment
from textual.geometry import Region
from textual.screen import ModalScreen
from textual.strip import Strip

from loratui import picture_files
from loratui.pictures import WEIGHTS, Painted
from loratui.widgets.picture import Picture


@pytest.fixture(autouse=True)
def coloured(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)


def save(path, colour="red", size=(8, 8)):
    Image.new("RGB", size, colour).save(path)
    return path


async def settle(stage) -> None:
    """Until the picture that was wished for is there."""
    await stage.app.workers.wait_for_complete()
    await stage.pilot.pause()


def colour_at(stage, x: int, y: int):
    """The colours (front, behind) of a cell on the screen."""
    for segment in stage.app.screen._compositor.render_strips()[y].crop(x, x + 1):
        return tuple(segment.style.color.triplet), tuple(segment.style.bgcolor.triplet)


async def test_a_small_picture_fills_the_widget_at_a_whole_multiple_and_is_centred(staged, tmp_path):
    async with staged(Picture(), 40, 10) as stage:
        stage.widget.show(save(tmp_path / "a.png"))
        await settle(stage)
        assert stage.screen() == ["", *[" " * 12 + "▀" * 16] * 8, ""]
        assert colour_at(stage, 12, 1) == ((255, 0, 0), (255, 0, 0))


async def test_a_large_picture_is_reduced_to_fit(staged, tmp_path):
    async with staged(Picture(), 40, 10) as stage:
        stage.widget.show(save(tmp_path / "a.png", size=(400, 100)))
        await settle(stage)
        assert stage.screen() == [*[""] * 2, *["▀" * 40] * 5, *[""] * 3]


async def test_the_note_stands_below_the_picture_and_is_never_markup(staged, tmp_path):
    async with staged(Picture(), 40, 5) as stage:
        stage.widget.show(save(tmp_path / "a.png"), "[/foo] [best quality]\x1b[31m")
        await settle(stage)
        assert stage.screen() == [" " * 16 + "▀" * 8] * 4 + [" " * 7 + "[/foo] [best quality]·[31m"]


async def test_without_a_picture_the_note_stands_in_the_middle(staged, tmp_path):
    async with staged(Picture(), 20, 5) as stage:
        stage.widget.show(save(tmp_path / "a.png"), "below")
        await settle(stage)
        stage.widget.show(None, "nothing [here]")
        await settle(stage)
        assert stage.screen() == ["", "", "   nothing [here]", "", ""]
        stage.widget.show(None)
        await settle(stage)
        assert stage.screen() == [""] * 5


@pytest.mark.parametrize("name", ["[red].png", "[best quality].png", "é\udcff.png"])
async def test_a_file_that_cannot_be_shown_is_told_in_words(staged, tmp_path, name):
    path = tmp_path / name
    path.write_text("no picture")
    async with staged(Picture(), 60, 5) as stage:
        stage.widget.show(path, f"{name} [/foo]")
        await settle(stage)
        assert stage.screen()[1].strip() == "can't be shown: it is none of PNG, JPEG, WEBP, BMP, TIFF,"
        stage.widget.show(tmp_path, name)
        await settle(stage)
        assert "can't be shown: it is a folder" in "\n".join(stage.screen())
        stage.widget.show(save(path), name)
        await settle(stage)
        assert "▀▀" in stage.screen()[0]


async def test_running_over_200_pictures_reads_only_the_first_and_the_last(staged, tmp_path, monkeypatch):
    files = [save(tmp_path / f"{number:03}.png") for number in range(200)]
    read, begun, go_on = [], threading.Event(), threading.Event()

    def slowly(path, box):
        read.append(path)
        begun.set()
        assert go_on.wait(20)
        return Image.new("RGB", box)

    monkeypatch.setattr(picture_files, "read_picture", slowly)
    async with staged(Picture()) as stage:
        stage.widget.show(files[0])
        assert await asyncio.to_thread(begun.wait, 20)
        for number, path in enumerate(files):
            stage.widget.show(path)
            if number % 20 == 0:
                await stage.pilot.pause()
        go_on.set()
        await settle(stage)
    assert read == [files[0], files[-1]]


async def test_a_picture_passed_by_is_never_shown_over_a_later_wish(staged, tmp_path, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slowly(path, box):
        begun.set()
        assert go_on.wait(20)
        return Image.new("RGB", box, "red")

    monkeypatch.setattr(picture_files, "read_picture", slowly)
    async with staged(Picture(), 20, 3) as stage:
        stage.widget.show(save(tmp_path / "a.png"))
        assert await asyncio.to_thread(begun.wait, 20)
        stage.widget.show(None, "nothing")
        go_on.set()
        await settle(stage)
        assert stage.screen() == ["", "      nothing", ""]


async def test_the_same_picture_again_is_neither_read_nor_painted(staged, tmp_path, monkeypatch):
    path = save(tmp_path / "a.png")
    async with staged(Picture()) as stage:
        stage.widget.show(path, "a note")
        await settle(stage)
        stage.cells()
        monkeypatch.setattr(picture_files, "read_picture", lambda *_: pytest.fail("read again"))
        stage.widget.show(path, "a note")
        await settle(stage)
        assert stage.cells() == 0
        stage.widget.show(path, "b note")
        await settle(stage)
        assert stage.cells() == 1


async def test_a_file_that_was_written_again_is_shown_again(staged, tmp_path):
    path = save(tmp_path / "a.png")
    async with staged(Picture()) as stage:
        stage.widget.show(path)
        await settle(stage)
        save(path, "blue")
        os.utime(path, ns=(1, 1))
        stage.widget.show(path)
        await settle(stage)
        assert colour_at(stage, 20, 5) == ((0, 0, 255), (0, 0, 255))


async def test_of_a_changed_picture_only_the_changed_cells_are_painted(staged, tmp_path):
    first, second = save(tmp_path / "a.png"), tmp_path / "b.png"
    image = Image.open(first)
    image.putpixel((0, 0), (0, 255, 0))
    image.save(second)
    async with staged(Picture(), 40, 5) as stage:
        stage.widget.show(first)
        await settle(stage)
        stage.cells()
        stage.widget.show(second)
        await settle(stage)
        assert stage.cells() == 1


async def test_another_size_of_the_widget_is_another_picture(staged, tmp_path):
    async with staged(Picture(), 40, 5) as stage:
        stage.widget.show(save(tmp_path / "a.png"))
        await settle(stage)
        await stage.pilot.resize_terminal(30, 8)
        await settle(stage)
        assert stage.screen() == [" " * 7 + "▀" * 16] * 8


async def test_a_hidden_widget_reads_when_it_is_seen(staged, tmp_path):
    async with staged(Picture(), 20, 4) as stage:
        stage.widget.display = False
        await stage.settle()
        await stage.pilot.resize_terminal(24, 4)
        stage.widget.show(save(tmp_path / "a.png"))
        await settle(stage)
        stage.widget.display = True
        await stage.settle()
        await settle(stage)
        assert stage.screen() == [" " * 8 + "▀" * 8] * 4


async def test_without_colours_weights_stand_for_brightness(staged, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    async with staged(Picture(), 8, 4) as stage:
        stage.widget.show(save(tmp_path / "a.png", "white"))
        await settle(stage)
        assert stage.screen() == [WEIGHTS[-1] * 8] * 4
        stage.app.theme = "textual-light"
        stage.widget.show(save(tmp_path / "b.png", "black"))
        await settle(stage)
        assert stage.screen() == [WEIGHTS[-1] * 8] * 4


class Pen:
    """Stands in for a terminal's pixels: letters in the cells, and what is drawn over them."""

    def __init__(self, overlay: str = "", most: int = 100):
        self.drawn: list[tuple] = []
        self.overlay, self.most = overlay, most

    def __call__(self, image, columns, rows) -> Painted:
        if columns > self.most:
            raise ValueError("too large")
        self.drawn.append((image.size, columns, rows))
        return Painted([[Segment("P" * 6)]] * 3, 6, self.overlay)


def drawings(strips: list[Strip]) -> list[str]:
    return [segment.text for strip in strips for segment in strip if "\x1b" in segment.text]


async def test_with_pixels_the_file_is_read_finely_and_the_terminal_draws(staged, tmp_path):
    pen = Pen()
    async with staged(Picture(pen), 11, 5) as stage:
        stage.widget.show(save(tmp_path / "a.png", size=(1000, 1000)))
        await settle(stage)
        assert pen.drawn == [((160, 160), 10, 5)]
        assert stage.screen() == ["", "  PPPPPP", "  PPPPPP", "  PPPPPP", ""]
        assert drawings(stage.widget.render_lines(Region(0, 0, 11, 5))) == []


async def test_a_drawing_is_put_over_its_cells_when_the_whole_picture_is_painted(staged, tmp_path):
    async with staged(Picture(Pen("\x1bPsixels\x1b\\")), 11, 5) as stage:
        stage.widget.show(save(tmp_path / "a.png"))
        await settle(stage)
        strips = stage.widget.render_lines(Region(0, 0, 11, 5))
        assert drawings(strips) == ["\x1b7\x1b[2;3H\x1bPsixels\x1b\\\x1b8"]
        assert [strip.cell_length for strip in strips] == [11] * 5
        assert [segment.text for segment in strips[3]][-1].isspace(), "what follows the drawing is outside it"
        assert drawings(stage.widget.render_lines(Region(0, 0, 11, 2))) == []


async def test_a_drawing_is_not_put_over_a_dialog(staged, tmp_path):
    async with staged(Picture(Pen("\x1bPsixels\x1b\\")), 11, 5) as stage:
        stage.widget.show(save(tmp_path / "a.png"))
        await settle(stage)
        await stage.app.push_screen(ModalScreen())
        assert drawings(stage.widget.render_lines(Region(0, 0, 11, 5))) == []
        await stage.app.pop_screen()
        assert len(drawings(stage.widget.render_lines(Region(0, 0, 11, 5)))) == 1


async def test_a_drawing_gives_way_to_words(staged, tmp_path):
    async with staged(Picture(Pen("\x1bPsixels\x1b\\")), 30, 5) as stage:
        stage.widget.show(save(tmp_path / "a.png"))
        await settle(stage)
        stage.cells()
        stage.widget.show(tmp_path)
        await settle(stage)
        assert stage.cells() == 30 * 5, "every cell, as what lies over them is not known cell by cell"
        assert stage.screen()[2].strip() == "can't be shown: it is a folder"


async def test_what_the_terminal_cannot_draw_is_shown_in_half_blocks(staged, tmp_path):
    async with staged(Picture(Pen(most=5)), 8, 4) as stage:
        stage.widget.show(save(tmp_path / "a.png"))
        await settle(stage)
        assert stage.screen() == ["▀" * 8] * 4


def test_the_widgets_cost_no_pillow_until_they_show_something():
    modules = "loratui.widgets.picture, loratui.widgets.pixels, loratui.widgets.sample_grid"
    code = f"import sys, {modules}; assert not {{'PIL', 'numpy', 'textual_image'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
