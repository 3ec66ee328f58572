"""The panel of images and captions under test: where its cursor is, going to an image, writing its caption."""

from __future__ import annotations

from textual.widgets import TextArea

from loratui.screens.dataset_list import ImageList
from loratui.widgets.caption_edit import CaptionEdit


def listed(desk) -> ImageList:
    return desk.panel.query_one(ImageList)


def name_at_cursor(desk) -> str:
    entry = listed(desk).entry
    return entry.path.rpartition("/")[2] if entry else ""


async def at(desk, name: str):
    return await desk.until(lambda: name_at_cursor(desk) == name, f"the cursor on {name}")


async def edit(desk, text: str):
    """Write a caption anew, as far as the moment before Enter."""
    await desk.press("e")
    await desk.until(lambda: desk.panel.query_one(CaptionEdit).is_open, "the editor")
    desk.panel.query_one(TextArea).clear()
    return await desk.write(text)
