"""The panel of images and captions, on real folders and a real host."""

from __future__ import annotations

import json

import pytest
import tomli_w
from textual import events

from loratui.screens.dataset_list import ImageList
from loratui.widgets.caption_edit import CaptionEdit


@pytest.fixture
def project(record, workspace):
    """Makes an open project whose draft has these folders."""

    def made(*tables, name="my-cat", **config):
        folder = record.project(name)
        tables = [table if isinstance(table, dict) else {"path": str(table)} for table in tables]
        config = {"dataset": {"subsets": tables}} | config
        (folder / "draft.toml").write_text(tomli_w.dumps({"preset": "dreambooth", "config": config}))
        (workspace / "app").mkdir(exist_ok=True)
        session = {"version": 1, "panel": "dataset", "project": name}
        (workspace / "app" / "session.json").write_text(json.dumps(session))
        return folder

    return made


@pytest.fixture
def cats(record, tmp_path):
    return record.images(tmp_path / "cats", 4)


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
    await desk.press("ctrl+u")
    return await desk.write(text)


async def test_images_are_listed_with_size_and_caption_and_the_one_at_the_cursor_is_told_in_full(
    open_desk, project, cats
):
    (cats / "IMG_0001.txt").write_text("a long caption of an ohwx cat that sleeps on a sofa [/foo] in the sun\n")
    project(cats)
    async with open_desk() as desk:
        await desk.sees("IMG_0000.png", "16×16", "an ohwx cat 3", "4 images")
        await desk.press("j")
        await desk.sees("caption (.txt)", "[/foo]", "in the sun", "28/30")


async def test_without_a_project_it_says_what_to_do(open_desk, workspace):
    async with open_desk(panel="dataset") as desk:
        await desk.sees("No project is open", "n makes one")
        await desk.press("a")
        await desk.until(lambda: "no project is open" in desk.said(), "the reason")


async def test_a_project_without_folders_says_what_to_do(open_desk, project):
    project()
    async with open_desk() as desk:
        await desk.sees("no images yet", "a adds a folder")


async def test_a_folder_of_the_draft_that_is_gone_is_told_with_what_to_do(open_desk, project, cats, tmp_path):
    project(tmp_path / "gone", cats)
    async with open_desk() as desk:
        await desk.sees("gone", "no such file or directory", "d takes it out", "1 of 2")
        await desk.press("right_square_bracket")
        await desk.sees("IMG_0000.png", "2 of 2")
        await desk.no_longer_sees("no such file")


async def test_a_draft_that_can_not_be_read_is_told(open_desk, project, cats):
    folder = project(cats)
    (folder / "draft.toml").write_text("[[[")
    async with open_desk() as desk:
        await desk.sees("draft.toml can't be read", "a adds a folder")


# --- captions


async def test_a_caption_is_written_undone_and_redone_also_after_a_restart(open_desk, project, cats):
    project(cats)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await edit(desk, "a dog [/foo]")
        await desk.press("enter")
        await desk.sees("a dog [/foo]")
        await desk.until(lambda: listed(desk).has_focus, "the list in focus again")
        assert (cats / "IMG_0000.txt").read_text() == "a dog [/foo]\n"
        await desk.press("j", "j")
        await at(desk, "IMG_0002.png")
        desk.app.remember()
    async with open_desk() as desk:
        await at(desk, "IMG_0002.png")
        await desk.press("u")
        await at(desk, "IMG_0000.png")
        await desk.sees("undone: IMG_0000.png says “an ohwx cat 0”")
        assert (cats / "IMG_0000.txt").read_text() == "an ohwx cat 0\n"
        await desk.press("u")
        await desk.until(lambda: "nothing to undo" in desk.said(), "the reason")
        await desk.press("U")
        await desk.until(lambda: "redone: IMG_0000.png" in desk.said(), "the redoing")
        assert (cats / "IMG_0000.txt").read_text() == "a dog [/foo]\n"


