"""The monitor under test: opening a run, its chart and grid, and the commands that it was given."""

from __future__ import annotations

import msgspec
import pytest
from tui_recordings import NOW

from engine import protocol
from engine.protocol.messages import DeviceFigures, GpuFigures
from loratui.widgets.line_chart import LineChart
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
