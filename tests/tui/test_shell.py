"""What is everywhere in the app: palette, help, finder, jump, themes, copying, the session, and a host that dies."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import psutil
import pytest

from engine.config.settings import App, Settings
from loratui import actions, session, themes
from loratui.screens.finder import Entry
from loratui.screens.jump import Jump


def front(desk) -> str:
    return desk.app.panel.name_ if desk.app.panel else ""


@pytest.mark.parametrize("number, name", list(enumerate(actions.PANELS, 1)))
async def test_a_digit_brings_its_panel(open_desk, number, name):
    async with open_desk() as desk:
        await desk.press(str(number))
        await desk.until(lambda: front(desk) == name, f"the panel {name}")
        await desk.sees(f"{number} {actions.TARGETS[name]}")


async def test_the_palette_finds_an_action_by_letters_and_does_it(open_desk, record):
    record.project("my-cat")
    async with open_desk() as desk:
        await desk.press("colon")
        await desk.sees("Palette", "projects: new")
        await desk.write("prnew")
        await desk.press("enter")
        await desk.sees("New project", "a folder's")


async def test_enter_takes_what_was_typed_for_however_long_it_takes_to_be_found(open_desk):
    async def slow(query: str) -> list[Entry]:
        await asyncio.wait_for(found.wait(), 20)
        return [Entry(f"{query}, found late", query)]

    found = asyncio.Event()
    async with open_desk() as desk:
        chosen = desk.app.run_worker(desk.app.choose("Choose", [Entry("the first", "first")], more=slow))
        await desk.sees("the first")
        await desk.write("late")
        await desk.press("enter")
        found.set()
        assert await chosen.wait() == "late"


async def test_the_palette_says_why_something_can_not_be_done_and_does_not_do_it(open_desk, record):
    record.run(state="done")
    async with open_desk() as desk:
        await desk.sees("dreambooth")
        await desk.press("enter", "colon")
        await desk.write("unqueue")
        await desk.sees("it is not in the queue")
        await desk.press("enter")
        await desk.sees("✗ it is not in the queue", "Palette")


async def test_an_action_that_can_not_be_done_is_struck_out_and_says_why(open_desk):
    async with open_desk() as desk:
        await desk.press("r")
        await desk.sees("retry: no run is selected")


async def test_help_lists_the_keys_of_the_panel_and_narrows_as_one_types(open_desk):
    async with open_desk() as desk:
        await desk.press("question_mark")
        await desk.sees("Keys: ", "Projects", "make a project", "✗ no run is selected")
        await desk.write("queue")
        await desk.no_longer_sees("make a project")
        await desk.press("escape")
        await desk.no_longer_sees("Keys: ")


async def test_help_shows_the_users_own_keys(open_desk):
    mine = Settings(app=App(keys={"projects.new": "N"}))
    async with open_desk(settings=mine) as desk:
        await desk.press("N")
        await desk.sees("New project")
        await desk.press("escape", "n")
        await desk.no_longer_sees("New project")
        await desk.press("question_mark")
        await desk.sees("N              new")


async def test_settings_with_unknown_actions_are_told_and_stop_nothing(open_desk):
    async with open_desk(settings=Settings(app=App(keys={"projects.neu": "N"}))) as desk:
        assert "did you mean `projects.new`?" in desk.said()


async def test_find_goes_to_runs_and_projects_by_some_letters(open_desk, record):
    record.run("my-cat", "dreambooth")
    record.run("other", "styles [/foo]")
    async with open_desk() as desk:
        await desk.press("f")
        await desk.sees("Find", "styles [/foo]")
        await desk.write("stls")
        await desk.no_longer_sees("dreambooth")
        await desk.press("enter")
        await desk.until(lambda: front(desk) == "monitor", "the monitor")
        await desk.sees("styles [/foo]")


async def test_jump_labels_lead_to_what_can_be_focused(open_desk, record):
    record.run()
    async with open_desk() as desk:
        await desk.sees("dreambooth")
        await desk.press("semicolon")
        await desk.until(lambda: isinstance(desk.app.screen, Jump), "the labels")
        assert len(desk.app.screen.query("Static")) == 2  # the projects and the runs
        await desk.press("s")
        await desk.until(
            lambda: desk.app.focused is not None and desk.app.focused.id == "runs", "the focus on the runs"
        )


async def test_themes_are_previewed_as_one_moves_and_escape_brings_the_old_one_back(open_desk, workspace):
    async with open_desk() as desk:
        before = desk.app.theme
        desk.app.run_worker(desk.app.action_do("app.theme"))
        await desk.sees("Theme")
        await desk.press("down")
        await desk.until(lambda: desk.app.theme != before, "another theme")
        await desk.press("escape")
        await desk.until(lambda: desk.app.theme == before, "the old theme")
        desk.app.run_worker(desk.app.action_do("app.theme"))
        await desk.sees("Theme")
        await desk.write("darkr")
        await desk.press("enter")
        await desk.until(lambda: desk.app.theme == "darkroom", "the theme that was typed")
    assert session.load(workspace).theme == "darkroom"


async def test_a_theme_of_the_user_is_there_and_reloaded_when_it_changes(open_desk, workspace):
    folder = workspace / "themes"
    folder.mkdir()
    text = (themes.themes_folder() / "loratui-dark.toml").read_text().replace('"loratui-dark"', '"mine"')
    before = re.search('background = "(.*?)"', text)[1]
    (folder / "mine.toml").write_text(text)
    async with open_desk(settings=Settings(app=App(theme="mine"))) as desk:
        assert desk.app.theme == "mine"
        (folder / "mine.toml").write_text(text.replace(before, "#222222"))
        os.utime(folder / "mine.toml", (1, 1))
        desk.app.look_at_themes()
        assert desk.app.get_css_variables()["background"].lower() == "#222222"


async def test_a_broken_theme_is_told_and_the_default_taken(open_desk, workspace):
    (workspace / "themes").mkdir()
    (workspace / "themes" / "mine.toml").write_text('name = "mine"\nprimary = "no colour [/foo]"\n')
    async with open_desk(settings=Settings(app=App(theme="mine"))) as desk:
        assert desk.app.theme == App().theme
        assert "mine.toml" in desk.said() and "theme 'mine' is not there" in desk.said()


async def test_y_copies_the_path_of_what_is_selected(open_desk, record):
    identity = record.run()
    async with open_desk() as desk:
        await desk.sees("dreambooth")
        await desk.press("enter", "y")
        await desk.until(lambda: "copied the run's folder" in desk.said(), "the word of it")
        assert desk.panel.copied()[0].endswith(identity)


async def test_the_next_start_finds_panel_project_and_filter_again(open_desk, record):
    record.run("my-cat", "dreambooth")
    record.run("other", "style")
    async with open_desk() as desk:
        await desk.sees("my-cat", "other")
        await desk.press("j", "enter")
        await desk.until(lambda: desk.app.project == "other", "the project")
        await desk.press("slash")
        await desk.write("sty")
        await desk.press("enter", "3")
        await desk.until(lambda: front(desk) == "train", "the panel")
    async with open_desk() as desk:
        assert front(desk) == "train" and desk.app.project == "other"
        await desk.press("1")
        await desk.sees("sty", "style")


async def test_a_host_that_dies_is_told_and_another_one_takes_over(open_desk, record):
    record.run("my-cat", "dreambooth")
    async with open_desk() as desk:
        await desk.sees("dreambooth")
        first = desk.app._link._client.hello.pid
        os.kill(first, signal.SIGKILL)
        await desk.until(lambda: "host has ended" in desk.said() and "host is back" in desk.said(), "word of both")
        record.run("my-cat", "after it", ago=10)
        await desk.sees("after it")
        assert desk.app._link._client.hello.pid != first
    assert not [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (250, 80)])
@pytest.mark.parametrize("name", actions.PANELS)
async def test_every_panel_fits_every_screen(open_desk, record, size, name):
    record.run("my-cat", "a name that is much longer than any column could be [/foo]")
    async with open_desk(size=size, panel=name) as desk:
        desk.app.open_project("my-cat")
        await desk.pilot.pause()
        await desk.sees(actions.TARGETS[name])
        assert all(len(line) <= size[0] for line in desk.text().splitlines())
        for other in [(61, 21), (100, 30), (60, 20)]:
            await desk.pilot.resize_terminal(*other)
        await desk.sees(actions.TARGETS[name])


async def test_on_a_narrow_screen_tab_brings_the_folded_side_over(open_desk, record):
    record.project("my-cat")
    record.project("another")
    async with open_desk(size=(60, 20)) as desk:
        await desk.sees("1 Projects · ")
        assert "another" not in desk.text()
        await desk.press("tab")
        await desk.sees("my-cat", "another")
        await desk.press("tab")
        await desk.no_longer_sees("another")


async def test_messages_can_be_read_once_more(open_desk):
    async with open_desk() as desk:
        desk.app.say("something [/foo] was said")
        desk.app.run_worker(desk.app.action_do("app.messages"))
        await desk.sees("Messages, newest first", "something [/foo] was said")


async def test_the_mouse_can_be_left_to_the_terminal(open_desk):
    async with open_desk() as desk:
        desk.app.run_worker(desk.app.action_do("app.mouse"))
        await desk.until(lambda: "the mouse is the terminal's" in desk.said(), "word of it")
        assert not desk.app.mouse_taken
