"""What is said of a folder, an image and its caption: rows of the list, the line above, the words at its side.

Functions of what they show, and of nothing else. Names and captions come from files and are never markup. What training
makes of a caption is spelled here once more, since the program that draws shares no code with the one that trains; a
test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.content import Content

from engine.protocol.browse import ImageEntry, ImageFinding
from loratui import figures
from loratui.screens.dataset_shelves import Shelf
from loratui.widgets.columns import Column, clean, cut, fit, row

COLUMNS = (
    Column("  image", width=10, flex=1),
    Column("size", width=10, align="right", needs=44),
    Column("caption", flex=2, needs=34),
)
SIGNS = {"problem": "!", "note": "~", "": " "}
LEAST = 12
"""Cells that the end of a folder's path keeps on the line above the list, whatever is said of it."""
PLACEHOLDER = "·····"
OWN = (".txt", ".caption", "metadata.jsonl")
"""Sources of captions that are about one image; other captions are those of its folder."""

Styles = Callable[[str], Style]
"""From a theme's variable to the style of that colour."""


def name(path: str) -> str:
    return path.rpartition("/")[2]


def folder(path: str) -> str:
    return path.rpartition("/")[0]


# --- captions


def affixed(text: str, prefix: str, suffix: str) -> str:
    """The caption with what the subset puts around it; a blank between, but none before a punctuation mark."""
    joined = " ".join(part for part in (prefix.strip(), text) if part)
    suffix = suffix.strip()
    blank = " " if joined and suffix and suffix[0] not in ",.;:!?" else ""
    return joined + blank + suffix


def own_caption(entry: ImageEntry) -> str:
    """The caption that is the image's own; empty where it takes the class words of its folder."""
    return entry.caption if entry.caption_source in OWN else ""


def trained(own: str, shelf: Shelf) -> str:
    """What training reads for an image whose own caption this is."""
    return affixed(own or shelf.class_tokens, shelf.setting("caption_prefix"), shelf.setting("caption_suffix"))


def source(entry: ImageEntry, shelf: Shelf) -> str:
    """Where the caption comes from, in words; it comes from somewhere."""
    if own_caption(entry):
        return entry.caption_source
    return "class words of the folder's settings" if shelf.setting("class_tokens").strip() else "the folder's name"


def tokens(count: int | None, limit: int) -> str:
    """Tokens of a caption out of those that are read."""
    if count is None:
        return ""
    too_many = f" ! {count - limit} too many: the end is not read" if count > limit else ""
    return f"{count}/{limit}{too_many}"


# --- the list


def image_row(
    entry: ImageEntry | None, shelf: Shelf | None, findings: Sequence[ImageFinding], width: int, style: Styles
) -> Text:
    """One image. A problem takes the place of the caption; what has not come yet is a dim mark."""
    if entry is None:
        return Text(f"  {PLACEHOLDER}", style="dim", no_wrap=True)
    worst = worst_of(findings)
    colour = style({"problem": "text-error", "note": "text-warning"}[worst]) if worst else ""
    signed = Text.assemble((SIGNS[worst], colour), " ", name(entry.path))
    if worst == "problem":
        said = Text(short(next(one.text for one in findings if one.severity == worst)), style=colour)
    else:
        own = own_caption(entry)
        said = Text(own) if own or shelf is None else Text(shelf.class_tokens or "no caption", style="dim italic")
    size = f"{entry.width}×{entry.height}" if entry.width else "?"
    return row(COLUMNS, fit(COLUMNS, width), [signed, size, said])


def header(width: int) -> Text:
    return Text(row(COLUMNS, fit(COLUMNS, width), [column.title for column in COLUMNS]).plain, no_wrap=True)


def short(text: str) -> str:
    """The half of a problem that a row has room for: what was found, without what was expected."""
    return text.partition("; found ")[2] or text


def worst_of(findings: Sequence[ImageFinding]) -> str:
    """`problem`, `note`, or nothing."""
    return min((one.severity for one in findings), default="", key=("problem", "note").index)


# --- the line above the list


