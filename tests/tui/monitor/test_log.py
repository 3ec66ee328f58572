"""The log and the events of a run, and what is copied of it."""

from __future__ import annotations

from tui_monitor import CHART, chart, directory, given, grid, step
from tui_recordings import NOW

from engine import protocol
from loratui.widgets.log_view import LogView


async def test_the_log_takes_the_place_of_the_charts_and_grows(open_desk, record):
    run = record.live(log="loading [/foo]\n")
    async with open_desk(panel="monitor") as desk:
        await desk.sees(CHART)
        await desk.press("Z")
        await desk.sees("loading [/foo]")
        assert CHART not in desk.text()
        with (directory(desk, run) / protocol.LOG).open("a") as file:
            file.write("more of it\n")
        await desk.sees("more of it")
        assert desk.app.query_one(LogView).has_focus
        await desk.press("Z")
        await desk.sees(CHART)
        assert chart(desk).has_focus


async def test_the_log_of_a_run_that_is_over_is_read_once(open_desk, record):
    record.run(state="crashed", steps=90, log="first\nlast [/foo]\n")
    async with open_desk(panel="monitor") as desk:
        await desk.until(lambda: desk.panel.run._details, "what the host knows besides")
        asked = []
        call = desk.app.call

        async def counted(method, *more):
            asked.append(method)
            return await call(method, *more)

        desk.app.call = counted
        await desk.press("Z")
        await desk.until(lambda: asked, "a look at the log")
        await desk.sees("first", "last [/foo]")
        assert asked == ["jobs.log"]
        assert desk.app.query_one("#log")._timer is None


async def test_what_is_copied_is_the_picture_or_the_run(open_desk, record):
    run = record.run()
    async with open_desk(panel="monitor") as desk:
        await desk.sees("▸200")
        assert desk.panel.copied() == (str(directory(desk, run)), "the run's folder")
        grid(desk).focus()
        await desk.pilot.pause()
        assert desk.panel.copied()[0].endswith("samples/step-000200-p0-s42.png")


async def test_keys_work_before_the_first_step_and_go_on_working_after_it(open_desk, record):
    run = record.live(steps=0, samples=0)
    async with open_desk(panel="monitor") as desk:
        await desk.sees("24 images × 1 repeat", "● running")
        await desk.press("P")
        await given(desk, run)
        record.append(run, step(1))
        await desk.until(lambda: chart(desk).has_focus, "the chart to have the focus")
        await desk.press("C")
        assert (await given(desk, run, 2)).name == "checkpoint"


async def test_all_events_are_read_in_a_dialog(open_desk, record):
    run = record.live()
    record.append(run, protocol.Notice(t=NOW, text="[/foo] is odd"))
    async with open_desk(size=(80, 24), panel="monitor") as desk:
        await desk.sees("120/200")
        await desk.press("e")
        await desk.sees("Events, the newest first", "note: [/foo] is odd", "saved checkpoints/run-step000060")
        await desk.press("escape")
        await desk.sees(CHART)


async def test_the_log_is_searched(open_desk, record):
    record.run(state="crashed", steps=90, log="one\ntwo [/foo]\nthree\n")
    async with open_desk(panel="monitor") as desk:
        await desk.sees("✗ crashed")
        await desk.press("Z")
        await desk.sees("two [/foo]")
        await desk.press("slash")
        await desk.sees("Search in the log")
        await desk.write("[/foo]")
        await desk.press("enter")
        await desk.until(lambda: "1 line has [/foo]" in desk.said(), "the count")
