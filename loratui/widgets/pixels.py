"""Whether pictures are drawn in pixels, by kitty's graphics protocol or as sixels, and how.

`choose` is called once, before the app runs: textual-image, which speaks the protocols, asks the terminal as it is
imported, and the answers come as if they were typed. So it is imported only where a terminal is there that may answer,
and afterwards whatever the terminal still has to say is taken from its input. Where anything is missing, the answer is
half blocks and why.
"""

from __future__ import annotations

import importlib.util
import io
import os
import select
import sys
import termios
import tty
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segment

from loratui.pictures import Painted
from loratui.terminal import Terminal, look

if TYPE_CHECKING:
    from PIL.Image import Image

    from loratui.widgets.picture import Paint

Wanted = Literal["auto", "half-blocks", "kitty", "sixel"]
PATIENCE = 1.0
"""Seconds that a terminal has for its last answer, which stands for the round trip to wherever it is."""


@dataclass(frozen=True)
class Choice:
    """How pictures are drawn. `paint` is None for half blocks; `reason` is a sentence for a person."""

    protocol: Literal["half-blocks", "kitty", "sixel"]
    paint: Paint | None
    reason: str


def choose(wanted: Wanted, environ: Mapping[str, str]) -> Choice:
    """Decide, and ask the terminal if it comes to that. Not to be called while an app runs."""
    terminal = look(environ, sys.__stdout__)
    if reason := _against(wanted, terminal):
        return Choice("half-blocks", None, reason)
    choice = _ask(wanted, terminal)
    _take_late_answers()
    return choice


def _against(wanted: Wanted, terminal: Terminal) -> str:
    """Why the terminal should not even be asked, or ""."""
    if wanted == "half-blocks":
        return "the settings ask for half blocks"
    if not (terminal.interactive and sys.__stdin__ and sys.__stdin__.isatty()):
        return "input and output are not a terminal"
    if wanted == "auto" and terminal.multiplexer:
        return f"{terminal.multiplexer} is between us and the terminal"
    if wanted == "auto" and terminal.pictures_guess not in ("kitty", "sixel"):
        return "the terminal is not known to draw pixels"
    if importlib.util.find_spec("textual_image") is None:
        return "the package textual-image is not installed"
    return ""


def _ask(wanted: Wanted, terminal: Terminal) -> Choice:
    try:
        from textual_image import renderable

        kitty = renderable.Image is renderable.TGPImage
        sixel = renderable.Image is renderable.SixelImage
        if wanted == "kitty" and sixel:
            # Sixels are asked for first, and a terminal that has them was not asked for anything else.
            kitty = renderable.tgp.query_terminal_support()
        if kitty and wanted != "sixel":
            if terminal.colours != "truecolor":
                return Choice("half-blocks", None, "kitty's protocol needs 24-bit colours: set COLORTERM=truecolor")
            return Choice("kitty", _painter(renderable.TGPImage), "the terminal speaks kitty's graphics protocol")
        if sixel and wanted != "kitty":
            return Choice("sixel", _painter(renderable.SixelImage), "the terminal draws sixels")
    except Exception as error:  # of another package, about a terminal that says what it likes
        return Choice("half-blocks", None, f"textual-image failed: {error}")
    return Choice("half-blocks", None, "the terminal did not answer for pixels")


def _painter(kind: type) -> Paint:
    from PIL import Image as Images

    console = Console(file=io.StringIO(), color_system="truecolor")
    # The size of a cell is asked of the terminal once, by the first that needs it. In an app it would be too late.
    Measurement.get(console, console.options, kind(Images.new("RGB", (1, 1))))

    def paint(image: Image, columns: int, rows: int) -> Painted:
        options = console.options.update(width=columns, height=rows)
        segments = list(console.render(kind(image, "auto", "auto"), options))
        lines = list(Segment.split_lines(segment for segment in segments if not segment.control))
        sixels = "".join(text for text, _, control in segments if control and text.startswith("\x1bP"))
        return Painted(lines, Segment.get_line_length(lines[0]), sixels)

    return paint


def _take_late_answers() -> None:
    """Read what the terminal still sends, up to its answer to a last question: in the app it would be keys."""
    source = sys.__stdin__.fileno()
    before = termios.tcgetattr(source)
    tty.setcbreak(source, termios.TCSANOW)
    try:
        sys.__stdout__.write("\x1b[5n")
        sys.__stdout__.flush()
        heard = b""
        while b"\x1b[0n" not in heard and select.select([source], [], [], PATIENCE)[0]:
            heard += os.read(source, 1024)
    finally:
        termios.tcsetattr(source, termios.TCSANOW, before)