def folder_line(place: str, facts: Sequence[str], width: int) -> str:
    """A folder, its end rather than its beginning where it is long, and as many facts about it as fit."""
    told = ""
    for fact in facts:
        if cell_len(told) + cell_len(fact) + 3 > width - min(cell_len(place), LEAST):
            break
        told += f" · {fact}"
    room = width - cell_len(told)
    place = clean(place)
    if cell_len(place) > room:
        while place and cell_len(place) > room - 1:
            place = place[1:]
        place = f"…{place}"
    return cut(place + told, width)


def folder_facts(shelf: Shelf, count: int | None, filtered: bool, check: Sequence[str]) -> list[str]:
    """Most important first. `count`: images that are listed, None as long as nobody knows; `filtered`: not all are.
    `check`: what a check has to say.
    """
    facts = []
    if count is None:
        facts = [] if shelf.problems else ["…"]
    elif shelf.images or not shelf.problems:
        facts = [f"{count:,} of {_plural(max(count, shelf.images), 'image')}" if filtered else _plural(count, "image")]
    facts += check
    if shelf.repeats != 1:
        facts.append(f"{shelf.repeats} repeats")
    if shelf.is_reg:
        facts.append("class images")
    if shelf.class_tokens:
        facts.append(f"“{clean(shelf.class_tokens)}”")
    return facts


def checked(problems: int, notes: int, elsewhere: int) -> list[str]:
    """What a check has found here and in the other folders."""
    here = f"! {_plural(problems, 'problem')}" if problems else "✓ no problems"
    facts = [f"{here}, {elsewhere:,} elsewhere" if elsewhere else here]
    return facts + ([f"~ {_plural(notes, 'note')}"] if notes else [])


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def refusal(shelf: Shelf) -> Content:
    """Why a subset stands for no images, and what to do about it."""
    lines = [Content.styled(f"✗ {clean(shelf.path)}", "$text-error")]
    for problem in shelf.problems:
        lines.append(Content(clean(f"expected {problem.expected}; found {problem.found}")))
        lines += [Content(clean(f"→ {problem.advice}"))] if problem.advice else []
    lines += [Content("→ d takes it out of the project; o gives it another path")]
    return Content("\n").join(lines)


# --- beside the picture


def facts(entry: ImageEntry) -> str:
    """One line about the file."""
    shape = f"{entry.width}×{entry.height}" if entry.width else "its header can't be read"
    return f"{shape} · {figures.size(entry.bytes)}"


def about(
    entry: ImageEntry, shelf: Shelf, counted: str, findings: Sequence[ImageFinding], edited: bool = False
) -> Content:
    """Findings first, then the caption as it is and as it is read. `edited`: that is newer than they are."""
    parts = []
    for one in sorted(findings, key=lambda one: one.severity != "problem"):
        style = "$text-error" if one.severity == "problem" else "$text-warning"
        parts.append(Content.styled(f"{SIGNS[one.severity]} {clean(one.text)}", style))
        parts += [Content(f"  → {clean(one.advice)}")] if one.advice else []
    if findings and edited:
        parts.append(Content.styled("  found before the last edit; c checks again", "$text-muted"))
    own = own_caption(entry)
    read = trained(own, shelf)
    words = own or shelf.class_tokens
    if words:
        parts += [_heading(f"caption ({source(entry, shelf)})", counted), Content(clean(words))]
    else:
        parts.append(Content.styled("no caption: e writes one", "$text-muted"))
    if read != words:
        parts += [_heading("training reads", "" if words else counted), Content(clean(read))]
    return Content("\n").join(parts)


def _heading(text: str, aside: str) -> Content:
    style = "$text-error" if "!" in aside else "$text-muted"
    return Content.assemble((text, "$text-muted"), "  ", (aside, style))


def before_editing(entry: ImageEntry, shelf: Shelf) -> str:
    """What is worth knowing before a caption is written; empty for nothing."""
    text = name(entry.path).rpartition(".")[0] + ".txt"
    if own_caption(entry):
        return "" if entry.caption_source == ".txt" else f"will be in {clean(text)}, before {entry.caption_source}"
    if shelf.class_tokens:
        return f"no caption of its own: training reads “{clean(shelf.class_tokens)}”"
    return ""
