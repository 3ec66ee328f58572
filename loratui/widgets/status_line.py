"""The line above the footer: project, live run, queue, devices, memory, disk. Coarse, so that an idle one says nothing.

Parts are text by importance; those that don't fit are left out from the end. It draws only the cells that changed.
"""

from __future__ import annotations

from rich.text import Text
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from engine.protocol.messages import DeviceFigures
from loratui import figures
from loratui.board import Board

GIB = 1 << 30
BUSY = 10
"""Steps, in per cent, in which loads are told."""


class StatusLine(Widget):
    """One row; `say` takes its parts."""

    DEFAULT_CSS = "StatusLine { height: 1; background: $boost; color: $text-muted; }"

    def __init__(self) -> None:
        super().__init__()
        self._line = ""

    def tell(self, parts: list[str]) -> None:
        """Show these parts, most important first."""
        width = self.size.width or self.app.size.width
        line = ""
        for part in filter(None, parts):
            joined = f"{line}  │  {part}" if line else f" {part}"
            if Text(joined).cell_len < width:
                line = joined
        if line == self._line:
            return
        before, self._line = self._line, line
        same = 0
        while same < min(len(before), len(line)) and before[same] == line[same]:
            same += 1
        start = Text(line[:same]).cell_len
        end = max(Text(before).cell_len, Text(line).cell_len)
        self.refresh(Region(start, 0, max(1, end - start), 1))

    def render_line(self, y: int) -> Strip:
        line = Text(self._line)
        strip = Strip(line.render(self.app.console), line.cell_len).adjust_cell_length(self.size.width)
        return strip.apply_style(self.rich_style)


def parts(project: str, board: Board, devices: DeviceFigures | None, trouble: str) -> list[str]:
    """What the status line says. `trouble`: why there is no host, where there is none."""
    live, waiting = board.live(), len(board.waiting())
    found = [f"✗ {trouble}" if trouble else "", project or "no project"]
    if live:
        more = f" +{len(live) - 1}" if len(live) > 1 else ""
        done = f" {live[0].step * 100 // live[0].steps} %" if live[0].steps else ""
        found.append(f"{figures.STATES[live[0].state]} {live[0].name}{done}{more}")
    if waiting:
        found.append(f"{waiting} waiting" if board.runner or live else f"{waiting} waiting, no runner")
    return found + (_devices(devices) if devices else [])


def _devices(told: DeviceFigures) -> list[str]:
    found = []
    for gpu in told.gpus:
        load = "" if gpu.utilization is None else f" {_coarse(gpu.utilization)} %"
        memory = ""
        if gpu.memory_used is not None and gpu.memory_total:
            memory = f" {round(gpu.memory_used / GIB)}/{round(gpu.memory_total / GIB)} GB"
        found.append(f"gpu{gpu.index}{load}{memory}")
    if told.problem:
        found.append("? gpu")
    found.append(f"cpu {_coarse(told.cpu)} %")
    found.append(f"ram {round(told.memory_used / GIB)}/{round(told.memory_total / GIB)} GB")
    found.append(f"disk {round(told.disk_free / GIB)} GB free")
    return found


def _coarse(per_cent: float) -> int:
    return round(per_cent / BUSY) * BUSY