async def test_escape_leaves_the_caption_as_it_was(open_desk, project, cats):
    project(cats)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await edit(desk, "something else")
        await desk.press("escape")
        await desk.until(lambda: listed(desk).has_focus, "the list in focus again")
        await desk.no_longer_sees("something else")
        assert (cats / "IMG_0000.txt").read_text() == "an ohwx cat 0\n"


async def test_tokens_are_counted_while_one_types_and_too_many_are_told_in_words(open_desk, project, cats):
    project(cats)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await edit(desk, "a cat")
        await desk.sees("2/30 · ⏎ save")
        desk.app.post_message(events.Paste(" a cat" * 15))
        await desk.sees("32/30", "! 2 too many")
        await desk.press("escape")


async def test_a_caption_that_another_program_changed_is_not_written_over_and_neither_text_is_lost(
    open_desk, project, cats
):
    project(cats)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await edit(desk, "mine")
        (cats / "IMG_0000.txt").write_text("theirs\n")
        await desk.press("enter")
        await desk.sees("mine", "not saved", "“theirs”")
        assert (cats / "IMG_0000.txt").read_text() == "theirs\n"
        await desk.press("enter")
        await desk.until(lambda: (cats / "IMG_0000.txt").read_text() == "mine\n", "the file replaced")


async def test_a_caption_that_can_not_be_written_stays_in_the_editor(open_desk, project, cats):
    project(cats)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await edit(desk, "mine")
        (cats / "IMG_0000.txt").write_text("an ohwx cat 0\n" + "notes " * 20_000)
        await desk.press("enter")
        await desk.sees("mine", "caption file of at most")
        await desk.press("escape")


async def test_what_is_pasted_becomes_one_line(open_desk, project, cats):
    project(cats)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await edit(desk, "a ")
        desk.app.post_message(events.Paste("dog\r\n  on a\nsofa\x1b[2J"))
        await desk.sees("a dog on a sofa[2J")
        await desk.press("escape")


async def test_a_caption_of_the_folder_is_told_as_such_and_with_what_training_makes_of_it(
    open_desk, record, project, tmp_path
):
    folder = record.images(tmp_path / "cats" / "10_ohwx cat", 2, caption="")
    project({"path": str(folder.parent), "caption_prefix": "photo of", "caption_suffix": ", best quality"})
    async with open_desk() as desk:
        await desk.sees("10 repeats", "“ohwx cat”", "caption (the folder's name)")
        await desk.sees("training reads", "photo of ohwx cat, best quality")
        await desk.press("e")
        await desk.sees("no caption of its own", "4/30")
        await desk.press("escape")


@pytest.mark.parametrize("size", [(60, 20), (80, 24)])
async def test_on_a_narrow_screen_the_editor_brings_the_side_over_and_takes_it_back(open_desk, project, cats, size):
    project(cats)
    async with open_desk(size) as desk:
        await at(desk, "IMG_0000.png")
        await edit(desk, "a dog")
        await desk.sees("caption of IMG_0000.png", "a dog")
        await desk.press("enter")
        await desk.sees("IMG_0003.png")
        assert (cats / "IMG_0000.txt").read_text() == "a dog\n"


# --- the list


async def test_words_filter_the_list_and_escape_shows_all_again(open_desk, project, cats):
    (cats / "IMG_0002.txt").write_text("a blurry ohwx cat\n")
    project(cats)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await desk.press("slash")
        await desk.write("cat -blurry -0")
        await desk.sees("0 of 4 images", "nothing has these words")
        await desk.press("backspace", "1")
        await desk.sees("2 of 4 images")
        await desk.press("enter")
        await desk.no_longer_sees("IMG_0002.png")
        await desk.until(lambda: listed(desk).has_focus, "the list in focus again")
        await desk.press("escape")
        await desk.sees("IMG_0002.png")
        await desk.no_longer_sees("of 4 images")


async def test_the_filter_the_folder_and_the_image_are_found_again_at_the_next_start(
    open_desk, record, project, cats, tmp_path
):
    project(cats, record.images(tmp_path / "dogs", 9, "a dog {number}"))
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await desk.press("right_square_bracket", "slash")
        await desk.write("dog")
        await desk.press("enter", "j", "j", "j")
        await at(desk, "IMG_0003.png")
        desk.app.remember()
    async with open_desk() as desk:
        await desk.sees("dogs", "9 of 9 images", "a dog 8")
        await at(desk, "IMG_0003.png")


