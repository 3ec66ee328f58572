"""The cursors of chart and samples, which move together."""

from __future__ import annotations

from tui_monitor import chart, grid, step
from tui_recordings import NOW

from engine import protocol
from loratui.widgets.picture import Picture


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
