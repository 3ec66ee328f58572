"""The monitor: live, finished and crashed runs in one screen, told by their journals alone."""

from __future__ import annotations

import msgspec
import pytest
from tui_recordings import NOW

from engine import protocol
from engine.protocol.messages import DeviceFigures, GpuFigures
from loratui.screens.monitor_view import RunView
from loratui.widgets.line_chart import LineChart
from loratui.widgets.log_view import LogView
from loratui.widgets.picture import Picture
from loratui.widgets.sample_grid import SampleGrid

GIB = 1 << 30
FIGURES = DeviceFigures(
    t=NOW, cpu=31.0, memory_used=9 * GIB, memory_total=128 * GIB, disk_free=80 * GIB,
    gpus=[
        GpuFigures(
            uuid="GPU-1", name="NVIDIA H100", index=0, utilization=97, memory_used=17 * GIB, memory_total=80 * GIB,
            temperature=61, power=512.0, power_limit=700.0,
        )
    ],
)  # fmt: skip
"""Of a machine that always does the same."""
CHART = "smoothed .98"
"""What the legend of the losses has, and nothing else on the screen."""
SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])


def chart(desk) -> LineChart:
    return desk.app.query_one("#loss", LineChart)


def grid(desk) -> SampleGrid:
    return desk.app.query_one(SampleGrid)


def directory(desk, run):
    return next(desk.workspace.glob(f"projects/*/runs/{run}"))


def told_to(desk, run) -> list[protocol.ControlLine]:
    """The commands that a run was given."""
    path = directory(desk, run) / protocol.CONTROL
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=protocol.ControlLine) for line in lines]


async def given(desk, run, count: int = 1) -> protocol.ControlLine:
    """The last command, once so many were given."""
    await desk.until(lambda: len(told_to(desk, run)) == count, f"{count} commands for {run}")
    return told_to(desk, run)[-1]


async def watch(desk, run) -> None:
    """Open a run, and wait until all that it has said is known."""
    desk.app.open_run(run)
    await desk.until(lambda: desk.panel.seen.id == run and desk.panel.seen.history.last, f"{run} in the monitor")
    await desk.until(lambda: desk.panel._timer is None, "the screen to be up to date")


def step(number: int, loss: float | None = 0.1) -> protocol.Step:
    return protocol.Step(t=NOW - 60 + number / 10, step=number, loss=loss, lr={"unet": 1e-4}, seconds=1.5)


# --- how it looks -----------------------------------------------------------------------------------------------------


@SIZES
async def test_a_finished_run_looks_like_this(open_desk, record, snapshot, size):
    record.run(name="dreambooth [/foo]")
    async with open_desk(size=size, panel="monitor") as desk:
        await desk.sees("✓ done", "200/200", "took 5:03", "step 200")
        await desk.calm(FIGURES)
        await desk.until(lambda: not grid(desk)._reading, "the thumbnails")
        await snapshot(desk)


@SIZES
async def test_a_live_run_looks_like_this(open_desk, record, snapshot, size):
    record.live(ago=200.0)
    async with open_desk(size=size, panel="monitor") as desk:
        await desk.sees("● running", "120/200", "1.50 s/it", "ends 11:09")
        await desk.calm(FIGURES)
        await desk.until(lambda: not grid(desk)._reading, "the thumbnails")
        await snapshot(desk)


@SIZES
async def test_a_crashed_run_looks_like_this(open_desk, record, snapshot, size):
    record.run(state="crashed", steps=90, log="step 89\n[/foo] CUDA error\n")
    async with open_desk(size=size, panel="monitor") as desk:
        await desk.sees("✗ crashed at step 90", "[/foo] CUDA error", "r tries it again", "90/200")
        await desk.calm(FIGURES)
        await desk.until(lambda: not grid(desk)._reading, "the thumbnails")
        await snapshot(desk)


async def test_on_a_small_screen_there_are_title_chart_and_figures(open_desk, record):
    record.live()
    async with open_desk(size=(60, 20), panel="monitor") as desk:
        await desk.sees("pivotal r16", "● running", "120/200", CHART, "step 120")
        assert "events" not in desk.text()
        await desk.press("tab")
        await desk.sees("samples: prompt")
        assert CHART not in desk.text()


async def test_what_has_no_room_is_not_shown_for_a_moment_either(open_desk, record, monkeypatch):
    monkeypatch.setattr(RunView, "on_resize", lambda view: None)  # the run's first words come before its turn
    record.live()
    async with open_desk(size=(60, 20), panel="monitor") as desk:
        await desk.sees(CHART, "step 120")
        assert "events" not in desk.text()


async def test_on_a_wide_screen_the_rates_are_beside_the_losses(open_desk, record):
    record.run()
    async with open_desk(size=(200, 60), panel="monitor") as desk:
        await desk.sees("learning rates", "unet", "text")


async def test_the_machine_is_shown_beside_a_live_run_and_not_beside_one_that_is_over(open_desk, record):
    live, over = record.live(), record.run(ago=9000.0)
    async with open_desk(panel="monitor") as desk:
        await desk.calm(FIGURES)
        await desk.sees("gpu0  95 %  17.0/80 GB  61 °C  510 W  H100", "cpu 30 %  ram 9.0/128 GB  disk 80 GB free")
        await watch(desk, over)
        await desk.no_longer_sees("gpu0  95 %")
        await watch(desk, live)
        await desk.sees("gpu0  95 %")


