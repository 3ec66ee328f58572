"""Pictures as text: two pixels a character cell, the upper half block `▀` with one colour in front and one behind.

Colours are given as truecolor and left to Rich to bring down to what the terminal has; where there are none, the cells
fall back to characters of different weight, since a half block without colour shows nothing. The same picture and size
always give the same cells. Pillow and Rich are imported inside the functions: importing this module costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.segment import Segment
    from rich.style import Style
    from rich.table import Table
    from rich.text import Text

WEIGHTS = " .:-=+*#%@"
GAP = 2
CHECKER = (96, 128)
"""The two greys that transparency is shown over."""


class HalfBlocks:
    """A picture that Rich can print: at most `width` cells wide, as high as its proportions ask for.

    A cell is taken to be twice as high as wide, so a pixel is square. A picture is never enlarged.
    """

    def __init__(self, image: Image, width: int):
        self.image = reduced(image, (min(width, image.width), image.height))
        self.width = self.image.width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        coloured = console.color_system is not None and not console.no_color and not options.ascii_only
        for line in cells(self.image, "" if coloured else WEIGHTS):
            yield from line
            yield Segment.line()

    def __rich_measure__(self, console: Console, options: ConsoleOptions):
        from rich.measure import Measurement

        return Measurement(self.width, self.width)


def half_blocks(image: Image, width: int) -> HalfBlocks:
    """`image` for the terminal, at most `width` cells wide. Transparency is shown over a checker."""
    return HalfBlocks(image, width)


def side_by_side(pictures: Iterable[tuple[str, Image]], width: int) -> Table:
    """Titled pictures in rows of as many as fit into `width` cells, each row's titles above it.

    All get the same share of the width, from 16 cells up to their own number of pixels.
    """
    from rich.console import Group
    from rich.table import Table

    shown = list(pictures)
    cell = picture_width([image.width for _, image in shown], width)
    columns = max(1, min(len(shown), (width + GAP) // (cell + GAP)))
    grid = Table.grid(padding=(0, GAP, 1, 0))
    for start in range(0, len(shown), columns):
        row = shown[start : start + columns]
        grid.add_row(*(Group(_title(title, cell), half_blocks(image, cell)) for title, image in row))
    return grid


def _title(title: str, width: int) -> Text:
    from rich.text import Text

    text = Text(title)
    text.truncate(width, overflow="ellipsis")
    return text


def picture_width(own: Sequence[int], width: int) -> int:
    """How many cells each of several pictures gets of `width`. `own`: their widths in pixels."""
    if not own:
        return max(1, width)
    share = (width + GAP) // len(own) - GAP
    return max(1, min(width, max(own), max(share, 16)))


@dataclass(frozen=True)
class Painted:
    """A picture as a terminal takes it: lines of cells, each `width` cells wide."""

    lines: list[list[Segment]]
    width: int
    overlay: str = ""
    """What the terminal draws over the cells once they stand, with the cursor in the first of them; else ""."""


def fitted(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """The size, in pixels, at which a picture of `size` is shown in `box`: enlarged by a whole number, or reduced."""
    width, height = size
    across, down = box
    if width <= across and height <= down:
        factor = min(across // width, down // height)
        return width * factor, height * factor
    scale = min(across / width, down / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def reduced(image: Image, box: tuple[int, int]) -> Image:
    """`image` as RGB, fitted into `box` (pixels) by nearest neighbours or, downwards, by averaging."""
    from PIL.Image import Resampling

    image = _eight_bits(image)
    size = fitted(image.size, box)
    if size != image.size:
        enlarged = size[0] >= image.width and size[1] >= image.height
        image = image.resize(size, Resampling.NEAREST if enlarged else Resampling.BOX)
    return _opaque(image).convert("RGB")


def _eight_bits(image: Image) -> Image:
    """`image` in a mode whose pixels can be averaged: palettes are looked up, wide greys brought down to 0..255."""
    if image.mode[0] in "IF":
        brightest = image.getextrema()[1]
        white = next((white for white in (1, 255) if brightest <= white), 65535)
        return image.convert("F").point(lambda value: value * (255 / white) + 0).convert("L")
    if image.has_transparency_data and image.mode != "RGBA":
        return image.convert("RGBA")
    return image.convert("RGB") if image.mode in ("P", "1") else image


def _opaque(image: Image) -> Image:
    if image.mode != "RGBA":
        return image
    from PIL import Image as Images

    side = max(1, min(image.size) // 8)
    across, down = -(-image.width // side), -(-image.height // side)
    greys = bytes(CHECKER[(x + y) % 2] for y in range(down) for x in range(across))
    squares = Images.frombytes("L", (across, down), greys)
    behind = squares.resize((across * side, down * side), Images.Resampling.NEAREST).crop((0, 0, *image.size))
    return Images.alpha_composite(behind.convert("RGBA"), image)


def cells(image: Image, weights: str = "") -> list[list[Segment]]:
    """The lines of cells of an RGB `image`, one cell a column and two rows of pixels; equal neighbours are one segment.

    `weights`: characters from dark to bright that stand for brightness where there are no colours.
    """
    rgb, stride = image.tobytes(), 3 * image.width
    rows = [rgb[start : start + stride] for start in range(0, len(rgb), stride)]
    below = [*rows[1::2], b""] if len(rows) % 2 else rows[1::2]
    pairs = zip(rows[::2], below, strict=True)
    return [_weighted(*pair, weights) if weights else _coloured(*pair) for pair in pairs]


def _coloured(upper: bytes, lower: bytes) -> list[Segment]:
    from rich.segment import Segment

    line: list[Segment] = []
    start = 0
    for end in range(3, len(upper) + 3, 3):
        colours = upper[start : start + 3], lower[start : start + 3]
        if colours != (upper[end : end + 3], lower[end : end + 3]):
            line.append(Segment("▀" * ((end - start) // 3), _style(*colours)))
            start = end
    return line


def _style(upper: bytes, lower: bytes) -> Style:
    from rich.color import Color
    from rich.style import Style

    return Style.from_color(Color.from_rgb(*upper), Color.from_rgb(*lower) if lower else None)


def _weighted(upper: bytes, lower: bytes, weights: str) -> list[Segment]:
    from rich.segment import Segment

    lower = lower or upper
    brightness = [(_luma(upper, x) + _luma(lower, x)) / 2 for x in range(0, len(upper), 3)]
    return [Segment("".join(weights[int(value * len(weights))] for value in brightness))]


def _luma(row: bytes, x: int) -> float:
    """Rec. 709 weights, 0 to below 1; gamma is left in, as the eye's own response roughly undoes it."""
    return (0.2126 * row[x] + 0.7152 * row[x + 1] + 0.0722 * row[x + 2]) / 256
