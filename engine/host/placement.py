"""Where a job may run: of the devices of this machine, those that its submitter let it see and its config asks for.

Devices are named by UUID, as NVML and CUDA_VISIBLE_DEVICES both know them; a slice of a GPU that is divided (MIG) is a
device of its own. Where there is none that NVML knows, the machine itself is the one device, called `cpu`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from engine import locks, protocol

CPU = "cpu"
VISIBLE = "CUDA_VISIBLE_DEVICES"


class Machine:
    """The devices that NVML lists, asked for again when the last answer is old."""

    SECONDS = 60.0

    def __init__(self) -> None:
        self._uuids: list[str] = []
        self._asked = -self.SECONDS

    def uuids(self) -> list[str]:
        if time.monotonic() - self._asked >= self.SECONDS:
            self._uuids, self._asked = list_devices(), time.monotonic()
        return self._uuids


def list_devices() -> list[str]:
    """UUIDs in NVML's order, which is that of the PCI bus; none where there is no driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no driver, one of another version than its library, or half of an installation
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [uuid for handle in handles for uuid in _slices(pynvml, handle)]
    except pynvml.NVMLError:
        return []
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _slices(pynvml: Any, handle: Any) -> Iterator[str]:
    """The UUID of a GPU, or of each part where it is divided."""
    divided = False
    with contextlib.suppress(pynvml.NVMLError):
        divided = bool(pynvml.nvmlDeviceGetMigMode(handle)[0])
    if not divided:
        yield pynvml.nvmlDeviceGetUUID(handle)
        return
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with contextlib.suppress(pynvml.NVMLError):
            yield pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))


def visible(uuids: list[str], wanted: str | None) -> list[str]:
    """What CUDA_VISIBLE_DEVICES leaves of the devices: numbers or beginnings of UUIDs, up to the first that is none."""
    if wanted is None:
        return uuids
    found: list[str] = []
    for word in filter(None, map(str.strip, wanted.split(","))):
        if word.isdigit():
            matching = uuids[int(word) : int(word) + 1]
        else:
            matching = [uuid for uuid in uuids if uuid.startswith(word)]
        if len(matching) != 1:
            break
        found += matching
    return found


def choices(submission: protocol.Submission, uuids: list[str]) -> list[str]:
    """The devices that a job may have, any of which will do.

    A number that is beyond the devices gets no device of its own: the worker will say so, as it would say of `cuda`
    where there is none.
    """
    return _choices(submission.device, submission.environment, uuids)


def _choices(wanted: str, environ: Mapping[str, str], uuids: list[str]) -> list[str]:
    seen = visible(uuids, environ.get(VISIBLE))
    if wanted.startswith("cuda:"):
        number = int(wanted.removeprefix("cuda:"))
        return seen[number : number + 1] or [CPU]
    return seen if seen and wanted != CPU else [CPU]


def environment(submission: protocol.Submission, device: str | None) -> dict[str, str]:
    """What tells a worker its device, and hides all others. None: it needs none, and sees none."""
    return {VISIBLE: ""} if device is None else _environment(submission.device, device)


def _environment(wanted: str, device: str) -> dict[str, str]:
    if device != CPU:
        return {VISIBLE: device, locks.DEVICE: device}
    return {locks.DEVICE: CPU} | ({VISIBLE: ""} if wanted == CPU else {})


EVERY = 0.2
"""Seconds between two looks at devices that are held."""


@contextlib.contextmanager
def holding(wanted: str, tell: Callable[[str], None]) -> Iterator[str]:
    """A device for this process itself, as the runner gives one to a worker; waits while jobs have all that will do.

    `tell` is told once that it waits. Before torch is imported: other devices are hidden by then.
    """
    if (given := os.environ.get(locks.DEVICE)) is not None:
        yield given
        return
    devices = _choices(wanted, os.environ, list_devices())
    taken = _first_free(devices)
    if taken is None:
        what = "the CPU" if devices == [CPU] else "every device that will do"
        tell(f"a job has {what}: waiting until it is free")
    while taken is None:
        time.sleep(EVERY)
        taken = _first_free(devices)
    device, lock = taken
    before = {name: os.environ.get(name) for name in (VISIBLE, locks.DEVICE)}
    os.environ.update(_environment(wanted, device))
    try:
        yield device
    finally:
        lock.release()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _first_free(devices: list[str]) -> tuple[str, locks.Lock] | None:
    for device in devices:
        if (lock := locks.take(locks.device(device))) is not None:
            return device, lock
    return None
