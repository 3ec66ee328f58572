"""A look at every image before the first step, so that all that is wrong is reported at once and in seconds.

Each file is read once and decoded in full (nothing less finds a truncated one). Whatever this module accepts,
`images.load_rgb` must be able to load: both go through `images.decode`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from engine.data.buckets import Size, bucket_for, enlargement
from engine.data.images import WHITE, Colour, decode, read
from engine.data.notes import Note, shown, unseen
from engine.errors import Problem, UserError

THREADS = 4
"""Pillow decodes without the interpreter's lock; each thread holds one picture in memory."""

Progress = Callable[[int, int], None]
"""Called with how many are done and how many there are. What it raises ends the work."""


@dataclass(frozen=True)
class Facts:
    """What is known of a usable picture. Width and height are those of the picture upright, in pixels."""

    path: Path
    sha256: str
    """Of the file's content, in hex."""
    width: int
    height: int
    mode: str
    """Pillow's name for the file's kind of pixels, such as RGB, CMYK or I;16."""
    bucket: Size


@dataclass
class Report:
    """`facts` has the usable images in the order asked; each image that is missing there has its problem."""

    facts: dict[Path, Facts] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Rules:
    """What an image must fit: the resolution and step of its bucket, and how far it may be enlarged to cover it."""

    resolution: int
    step: int
    buckets: bool = True
    max_upscale: float = 2.0
    background: Colour = WHITE


def check(paths: Sequence[Path], rules: Rules, progress: Progress | None = None) -> Report:
    """Look at all images. Raises nothing for a bad one; a path that is given twice is looked at once."""
    unique = list(dict.fromkeys(paths))
    report = Report()
    pool = ThreadPoolExecutor(max_workers=min(THREADS, os.cpu_count() or 1))
    try:
        for done, (facts, notes, problems) in enumerate(pool.map(lambda path: _look(path, rules), unique), start=1):
            if facts:
                report.facts[facts.path] = facts
            report.notes += notes
            report.problems += problems
            if progress:
                progress(done, len(unique))
    finally:
        pool.shutdown(cancel_futures=True)
    report.notes += _twins(unique) + _duplicates(report.facts.values())
    return report


def check_lengths(captions: Iterable[tuple[Path, str]], count_tokens: Callable[[str], int], limit: int) -> list[Note]:
    """A note for each caption of more tokens than the text encoder reads. `count_tokens` counts the user's own."""
    counted: dict[str, int] = {}
    notes = []
    for path, caption in captions:
        if caption not in counted:
            counted[caption] = count_tokens(caption)
        if counted[caption] > limit:
            detail = f"{counted[caption]} tokens, {limit} are read"
            notes.append(Note("caption longer than the text encoder reads", shown(path), detail))
    return notes


def _look(path: Path, rules: Rules) -> tuple[Facts | None, list[Note], list[Problem]]:
    try:
        path.name.encode()
    except UnicodeEncodeError:
        expected = "a name in UTF-8"
        return None, [], [Problem(where=shown(path), expected=expected, found="other bytes", advice="rename it")]
    try:
        content = read(path)
        decoded = decode(content, path)
    except UserError as error:
        return None, [], list(error.problems)
    width, height = decoded.image.size
    bucket = bucket_for(width, height, rules.resolution, rules.step, rules.buckets)
    scale = enlargement(width, height, bucket)
    if scale > rules.max_upscale:
        return None, [], [_too_small(path, decoded.image.size, bucket, rules.max_upscale)]
    said = [
        (_odd(path.name), "unusual file name", ""),
        (decoded.turned, "turned upright by its EXIF orientation", ""),
        (decoded.sixteen_bit, "16 bits a sample scaled to 8", ""),
        (decoded.cmyk, "CMYK converted to RGB", ""),
        (decoded.alpha, "transparent parts laid over #{:02x}{:02x}{:02x}".format(*rules.background), ""),
        (scale > 1, "enlarged to cover its bucket", f"{scale:.2f} times"),
    ]
    notes = [Note(what, shown(path), detail) for holds, what, detail in said if holds]
    sha256 = hashlib.sha256(content).hexdigest()
    return Facts(path, sha256, width, height, decoded.image.mode, bucket), notes, []


def _too_small(path: Path, size: Size, bucket: Size, most: float) -> Problem:
    return Problem(
        where=shown(path),
        expected=f"a picture that covers {bucket[0]}×{bucket[1]} when enlarged at most {most:g} times",
        found=f"{size[0]}×{size[1]} pixels, to be enlarged {enlargement(*size, bucket):.1f} times",
        advice="use a larger picture, a smaller dataset.resolution or a larger dataset.max_upscale",
    )


def _odd(name: str) -> bool:
    """Names that trip other programs, or people: read as an option, cut at the wrong place, or not what they seem."""
    stem = Path(name).stem
    return name.startswith("-") or stem != stem.strip() or any(map(unseen, name))


def _twins(paths: Sequence[Path]) -> list[Note]:
    """Images such as a.png and a.jpg, which share their caption files."""
    stems: dict[Path, list[Path]] = {}
    for path in paths:
        stems.setdefault(path.with_suffix(""), []).append(path)
    return [
        Note("images of one name share their caption", shown(first), "with " + ", ".join(shown(p.name) for p in others))
        for first, *others in stems.values()
        if others
    ]


def _duplicates(facts: Iterable[Facts]) -> list[Note]:
    """Files of the same content, the first of them named."""
    first: dict[str, Facts] = {}
    notes = []
    for one in facts:
        original = first.setdefault(one.sha256, one)
        if original is not one:
            notes.append(Note("the same file twice", shown(one.path), f"as {shown(original.path.name)}"))
    return notes
