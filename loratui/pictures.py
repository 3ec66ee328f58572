"""Pictures as text: two pixels a character cell, the upper half block `▀` with one colour in front and one behind.

Colours are given as truecolor and left to Rich to bring down to what the terminal has; where there are none, the cells
fall back to characters of different weight, since a half block without colour shows nothing. The same picture and width
always give the same cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text

WEIGHTS = " .:-=+*#%@"
GAP = 2


class HalfBlocks:
    """A picture that Rich can print: `width` cells wide, as high as its proportions ask for.

    A cell is taken to be twice as high as wide, so a pixel is square. A picture is never enlarged.
    """

    def __init__(self, image: Image, width: int):
        self.rows = pixel_rows(image, width)
        self.width = len(self.rows[0])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        coloured = console.color_system is not None and not console.no_color and not options.ascii_only
        for upper, lower in zip(self.rows[::2], self.rows[1::2], strict=True):
            cells = _coloured(upper, lower) if coloured else _weighted(upper, lower)
            yield from cells
            yield Segment.line()

    def __rich_measure__(self, console: Console, options: ConsoleOptions):
        from rich.measure import Measurement

        return Measurement(self.width, self.width)


def half_blocks(image: Image, width: int) -> HalfBlocks:
    """`image` for the terminal, at most `width` cells wide. Transparency is composited on black."""
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


def pixel_rows(image: Image, width: int) -> list[list[tuple[int, int, int]]]:
    """The picture as an even number of rows of RGB, `width` pixels wide or less if it has less itself."""
    from PIL import Image as Images

    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Images.alpha_composite(Images.new("RGBA", image.size, (0, 0, 0, 255)), image)
    image = image.convert("RGB")
    columns = max(1, min(width, image.width))
    rows = max(2, 2 * round(image.height * columns / image.width / 2))
    if image.size != (columns, rows):
        image = image.resize((columns, rows), Images.Resampling.BOX)
    content = image.tobytes()
    pixels = list(zip(content[::3], content[1::3], content[2::3], strict=True))
    return [pixels[start : start + columns] for start in range(0, len(pixels), columns)]


def _coloured(upper, lower):
    from rich.color import Color
    from rich.segment import Segment
    from rich.style import Style

    for above, below in zip(upper, lower, strict=True):
        yield Segment("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))


def _weighted(upper, lower):
    from rich.segment import Segment

    for above, below in zip(upper, lower, strict=True):
        brightness = sum(_luma(pixel) for pixel in (above, below)) / 2
        yield Segment(WEIGHTS[min(int(brightness * len(WEIGHTS)), len(WEIGHTS) - 1)])


def _luma(pixel: tuple[int, int, int]) -> float:
    """Rec. 709 weights, 0 to 1; gamma is left in, as the eye's own response roughly undoes it."""
    return (0.2126 * pixel[0] + 0.7152 * pixel[1] + 0.0722 * pixel[2]) / 256
