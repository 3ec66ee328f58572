"""Captions written by hand, each of which can be taken back, today or in a year.

A caption is the .txt beside its image, replaced whole. What every edit has replaced lies in the project's
captions.jsonl: lines of edits, and lines that say how many of them stand, so that the place between undo and redo
outlives whoever moved it. An edit is noted before its file is renamed into place: a kill in between leaves an edit that
did not happen, which undo finds to be undone already. Nothing is ever put in place of what somebody else has written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from engine import files, locks
from engine.errors import Problem, UserError
from engine.host import images, projects
from engine.protocol.browse import CaptionWritten, WriteCaption

HISTORY = "captions.jsonl"
KEPT, LARGEST = 1000, 8 << 20
"""Edits that can be taken back, and bytes of a history; beyond twice the one, or the other, the oldest are dropped."""
LONGEST = 1 << 16
"""Bytes of a caption file."""
PATIENCE = 5.0


class Content(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a caption file is: nothing at all, a text, bytes that are no UTF-8, or a link."""

    text: str | None = None
    raw: bytes = b""
    link: bytes = b""

    def encoded(self) -> bytes:
        return self.raw if self.text is None else self.text.encode()

    def __str__(self) -> str:
        if self.link:
            return f"a link to {os.fsdecode(self.link)}"
        return "no file" if self == NOTHING else repr(self.encoded()[:200].decode(errors="replace").strip())


NOTHING = Content()


class Edit(msgspec.Struct, frozen=True, tag="edit"):
    """A line of a history: the caption file of an image was replaced."""

    t: float
    image: str
    before: Content
    after: Content


class Standing(msgspec.Struct, frozen=True, tag="standing"):
    """A line of a history: so many of the edits before it stand, and the others are undone."""

    edits: int


_line = msgspec.json.Decoder(Edit | Standing)