async def test_the_finder_leads_to_an_image_of_another_folder_past_the_filter(
    open_desk, record, project, cats, tmp_path
):
    dogs = record.images(tmp_path / "dogs", 9, "a dog {number}")
    project(cats, dogs)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await desk.press("slash")
        await desk.write("cat")
        await desk.press("enter")
        desk.panel.go_to(str(dogs / "IMG_0007.png"))
        await at(desk, "IMG_0007.png")
        await desk.sees("a dog 8")
        desk.panel.go_to(str(cats / "IMG_0002.png"))
        await at(desk, "IMG_0002.png")
        desk.panel.go_to("/elsewhere/a.png")
        await desk.until(lambda: "in no folder of this project" in desk.said(), "the reason")
        assert desk.panel.copied() == (str(cats / "IMG_0002.png"), "the image's path")


async def test_images_and_captions_that_others_changed_are_seen_when_the_panel_is_shown_again(
    open_desk, record, project, cats
):
    project(cats)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await desk.press("j", "j")
        await at(desk, "IMG_0002.png")
        await desk.press("1")
        (cats / "IMG_0001.txt").unlink()
        (cats / "IMG_0001.png").unlink()
        (cats / "IMG_0003.txt").write_text("another caption\n")
        await desk.press("2")
        await desk.sees("another caption", "3 images")
        await at(desk, "IMG_0002.png")
        assert listed(desk).cursor == 1


async def test_a_hundred_thousand_images_are_scrolled_without_asking_for_them_all(
    open_desk, project, cats, monkeypatch
):
    from engine.protocol.browse import ImageEntry, Images, SubsetFolder, SubsetFolders

    project(cats)
    asked = []

    def entry(number):
        return ImageEntry(path=f"{cats}/{number}.png", bytes=1, width=8, height=8, caption=f"cat {number}")

    async with open_desk(panel="projects") as desk:
        real = desk.app.call

        async def call(method, *params):
            if method == "images.subsets":
                return SubsetFolders(folders=[SubsetFolder(subset=0, path=str(cats), images=100_000, repeats=1)])
            if method != "images.list":
                return await real(method, *params)
            asked.append(params[0].offset)
            stop = min(100_000, params[0].offset + params[0].limit)
            return Images(total=100_000, images=[entry(number) for number in range(params[0].offset, stop)])

        monkeypatch.setattr(desk.app, "call", call)
        await desk.press("2")
        await desk.sees("100,000 images", "0.png")
        await desk.press("end")
        await at(desk, "99999.png")
        await desk.press("home", *["pagedown"] * 20)
        await desk.until(lambda: listed(desk).entry is not None and listed(desk).cursor > 500, "an image far down")
        await desk.sees(name_at_cursor(desk))
        assert len(set(asked)) < 12
        assert not desk.panel.check.running


# --- folders


async def test_a_folder_is_added_and_the_rest_of_the_draft_stays(open_desk, record, project, cats, tmp_path):
    folder = project(cats, model={"base": "tiny"})
    record.images(tmp_path / "dogs [bold]", 2, "a dog {number}")
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


async def test_a_folder_leaves_the_project_and_its_files_stay(open_desk, record, project, cats, tmp_path):
    folder = project(cats, record.images(tmp_path / "dogs", 2, "a dog {number}"))
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
        await desk.press("0", "enter")
        await desk.sees("✗ expected")
        await desk.press("backspace", "backspace", "7", "enter")
        await desk.sees("Settings of")
        await desk.write("is_reg")
        await desk.press("enter")
        await desk.sees("is_reg          yes")
        await desk.press("escape")
        await desk.sees("7 repeats", "class images")
    draft = (folder / "draft.toml").read_text()
    assert "repeats = 7" in draft and "is_reg = true" in draft
