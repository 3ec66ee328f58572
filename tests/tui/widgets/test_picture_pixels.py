"""Whether pixels are chosen: by the settings, by the environment, and by what the terminal answers."""

from __future__ import annotations

import fcntl
import importlib.machinery
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import tty
import types

import pytest
from PIL import Image
from rich.control import Control
from rich.measure import Measurement
from rich.segment import ControlType, Segment
from rich.style import Style

from loratui.widgets import pixels
from loratui.widgets.pixels import choose

KITTY = {"TERM": "xterm-kitty", "COLORTERM": "truecolor"}
FOOT = {"TERM": "foot", "COLORTERM": "truecolor"}


class Tgp:
    """A picture of kitty's protocol as textual-image's: lines of placeholders in a colour that names the picture."""

    def __init__(self, image, width=None, height=None):
        assert (width, height) in {(None, None), ("auto", "auto")}

    def __rich_console__(self, console, options):
        for _ in range(options.max_height):
            yield Segment("P" * options.max_width + "\n", Style(color="#010203"))

    def __rich_measure__(self, console, options):
        self.asked.append("size of a cell")
        return Measurement(1, 1)


class Sixel(Tgp):
    """A picture in sixels as textual-image's: blank lines, then controls that draw over them."""

    def __rich_console__(self, console, options):
        nothing = [(ControlType.CURSOR_FORWARD, 0)]
        yield Segment(" " * options.max_width + "\n")
        yield Segment("\x1b7", control=nothing)
        yield Control.move(0, -1)
        yield Segment("\x1bPsixels\x1b\\", control=nothing)
        yield Segment("\x1b8", control=nothing)


@pytest.fixture
def package(monkeypatch):
    """A fake textual-image on a terminal: `package.Image` is what it found there."""
    outer, inner = types.ModuleType("textual_image"), types.ModuleType("textual_image.renderable")
    outer.__spec__ = importlib.machinery.ModuleSpec("textual_image", None)
    outer.renderable = inner
    inner.TGPImage, inner.SixelImage, inner.Image = Tgp, Sixel, None
    inner.tgp = types.SimpleNamespace(query_terminal_support=lambda: False)
    monkeypatch.setitem(sys.modules, "textual_image", outer)
    monkeypatch.setitem(sys.modules, "textual_image.renderable", inner)
    terminal = types.SimpleNamespace(isatty=lambda: True, encoding="utf-8")
    monkeypatch.setattr(sys, "__stdin__", terminal)
    monkeypatch.setattr(sys, "__stdout__", terminal)
    inner.asked = Tgp.asked = []
    monkeypatch.setattr(pixels, "_take_late_answers", lambda: inner.asked.append("late answers"))
    return inner


@pytest.mark.parametrize(
    ("wanted", "environ", "reason"),
    [
        ("half-blocks", KITTY, "settings"),
        ("auto", {"TERM": "xterm-256color"}, "not known"),
        ("auto", KITTY | {"TMUX": "/tmp/tmux,1,0"}, "tmux"),
        ("auto", FOOT | {"STY": "1.pts"}, "screen"),
    ],
)
def test_the_terminal_is_not_even_asked(package, monkeypatch, wanted, environ, reason):
    monkeypatch.setitem(sys.modules, "textual_image.renderable", None)
    choice = choose(wanted, environ)
    assert (choice.protocol, choice.paint) == ("half-blocks", None)
    assert reason in choice.reason
    assert package.asked == []


@pytest.mark.parametrize("stream", ["__stdin__", "__stdout__"])
def test_a_pipe_is_not_asked(package, monkeypatch, stream):
    monkeypatch.setattr(sys, stream, types.SimpleNamespace(isatty=lambda: False, encoding="utf-8"))
    assert "not a terminal" in choose("kitty", KITTY).reason
    assert package.asked == []


def test_without_the_package_there_are_half_blocks(package, monkeypatch):
    monkeypatch.setattr(pixels.importlib.util, "find_spec", lambda name: None)
    assert choose("auto", KITTY).reason == "the package textual-image is not installed"


