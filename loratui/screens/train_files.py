"""Config files from and to the form: asking for the path, reading, writing whole or not at all.

What is slow about a path, be it a look at its folder or a write, happens in threads.
"""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from textual.app import App

from engine.config import Problem, Request, Train, UserError, to_toml
from loratui.draft import Table
from loratui.screens.finder import Entry, Finder

SUFFIXES = (".toml", ".yaml", ".yml", ".json")
LISTED = 500
"""Entries of a folder that are offered."""


def read(path: str) -> Table:
    """The values of a config file, paths in it absolute. Raises UserError if it can't be read as one."""
    request = Request()
    request.read(Path(os.path.expanduser(path)))
    kind = request.data.get("kind", "train")
    if kind != "train":
        raise UserError(Problem(where=path, field="kind", expected='"train"', found=repr(kind)))
    return request.anchored()


def config_text(table: Table) -> str:
    """A config file with every field and its meaning, paths absolute. Raises UserError with all that is wrong."""
    request = Request()
    request.lay(table, "the form")
    return to_toml(request.checked(Train), comments=True)


def write(path: Path, text: str) -> None:
    """Replace a file whole, or leave what is there, and keep its permissions. Raises OSError."""
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def wrong_target(text: str) -> str:
    """What is wrong with a path to write a config to; empty for nothing."""
    path = Path(os.path.expanduser(text))
    if not text.strip() or path.suffix != ".toml":
        return "the name of a .toml file"
    if path.is_dir():
        return f"{path} is a folder"
    return "" if path.absolute().parent.is_dir() else f"there is no folder {path.absolute().parent}"


async def choose_file(app: App) -> str | None:
    """Ask for a config file, offering what lies in the folder that is being typed. In a worker."""
    typed = f"{os.getcwd()}/"
    while True:
        note = "a .toml, .yaml or .json file; a folder is opened"
        chosen = await app.push_screen_wait(Finder("Open a config", [], note, query=typed, more=_offered))
        if chosen is None or not chosen.endswith("/"):
            return chosen
        typed = chosen


async def _offered(typed: str) -> list[Entry]:
    return await asyncio.to_thread(offered, typed)


def offered(typed: str) -> list[Entry]:
    """Folders and config files of the folder that a typed path leads to, spelled as it is.

    Shown are their names alone: of a long path, a row would keep what they all begin with.
    """
    base = typed[: typed.rfind("/") + 1]
    try:
        with os.scandir(os.path.expanduser(base) or ".") as entries:
            found = [(entry.is_dir(), entry.name) for entry in entries if entry.name[0] != "."]
    except OSError:
        return []
    fitting = sorted(one for one in found if one[0] or one[1].lower().endswith(SUFFIXES))[:LISTED]
    names = [f"{name}{'/' if is_folder else ''}" for is_folder, name in fitting]
    return [Entry(name, base + name, "folder" if name.endswith("/") else "", spelled=base + name) for name in names]
