"""Following a run: what it says appears, and what went wrong is told."""

from __future__ import annotations

from tui_monitor import chart, directory, step, watch
from tui_recordings import NOW

from engine import protocol
from loratui.screens.monitor_view import RunView


async def test_a_failure_before_the_first_step_is_told_with_advice_and_log(open_desk, record):
    record.run(
        state="failed", steps=0, cause="out of memory", advice=("training.batch = 1 [/foo]",), log="x\n[/foo] CUDA\n"
    )
    async with open_desk(size=(80, 24), panel="monitor") as desk:
        await desk.sees("✗ failed: out of memory", "→ training.batch = 1 [/foo]", "r tries it again", "[/foo] CUDA")


async def test_retry_puts_a_run_back_into_the_queue(open_desk, record):
    record.waiting()  # this process plays the runner
    run = record.run(state="stopped", steps=120)
    async with open_desk() as desk:
        await watch(desk, run)
        await desk.press("r")
        await desk.sees("◦ waiting  place 2")


async def test_a_run_whose_folder_vanishes_is_left(open_desk, record):
    keep, run = record.run(ago=9000.0), record.run(name="doomed")
    async with open_desk() as desk:
        await watch(desk, run)
        directory(desk, run).rename(desk.workspace / "elsewhere")
        await desk.until(lambda: "its folder is no longer there" in desk.said(), "the word")
        await desk.until(lambda: desk.panel.seen and desk.panel.seen.id == keep, "another run")


async def test_what_a_live_run_says_appears(open_desk, record):
    run = record.live(samples=0)
    async with open_desk(panel="monitor") as desk:
        await desk.sees("120/200")
        record.append(run, step(121, None), protocol.Notice(t=NOW, text="a caption [/foo] is empty"))
        await desk.sees("121/200", "note: a caption [/foo] is empty", "loss not finite", "not a finite number")
        record.append(run, protocol.End(t=NOW, state="done", code=0, step=121))
        await desk.sees("✓ done")


async def test_a_resumed_run_shows_the_last_attempt_of_a_step(open_desk, record):
    run = record.live()
    async with open_desk(panel="monitor") as desk:
        await desk.sees("120/200")
        record.append(
            run, protocol.Attempt(t=NOW, number=2, pid=1, host="", boot_id=""), protocol.Resumed(t=NOW, step=100)
        )
        await desk.sees("100/200", "going on after step 100", "attempt 2")
        record.append(run, step(101, 0.5))
        await desk.sees("101/200", "loss 0.5")


async def test_a_panel_that_is_not_in_front_draws_nothing_and_catches_up(open_desk, record, monkeypatch):
    run = record.live()
    async with open_desk(panel="monitor") as desk:
        await desk.sees("120/200")
        drawn = []
        tell = RunView.tell
        monkeypatch.setattr(RunView, "tell", lambda view, seen: (drawn.append(seen), tell(view, seen)))
        monitor = desk.panel
        await desk.press("1")
        record.append(run, step(121))
        await desk.until(lambda: monitor.seen.history.step == 121, "the step")
        assert drawn == [] and monitor._timer is None and monitor._pulse is None
        await desk.press("4")
        await desk.sees("121/200")


async def test_a_finished_run_leaves_no_timer_behind(open_desk, record):
    record.run()
    async with open_desk(panel="monitor") as desk:
        await desk.sees("200/200")
        await desk.until(lambda: desk.panel._timer is None, "the last update")
        assert desk.panel._pulse is None


async def test_the_live_run_is_shown_first_then_the_newest_of_the_project(open_desk, record):
    record.run("my-cat", ago=500.0)
    record.live("other", name="live one")
    async with open_desk() as desk:
        desk.app.open_project("my-cat")
        await desk.press("4")
        await desk.sees("live one", "● running")


async def test_a_chosen_run_is_found_again_at_the_next_start(open_desk, record):
    old = record.run(name="the old one", ago=90000.0)
    record.run(name="the new one")
    async with open_desk() as desk:
        await watch(desk, old)
        await desk.press("right_square_bracket", "Y")
        await desk.sees("smoothed .99")
        await desk.app.action_quit()
    async with open_desk() as desk:
        await desk.sees("the old one", "✓ done", "smoothed .99")
        assert chart(desk).log_y


async def test_another_run_is_chosen_from_a_list(open_desk, record):
    record.run(name="first", ago=90000.0)
    record.run(name="second")
    async with open_desk(panel="monitor") as desk:
        await desk.sees("second", "200/200")
        await desk.press("o")
        await desk.sees("Watch which run?")
        await desk.write("first")
        await desk.press("enter")
        await desk.until(lambda: "first" in desk.text().splitlines()[0], "the other run")