@dataclass
class History:
    """The edits of a project, oldest first, and how many of them stand."""

    path: Path
    edits: list[Edit] = field(default_factory=list)
    standing: int = 0

    def read(self) -> None:
        """What the file says. Lines that are torn or damaged are passed over."""
        with contextlib.suppress(FileNotFoundError):
            for line in self.path.read_bytes().split(b"\n"):
                with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    self._take(_line.decode(line))

    def _take(self, line: Edit | Standing) -> None:
        if isinstance(line, Edit):
            self.edits[self.standing :] = [line]
            self.standing += 1
        else:
            self.standing = min(max(0, line.edits), len(self.edits))

    @contextlib.contextmanager
    def noting(self, line: Edit | Standing) -> Iterator[None]:
        """Add a line to the file, and take it out again where the block fails."""
        size = self.path.stat().st_size if self.path.exists() else 0
        files.append_line(self.path, msgspec.json.encode(line))
        files.sync(self.path)
        try:
            yield
        except OSError:
            os.truncate(self.path, size)
            raise
        self._take(line)

    def shorten(self) -> None:
        """Drop the oldest edits where there are too many."""
        if len(self.edits) <= 2 * KEPT and not (self.path.exists() and self.path.stat().st_size > LARGEST):
            return
        lines = [msgspec.json.encode(edit) for edit in self.edits[-KEPT:]]
        while sum(map(len, lines)) > LARGEST // 2:
            del lines[: 1 + len(lines) // 10]
        self.standing = max(0, self.standing - (len(self.edits) - len(lines)))
        self.edits = self.edits[len(self.edits) - len(lines) :]
        lines.append(msgspec.json.encode(Standing(self.standing)))
        files.write_bytes(self.path, b"\n".join(lines) + b"\n")


def write(workspace: Path, params: WriteCaption) -> CaptionWritten:
    """Make a text the caption of an image; line breaks in it become blanks.

    Raises UserError for what is no image, for a caption that says something else by now, and for a folder that can't be
    written to; nothing is changed then.
    """
    image = _image(params.path)
    file = image.with_suffix(".txt")
    after = Content(text=_one_line(params.text))
    if len(after.encoded()) > LONGEST:
        raise _refused(image, f"a caption of at most {LONGEST} bytes", f"{len(after.encoded())}")
    with _history(projects.find(workspace, params.project)) as history, _mendable(file):
        before = _content(file)
        found = images.caption_of(image).text
        if found != params.expected.strip():
            expected = f"the caption that was edited, {params.expected.strip()!r}"
            raise _refused(image, expected, repr(found), "it was changed meanwhile: look at it and edit it again")
        if before != after:
            history.shorten()
            edit = Edit(t=round(time.time(), 3), image=str(image), before=before, after=after)
            _put(file, after, history.noting(edit))
        return _written(image, history)


def undo(workspace: Path, project: str) -> CaptionWritten:
    """Take back the last edit that stands. Raises UserError where there is none, or where the file is no longer what
    the edit made of it: then it is left alone, and that edit is passed over from now on.
    """
    with _history(projects.find(workspace, project)) as history:
        if not history.standing:
            raise _refused(history.path.parent, "an edit that can be undone", "none")
        edit = history.edits[history.standing - 1]
        return _move(history, history.standing - 1, edit, edit.after, edit.before)


def redo(workspace: Path, project: str) -> CaptionWritten:
    """Make the last edit again that was undone. Raises UserError as `undo` does."""
    with _history(projects.find(workspace, project)) as history:
        if history.standing == len(history.edits):
            raise _refused(history.path.parent, "an edit that was undone", "none")
        edit = history.edits[history.standing]
        return _move(history, history.standing + 1, edit, edit.before, edit.after)


def _move(history: History, standing: int, edit: Edit, given: Content, wanted: Content) -> CaptionWritten:
    image = _named(edit.image)
    file = image.with_suffix(".txt")
    with _mendable(file):
        now = _content(file)
        if now not in (given, wanted):
            with history.noting(Standing(standing)):
                advice = "it was changed since, so it is left alone and this edit is passed over"
            raise _refused(file, str(given), str(now), advice)
        _put(file, wanted, history.noting(Standing(standing)))
        return _written(image, history)


def _written(image: Path, history: History) -> CaptionWritten:
    caption = images.caption_of(image)
    return CaptionWritten(
        path=str(image),
        caption=caption.text,
        source=caption.source,
        undo=history.standing,
        redo=len(history.edits) - history.standing,
    )


def _one_line(text: str) -> str:
    """A text as the one line of a caption file, with its end; trainers read no further than the first."""
    line = " ".join(filter(None, map(str.strip, text.replace("\ufeff", "").splitlines())))
    return line + "\n" if line else ""


def _named(path: str) -> Path:
    """A path that may be that of an image. It comes from a request or a file, and leads nowhere else."""
    from engine.data.folders import IMAGES

    image = Path(path)
    odd = not image.is_absolute() or ".." in image.parts or "\0" in path or image.name.startswith(".")
    if odd or image.suffix.lower() not in IMAGES:
        raise _refused(image, "the whole path of an image", repr(path[:200]))
    return image


def _image(path: str) -> Path:
    image = _named(path)
    try:
        regular = stat.S_ISREG(image.stat().st_mode)
    except OSError as error:
        raise _refused(image, "an image", (error.strerror or "nothing").lower()) from None
    if not regular:
        raise _refused(image, "an image", "no regular file")
    return image


# ---- the files


def _content(file: Path) -> Content:
    """What a caption file is now. Raises UserError for one that no edit should replace."""
    try:
        facts = file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return NOTHING
    if stat.S_ISLNK(facts.st_mode):
        return Content(link=os.fsencode(os.readlink(file)))
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > LONGEST:
        found = f"{facts.st_size} bytes" if stat.S_ISREG(facts.st_mode) else "something else"
        raise _refused(file, f"a caption file of at most {LONGEST} bytes", found, "move it out of the way")
    content = file.read_bytes()
    try:
        return Content(text=content.decode())
    except UnicodeDecodeError:
        return Content(raw=content)


def _put(file: Path, content: Content, noting: contextlib.AbstractContextManager[None]) -> None:
    """Make a caption file what `content` is, and note it before it shows.

    A link is replaced, and what it leads to is left alone: that may be the caption of other images too.
    """
    if content == NOTHING:
        with noting:
            file.unlink(missing_ok=True)
            files.sync(file.parent)
    elif content.link:
        temporary = file.with_name(f".{file.stem}.{os.getpid()}.tmp.txt")
        temporary.unlink(missing_ok=True)
        os.symlink(content.link, os.fsencode(temporary))
        try:
            with noting:
                os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
        files.sync(file.parent)
    else:
        with noting, files.replace_file(file) as temporary:
            temporary.write_bytes(content.encoded())
            with contextlib.suppress(FileNotFoundError):
                if not file.is_symlink():
                    shutil.copymode(file, temporary)


@contextlib.contextmanager
def _history(folder: Path) -> Iterator[History]:
    """A project's history, for nobody else meanwhile."""
    history = History(folder / HISTORY)
    try:
        with locks.hold(history.path, PATIENCE), _mendable(history.path):
            history.read()
            yield history
    except locks.Held:
        expected = "a project in which nobody else writes captions"
        raise _refused(folder, expected, "another program that does", "try again") from None


@contextlib.contextmanager
def _mendable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "nothing was changed: free some space, mend the permissions, or work on a copy of the folder"
        found = (error.strerror or str(error)).lower()
        raise _refused(file, "a folder that can be written to", found, advice) from error


def _refused(where: Path, expected: str, found: str, advice: str = "") -> UserError:
    return UserError(Problem(where=str(where), field="caption", expected=expected, found=found, advice=advice))
