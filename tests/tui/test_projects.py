"""The panel of projects: what there is, what runs, what went wrong; and what one can do about it."""

from __future__ import annotations

import json

from engine import protocol


async def test_projects_and_the_runs_of_the_open_one_are_listed_with_their_states(open_desk, record):
    record.run("my-cat", "dreambooth")
    told = {"cause": "out of memory at step 31", "advice": ("batch 1 fits",)}
    record.run("product-shots", "style", state="failed", steps=31, **told)
    async with open_desk() as desk:
        await desk.sees("my-cat", "product-shots", "✗ 1", "✓ 1")
        await desk.press("j", "enter")
        await desk.sees("✗ out of memory at step 31", "→ batch 1 fits")
        assert desk.app.project == "product-shots"


async def test_a_crashed_run_shows_the_end_of_its_log_and_what_to_do(open_desk, record):
    record.run("my-cat", "dreambooth", state="crashed", steps=77, log="loading\nKilled [/foo] by somebody\n")
    async with open_desk() as desk:
        await desk.press("enter")
        await desk.sees("✗ crashed", "Killed [/foo] by somebody", "resume it")


async def test_a_live_run_is_followed_in_its_row(open_desk, record):
    identity = record.live("my-cat", "pivotal r16", steps=120, of=200)
    async with open_desk() as desk:
        await desk.sees("● running", "120/200")
        record.append(identity, protocol.Step(step=150, loss=0.0123))
        await desk.sees("150/200", "0.0123", "running pivotal r16 75 %")


async def test_a_new_project_is_made_and_opened(open_desk, workspace):
    async with open_desk() as desk:
        await desk.press("n")
        await desk.sees("New project")
        await desk.write("my-cat")
        await desk.press("enter")
        await desk.until(lambda: desk.app.project == "my-cat", "the project")
        assert (workspace / "projects" / "my-cat" / "runs").is_dir()


async def test_a_name_that_is_no_folder_is_refused_where_one_types_it(open_desk, record, workspace):
    record.project("taken")
    async with open_desk() as desk:
        await desk.sees("taken")
        for name, wrong in ((".hidden", "does not begin with a dot"), ("a/b", "without slashes"), ("taken", "already")):
            await desk.press("n")
            await desk.write(name)
            await desk.press("enter")
            await desk.sees("✗ ", wrong)
            await desk.press("escape")
        assert [path.name for path in (workspace / "projects").iterdir()] == ["taken"]


async def test_a_project_is_renamed_with_its_runs(open_desk, record, workspace):
    record.run("my-cat", "dreambooth")
    async with open_desk() as desk:
        await desk.sees("my-cat")
        await desk.press("R")
        await desk.sees("Rename my-cat")
        await desk.write("my-cat-2")
        await desk.press("enter")
        await desk.sees("my-cat-2", "dreambooth")
        assert [path.name for path in (workspace / "projects").iterdir()] == ["my-cat-2"]


async def test_a_project_with_a_live_run_is_not_thrown_away(open_desk, record, workspace):
    record.live("my-cat")
    async with open_desk() as desk:
        await desk.sees("● running")
        await desk.press("d")
        await desk.sees("Trash this project?", "with its 1 runs")
        await desk.press("y")
        await desk.until(lambda: "pivotal" in desk.said(), "the refusal, naming the run")
        assert (workspace / "projects" / "my-cat").is_dir()


async def test_a_run_is_thrown_away_after_a_question_whose_default_is_no(open_desk, record, workspace):
    identity = record.run("my-cat", "dreambooth")
    folder = workspace / "projects" / "my-cat" / "runs" / identity
    async with open_desk() as desk:
        await desk.sees("dreambooth")
        await desk.press("enter", "d")
        await desk.sees("Trash this run?", identity)
        await desk.press("enter")
        await desk.no_longer_sees("Trash this run?")
        assert folder.is_dir()
        await desk.press("d", "y")
        await desk.sees("no runs yet")
        assert not folder.exists() and list((workspace / "trash").iterdir())


