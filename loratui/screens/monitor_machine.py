"""The machine's figures as the monitor shows them beside a live run, coarse enough to change seldom."""

from __future__ import annotations

from collections import deque

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical

from engine.protocol.messages import DeviceFigures, GpuFigures
from loratui.screens.monitor_lines import Lines
from loratui.widgets.columns import clean
from loratui.widgets.sparkline import Sparkline

GIB = 1 << 30
SPAN = 5.0
"""Seconds that one cell of the course of the load stands for."""
KEPT = 120
BUSY, WATTS = 5, 10
"""Steps in which loads (per cent) and power are told."""


class Load:
    """The course of a device's load: means over `SPAN` seconds, in per cent, newest last."""

    def __init__(self) -> None:
        self.course: deque[float] = deque(maxlen=KEPT)
        self._sum = self._seconds = self._last = 0.0
        self._before: float | None = None

    def take(self, t: float, load: float) -> bool:
        """A figure at a moment; it counts until the next one. Whether the course has grown."""
        passed = min(max(0.0, t - self._last), SPAN * KEPT) if self._before is not None else 0.0
        grown = False
        while passed:
            part = min(passed, SPAN - self._seconds)
            self._sum += part * self._before
            self._seconds += part
            passed -= part
            if self._seconds >= SPAN:
                self.course.append(self._sum / SPAN)
                self._sum = self._seconds = 0.0
                grown = True
        self._before, self._last = load, t
        return grown


class Machine(Vertical):
    """A line for each device, and the course of the load of the one that the run computes on."""

    DEFAULT_CSS = """
    Machine { height: auto; }
    Machine Lines { padding: 0 1; }
    Machine Sparkline { margin: 0 1; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None):
        super().__init__(id=id, classes=classes)
        self._load = Load()
        self._device = ""

    def compose(self) -> ComposeResult:
        yield Lines()
        yield Sparkline()

    def tell(self, told: DeviceFigures, device: str) -> None:
        """Show these figures; `device` is that of the run: a UUID, `cpu`, or empty for not known."""
        if device != self._device:
            self._device, self._load = device, Load()
        lines = self.query_one(Lines)
        texts = machine(told, device, max(20, lines.size.width))
        lines.styles.height = len(texts)
        lines.tell(texts)
        if self._load.take(told.t, main_load(told, device)):
            self.query_one(Sparkline).show(list(self._load.course), 0, 100)


def main_load(told: DeviceFigures, device: str) -> float:
    """The load of what a run computes on: its GPU by UUID, the only one, or the processor."""
    gpu = gpu_of(told, device)
    return told.cpu if gpu is None else float(gpu.utilization or 0)


def gpu_of(told: DeviceFigures, device: str) -> GpuFigures | None:
    """The GPU that a run computes on; None for the processor."""
    if device == "cpu":
        return None
    return next((gpu for gpu in told.gpus if gpu.uuid == device), told.gpus[0] if len(told.gpus) == 1 else None)


def machine(told: DeviceFigures, device: str, width: int) -> list[Text]:
    """A line for each GPU, that of the run first, and one for the machine around them."""
    own = gpu_of(told, device)
    gpus = sorted(told.gpus, key=lambda gpu: (gpu is not own, gpu.index))
    lines = [_fitted(_gpu(gpu), width) for gpu in gpus]
    if told.problem:
        lines.append(Text(f"? {clean(told.problem)}", style="$state-stalled"))
    memory = f"ram {_gigabytes(told.memory_used)}/{_gigabytes(told.memory_total)} GB"
    free = f"disk {_gigabytes(told.disk_free)} GB free"
    return [*lines, _fitted([f"cpu {_step(told.cpu, BUSY)} %", memory, free], width)]


def _gpu(gpu: GpuFigures) -> list[str]:
    parts = [f"gpu{gpu.index}"]
    if gpu.utilization is not None:
        parts.append(f"{_step(gpu.utilization, BUSY)} %")
    if gpu.memory_used is not None and gpu.memory_total:
        parts.append(f"{_gigabytes(gpu.memory_used)}/{_gigabytes(gpu.memory_total)} GB")
    if gpu.temperature is not None:
        parts.append(f"{gpu.temperature} °C")
    if gpu.power is not None:
        parts.append(f"{_step(gpu.power, WATTS)} W")
    return [*parts, clean(gpu.name.removeprefix("NVIDIA "))]


def _fitted(parts: list[str], width: int) -> Text:
    """As many of the parts as fit, from the first."""
    line = parts[0]
    for part in parts[1:]:
        if len(line) + 2 + len(part) <= width:
            line += f"  {part}"
    return Text(line)


def _step(value: float, step: int) -> int:
    return round(value / step) * step


def _gigabytes(count: int) -> str:
    value = count / GIB
    return f"{value:.1f}" if value < 20 else f"{value:.0f}"
