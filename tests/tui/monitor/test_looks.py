"""The monitor: live, finished and crashed runs in one screen, told by their journals alone."""

from __future__ import annotations

import msgspec
import pytest
from tui_monitor import CHART, FIGURES, SIZES, grid, step, watch
from tui_recordings import NOW

from engine import protocol
from loratui.screens.monitor_view import RunView


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
