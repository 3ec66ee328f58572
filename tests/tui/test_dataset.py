"""The panel of images and captions, on real folders and a real host."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest
import tomli_w
from PIL import Image
from textual import events
from textual.widgets import TextArea

from engine.protocol.browse import ImageEntry, Images, ImagesChecked, SubsetFolder, SubsetFolders
from loratui.app_client import Client
from loratui.screens.dataset_list import ImageList
from loratui.widgets.caption_edit import CaptionEdit


@pytest.fixture
def project(record, workspace):
    """Makes an open project whose draft has these folders."""

    def made(*tables, name="my-cat", panel="dataset", **config):
        folder = record.project(name)
        tables = [table if isinstance(table, dict) else {"path": str(table)} for table in tables]
        config = {"dataset": {"subsets": tables}} | config
        (folder / "draft.toml").write_text(tomli_w.dumps({"preset": "dreambooth", "config": config}))
        (workspace / "app").mkdir(exist_ok=True)
        session = {"version": 1, "panel": panel, "project": name}
        (workspace / "app" / "session.json").write_text(json.dumps(session))
        return folder

    return made


@pytest.fixture(autouse=True)
def unasked(monkeypatch):
    """Only tests of the check have one made unasked."""
    monkeypatch.setattr("loratui.screens.dataset_checks.UNASKED", 0)


@pytest.fixture
def asked(monkeypatch, unasked):
    monkeypatch.setattr("loratui.screens.dataset_checks.UNASKED", 500)


@pytest.fixture
def images(record, tmp_path):
    """Makes folders of pictures that are large enough for the tiny base."""

    def made(name, count=4, caption="an ohwx cat {number}"):
        folder = record.images(tmp_path / name, count, caption)
        for file in folder.glob("*.png"):
            Image.open(file).resize((64, 80)).save(file)
        return folder

    return made


@pytest.fixture
def cats(images):
    return images("cats")


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


async def test_images_are_listed_with_size_and_caption_and_the_one_at_the_cursor_is_told_in_full(
    open_desk, project, cats
):
    (cats / "IMG_0001.txt").write_text("a long caption of an ohwx cat that sleeps on a sofa [/foo] in the sun\n")
    project(cats)
    async with open_desk() as desk:
        await desk.sees("IMG_0000.png", "64×80", "an ohwx cat 3", "4 images")
        await desk.press("j")
        await desk.sees("caption (.txt)", "[/foo]", "in the sun", "29/75")


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
        await desk.until(lambda: "there is nothing to undo" in desk.said(), "the reason")
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
        await desk.sees("2/75 · ⏎ save")
        desk.app.post_message(events.Paste(" a cat" * 38))
        await desk.sees("78/75", "! 3 too many")
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


async def test_a_caption_of_the_folder_is_told_as_such_and_with_what_training_makes_of_it(open_desk, images, project):
    folder = images("cats/10_ohwx cat", 2, caption="")
    project({"path": str(folder.parent), "caption_prefix": "photo of", "caption_suffix": ", best quality"})
    async with open_desk() as desk:
        await desk.sees("10 repeats", "“ohwx cat”", "caption (the folder's name)")
        await desk.sees("training reads", "photo of ohwx cat, best quality")
        await desk.press("e")
        await desk.sees("no caption of its own", "14/75")
        await desk.press("escape")


async def test_class_words_that_are_told_after_the_first_rows_reach_the_image_that_is_shown(
    open_desk, images, project, monkeypatch
):
    told, call = asyncio.Event(), Client.call

    async def late(client, method, *params):
        if method == "images.subsets":
            await told.wait()
        return await call(client, method, *params)

    monkeypatch.setattr(Client, "call", late)
    project(images("10_ohwx cat", 2, caption=""))
    async with open_desk() as desk:
        await desk.until(lambda: desk.panel.side._shown, "an image, its folder unknown")
        told.set()
        await desk.sees("caption (the folder's name)")


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


async def test_keys_that_come_at_once_edit_the_image_that_they_lead_to(open_desk, project, cats):
    project(cats)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        for key in "jje":
            desk.app.post_message(events.Key(key, key))
        await desk.sees("caption of IMG_0002.png")
        await desk.press("escape")


async def test_on_a_narrow_screen_tab_shows_the_side_and_comes_back_to_the_list(open_desk, project, cats):
    project(cats)
    async with open_desk((80, 24)) as desk:
        await at(desk, "IMG_0000.png")
        await desk.press("tab")
        await desk.sees("caption (.txt)")
        await desk.press("tab")
        await desk.sees("IMG_0003.png")
        await desk.until(lambda: listed(desk).has_focus, "the list in focus again")


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
    open_desk, images, project, cats, tmp_path
):
    project(cats, images("dogs", 9, "a dog {number}"))
    async with open_desk() as desk:
        await desk.sees("1 of 2", "IMG_0000.png")
        await desk.press("right_square_bracket", "slash")
        await desk.write("dog")
        await desk.press("enter", "j", "j", "j")
        await at(desk, "IMG_0003.png")
        desk.app.remember()
    async with open_desk() as desk:
        await desk.sees("dogs", "9 of 9 images", "a dog 8")
        await at(desk, "IMG_0003.png")


async def test_the_finder_leads_to_an_image_of_another_folder_past_the_filter(
    open_desk, images, project, cats, tmp_path
):
    dogs = images("dogs", 9, "a dog {number}")
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


async def test_images_and_captions_that_others_changed_are_seen_when_the_panel_is_shown_again(open_desk, project, cats):
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
    project(cats, panel="projects")
    asked = []

    def entry(number):
        return ImageEntry(path=f"{cats}/{number}.png", bytes=1, width=8, height=8, caption=f"cat {number}")

    async with open_desk() as desk:
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


async def test_a_large_project_is_not_checked_unasked(open_desk, project, cats, monkeypatch):
    monkeypatch.setattr("loratui.screens.dataset_checks.UNASKED", 3)
    project(cats)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await desk.press("n")
        await desk.until(lambda: "nothing was checked yet: c checks" in desk.said(), "the reason")
        await desk.press("c")
        await desk.sees("✓ no problems")


# --- the check


def broken(folder, name="IMG_0002.png"):
    """Cut an image off in the middle, behind its header."""
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


async def test_the_check_is_made_unasked_and_finds_a_truncated_image(open_desk, project, cats, asked):
    broken(cats)
    project(cats)
    async with open_desk() as desk:
        await desk.sees("! 1 problem", "! IMG_0002.png")
        assert "! IMG_0001.png" not in desk.text()
        await at(desk, "IMG_0000.png")
        await desk.press("n")
        await at(desk, "IMG_0002.png")
        await desk.sees("! expected", "→")


async def test_problems_of_all_folders_are_reached_one_after_another(open_desk, project, images, asked):
    cats, dogs = images("cats"), images("dogs", 5, "a dog {number}")
    broken(cats, "IMG_0001.png")
    broken(dogs, "IMG_0000.png")
    broken(dogs, "IMG_0003.png")
    project(cats, dogs)
    async with open_desk() as desk:
        await desk.sees("! 1 problem, 2 elsewhere")
        await desk.press("n")
        await at(desk, "IMG_0001.png")
        await desk.press("n")
        await desk.sees("2 of 2", "! 2 problems")
        await at(desk, "IMG_0000.png")
        await desk.press("n")
        await at(desk, "IMG_0003.png")
        await desk.press("k", "N")
        await at(desk, "IMG_0000.png")
        await desk.press("N")
        await desk.sees("1 of 2")
        await at(desk, "IMG_0001.png")


async def test_all_findings_are_listed_and_lead_to_their_image_or_folder(open_desk, project, images, asked, tmp_path):
    cats = images("cats")
    broken(cats)
    project(cats, tmp_path / "gone")
    async with open_desk() as desk:
        await desk.sees("! 1 problem, 1 elsewhere")
        await desk.press("v")
        await desk.sees("What the check found", "IMG_0002.png", "gone")
        await desk.write("gone")
        await desk.press("enter")
        await desk.sees("2 of 2", "no such file")
        await desk.press("v")
        await desk.write("IMG")
        await desk.press("enter")
        await at(desk, "IMG_0002.png")


async def test_what_was_found_before_an_edit_is_told_as_such_until_the_next_check(open_desk, project, cats, asked):
    (cats / "IMG_0000.txt").write_text("a cat " * 40)
    project(cats)
    async with open_desk() as desk:
        await desk.sees("~ IMG_0000.png", "~ caption longer than", "80/75 ! 5 too many")
        await edit(desk, "a cat")
        await desk.press("enter")
        await desk.sees("before the last edit")
        await desk.press("c")
        await desk.no_longer_sees("caption longer than")
        await desk.sees("✓ no problems")


async def test_a_check_that_fails_says_why(open_desk, project, cats, asked, monkeypatch):
    project(cats, panel="projects")
    async with open_desk() as desk:
        real = desk.app.call

        async def call(method, *params):
            if method != "images.check":
                return await real(method, *params)
            desk.app.images_checked.publish(
                ImagesChecked(id=params[0].id, done=1, total=4, finished=True, failed="it was killed [/foo]")
            )

        monkeypatch.setattr(desk.app, "call", call)
        await desk.press("2")
        await desk.sees("✗ the check failed", "it was killed [/foo]")


# --- folders


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


async def test_a_host_that_dies_leaves_the_list_and_the_half_written_caption(open_desk, project, cats):
    project(cats)
    async with open_desk() as desk:
        await at(desk, "IMG_0000.png")
        await edit(desk, "mine")
        (cats / "IMG_0003.txt").write_text("another caption\n")
        os.kill(desk.app._link._client.hello.pid, signal.SIGKILL)
        await desk.until(lambda: "The host is back" in desk.said(), "another host")
        await desk.sees("mine", "IMG_0001.png", "another caption")
        await desk.press("enter")
        await desk.until(lambda: (cats / "IMG_0000.txt").read_text() == "mine\n", "the caption written")


# --- what it looks like


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
