"""Commands for a live run: asked for, checked, sent, and followed until they are done."""

from __future__ import annotations

import pytest
from tui_monitor import directory, given, told_to
from tui_recordings import NOW

from engine import protocol


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