@pytest.mark.parametrize(
    ("wanted", "environ", "found", "protocol"),
    [
        ("auto", KITTY, Tgp, "kitty"),
        ("auto", FOOT, Sixel, "sixel"),
        ("auto", KITTY, Sixel, "sixel"),
        ("auto", KITTY, None, "half-blocks"),
        ("kitty", KITTY | {"TMUX": "/tmp/tmux,1,0"}, Tgp, "kitty"),
        ("kitty", {"TERM": "xterm", "COLORTERM": "truecolor"}, Tgp, "kitty"),
        ("kitty", KITTY, Sixel, "half-blocks"),
        ("sixel", KITTY, Tgp, "half-blocks"),
        ("sixel", FOOT, Sixel, "sixel"),
    ],
)
def test_what_the_terminal_answers_decides(package, wanted, environ, found, protocol):
    package.Image = found
    choice = choose(wanted, environ)
    assert choice.protocol == protocol
    assert (choice.paint is None) == (protocol == "half-blocks")
    assert package.asked[-1] == "late answers"


def test_kitty_is_asked_for_again_where_sixels_were_found_first(package):
    package.Image = Sixel
    package.tgp.query_terminal_support = lambda: True
    assert choose("kitty", KITTY).protocol == "kitty"


def test_kitty_needs_all_colours_as_they_name_its_pictures(package):
    package.Image = Tgp
    choice = choose("auto", {"TERM": "xterm-kitty"})
    assert choice.paint is None
    assert "COLORTERM" in choice.reason


def test_a_package_that_fails_costs_no_more_than_its_pixels(package, monkeypatch):
    monkeypatch.delattr(package, "TGPImage")
    choice = choose("auto", KITTY)
    assert choice.paint is None
    assert choice.reason.startswith("textual-image failed:")
    assert package.asked == ["late answers"]


def test_the_size_of_a_cell_is_asked_before_the_app_runs(package):
    package.Image = Tgp
    choose("auto", KITTY)
    assert package.asked == ["size of a cell", "late answers"]


def test_kitty_paints_cells_that_name_the_picture(package):
    package.Image = Tgp
    painted = choose("auto", KITTY).paint(Image.new("RGB", (8, 8)), 4, 3)
    assert [[segment.text for segment in line] for line in painted.lines] == [["PPPP"]] * 3
    assert painted.lines[0][0].style.color.triplet.hex == "#010203"
    assert (painted.width, painted.overlay) == (4, "")


def test_sixels_are_drawn_over_blank_cells(package):
    package.Image = Sixel
    painted = choose("auto", FOOT).paint(Image.new("RGB", (8, 8)), 4, 3)
    assert [[segment.text for segment in line] for line in painted.lines] == [["    "]]
    assert (painted.width, painted.overlay) == (4, "\x1bPsixels\x1b\\")


ASK = """
import json, os, select, sys
from PIL import Image
from loratui.widgets.pixels import choose
choice = choose("auto", os.environ)
left = select.select([0], [], [], 0)[0]
painted = choice.paint and choice.paint(Image.new("RGB", (16, 16)), 4, 2)
with open(sys.argv[1], "w") as file:
    json.dump([choice.protocol, painted and [painted.width, len(painted.lines), painted.overlay[:2]], left], file)
"""


@pytest.mark.parametrize(
    ("term", "answers", "expected"),
    [
        ("foot", b"\x1b[?62;4;22c\x1b[0n", ["sixel", [4, 2, "\x1bP"], []]),
        ("xterm-kitty", b"\x1b[?62;22c\x1b_Gi=1;OK\x1b\\\x1b[0n", ["kitty", [4, 2, ""], []]),
        ("xterm-kitty", b"\x1b[?62;22c\x1b_Gi=1;EINVAL\x1b\\late\x1b[0n", ["half-blocks", None, []]),
    ],
)
def test_a_real_terminal_is_asked_and_none_of_its_answers_is_left_over(tmp_path, term, answers, expected):
    pytest.importorskip("textual_image")
    ours, theirs = pty.openpty()
    try:
        # Cells of 8×16 pixels. The answers lie ready, in the order of the questions, so that no clock plays a part.
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 80 * 8, 24 * 16))
        tty.setcbreak(theirs, termios.TCSANOW)
        os.write(ours, answers)
        environ = {**os.environ, "TERM": term, "COLORTERM": "truecolor"}
        for name in ("TMUX", "STY", "ZELLIJ", "TERM_PROGRAM", "NO_COLOR"):
            environ.pop(name, None)
        result = tmp_path / "result"
        child = subprocess.Popen(
            [sys.executable, "-c", ASK, str(result)], stdin=theirs, stdout=theirs, env=environ, start_new_session=True
        )
        assert child.wait(60) == 0
    finally:
        os.close(ours)
        os.close(theirs)
    assert json.loads(result.read_text()) == expected
