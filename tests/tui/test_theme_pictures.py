"""A picture of the app in every theme, as SVG: what a theme changes, a person sees in the difference.

LORATUI_SNAPSHOTS=write records them anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from engine.config.settings import App, Settings
from loratui import themes

NAMES = sorted(path.stem for path in themes.themes_folder().glob("*.toml"))
FOLDER = Path(__file__).parent / "snapshots"


@pytest.mark.parametrize("name", NAMES)
async def test_the_app_looks_as_recorded_in_every_theme(open_desk, record, name):
    record.run("my-cat", "cat r16")
    record.run("my-cat", "rank 64", state="failed", cause="out of memory at step 31", steps=31, ago=90_000)
    record.run("my-cat", "stopped", state="stopped", steps=100, ago=200_000)
    record.waiting("my-cat", "rank 32")
    async with open_desk(size=(80, 24), settings=Settings(app=App(theme=name))) as desk:
        await desk.sees("cat r16", "✗ out of memory", "queue")
        await desk.press("enter")
        await desk.until(lambda: desk.app.focused.id == "runs", "the focus on the runs")
        await desk.calm()
        path = FOLDER / f"theme-{name}.svg"
        if os.environ.get("LORATUI_SNAPSHOTS") == "write":
            path.write_text(picture(desk), encoding="utf-8")
        recorded = path.read_text(encoding="utf-8")
        await desk.until(lambda: picture(desk) == recorded, f"the picture {path.name}")


def picture(desk) -> str:
    """The screen as SVG, without what names it by a number of its own."""
    return re.sub(r"terminal-\d+", "terminal", desk.app.export_screenshot(title="loratui"))
