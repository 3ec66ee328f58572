"""Which folders a project has, and how each is used: adding one, taking one out, its settings.

Every change reads the draft, changes its subsets alone, and writes it. Nothing here touches the folders themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from engine.config import UserError
from engine.protocol.browse import Draft, ProjectRef, SubsetFolders, SubsetsRef
from loratui.client import HostError, HostGone
from loratui.screens import dataset_shelves as shelves
from loratui.screens.dataset_shelves import Shelf, Table
from loratui.screens.finder import Entry
from loratui.screens.paths import AskPath
from loratui.widgets.columns import clean

if TYPE_CHECKING:
    from loratui.bench import Bench


async def change(bench: Bench, edit: Callable[[list[Table]], list[Table] | None]) -> bool:
    """Change the subsets of the open project's draft. False where that failed, or `edit` found nothing to change."""
    draft: Draft | None = await bench.tried("drafts.read", ProjectRef(name=bench.project))
    if draft is None:
        return False
    tables = edit(shelves.subsets(draft.config))
    if tables is None:
        bench.say("the project's folders were changed meanwhile; look again", "warning")
        return False
    config = shelves.with_subsets(draft.config, tables)
    written = msgspec.structs.replace(draft, config=config, problem="")
    return await bench.tried("drafts.write", written) is not None


async def add(bench: Bench, start: str) -> str:
    """Ask for a folder and add it. Its path, or nothing."""
    taken: list[Table] = []
    draft: Draft | None = await bench.tried("drafts.read", ProjectRef(name=bench.project))
    if draft is not None:
        taken = shelves.subsets(draft.config)
    text = "A folder of images, or of folders named like `10_ohwx cat`. ⇥ completes."
    path = await _ask_folder(bench, "Add a folder", text, start, taken)
    if path and await change(bench, lambda tables: [*tables, {"path": path}]):
        return path
    return ""


async def remove(bench: Bench, shelf: Shelf, together: Sequence[Shelf]) -> bool:
    """Take the subset of a shelf out of the project. `together`: all shelves of that subset."""
    path = clean(str(shelf.table.get("path", "")))
    images = sum(one.images for one in together)
    text = f"{path}\nleaves the project, with its settings."
    if len(together) > 1:
        text += f" It stands for {len(together)} folders."
    text += f"\nIts {images:,} images stay where they are." if images else ""
    if not await bench.confirm("Remove this folder?", text, "Remove"):
        return False
    return await change(bench, lambda tables: shelves.changed(tables, shelf.table, None))


async def settings(bench: Bench, shelf: Shelf) -> bool:
    """Show the settings of a shelf's subset, and change them one after another. Whether any was changed."""
    table, any_changed = shelf.table, False
    while True:
        path = str(table.get("path", ""))
        name = await bench.choose(f"Settings of {clean(path)}", _entries(table, path), "⏎ changes one, esc leaves")
        if name is None:
            return any_changed
        new = await _moved(bench, table) if name == "path" else await _set(bench, table, name)
        if new is None or new == table:
            continue
        old = table
        if not await change(bench, lambda tables, old=old, new=new: shelves.changed(tables, old, new)):
            return any_changed
        table, any_changed = new, True


def _entries(table: Table, path: str) -> list[Entry]:
    values = {name: table.get(name, shelves.default(name)) for name in shelves.settings()}
    texts = {name: shelves.spelled(value) for name, value in values.items()} | {"path": path}
    return [Entry(f"{name:<16}{clean(text) or '–'}", name, shelves.help_for(name)) for name, text in texts.items()]


async def _set(bench: Bench, table: Table, name: str) -> Table | None:
    value = table.get(name, shelves.default(name))
    if isinstance(shelves.default(name), bool):
        text = shelves.spelled(value is not True)
    else:
        told = f"{shelves.help_for(name)}.\nTakes {shelves.takes(name)}."
        text = await bench.ask(name, told, shelves.spelled(value), lambda text: shelves.wrong(name, text))
    return None if text is None else shelves.with_setting(table, name, text)


async def _moved(bench: Bench, table: Table) -> Table | None:
    path = await _ask_folder(bench, "Where is it now?", "", str(table.get("path", "")), [])
    return table | {"path": path} if path else None


async def _ask_folder(bench: Bench, title: str, text: str, start: str, taken: Sequence[Table]) -> str:
    async def check(path: str) -> str:
        if any(table.get("path") == path for table in taken):
            return "this folder is in the project already"
        try:
            listed: SubsetFolders = await bench.call("images.subsets", SubsetsRef(subsets=[{"path": path}]))
        except (UserError, HostError, HostGone) as error:
            return str(error) or "the host has ended; try again"
        return "; ".join(
            f"expected {problem.expected}, found {problem.found}: {problem.advice}" for problem in listed.problems
        )

    return await bench.push_screen_wait(AskPath(title, text, start, check)) or ""  # type: ignore[attr-defined]
