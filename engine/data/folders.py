"""From the subsets that a user writes to folders of images with their settings.

A subset names either a folder of images or a folder of folders named as kohya's trainers have it: `10_ohwx cat` is ten
repeats of images of "ohwx cat". What the subset itself sets wins over what a folder's name says; a setting left at its
default (one repeat, no class tokens) leaves the word to the name. Nothing is looked for in deeper folders, and whatever
lies there unused is said in a note: images that silently took no part are the oldest complaint about trainers.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.config import Subset
from engine.data.natural import in_natural_order
from engine.data.notes import Note, shown
from engine.errors import Problem

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
COMPANIONS = frozenset({".txt", ".caption", ".jsonl", ".json", ".npz", ".safetensors"})
"""Files that lie beside images for a reason, here or in other trainers, and need no note."""

_EXPECTED = IMAGES | COMPANIONS

_KOHYA = re.compile(r"([0-9]{1,3})_(.*)", re.DOTALL)
"""Repeats, then class tokens. At most three digits: `20240704_trip` is a date, not twenty million repeats."""


@dataclass(frozen=True)
class Folder:
    """One folder of images, and the settings that hold for each of them. `subset` is its place in the request."""

    path: Path
    images: tuple[Path, ...]
    subset: int
    repeats: int
    class_tokens: str
    tokens_from: str
    """Who gave the class tokens: "class_tokens" (the subset), "folder name", or "" if nobody did."""
    caption_prefix: str
    caption_suffix: str
    is_reg: bool
    flip: bool
    crops: int
    caption_dropout: float


@dataclass(frozen=True)
class _Listing:
    images: tuple[Path, ...]
    folders: tuple[Path, ...]
    notes: tuple[Note, ...]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; a link to nowhere or into itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def kohya_name(name: str) -> tuple[int, str] | None:
    """Repeats and class tokens of a folder named like `10_ohwx cat`, or None if it is not named so."""
    match = _KOHYA.fullmatch(name)
    return (int(match[1]), match[2].strip()) if match else None


def expand(subsets: Iterable[Subset], root: Path) -> tuple[list[Folder], list[Note], list[Problem]]:
    """The folders of all subsets in their order, a parent's children in natural order.

    Relative paths are taken from `root`, the folder of the file that holds the request; `~` is the user's home.
    """
    folders: list[Folder] = []
    notes: list[Note] = []
    problems: list[Problem] = []
    for number, subset in enumerate(subsets):
        try:
            found, said = _expand_one(number, subset, root)
        except _Refused as refused:
            problems.append(refused.problem)
        else:
            folders += found
            notes += said
    return folders, notes, problems


class _Refused(Exception):
    def __init__(self, path: Path, number: int, *, expected: str, found: str, advice: str):
        field = f"dataset.subsets[{number}].path"
        self.problem = Problem(where=shown(path), field=field, expected=expected, found=found, advice=advice)


def _expand_one(number: int, subset: Subset, root: Path) -> tuple[list[Folder], list[Note]]:
    path = _resolve(subset.path, root)
    listing = _look(path, number)
    named = [child for child in listing.folders if kohya_name(child.name)]
    if listing.images and named:
        raise _Refused(
            path,
            number,
            expected="a folder of images, or a folder of folders named like `10_ohwx cat`",
            found=f"both: {len(listing.images)} images beside {shown(named[0].name)!r}",
            advice="move the loose images into a folder of their own",
        )
    notes = list(listing.notes)
    if listing.images:
        children = {path: listing}
    else:
        children = {child: _look(child, number) for child in named}
        notes += [note for inside in children.values() for note in inside.notes]
    beside = [folder for folder in listing.folders if folder not in children]
    below = [folder for inside in children.values() for folder in inside.folders if folder not in beside]
    notes += [Note("this folder inside a subset is not looked into", shown(folder)) for folder in (*beside, *below)]
    folders = []
    for child, inside in children.items():
        if child != path and kohya_name(child.name)[0] == 0:
            notes.append(Note("a folder named for 0 repeats is left out", shown(child)))
        elif not inside.images:
            notes.append(Note("this folder holds no images", shown(child)))
        else:
            folders.append(_folder(number, subset, child, inside.images))
            notes += _name_notes(subset, child)
    if not folders:
        raise _Refused(
            path,
            number,
            expected=f"images ({' '.join(sorted(s[1:] for s in IMAGES))})",
            found=_contents(path),
            advice="give the folder that holds the images, or one whose folders are named like `10_ohwx cat`",
        )
    return folders, notes


def _resolve(path: str, root: Path) -> Path:
    try:
        expanded = Path(path).expanduser()
    except RuntimeError:  # "~nobody": no such user, so no such home; the folder will be reported as missing
        expanded = Path(path)
    return Path(os.path.normpath(root / expanded))


def _look(path: Path, number: int) -> _Listing:
    """What lies in a folder: images and folders in natural order, and a note on the rest. Hidden files do not count."""
    try:
        with os.scandir(path) as entries:
            found = {entry.name: is_folder(entry) for entry in entries if not entry.name.startswith(".")}
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        kind = "a file" if isinstance(error, NotADirectoryError) else reason.lower()
        raise _Refused(
            path, number, expected="a folder of images", found=kind, advice="check the path and its permissions"
        ) from None
    names = in_natural_order(found)
    folders = tuple(path / name for name in names if found[name])
    suffixes = {name: _suffix(name) for name in names if not found[name]}
    images = tuple(path / name for name, suffix in suffixes.items() if suffix in IMAGES)
    others = Counter(suffix for suffix in suffixes.values() if suffix not in _EXPECTED)
    notes = ()
    if others:
        kinds = ", ".join(f"{count} {shown(suffix) or 'without suffix'}" for suffix, count in sorted(others.items()))
        notes = (Note("files that are not read as images", shown(path), kinds),)
    return _Listing(images, folders, notes)


def _suffix(name: str) -> str:
    """As pathlib has it, in lower case, without its making a path of each of a hundred thousand names."""
    place = name.rfind(".")
    return name[place:].lower() if 0 < place < len(name) - 1 else ""


def _contents(path: Path) -> str:
    children = [child for child in path.iterdir() if child.is_dir() and not child.name.startswith(".")]
    return f"none, only folders such as {shown(children[0].name)!r}" if children else "none"


def _folder(number: int, subset: Subset, path: Path, images: tuple[Path, ...]) -> Folder:
    named_repeats, named_tokens = kohya_name(path.name) or (1, "")
    tokens = subset.class_tokens.strip()
    return Folder(
        path=path,
        images=images,
        subset=number,
        repeats=subset.repeats if subset.repeats != 1 else max(1, named_repeats),
        class_tokens=tokens or named_tokens,
        tokens_from="class_tokens" if tokens else "folder name" if named_tokens else "",
        caption_prefix=subset.caption_prefix,
        caption_suffix=subset.caption_suffix,
        is_reg=subset.is_reg,
        flip=subset.flip,
        crops=subset.crops,
        caption_dropout=subset.caption_dropout,
    )


def _name_notes(subset: Subset, path: Path) -> list[Note]:
    """What was taken from the folder's name, and where the subset overruled it."""
    named = kohya_name(path.name)
    if not named:
        return []
    repeats, tokens = named
    overruled = [
        f"{field} = {mine!r} of the subset wins"
        for field, mine, theirs in (("repeats", subset.repeats, repeats), ("class_tokens", subset.class_tokens, tokens))
        if mine not in (1, "", theirs)
    ]
    detail = "; ".join([f"{repeats} × {tokens!r}", *overruled])
    return [Note("repeats and class tokens from the folder's name", shown(path), detail)]
