"""`queue.json`: which jobs of a workspace wait, in which order, and which its runner has in hand.

Jobs are named by their folders relative to the workspace. The file is changed under the queue's lock and replaced
whole. It can be lost without losing a job: it is made again from what the jobs say of themselves.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from engine import files, locks
from engine.errors import Problem, UserError
from engine.host import liveness

FILE = "queue.json"
PATIENCE = 10.0
"""Seconds to wait for the queue's lock; it is kept for milliseconds."""


class Entries(msgspec.Struct):
    """Folders relative to the workspace: `waiting` in the order in which they are started, `running` in the runner's
    hands, also while no runner is there."""

    waiting: list[str] = []
    running: list[str] = []


def name_of(workspace: Path, directory: Path) -> str:
    """How the queue calls a job. Raises UserError for a folder that is not in the workspace."""
    name = ""
    for folder, root in ((directory.absolute(), workspace.absolute()), (directory.resolve(), workspace.resolve())):
        if not name and folder.is_relative_to(root):
            name = folder.relative_to(root).as_posix()
    if not _plausible(name):
        raise UserError(
            Problem(
                where=str(directory),
                expected=f"a job of the workspace {workspace}",
                found="a folder that is elsewhere",
                advice="copy it to projects/<project>/runs in the workspace",
            )
        )
    return name


def read(workspace: Path) -> Entries:
    """The queue as it is. A damaged file is told from what the jobs say, and left to the next change to mend."""
    entries = _load(workspace)
    return entries if entries is not None else _rebuilt(workspace)


@contextlib.contextmanager
def changing(workspace: Path) -> Iterator[Entries]:
    """The queue to be changed, alone. It is written on a clean exit, if it differs.

    Raises UserError when the lock is not to be had, OSError when the disk refuses.
    """
    lock = locks.take(workspace / FILE, patience=PATIENCE)
    if lock is None:
        expected, found = "a queue that can be changed", "one that somebody else is changing"
        raise UserError(Problem(where=str(workspace / FILE), expected=expected, found=found, advice="try again"))
    try:
        entries = _load(workspace)
        if entries is None:
            os.replace(workspace / FILE, workspace / f"{FILE}.damaged")
            entries = _rebuilt(workspace)
        before = msgspec.json.encode(entries)
        _tidy(workspace, entries)
        yield entries
        if msgspec.json.encode(entries) != before or not (workspace / FILE).exists():
            content = msgspec.json.format(msgspec.json.encode(entries), indent=2)
            files.write_bytes(workspace / FILE, content + b"\n")
    finally:
        lock.release()


def stamp(workspace: Path) -> tuple[int, ...]:
    """What changes when the queue does; empty where there is none yet."""
    try:
        found = os.stat(workspace / FILE)
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ino, found.st_size


def runs(workspace: Path) -> Iterator[Path]:
    """The folders of all jobs of a workspace, in no order."""
    for project in _folders(workspace / "projects"):
        yield from _folders(project / "runs")


def named(workspace: Path, name: str) -> list[Path]:
    """The folders of the jobs with this id: one, unless a person has copied it into another project."""
    if not name or name.startswith(".") or "/" in name:
        return []
    folders = (os.path.join(project, "runs", name) for project in _folders(workspace / "projects"))
    return [Path(folder) for folder in folders if os.path.isdir(folder)]


def adopt_strays(workspace: Path) -> None:
    """Queue the jobs that say they wait and are in no queue: somebody was killed while submitting them."""
    known = set(read(workspace).waiting)
    strays = [name for name in _asleep(workspace) if name not in known]
    if strays:
        with changing(workspace) as entries:
            entries.waiting += [name for name in strays if name not in entries.waiting]


def _load(workspace: Path) -> Entries | None:
    """None for a file that is damaged."""
    try:
        content = (workspace / FILE).read_bytes()
    except FileNotFoundError:
        return Entries()
    try:
        return msgspec.json.decode(content, type=Entries)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _rebuilt(workspace: Path) -> Entries:
    return Entries(waiting=_asleep(workspace), running=[name for name in _named(workspace) if _alive(workspace, name)])


def _asleep(workspace: Path) -> list[str]:
    """Jobs that say they wait and are not alive, in the order of their names, which begin with a time."""
    return [
        name
        for name in _named(workspace)
        if liveness.status_of(workspace / name).state == "queued" and not _alive(workspace, name)
    ]


def _named(workspace: Path) -> list[str]:
    found = sorted(runs(workspace), key=lambda run: run.name)
    return [run.relative_to(workspace).as_posix() for run in found]


def _alive(workspace: Path, name: str) -> bool:
    return liveness.state_of(workspace / name) in liveness.ALIVE


def _tidy(workspace: Path, entries: Entries) -> None:
    """Drop what names no job of this workspace, or one whose folder is gone, and what is there twice."""
    for names in (entries.waiting, entries.running):
        names[:] = [name for name in dict.fromkeys(names) if _plausible(name) and (workspace / name).is_dir()]
    running = set(entries.running)
    entries.waiting[:] = [name for name in entries.waiting if name not in running]


def _plausible(name: str) -> bool:
    path = PurePosixPath(name)
    parts = path.parts
    return (
        len(parts) == 4
        and parts[0] == "projects"
        and parts[2] == "runs"
        and not any(part.startswith(".") for part in parts)
        and str(path) == name
    )


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return [Path(entry.path) for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError:
        return []
