"""What the app's own actions do: palette, finder, jump, copy, help, themes, mouse. One function a verb of the table."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from engine.protocol.browse import AdaptersRef, FolderRef, SubsetsRef
from loratui import actions, figures
from loratui.screens.dialogs import Reader
from loratui.screens.finder import Entry, Finder

if TYPE_CHECKING:
    from loratui.app import Workbench

FOUND = 200
"""Images and adapters of each folder that a search brings."""


async def palette(app: Workbench) -> None:
    """Every action of the panel in front and of everywhere; those of other panels lead there."""
    front = app.panel.name_ if app.panel else ""
    order = sorted((*actions.PANELS, "app"), key=lambda target: (target != front, target == "app"))
    entries = []
    for target in order:
        for one in actions.of(target):
            reason = app.why_not(one) if target in (front, "app") else ""
            keys = actions.shown(app.keys_of(one)) if target in (front, "app") else ""
            entries.append(Entry(f"{actions.TARGETS[target].lower()}: {one.label}  {one.help}", one.id, keys, reason))
    chosen = await app.choose("Palette", entries)
    if chosen is None:
        return
    target = actions.BY_ID[chosen].target
    if target in actions.PANELS:
        await app.bring(target)
    await app.do(chosen)


async def find(app: Workbench) -> None:
    """Projects and runs at once; images and adapters as one types, asked of the host."""
    entries = [Entry(project.name, ("project", project.name), "project") for project in app.board.projects]
    entries += [
        Entry(f"{row.name}  {row.id}", ("run", row.id), f"{row.project} · {figures.STATES[row.state]}")
        for row in app.board.runs()
    ]
    folders = await _image_folders(app)

    async def more(query: str) -> list[Entry]:
        found = []
        for folder in folders:
            listed = await app.tried("images.list", FolderRef(path=folder, limit=FOUND, find=query))
            images = listed.images if listed else []
            found += [Entry(image.path.rpartition("/")[2], ("image", image.path), "image") for image in images]
        listed = await app.tried(
            "adapters.list", AdaptersRef(folders=app.library, project=app.project, find=query, limit=FOUND)
        )
        headers = listed.adapters if listed else []
        return found + [Entry(one.path.rpartition("/")[2], ("adapter", one.path), "adapter") for one in headers]

    chosen = await app.choose("Find", entries, "projects, runs, images and adapters", more=more)
    if chosen is None:
        return
    kind, name = chosen
    if kind == "run":
        await app.open_run_now(name)
    elif kind == "project":
        app.open_project(name)
        await app.bring("projects")
    else:
        await app.bring({"image": "dataset", "adapter": "adapters"}[kind])
        app.panel.go_to(name)


async def _image_folders(app: Workbench) -> list[str]:
    from engine.protocol.browse import ProjectRef

    if not app.project:
        return []
    draft = await app.tried("drafts.read", ProjectRef(name=app.project))
    subsets = draft.config.get("dataset", {}).get("subsets", []) if draft else []
    listed = await app.tried("images.subsets", SubsetsRef(subsets=subsets)) if subsets else None
    return [folder.path for folder in listed.folders] if listed else []


async def jump(app: Workbench) -> None:
    from loratui.screens.jump import Jump

    places = [(widget, widget.region) for widget in app.screen.focus_chain if widget.region]
    target = await app.push_screen_wait(Jump(places))
    if target is not None:
        target.focus()


async def copy(app: Workbench) -> None:
    text, what = app.panel.copied() if app.panel else ("", "")
    if text:
        app.copy(text, what)
    else:
        app.say("there is nothing selected to copy", "warning")


async def next(app: Workbench) -> None:
    if app.panel is None or len(app.screen_stack) > 1 or not app.panel.fold_over():
        app.screen.focus_next()


async def previous(app: Workbench) -> None:
    app.screen.focus_previous()


async def theme(app: Workbench) -> None:
    before = app.theme
    own = sorted(app.theme_names)

    def preview(name: str | None) -> None:
        app.theme = name or before

    entries = [Entry(name, name, "dark" if app.available_themes[name].dark else "light") for name in own]
    entries.sort(key=lambda entry: entry.value != before)
    chosen = await app.push_screen_wait(Finder("Theme", entries, f"yours: {app.workspace}/themes", preview=preview))
    if chosen:
        app.theme = app.session.theme = chosen
        app.remember()


async def mouse(app: Workbench) -> None:
    app.take_mouse(not app.mouse_taken)
    app.say("the mouse is the app's" if app.mouse_taken else "the mouse is the terminal's: select text as usual")


async def messages(app: Workbench) -> None:
    lines = [f"{time.strftime('%H:%M:%S', time.localtime(t))}  {text}" for t, text in reversed(app.said)]
    await app.push_screen_wait(Reader("Messages, newest first", "\n".join(lines) or "Nothing was said yet."))


async def help(app: Workbench) -> None:
    from loratui.screens.help import Help

    await app.push_screen_wait(Help(app.focused_targets(), app.keys_of, app.why_not))


async def suspend(app: Workbench) -> None:
    app.action_suspend_process()


async def quit(app: Workbench) -> None:
    app.remember()
    app.exit(0)
