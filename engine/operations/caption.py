"""caption: what the images of a folder show, in the words that a scorer knows.

Nothing is written unless that is asked for, and then never over words that somebody has put there, unless that is asked
for too. An image that can't be read is told of and left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from engine import tiny
from engine.config import Subset, UserError
from engine.config.operations import Caption
from engine.data import images
from engine.data.captions import METADATA, SUFFIXES, read_captions
from engine.data.captions import Caption as Found
from engine.data.folders import Folder, expand
from engine.files import write_bytes
from engine.operate import Reporter
from engine.protocol.operations import Captioned, CaptionedImage, Tag
from engine.tiny import tagger
from engine.tiny.scorer import Scorer

BATCH = 32
"""Images that are looked at together; a word of progress comes after each batch."""


def caption(request: Caption, reporter: Reporter) -> Captioned:
    """Find captions for the images of a folder, and write them where that is asked for."""
    folders, notes, problems = expand([Subset(request.path)], Path.cwd())
    there: dict[Path, Found] = {}
    for folder in folders:
        found, said, wrong = read_captions(folder)
        there |= found
        problems += wrong
        notes += [note for note in said if note.what != "no caption"]
    if problems:
        raise UserError(problems)
    for note in notes:
        reporter.notice(str(note))
    reporter.stage("load")
    words = tagger.Tagger(Scorer.load())
    reporter.stage("caption", len(there), "images")
    answer = Captioned(images=[], unreadable=[])
    for paths, pixels in _batches(folders, reporter, answer.unreadable):
        for path, tags in zip(paths, words.tags(pixels, request.top) if paths else (), strict=True):
            answer.images.append(_captioned(path, tags, there[path], request))
        reporter.progress(len(answer.images) + len(answer.unreadable))
    return answer


def _batches(folders: list[Folder], reporter: Reporter, unreadable: list[str]) -> Iterator[tuple[list[Path], Tensor]]:
    """The images that can be read, and their pixels: [n, 3, side, side] in -1..1."""
    paths = [path for folder in folders for path in folder.images]
    side = tiny.RESOLUTION
    for start in range(0, len(paths), BATCH):
        read: dict[Path, Tensor] = {}
        for path in paths[start : start + BATCH]:
            try:
                picture: Image.Image = images.load_rgb(path)
            except UserError as error:
                unreadable.append(str(path))
                reporter.notice(error.problems[0].found, str(path))
            else:
                read[path] = torch.from_numpy(images.fit(picture, side, side))
        yield list(read), torch.stack(list(read.values())) if read else torch.empty(0, 3, side, side)


def _captioned(path: Path, tags: tagger.Tags, found: Found, request: Caption) -> CaptionedImage:
    before = found.text if found.source in (*SUFFIXES, METADATA) else ""
    file = path.with_suffix(SUFFIXES[0])
    # looked at again: since the folder was read, somebody may have written, or an image of the same stem had its turn
    kept = not request.force and (before or _has_words(file))
    written = request.write and not kept
    if written:
        write_bytes(file, f"{tags.caption}\n".encode())
    return CaptionedImage(
        path=str(path),
        caption=tags.caption,
        names=[_tag(name) for name in tags.names],
        colour=_tag(tags.colour),
        place=_tag(tags.place),
        before=before,
        written=written,
    )


def _has_words(file: Path) -> bool:
    return file.is_symlink() or (file.exists() and bool(file.read_bytes().strip()))


def _tag(tag: tagger.Tag) -> Tag:
    return Tag(text=tag.text, score=tag.score)
