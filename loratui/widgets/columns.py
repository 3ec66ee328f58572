"""The columns of a list: which fit, how wide each is, and one row of cells laid out as a `Text`.

Everything that comes from a file (names, captions, log lines) goes through `clean` before it is shown. It leaves one
character where a terminal would obey a control code, and none where a format character would make the width of a
character depend on the terminal; whoever changes it should keep `cell_len` of its result what every terminal draws.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from rich.cells import cell_len, set_cell_size
from rich.text import Span, Text

GAP = 2
"""Blank cells between two columns."""

ELLIPSIS = "…"

EMOJI_STYLE = "\ufe0f"
"""Asks for the wide, coloured form of a character. Terminals disagree on its width, so it is left out."""

MOST_PER_CELL = 8
"""Characters looked at per cell: a caption of a megabyte is cut before it is measured."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `width` in cells is what it always takes; `flex` is its share of what is left over.

    With `needs`, the column is hidden in a list narrower than that many cells.
    """

    title: str
    width: int = 0
    flex: int = 0
    align: Literal["left", "right"] = "left"
    needs: int = 0


def fit(columns: Sequence[Column], width: int) -> list[int]:
    """The width of each column in a list of `width` cells, gaps not counted; 0 for one that is hidden.

    Columns that need more than `width` are hidden. Where the rest is still too wide, those with the largest `needs`
    go next, and at last the columns on the right are cut.
    """
    shown = [index for index, column in enumerate(columns) if column.needs <= width]
    while _least(columns, shown) > width:
        index = max(shown, key=lambda index: (columns[index].needs, index))
        if not columns[index].needs:
            break
        shown.remove(index)
    widths = [0] * len(columns)
    left = width
    for index in shown:
        widths[index] = max(0, min(_own(columns[index]), left))
        left -= widths[index] + GAP
    room = left + GAP
    total = sum(columns[index].flex for index in shown)
    if room > 0 and total:
        # Shares are cut from a running sum, so that they add up to the room exactly.
        ends = [room * share // total for share in accumulate(columns[index].flex for index in shown)]
        for index, start, end in zip(shown, [0, *ends], ends, strict=False):
            widths[index] += end - start
    return widths


def row(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str | Text]) -> Text:
    """One row: every cell cleaned, cut with an ellipsis to its column's width, and padded to it."""
    plain: list[str] = []
    spans: list[Span] = []
    at = 0
    for column, width, cell in zip(columns, widths, cells, strict=True):
        if not width:
            continue
        if plain:
            plain.append(" " * GAP)
            at += GAP
        text, own_spans = _shown(cell, width)
        padding = " " * (width - cell_len(text))
        if column.align == "right":
            plain += (padding, text)
            spans += [span.move(at + len(padding)) for span in own_spans]
        else:
            plain += (text, padding)
            spans += [span.move(at) for span in own_spans]
        at += len(text) + len(padding)
    return Text("".join(plain), spans=spans, no_wrap=True, end="")


def header(columns: Sequence[Column], widths: Sequence[int]) -> Text:
    """The titles, laid out as a row."""
    return row(columns, widths, [column.title for column in columns])


def clean(text: str) -> str:
    """`text` on one line, harmless to the terminal and of the same width in all of them."""
    if text.isprintable() and EMOJI_STYLE not in text:
        return text
    return "".join(map(_clean, text))


def cleaned(text: Text) -> Text:
    """A `Text` of `clean` characters, its styles on the same ones as before."""
    plain = clean(text.plain)
    if plain == text.plain:
        return text
    moved = [0, *accumulate(len(clean(character)) for character in text.plain)]
    spans = [Span(moved[span.start], moved[min(span.end, len(moved) - 1)], span.style) for span in text.spans]
    return Text(plain, text.style, spans=spans, no_wrap=True, end="")


def cut(text: str, width: int) -> str:
    """`text` in at most `width` cells, the end replaced by an ellipsis where it does not fit."""
    start = text[: MOST_PER_CELL * width + 1]
    if cell_len(start) <= width and len(start) == len(text):
        return text
    return set_cell_size(start, width - 1).rstrip() + ELLIPSIS if width > 0 else ""


def _own(column: Column) -> int:
    return max(column.width, 1 if column.flex else 0)


def _least(columns: Sequence[Column], shown: Sequence[int]) -> int:
    return sum(_own(columns[index]) + GAP for index in shown) - GAP


def _clean(character: str) -> str:
    if character == EMOJI_STYLE:
        return ""
    match unicodedata.category(character):
        case "Cc":  # control characters: a terminal obeys them
            return "·"
        case "Cs":  # half of a file name that is not UTF-8: it can't be written at all
            return "\ufffd"
        case "Cf":  # joiners, direction marks, tags: no width of their own, but they change their neighbours'
            return ""
        case "Zl" | "Zp":
            return " "
    return character


def _shown(cell: str | Text, width: int) -> tuple[str, list[Span]]:
    """What is shown of a cell, and the styles in it."""
    if isinstance(cell, str):
        return cut(clean(cell), width), []
    cell = cleaned(cell)
    text = cut(cell.plain, width)
    spans = [Span(0, len(cell.plain), cell.style), *cell.spans] if cell.style else cell.spans
    inside = (Span(span.start, min(span.end, len(text)), span.style) for span in spans)
    return text, [span for span in inside if span.start < span.end]
