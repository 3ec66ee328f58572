"""The pictures of a folder with their captions, a page at a time, and the folders that subsets stand for.

Folders hold a hundred thousand files and change under us. The order of a folder is kept for as long as the folder is
untouched, and only the page that is asked for is looked into. To find words in captions, all of them have to be read
once; what they said is kept like the order, so a caption file that another program edits in place is found by its new
words only when something else has changed in the folder. Whatever is wrong with one file is said of that file.
"""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from engine.errors import Problem, UserError
from engine.host.kept import Kept, Stamp, regular, settled, stamp
from engine.protocol.browse import FolderRef, ImageEntry, Images, SubsetFolder, SubsetFolders

if TYPE_CHECKING:
    from engine.data.captions import Caption
    from engine.data.folders import Folder

MOST = 10_000
"""Entries of a page."""
READERS = 8
"""Threads that read captions where most of them would wait: from a network, or a disk that turns."""
SAMPLE, SLOW = 500, 1e-4
"""Captions after which it is known how long one takes, and the seconds from which that is long. One thread alone is
twice as quick where the captions are in memory, since the interpreter lets but one of them work."""
CHUNK = 1 << 16

_listings, _metadata, _texts, _found, _sizes = Kept(8), Kept(4), Kept(4), Kept(8), Kept(50_000)


@dataclass(frozen=True)
class _Listing:
    """The images of a folder in natural order."""

    folder: Path
    names: list[str]
    stamp: tuple[int, Stamp | None]
    """The folder's time in nanoseconds, and the stamp of its metadata.jsonl."""
    lasting: bool
    """Whether what is learnt of it now may be kept."""


def images(params: FolderRef) -> Images:
    """The pictures of a folder, or those that `find` finds, with the captions that training would take.

    Raises UserError for a page that makes no sense and a folder that can't be listed.
    """
    check_page(params.offset, params.limit)
    listing = _listing(params.path)
    names = _matching(listing, params.find) if params.find.split() else listing.names
    offset = _place(listing, names, params.at) if params.at else params.offset
    page = tuple(listing.folder / name for name in names[offset : offset + params.limit])
    captions = _captions(listing, page)
    return Images(total=len(names), images=[_entry(path, captions[path]) for path in page], offset=offset)


def caption_of(path: Path) -> Caption:
    """The caption of one picture, as a list has it."""
    from engine.data.captions import SUFFIXES, read_captions

    folder = _folder(path.parent, (path,))
    caption = read_captions(folder, {})[0][path]
    return caption if caption.source in SUFFIXES else read_captions(folder)[0][path]


def subsets(tables: Sequence[dict[str, Any]]) -> SubsetFolders:
    """The folders of images that subsets of a config stand for, and what is wrong with each subset."""
    from engine.config import Subset, check
    from engine.data.folders import expand

    folders, problems = [], []
    for number, table in enumerate(tables):
        field = f"dataset.subsets[{number}]"
        subset, wrong = check(Subset, table, lambda _: "the dataset", field)
        found = []
        if subset is not None:
            found, _, refused = expand([subset], Path("/"))
            wrong = [msgspec.structs.replace(problem, field=f"{field}.path") for problem in refused]
        problems += wrong
        folders += [
            SubsetFolder(
                subset=number,
                path=str(folder.path),
                images=len(folder.images),
                repeats=folder.repeats,
                class_tokens=folder.class_tokens,
                is_reg=folder.is_reg,
            )
            for folder in found
        ]
    return SubsetFolders(folders=folders, problems=problems)


def measured(path: Path) -> tuple[int, int, int]:
    """Bytes, width and height of a picture by its header; zeros where it can't be read. An untouched file is read
    once."""
    from engine.data.headers import upright_size

    facts = regular(path)
    if isinstance(facts, str):
        return 0, 0, 0
    return facts.st_size, *_sizes.get(path, stamp(facts), lambda: upright_size(path))


def check_page(offset: int, limit: int) -> None:
    """Refuse a page that is none."""
    if not (offset >= 0 and 1 <= limit <= MOST):
        found = f"offset {offset}, limit {limit}"
        raise UserError(Problem(where="page", expected=f"an offset from 0 on and 1 to {MOST} entries", found=found))


def words_of(find: str) -> tuple[list[str], list[str]]:
    """The words to be held and those not to be, as they are compared."""
    words = find.casefold().split()
    unwanted = [word[1:] for word in words if word[0] == "-" and len(word) > 1]
    return [word for word in words if word[0] != "-" or len(word) == 1], unwanted


def _listing(path: str) -> _Listing:
    from engine.data.captions import METADATA

    try:
        folder = Path(path).expanduser().absolute()
        changed = os.stat(folder).st_mtime_ns
        lasting = settled(changed)
        names = _listings.get(folder, changed, lambda: _names(folder), lasting)
    except (OSError, RuntimeError, ValueError) as error:  # no such home, a null character in the path
        found = "a file" if isinstance(error, NotADirectoryError) else getattr(error, "strerror", None) or str(error)
        advice = "check the path and its permissions"
        raise UserError(Problem(where=path, expected="a folder", found=found.lower(), advice=advice)) from None
    metadata = regular(folder / METADATA)
    return _Listing(folder, names, (changed, None if isinstance(metadata, str) else stamp(metadata)), lasting)