async def test_before_the_first_step_its_stages_are_shown_with_how_far_they_are(open_desk, record):
    run = record.live(steps=0, samples=0)
    record.append(
        run,
        protocol.Stage(t=NOW - 40, name="class-images", total=200, unit="images"),
        protocol.Progress(t=NOW - 30, stage="class-images", done=200, total=200),
        protocol.Stage(t=NOW - 20, name="cache", total=24, unit="images"),
        protocol.Progress(t=NOW - 10, stage="cache", done=12, total=24),
    )
    async with open_desk(size=(80, 24), panel="monitor") as desk:
        await desk.sees(
            "24 images × 1 repeat", "✓ drawing class images", "200/200", "● encoding the images", "12/24", "█░"
        )
        await desk.sees("running  encoding the images 12/24")
        record.append(run, step(1))
        await desk.sees(CHART, "step 1")


async def test_a_run_that_waits_says_where(open_desk, record):
    record.waiting()
    second = record.waiting(name="other", ago=30.0)
    async with open_desk() as desk:
        desk.app.open_run(second)
        await desk.sees("◦ waiting", "at place 2")
        assert "waits in the queue" in desk.panel.why_not("pause")


async def test_without_runs_it_says_how_to_begin(open_desk, record):
    record.project("my-cat")
    async with open_desk(panel="monitor") as desk:
        await desk.sees("no run yet: 3 sets one up")
        for verb in ("pause", "stop", "log", "smoother", "retry"):
            assert desk.panel.why_not(verb) == "no run is shown"


def drawing(record, tmp_path) -> str:
    """A job that drew three pictures, which can't be shown, and does not train."""
    run = record.run(steps=0, samples=0)
    folder = next(record.workspace.glob(f"projects/*/runs/{run}"))
    submission = msgspec.json.decode((folder / protocol.SUBMISSION).read_bytes())
    (folder / protocol.SUBMISSION).write_bytes(msgspec.json.encode(submission | {"kind": "generate"}))
    events = [
        protocol.Attempt(t=NOW - 9, number=1, pid=1, host="", boot_id=""),
        protocol.Stage(t=NOW - 8, name="draw", total=75, unit="steps"),
    ]
    for at in range(3):
        path = tmp_path / f"{at}.png"
        path.write_bytes(b"not a picture")
        events.append(protocol.Sample(t=NOW - 5, step=0, path=str(path), prompt="a cat [/foo]", seed=at, index=at))
    events.append(protocol.End(t=NOW - 1, state="done", code=0))
    (folder / protocol.JOURNAL).write_bytes(b"".join(map(protocol.encode, events)))
    return run


@pytest.mark.parametrize("size", [(60, 20), (120, 40)], ids=["60x20", "120x40"])
async def test_a_job_that_draws_shows_its_pictures(open_desk, record, tmp_path, size):
    run = drawing(record, tmp_path)
    async with open_desk(size=size) as desk:
        await watch(desk, run)
        await desk.sees("✓ done", "▸3", "a cat [/foo]", "seed 2", "✓ drawing pictures", "can't be")
        assert CHART not in desk.text()
        grid(desk).focus()
        await desk.press("left")
        await desk.sees("seed 1")


# --- what went wrong --------------------------------------------------------------------------------------------------


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


# --- following --------------------------------------------------------------------------------------------------------


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


# --- cursors ----------------------------------------------------------------------------------------------------------


async def test_moving_in_the_chart_selects_the_nearest_sample(open_desk, record):
    record.run()
    async with open_desk(panel="monitor") as desk:
        await desk.sees("▸200", "step 200 · seed 42")
        await desk.press("home")
        await desk.until(lambda: grid(desk).selected[0] == 50, "the first sample")
        await desk.sees("▸50", "step 50 · seed 42", f"▏step {chart(desk).cursor_x} ")
        assert chart(desk).cursor_x < 10
        await desk.press("end")
        await desk.sees("▸200", "▏step 200")


async def test_moving_in_the_grid_moves_the_cursor_of_the_chart(open_desk, record):
    record.run()
    async with open_desk(panel="monitor") as desk:
        await desk.sees("▸200")
        grid(desk).focus()
        await desk.press("left")
        await desk.until(lambda: chart(desk).cursor_x == 150, "the chart's cursor")
        await desk.sees("▏step 150", "step 150 · seed 42 · an ohwx cat on a sofa")
        await desk.press("down")
        await desk.sees("step 150 · seed 42 · an ohwx cat [best quality]")


async def test_the_cursor_follows_the_newest_step_again_when_told(open_desk, record):
    run = record.live()
    async with open_desk(panel="monitor") as desk:
        await desk.sees("▸100")
        await desk.press("home")
        await desk.until(lambda: chart(desk).cursor_x and chart(desk).cursor_x < 10, "the chart's cursor")
        record.append(run, step(121))
        await desk.sees("121/200")
        assert f"▏step {chart(desk).cursor_x} " in desk.text()
        await desk.press("full_stop")
        await desk.sees(" step 121", "▸100")
        assert chart(desk).cursor_x is None


