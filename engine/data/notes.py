"""What is used all the same but worth saying: an image that was rotated, a caption file that was empty.

A `Note` is not a `Problem`: nothing has to be mended, but nothing is done to the user's data behind their back either.
Notes are about single files and there may be thousands, so they carry their kind apart from their place and `summary`
folds those of a kind into one line.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Note:
    """`what` is the kind, the same words for every file that it happened to; `detail` is what differs."""

    what: str
    where: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.detail})" if self.detail else "")


def unseen(character: str) -> bool:
    """True of what shows nothing or turns the line around: control and format characters, line separators."""
    return unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp"}


def shown(path: Path | str) -> str:
    """A path as one line of encodable text: bytes that are not UTF-8 and unseen characters become escapes."""
    text = str(path).encode("utf-8", "backslashreplace").decode()
    return "".join(repr(c)[1:-1] if unseen(c) else c for c in text)


def summary(notes: Iterable[Note], examples: int = 3) -> list[str]:
    """One line for each kind, in order of first appearance: how often it happened and the first few places."""
    kinds: dict[str, list[Note]] = {}
    for note in notes:
        kinds.setdefault(note.what, []).append(note)
    return [_line(what, alike, examples) for what, alike in kinds.items()]


def _line(what: str, alike: list[Note], examples: int) -> str:
    if len(alike) == 1:
        return str(alike[0])
    names = [
        Path(note.where).name + (f" ({note.detail})" if note.detail else "")
        for note in alike[: examples if len(alike) > examples + 1 else len(alike)]
    ]
    rest = len(alike) - len(names)
    return f"{what}: {len(alike)} files: {', '.join(names)}" + (f" and {rest} more" if rest else "")
