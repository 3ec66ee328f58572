"""Folders: added, set up and taken out of a draft, whose rest stays."""

from __future__ import annotations

from tui_dataset import at


async def test_a_folder_is_added_and_the_rest_of_the_draft_stays(open_desk, images, project, cats, tmp_path):
    folder = project(cats, model={"base": "tiny"})
    images("dogs [bold]", 2, "a dog {number}")
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await desk.press("a")
        await desk.sees("Add a folder", str(tmp_path)[:20])
        await desk.press("d", "tab")
        await desk.sees("dogs [bold]/")
        await desk.press("enter")
        await desk.sees("2 of 2", "a dog 1")
    draft = (folder / "draft.toml").read_text()
    assert "dogs [bold]" in draft and 'base = "tiny"' in draft and str(cats) in draft


async def test_a_folder_that_is_none_is_not_taken(open_desk, project, cats, tmp_path):
    project(cats)
    (tmp_path / "empty").mkdir()
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await desk.press("a")
        await desk.write("empty")
        await desk.press("enter")
        await desk.sees("✗ expected images")
        await desk.press("tab")
        await desk.press(*["backspace"] * 6)
        await desk.write("cats")
        await desk.press("enter")
        await desk.sees("in the project already")
        await desk.press("escape")
        await desk.sees("IMG_0000.png")


async def test_a_folder_leaves_the_project_and_its_files_stay(open_desk, images, project, cats, tmp_path):
    folder = project(cats, images("dogs", 2, "a dog {number}"))
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await desk.press("d")
        await desk.sees("Remove this folder?", "4 images stay")
        await desk.press("y")
        await desk.sees("a dog 1")
        await desk.no_longer_sees("1 of 2")
    assert str(cats) not in (folder / "draft.toml").read_text()
    assert (cats / "IMG_0000.png").exists()


async def test_settings_of_a_folder_are_checked_as_they_are_typed_and_saved(open_desk, project, cats):
    folder = project(cats)
    async with open_desk((160, 40)) as desk:
        await at(desk, "IMG_0000.png")
        await desk.press("o")
        await desk.sees("Settings of", "caption_prefix", "times that each image is seen")
        await desk.write("repeats")
        await desk.press("enter")
        await desk.sees("times that each image is seen in an epoch")
        await desk.press("ctrl+u", "0", "enter")
        await desk.sees("✗ expected")
        await desk.press("ctrl+u", "7", "enter")
        await desk.sees("Settings of")
        await desk.write("is_reg")
        await desk.press("enter")
        await desk.sees("is_reg          yes")
        await desk.press("escape")
        await desk.sees("7 repeats", "class images")
    draft = (folder / "draft.toml").read_text()
    assert "repeats = 7" in draft and "is_reg = true" in draft


async def test_a_folder_that_another_program_took_out_meanwhile_is_not_put_back(open_desk, project, cats):
    folder = project(cats)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await desk.press("o")
        await desk.sees("Settings of")
        (folder / "draft.toml").write_text('preset = "dreambooth"\n')
        await desk.write("flip")
        await desk.press("enter")
        await desk.sees("no images yet")
        assert "changed meanwhile" in desk.said()
    assert (folder / "draft.toml").read_text() == 'preset = "dreambooth"\n'


async def test_another_project_brings_its_own_folders(open_desk, project, cats, images):
    project(images("dogs", 3, "a dog {number}"), name="dogs")
    project(cats)
    async with open_desk() as desk:
        await desk.sees("an ohwx cat 3", "my-cat")
        desk.app.open_project("dogs")
        await desk.sees("a dog 2", "3 images")
        desk.app.open_project("")
        await desk.sees("No project is open")