async def test_the_queue_is_put_in_another_order_and_emptied(open_desk, record, workspace):
    record.waiting("my-cat", "first")
    record.waiting("other", "second")

    def queue() -> list[str]:
        return [name.rpartition("-")[2] for name in json.loads((workspace / "queue.json").read_text())["waiting"]]

    async with open_desk() as desk:
        await desk.sees("queue", "1  first", "2  second")
        desk.panel.query_one("#queue").focus()
        await desk.press("J")
        await desk.sees("1  second", "2  first")
        assert queue() == ["second", "first"]
        await desk.press("K")
        await desk.sees("1  first", "2  second")
        await desk.press("X")
        await desk.sees("1  second")
        assert queue() == ["second"]


async def test_an_ended_run_is_put_back_into_the_queue(open_desk, record):
    record.waiting("other", "before it")
    record.run("my-cat", "dreambooth", state="stopped", steps=100)
    async with open_desk() as desk:
        await desk.sees("my-cat")
        desk.app.open_project("my-cat")
        await desk.sees("■ stopped", "after step 100; r goes on from there")
        desk.panel.query_one("#runs").focus()
        await desk.press("r")
        await desk.sees("◦ waiting 2", "2  dreambooth")


async def test_stopping_a_live_run_asks_first_and_sends_the_command(open_desk, record, workspace):
    identity = record.live("my-cat")
    control = workspace / "projects" / "my-cat" / "runs" / identity / protocol.CONTROL
    async with open_desk() as desk:
        await desk.sees("● running")
        await desk.press("enter", "s")
        await desk.sees("Stop this run?")
        await desk.press("enter")
        assert not control.exists()
        await desk.press("s", "y")
        await desk.until(lambda: json.loads(control.read_text())["name"] == "stop", "the command")


async def test_words_narrow_the_runs_and_escape_shows_all_again(open_desk, record):
    record.run("my-cat", "dreambooth")
    record.run("my-cat", "style", state="failed", cause="no")
    async with open_desk() as desk:
        await desk.press("enter", "slash")
        await desk.write("-failed")
        await desk.no_longer_sees("style")
        await desk.press("escape")
        await desk.sees("style", "dreambooth")


async def test_names_and_causes_are_never_markup(open_desk, record):
    record.run("[best quality]", "[/foo]", state="failed", cause="[bold]no[/bold]", advice=("[red]try[/red]",))
    async with open_desk() as desk:
        await desk.press("enter")
        await desk.sees("[best quality]", "[/foo]", "[bold]no[/bold]", "[red]try[/red]")


async def test_the_panel_of_projects_at_80_by_24(open_desk, record, snapshot):
    everything(record)
    async with open_desk(size=(80, 24)) as desk:
        await settled(desk)
        await snapshot(desk)


async def test_the_panel_of_projects_at_120_by_40(open_desk, record, snapshot):
    everything(record)
    async with open_desk(size=(120, 40)) as desk:
        await settled(desk)
        await snapshot(desk)


def everything(record) -> None:
    record.run("my-cat", "dreambooth r16", ago=90_000)
    told = {"cause": "out of memory at step 31", "advice": ("batch 1 with accumulate 4 fits",)}
    record.run("my-cat", "rank 64", state="failed", steps=31, ago=80_000, **told)
    record.run("product-shots", "style", ago=400_000)
    record.run("anime-style", "lines", state="crashed", steps=77, ago=9000)
    record.live("my-cat", "pivotal r16")
    record.waiting("my-cat", "rank 32")


async def settled(desk) -> None:
    """The runs of my-cat in front, the cursor on the failed one, and no figures of this machine."""
    await desk.sees("anime-style")
    desk.app.open_project("my-cat")
    await desk.sees("rank 64", "no images yet")
    desk.panel.query_one("#runs").focus()
    await desk.press("j", "j")
    await desk.sees("batch 1 with accumulate 4 fits")
    await desk.calm()
