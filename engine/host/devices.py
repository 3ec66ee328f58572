"""Figures of the machine: processor, memory, disk, and NVIDIA's GPUs through NVML.

Drivers are slow, missing, of another version than their library, or gone in the middle of a run. None of that is an
error of the program: a figure that can't be had is None, and `problem` says why there are none where there should be.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from engine.host.pipe import Outbox
from engine.host.server import notification
from engine.protocol.messages import DeviceFigures, GpuFigures

INTERVAL = 1.0
"""Seconds between two samples."""
CPU_INTERVAL = 0.1
"""Seconds that a load is measured over at least."""
POWER_INTERVAL = 5.0
"""Seconds for which a power figure is good: the question makes some drivers wait for a sensor."""
RETRY = 30.0
"""Seconds before a driver that failed is asked again."""
DRIVER = Path("/proc/driver/nvidia/version")
"""Where it is, an NVIDIA driver is loaded, and figures are expected."""

MEMORY_STEP, DISK_STEP = 1 << 24, 1 << 28
"""Changes smaller than these bytes are not worth a notification."""


class Devices:
    """Samples the machine on demand, and once a second while it is watched.

    `holders` tells the ids of the jobs that hold devices: UUID → id.
    """

    def __init__(self, outbox: Outbox, workspace: Path, holders: Callable[[], dict[str, str]]):
        self._outbox, self._workspace, self._holders = outbox, workspace, holders
        self._gpus = Gpus()
        self._mutex = threading.Lock()
        self._watched = threading.Event()
        self._thread: threading.Thread | None = None
        self._told: DeviceFigures | None = None
        self._cpu = 0.0
        self._cpu_at = 0.0

    def figures(self) -> DeviceFigures:
        """What the machine does at this moment. Takes a tenth of a second at first: a load needs two moments."""
        import psutil

        with self._mutex:
            memory = psutil.virtual_memory()
            gpus, problem = self._gpus.sample()
            holders = self._holders() if gpus else {}
            return DeviceFigures(
                t=round(time.time(), 3),
                cpu=self._load(),
                memory_used=memory.total - memory.available,
                memory_total=memory.total,
                disk_free=self._disk_free(),
                gpus=[msgspec.structs.replace(gpu, holder=holders.get(gpu.uuid, "")) for gpu in gpus],
                problem=problem,
            )

    def watch(self) -> None:
        """Tell the client of changes, the first of which is the first sample."""
        with self._mutex:
            self._told = None
            self._watched.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="devices", daemon=True)
                self._thread.start()

    def unwatch(self) -> None:
        self._watched.clear()

    def _run(self) -> None:
        while self._watched.wait() and self._outbox.wait_for_room():
            figures = self.figures()
            with self._mutex:
                if self._watched.is_set() and self._told != (worth := coarse(figures)):
                    self._told = worth
                    self._outbox.put(notification("devices", figures))
            time.sleep(INTERVAL)

    def _load(self) -> float:
        """Per cent of all cores since it was asked last, if that is not just now: a moment too short has no load."""
        import psutil

        if not self._cpu_at:
            psutil.cpu_percent()
            time.sleep(CPU_INTERVAL)
        if time.monotonic() - self._cpu_at >= CPU_INTERVAL:
            self._cpu, self._cpu_at = psutil.cpu_percent(), time.monotonic()
        return self._cpu

    def _disk_free(self) -> int:
        for folder in (self._workspace, *self._workspace.parents):
            with contextlib.suppress(OSError):
                return shutil.disk_usage(folder).free
        return 0


def coarse(figures: DeviceFigures) -> DeviceFigures:
    """The figures as a person tells them apart: two samples that are equal in this are the same news."""
    return msgspec.structs.replace(
        figures,
        t=0.0,
        cpu=round(figures.cpu),
        memory_used=figures.memory_used // MEMORY_STEP,
        disk_free=figures.disk_free // DISK_STEP,
        gpus=[
            msgspec.structs.replace(
                gpu,
                memory_used=gpu.memory_used and gpu.memory_used // MEMORY_STEP,
                power=gpu.power and round(gpu.power),
            )
            for gpu in figures.gpus
        ],
    )


class Gpus:
    """NVIDIA's GPUs, asked through NVML, which is opened at the first sample and again some time after a failure."""

    def __init__(self) -> None:
        self._cards: list[_Card] = []
        self._problems: list[str] = []
        self._next_try = 0.0

    def sample(self) -> tuple[list[GpuFigures], str]:
        """Figures of each GPU, and why some or all are missing."""
        now = time.monotonic()
        if not self._cards and now >= self._next_try:
            self._next_try = now + RETRY
            self._cards, self._problems = _open()
        figures = [card.sample(now) for card in self._cards]
        problems = [*self._problems, *(f"GPU {card.index}: {card.trouble}" for card in self._cards if card.trouble)]
        if self._cards and all(card.trouble and card.silent for card in self._cards):
            self._cards, self._problems = [], problems  # the driver is gone, or another was loaded
        return figures, "; ".join(problems)


class _Card:
    """One GPU. A figure that it does not support is None, and no trouble."""

    def __init__(self, nvml: Any, index: int):
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        self.index = index
        self._uuid = _text(nvml.nvmlDeviceGetUUID(self._handle))
        self._name = _text(nvml.nvmlDeviceGetName(self._handle))
        self._power: tuple[float | None, float | None] = None, None
        self._power_until = 0.0
        self.trouble = ""
        """What went wrong with the last sample."""
        self.silent = False
        """Whether nothing at all came of it."""

    def sample(self, now: float) -> GpuFigures:
        nvml, handle = self._nvml, self._handle
        self.trouble = ""
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        rates = self._ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        temperature = self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        self.silent = (memory, rates, temperature) == (None, None, None)
        if now >= self._power_until:
            self._power_until = now + POWER_INTERVAL
            drawn = self._ask(nvml.nvmlDeviceGetPowerUsage, handle)
            most = self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
            self._power = drawn and drawn / 1000, most and most / 1000
        return GpuFigures(
            uuid=self._uuid,
            name=self._name,
            index=self.index,
            utilization=rates and rates.gpu,
            memory_used=memory and memory.used,
            memory_total=memory and memory.total,
            temperature=temperature,
            power=self._power[0],
            power_limit=self._power[1],
        )

    def _ask(self, question: Callable, *arguments: Any) -> Any:
        nvml = self._nvml
        try:
            return question(*arguments)
        except nvml.NVMLError as error:
            if error.value not in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_NO_PERMISSION):
                self.trouble = str(error)
            return None


def _open() -> tuple[list[_Card], list[str]]:
    """The machine's cards, and why some or all are missing. Without a driver none are expected."""
    cards, problems = [], []
    try:
        import pynvml

        with contextlib.suppress(pynvml.NVMLError):  # lets go of a driver that has been replaced
            pynvml.nvmlShutdown()
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                cards.append(_Card(pynvml, index))
            except pynvml.NVMLError as error:
                problems.append(f"GPU {index}: {error}")
    except Exception as error:  # an NVMLError, or whatever a half-installed driver brings about
        problems = [f"NVML: {error}"] if DRIVER.exists() else []
    return cards, problems


def _text(name: str | bytes) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name