def _names(folder: Path) -> list[str]:
    from engine.data.folders import IMAGES, is_folder
    from engine.data.natural import in_natural_order

    suffixes = tuple(IMAGES)
    with os.scandir(folder) as entries:
        return in_natural_order(
            entry.name
            for entry in entries
            if entry.name.lower().endswith(suffixes) and entry.name[0] != "." and not is_folder(entry)
        )


def _matching(listing: _Listing, find: str) -> list[str]:
    """The names of the images that hold these words, in their name or caption, and not those behind a minus."""

    def matching() -> list[str]:
        wanted, unwanted = words_of(find)
        texts = _texts.get(listing.folder, listing.stamp, lambda: _searched(listing), listing.lasting)
        places: Sequence[int] = range(len(texts))
        for word in wanted:
            places = [place for place in places if word in texts[place]]
        for word in unwanted:
            places = [place for place in places if word not in texts[place]]
        return [listing.names[place] for place in places]

    return _found.get((listing.folder, find), listing.stamp, matching, listing.lasting)


def _place(listing: _Listing, names: Sequence[str], path: str) -> int:
    """The index of a picture by its path; behind the last where it is not listed."""
    folder, _, name = path.rpartition("/")
    listed = Path(folder or "/") == listing.folder and name in names
    return names.index(name) if listed else len(names)


# ---- captions


def _captions(listing: _Listing, page: tuple[Path, ...]) -> dict[Path, Caption]:
    """The captions of a page, read anew from the files beside the images."""
    from engine.data.captions import read_captions

    return read_captions(_folder(listing.folder, page), _lines(listing))[0]


def _lines(listing: _Listing) -> dict[str, str]:
    """What metadata.jsonl says of the folder's images; it is read again when it has changed, or the folder has."""
    from engine.data.captions import read_metadata

    def lines() -> dict[str, str]:
        return read_metadata(_folder(listing.folder, tuple(map(Path, listing.names))), [], [])

    return _metadata.get(listing.folder, listing.stamp, lines, listing.lasting) if listing.stamp[1] else {}


def _searched(listing: _Listing) -> list[str]:
    """Name and caption of each image, in the form in which words are looked for in them.

    As `read_captions` would have it, in a tenth of the time: the whole folder is read, and nothing but the words.
    """
    from engine.data.captions import SUFFIXES

    lines, tokens = _lines(listing), _folder(listing.folder, ()).class_tokens
    there = {name for name in os.listdir(listing.folder) if name.endswith(SUFFIXES)}
    handle = os.open(listing.folder, os.O_RDONLY | os.O_DIRECTORY)

    def text(name: str) -> str:
        stem = os.path.splitext(name)[0]
        beside = (_first_line(stem + suffix, handle) for suffix in SUFFIXES if stem + suffix in there)
        caption = next(filter(None, beside), "") or lines.get(unicodedata.normalize("NFC", name)) or tokens
        return f"{name}\n{caption}".casefold()

    def texts(names: list[str]) -> list[str]:
        return [text(name) for name in names]

    try:
        start = time.perf_counter()
        searched = texts(listing.names[:SAMPLE])
        rest = listing.names[SAMPLE:]
        if time.perf_counter() - start < SAMPLE * SLOW:
            return searched + texts(rest)
        with ThreadPoolExecutor(READERS) as pool:
            shares = [rest[place : place + SAMPLE] for place in range(0, len(rest), SAMPLE)]
            return searched + [one for share in pool.map(texts, shares) for one in share]
    finally:
        os.close(handle)


def _first_line(name: str, folder: int) -> str:
    """The first line with words in it of a file in an open folder; empty where it can't be read."""
    from engine.data.captions import decode

    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return ""
    try:
        content = os.read(descriptor, CHUNK)
        while len(content) % CHUNK == 0 and (more := os.read(descriptor, CHUNK)):
            content += more
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    return next(filter(None, map(str.strip, decode(content)[0].splitlines())), "")


def _folder(path: Path, images: tuple[Path, ...]) -> Folder:
    """A folder as training would see it that is given nothing but its path."""
    from engine.data.folders import Folder, kohya_name

    repeats, tokens = kohya_name(path.name) or (1, "")
    return Folder(
        path=path,
        images=images,
        subset=0,
        repeats=max(1, repeats),
        class_tokens=tokens,
        tokens_from="folder name" if tokens else "",
        caption_prefix="",
        caption_suffix="",
        is_reg=False,
        flip=False,
        crops=1,
        caption_dropout=0.0,
    )


def _entry(path: Path, caption: Caption) -> ImageEntry:
    size, width, height = measured(path)
    about = {"caption": caption.text, "caption_source": caption.source}
    return ImageEntry(path=str(path), bytes=size, width=width, height=height, **about)