async def test_a_sample_is_opened_large_and_the_arrows_go_on_from_there(open_desk, record):
    record.run()
    async with open_desk(panel="monitor") as desk:
        await desk.sees("▸200")
        grid(desk).focus()
        await desk.press("enter")
        await desk.sees("arrows: other steps and prompts", "step 200 · seed 42")
        await desk.press("left", "down", "down")
        await desk.sees("step 150 · seed 42 · an ohwx cat [best quality] in rain")
        await desk.press("escape")
        await desk.until(lambda: grid(desk).selected == (150, 1), "the cell of the large picture")
        await desk.sees("▏step 150")


async def test_a_sample_that_lies_outside_of_the_run_is_not_opened(open_desk, record):
    run = record.live(samples=0)
    for path in ("../../../secret.png", "/etc/secret.png"):
        record.append(run, protocol.Sample(t=NOW, step=120, path=path, prompt="x", seed=1, index=len(path)))
    async with open_desk(panel="monitor") as desk:
        await desk.sees("no picture here")
        assert desk.app.query_one("#picture", Picture)._path is None


async def test_the_loss_is_smoothed_more_and_less_and_shown_on_a_logarithmic_axis(open_desk, record):
    record.run()
    async with open_desk(panel="monitor") as desk:
        await desk.sees("smoothed .98")
        await desk.press("right_square_bracket")
        await desk.sees("smoothed .99")
        await desk.press(*["left_square_bracket"] * 12)
        await desk.no_longer_sees("smoothed .")
        assert "── train" in desk.text()
        await desk.press("Y")
        assert chart(desk).log_y
        await desk.press("Y")
        assert not chart(desk).log_y


# --- commands ---------------------------------------------------------------------------------------------------------


async def test_a_command_is_followed_from_sent_to_done(open_desk, record):
    run = record.live()
    async with open_desk(panel="monitor") as desk:
        await desk.sees("120/200")
        await desk.press("P")
        line = await given(desk, run)
        await desk.sees("… pause: sent 11:06, the run has yet to read it")
        words = "it holds after this step and keeps its device"
        record.append(run, protocol.Acknowledged(t=NOW, command=line.id, name="pause", taken=True, text=words))
        await desk.sees(f"… pause: taken: {words}")
        record.append(run, protocol.Paused(t=NOW, step=121))
        await desk.sees("✓ pause: taken: paused after step 121")
        assert (line.name, line.release) == ("pause", False)


async def test_a_paused_run_is_told_to_go_on(open_desk, record):
    run = record.live(state="paused")
    async with open_desk(panel="monitor") as desk:
        await desk.sees("◐ paused")
        await desk.press("P")
        assert (await given(desk, run)).name == "resume"
        await desk.sees("… continue: sent")


async def test_a_rate_is_asked_for_checked_and_sent(open_desk, record):
    run = record.live()
    async with open_desk(panel="monitor") as desk:
        await desk.sees("120/200")
        await desk.press("R")
        await desk.sees("Which learning rate?", "lr_unet  the denoiser", "lr_text  the text encoder")
        await desk.press("down", "enter")
        await desk.sees("Learning rate lr_text", "5e-05")
        await desk.press("ctrl+u", "ctrl+k")
        await desk.write("20")
        await desk.press("enter")
        await desk.sees("✗ expected")
        await desk.press("ctrl+u", "ctrl+k")
        await desk.write("3e-6")
        await desk.press("enter")
        line = await given(desk, run)
        assert (line.name, line.field, line.value) == ("set", "optimizer.lr_text", 3e-6)
        record.append(
            run,
            protocol.Acknowledged(t=NOW, command=line.id, name="set", taken=True, text="from the next step on"),
            protocol.Changed(t=NOW, step=120, field="optimizer.lr_text", value=3e-6),
        )
        await desk.sees("✓ lr_text = 3.0e-6: taken: lr_text = 3.0e-6 after step 120")


@pytest.mark.parametrize(("key", "title", "release"), [("X", "Stop pivotal r16?", False), ("G", "Release", True)])
async def test_ending_a_run_asks_first_and_no_is_the_answer_of_enter(open_desk, record, key, title, release):
    run = record.live()
    async with open_desk(panel="monitor") as desk:
        await desk.sees("120/200")
        await desk.press(key)
        await desk.sees(title)
        await desk.press("enter")
        await desk.no_longer_sees(title)
        assert told_to(desk, run) == []
        await desk.press(key)
        await desk.sees(title)
        await desk.press("y")
        assert (await given(desk, run)).release is release


async def test_a_host_that_refuses_a_command_is_quoted(open_desk, record):
    run = record.live()
    async with open_desk(panel="monitor") as desk:
        await desk.sees("120/200")
        (directory(desk, run) / protocol.CONTROL).mkdir()
        await desk.press("P")
        await desk.sees("✗ pause: ")
        assert "● running" in desk.text()


# --- log --------------------------------------------------------------------------------------------------------------


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
