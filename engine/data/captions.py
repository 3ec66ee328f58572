"""The caption of every image in a folder, and where it came from.

The first that has words in it wins: `NAME.txt`, `NAME.caption`, the image's line in `metadata.jsonl`, then the class
tokens (of the subset, else of the folder's name). Of a file with several lines the first with words in it is the
caption, as in kohya's trainers; others keep notes or alternatives in the rest. An empty file is passed over with a
note. Prefix and suffix go around whatever was found, an empty caption included.
"""

from __future__ import annotations

import errno
import json
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from engine.data.folders import Folder
from engine.data.notes import Note, shown
from engine.errors import Problem

SUFFIXES = (".txt", ".caption")
METADATA = "metadata.jsonl"
TEXT_FIELDS = ("text", "caption", "prompt")
"""Fields of a metadata line that may hold the caption; the first is the one of Hugging Face's image folders."""

NO_CAPTION = "none"


@dataclass(frozen=True)
class Caption:
    """The words that an image is trained on. `source` is one of .txt, .caption, metadata.jsonl, class_tokens, folder
    name, none."""

    text: str
    source: str


def read_captions(
    folder: Folder, lines: dict[str, str] | None = None
) -> tuple[dict[Path, Caption], list[Note], list[Problem]]:
    """A caption for each of the folder's images, keyed by the image's path.

    `lines`: what `read_metadata` says of the whole folder, from a caller that asks for a few of its images at a time.
    """
    notes: list[Note] = []
    problems: list[Problem] = []
    lines = read_metadata(folder, notes, problems) if lines is None else lines
    captions = {}
    for image in folder.images:
        found = _beside(image, notes, problems)
        if found is None and _key(image.name) in lines:
            found = Caption(lines[_key(image.name)], METADATA)
        if found is None:
            found = Caption(folder.class_tokens, folder.tokens_from or NO_CAPTION)
            if not found.text:
                notes.append(Note("no caption", shown(image)))
        captions[image] = Caption(affixed(found.text, folder.caption_prefix, folder.caption_suffix), found.source)
    return captions, notes, problems


def affixed(text: str, prefix: str, suffix: str) -> str:
    """The caption with what goes before and behind it, a blank between them unless a punctuation mark follows."""
    joined = " ".join(part for part in (prefix.strip(), text) if part)
    suffix = suffix.strip()
    blank = " " if joined and suffix and suffix[0] not in ",.;:!?" else ""
    return joined + blank + suffix


def decode(content: bytes) -> tuple[str, str]:
    """The text of a file in an unknown encoding, and the name of the encoding if it was not UTF-8.

    UTF-16 is known by its mark; what is neither is taken for Windows' Western encoding, which hardly anything is not.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace"), "utf-16"
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding), "" if encoding == "utf-8-sig" else encoding
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1"), "latin-1"


def _beside(image: Path, notes: list[Note], problems: list[Problem]) -> Caption | None:
    for suffix in SUFFIXES:
        file = image.with_suffix(suffix)
        text = _read(file, notes, problems)
        if text is None:
            continue
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            notes.append(Note("empty caption file passed over", shown(file)))
            continue
        if len(lines) > 1:
            notes.append(Note("only the first line is the caption", shown(file), f"of {len(lines)}"))
        return Caption(lines[0], suffix)
    return None


def _read(file: Path, notes: list[Note], problems: list[Problem]) -> str | None:
    """The file's text, or None if there is no such file or it can't be read (which is a problem)."""
    try:
        with open(file, "rb", opener=_unwaiting) as opened:
            content = opened.read() or b""
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # the image's own name just fits, with its shorter suffix
            return None
        reason = (error.strerror or "it can't be read").lower()
        problems.append(
            Problem(where=shown(file), expected="a readable caption file", found=reason, advice="mend or remove it")
        )
        return None
    text, encoding = decode(content)
    if encoding:
        notes.append(Note("caption file is not UTF-8", shown(file), f"read as {encoding}"))
    return text


def _unwaiting(path: str, flags: int) -> int:
    """Opens a file without waiting for anything to come: a pipe of that name would never end."""
    return os.open(path, flags | os.O_NONBLOCK)


def _key(name: str) -> str:
    """File names as equal whether their accents are stored composed (Linux) or apart (macOS)."""
    return unicodedata.normalize("NFC", name)


def read_metadata(folder: Folder, notes: list[Note], problems: list[Problem]) -> dict[str, str]:
    """File name (composed) → caption, from the folder's metadata.jsonl if it has one."""
    file = folder.path / METADATA
    text = _read(file, notes, problems)
    here = {_key(image.name) for image in folder.images}
    captions: dict[str, str] = {}
    for number, line in enumerate((text or "").split("\n"), start=1):  # not splitlines: JSON may hold U+2028
        if not line.strip():
            continue
        try:
            name, caption = _parse_line(line)
        except ValueError as error:
            expected, found, advice = error.args
            field = f"line {number}"
            problems.append(Problem(where=shown(file), field=field, expected=expected, found=found, advice=advice))
            continue
        key = _key(name)
        if key not in here:
            notes.append(Note("a line names no image of this folder", shown(file), f"line {number}: {shown(name)}"))
        elif key in captions:
            notes.append(Note("a second line for an image is passed over", shown(file), f"line {number}: {name}"))
        elif caption:
            captions[key] = caption
        else:
            notes.append(Note("empty caption passed over", shown(file), f"line {number}: {name}"))
    return captions


def _parse_line(line: str) -> tuple[str, str]:
    """File name and caption; ValueError(expected, found, advice). The name is only ever compared, never opened."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("one JSON object a line", _short(line), "mend the line") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
        raise ValueError('an object with a "file_name"', _short(line), "mend the line")
    name = entry["file_name"]
    parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
    if ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
        raise ValueError("a file_name inside the folder", _short(name), "give the file's name alone")
    texts = [entry[field] for field in TEXT_FIELDS if isinstance(entry.get(field), str)]
    if not texts:
        raise ValueError('the caption in "text"', _short(line), "add it, or remove the line")
    lines = [part.strip() for part in texts[0].splitlines() if part.strip()]
    # JSON can spell half a surrogate pair, which nothing could write down again.
    caption = lines[0].encode("utf-8", "replace").decode() if lines else ""
    return PurePosixPath(name).as_posix(), caption


def _short(text: str, most: int = 60) -> str:
    return repr(text if len(text) <= most else text[: most - 1] + "…")


def sources(captions: Iterable[Caption]) -> dict[str, int]:
    """How many captions came from where, in order of precedence."""
    counts: dict[str, int] = {}
    order = (*SUFFIXES, METADATA, "class_tokens", "folder name", NO_CAPTION)
    for source in sorted((caption.source for caption in captions), key=order.index):
        counts[source] = counts.get(source, 0) + 1
    return counts
