"""The train panel's form under test: a draft that could be trained, going to a field, typing over it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import tomli_w
from textual.widgets import Input

PROJECT = "my-cat"


def write_draft(record, images: Path, preset: str = "dreambooth", **tables) -> Path:
    """Write the draft of a project that can be trained, with these tables over it; gives the images' folder."""
    folder = record.project(PROJECT)
    if not images.exists():
        record.images(images)
    sound = {
        "model": {"base": "tiny"},
        "dataset": {"subsets": [{"path": str(images), "class_tokens": "ohwx cat"}]},
        "prior": {"weight": 0.0},
    }
    (folder / "draft.toml").write_text(tomli_w.dumps({"preset": preset, "config": sound | tables}))
    return images


def saved(desk) -> dict:
    """The draft as the host has it on disk."""
    return tomllib.loads((desk.workspace / "projects" / PROJECT / "draft.toml").read_text())


def config(desk) -> dict:
    return saved(desk)["config"]


def jobs(desk) -> list[Path]:
    return sorted((desk.workspace / "projects" / PROJECT / "runs").glob("[!.]*"))


async def opened(desk):
    """Wait until the form and its arithmetic are there."""
    return await desk.until(lambda: desk.panel.keeper.plan and not desk.panel.keeper.planning, "the arithmetic")


async def go(desk, path: str):
    """Go to a field by finding it."""
    await desk.press("slash")
    await desk.sees("Find a field")
    desk.app.screen.query_one(Input).value = path
    await desk.until(lambda: desk.app.screen._found[0].value == path, f"{path} found")
    await desk.press("enter")
    return await desk.until(lambda: desk.panel.pane.key == path and len(desk.app.screen_stack) == 1, f"at {path}")


async def type_over(desk, text: str):
    """Begin typing at the cursor, over what is there."""
    await desk.press("enter")
    await desk.until(lambda: desk.panel.pane.form.typing, "typing")
    await desk.press("ctrl+u")
    return await desk.write(text)
