"""Captions: written, undone, counted, and never lost."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from textual import events
from tui_dataset import at, edit, listed

from loratui.app_client import Client


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
