"""The rows of a form, and how one is drawn: label, value, and beside it what is wrong, or what it was and may be.

Pure: a row says what is to be shown and nothing of where that comes from. A row's width decides which of it fits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from loratui.widgets.columns import clean, cut

LABELS = ((100, 26), (56, 20), (0, 16))
"""From so many cells of a row on, labels have so many of them, the gap included."""
GAP = 2
LEAST_VALUE = 10
NUMBER = 12
"""Cells in which a number is typed."""


@dataclass(frozen=True)
class FormRow:
    """One row. `section` heads others, `field` holds a value, `more` stands for folded ones, `item` belongs to one."""

    key: str
    """What the row is about, for whoever made it."""
    label: str
    sort: Literal["section", "field", "more", "item"] = "field"
    value: str = ""
    note: str = ""
    """What is worth a look: `* was 8`."""
    aside: str = ""
    """What the value may be, or what it is."""
    wrong: str = ""
    """`expected …, found …`, or a count in a section."""


@dataclass(frozen=True)
class Looks:
    """The theme's colours for what differs and for what is wrong."""

    changed: Style = field(default_factory=Style)
    wrong: Style = field(default_factory=Style)


def label_width(width: int) -> int:
    """Cells of the labels' column, the gap behind it included."""
    return next(cells for least, cells in LABELS if width >= least)


def editor_width(width: int, wide: bool) -> int:
    """Cells in which a value is typed; `wide`: it may be any text."""
    room = max(1, width - label_width(width))
    return min(room, max(NUMBER, room * 6 // 10) if wide else NUMBER)


def draw(row: FormRow, width: int, looks: Looks, typing: int = 0) -> Text:
    """A row in `width` cells. `typing`: cells of the value that are covered by what is being typed; 0 for none."""
    if row.sort in ("section", "more"):
        return _heading(row, width, looks)
    indent = "    " if row.sort == "item" else "  "
    start = label_width(width)
    room = max(0, width - start)
    text = Text(_pad(indent + row.label, start - GAP) + " " * GAP, no_wrap=True, end="")
    tail = _tail(row, looks)
    value = clean(row.value)
    if typing:
        taken = min(typing, room)
        value = ""
    elif row.wrong:
        taken = min(max(cell_len(value), LEAST_VALUE), max(room // 2, LEAST_VALUE), room)
    else:
        taken = min(max(cell_len(value), LEAST_VALUE), room - min(tail.cell_len + GAP, room // 3))
    text.append(_pad(value, taken), _value_style(row, looks))
    left = room - taken - GAP
    if tail and left > 2:
        tail.truncate(left, overflow="ellipsis")
        text.append(" " * GAP).append_text(tail)
    return text


def _heading(row: FormRow, width: int, looks: Looks) -> Text:
    more = row.sort == "more"
    text = Text("  " if more else "", no_wrap=True, end="")
    text.append(row.label, Style(dim=True) if more else Style(bold=True))
    if row.note:
        text.append(f"  {row.note}", looks.changed)
    if row.aside:
        text.append(f"  {row.aside}", Style(dim=True))
    if row.wrong:
        text.append(f"  ✗ {row.wrong}", looks.wrong)
    text.truncate(width, overflow="ellipsis")
    return text


def _tail(row: FormRow, looks: Looks) -> Text:
    """What stands behind the value: what is wrong before all else."""
    if row.wrong:
        return Text(clean(f"✗ {row.wrong}"), looks.wrong)
    text = Text()
    if row.note:
        text.append(clean(row.note), looks.changed)
    if row.aside:
        text.append("  " if row.note else "").append(clean(row.aside), Style(dim=True))
    return text


def _value_style(row: FormRow, looks: Looks) -> Style:
    if row.wrong:
        return looks.wrong
    return looks.changed + Style(bold=True) if row.note.startswith("*") else Style(dim=row.sort == "item")


def _pad(text: str, width: int) -> str:
    text = cut(text, width)
    return text + " " * (width - cell_len(text))
