"""Cores and memory that this process may really use: in a container far fewer than the machine has.

A training process that starts 64 threads on a quota of 4 cores runs slower than one with 4, so limits of control groups
(version 2, then 1) and of the scheduler's affinity count as much as the hardware.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Machine:
    """Cores and bytes of memory: what is there, and what may be used."""

    cores: int
    usable_cores: int
    memory_bytes: int
    available_bytes: int
    memory_limit_bytes: int | None
    """The control group's limit, or None where it sets none below the machine's memory."""


def look() -> Machine:
    """Describe the machine under this process."""
    import psutil

    memory = psutil.virtual_memory()
    cores = os.cpu_count() or 1
    groups = _groups()
    limit = memory_limit(CGROUPS, groups)
    return Machine(
        cores=cores,
        usable_cores=max(1, math.ceil(min(cores, _affinity(cores), core_quota(CGROUPS, groups)))),
        memory_bytes=memory.total,
        available_bytes=memory.available,
        memory_limit_bytes=limit if limit is not None and limit < memory.total else None,
    )


def core_quota(root: Path, groups: dict[str, str]) -> float:
    """The least number of cores that a group over this process grants; infinity where none sets a limit.

    `groups`: controller → path, as in /proc/self/cgroup, with version 2 under "".
    """
    quotas = [math.inf]
    for folder in _upwards(root, groups.get("", "/")):
        quota, period = [*_words(folder / "cpu.max"), "", ""][:2]
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    for folder in _upwards(root / "cpu", groups.get("cpu", "/")):
        quota, period = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us"), "", ""][:2]
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    return min(quotas)


def memory_limit(root: Path, groups: dict[str, str]) -> int | None:
    """The least number of bytes that a group over this process grants, or None where none sets a limit."""
    files = [folder / "memory.max" for folder in _upwards(root, groups.get("", "/"))]
    files += [folder / "memory.limit_in_bytes" for folder in _upwards(root / "memory", groups.get("memory", "/"))]
    limits = [int(word) for file in files for word in _words(file) if word.isdigit()]
    return min(limits, default=None)


def _groups() -> dict[str, str]:
    groups = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            groups |= {controller: path for controller in controllers.split(",")}
    return groups


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """The group's folder and all above it. A path from outside the container isn't there; its root then is."""
    inner = PurePosixPath(path.lstrip("/"))
    for part in (inner, *inner.parents):
        yield root / part


def _words(file: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return file.read_text().split()
    return []


def _affinity(cores: int) -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
