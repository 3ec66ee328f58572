"""What the panel of images and captions looks like."""

from __future__ import annotations

import pytest
from PIL import Image
from tui_dataset import at


async def looked_at(open_desk, project, tmp_path, size, monkeypatch):
    """The panel with a bit of everything."""
    monkeypatch.setattr("loratui.app.parts", lambda *_: [])
    folder = tmp_path / ("photographs of one cat in all the seasons of the year " * 3) / "10_ohwx cat"
    folder.mkdir(parents=True)
    captions = ["an ohwx cat [best quality]", "", "[/foo] bar", "猫 on a sofa", "a cat " * 40, "asleep"]
    for number, caption in enumerate(captions):
        picture = Image.new("RGB", (64, 80), (200, 90, 10 * number))
        picture.save(folder / f"IMG_{number:04}.bmp")
        (folder / f"IMG_{number:04}.txt").write_text(caption)
    (folder / "IMG_0005.bmp").write_bytes((folder / "IMG_0005.bmp").read_bytes()[:600])
    project({"path": str(folder), "caption_prefix": "photo of"}, tmp_path / "gone")
    return open_desk(size)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
async def test_the_look_of_the_dataset_panel(open_desk, project, tmp_path, monkeypatch, asked, snapshot, size):
    async with await looked_at(open_desk, project, tmp_path, size, monkeypatch) as desk:
        await desk.sees("! 1 problem, 1 elsewhere")
        await desk.press("j", "j", "j", "j")
        await at(desk, "IMG_0004.bmp")
        await desk.until(lambda: size[0] < 100 or "83/75" in desk.text(), "the tokens counted")
        await desk.until(lambda: size[0] < 100 or "▀" in desk.text(), "the picture")
        await snapshot(desk)


@pytest.mark.parametrize("size", [(60, 20), (200, 50), (250, 80)])
async def test_it_fits_any_screen(open_desk, project, tmp_path, monkeypatch, size):
    async with await looked_at(open_desk, project, tmp_path, size, monkeypatch) as desk:
        await desk.sees("IMG_0005.bmp", "[/foo]", "6 images")
        await desk.press("j", "j", "tab" if size[0] < 100 else "l", "e")
        await desk.sees("caption of IMG_0002.bmp", "esc give up")
        await desk.press("escape")
        await desk.until(lambda: not desk.panel.side.editing, "the editor closed")
