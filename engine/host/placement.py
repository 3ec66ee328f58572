"""Where a job may run: of the devices of this machine, those that its submitter let it see and its config asks for.

Devices are named by UUID, as NVML and CUDA_VISIBLE_DEVICES both know them; a slice of a GPU that is divided (MIG) is a
device of its own. Where there is none that NVML knows, the machine itself is the one device, called `cpu`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
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
    seen = visible(uuids, submission.environment.get(VISIBLE))
    if submission.device.startswith("cuda:"):
        number = int(submission.device.removeprefix("cuda:"))
        return seen[number : number + 1] or [CPU]
    return seen if seen and submission.device != CPU else [CPU]


def environment(submission: protocol.Submission, device: str | None) -> dict[str, str]:
    """What tells a worker its device, and hides all others. None: it needs none, and sees none."""
    if device is None:
        return {VISIBLE: ""}
    if device != CPU:
        return {VISIBLE: device, locks.DEVICE: device}
    return {locks.DEVICE: CPU} | ({VISIBLE: ""} if submission.device == CPU else {})
