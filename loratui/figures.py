"""Figures as people read them: sizes, times, rates. Coarse on purpose: what is drawn the same is not drawn again."""

from __future__ import annotations

import math
import os
import time

KIB = 1024
STATES = {
    "queued": "◦ waiting",
    "running": "● running",
    "paused": "◐ paused",
    "stalled": "? stalled",
    "released": "◌ released",
    "done": "✓ done",
    "stopped": "■ stopped",
    "failed": "✗ failed",
    "refused": "✗ refused",
    "crashed": "✗ crashed",
    "elsewhere": "↗ elsewhere",
}
"""A run's state with its sign: nothing is told by colour alone."""
LIVE = ("running", "paused", "stalled")


def size(count: float | None) -> str:
    """Bytes in binary units, as `df -h` has them: 21.4 MB."""
    if count is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if count < KIB:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") or count >= 100 else f"{count:.1f} {unit}"
        count /= KIB
    return f"{count:.1f} TB"


def duration(seconds: float | None) -> str:
    """A span: 42 s, 12:40, 3:07:12, 4 d 03 h."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def age(then: float, now: float) -> str:
    """How long ago, coarsely: just now, 5 min, 3 h, yesterday, 2026-11-20. Empty for no time at all."""
    if not then:
        return ""
    passed = now - then
    if passed < 60:
        return "just now"
    if passed < 3600:
        return f"{int(passed // 60)} min"
    if passed < 20 * 3600:
        return f"{int(passed // 3600)} h"
    days = (_noon(now) - _noon(then)) / 86400
    if days < 1.5:
        return "yesterday" if days > 0.5 else f"{int(passed // 3600)} h"
    return f"{round(days)} days" if days < 7 else time.strftime("%Y-%m-%d", time.localtime(then))


def _noon(moment: float) -> float:
    day = time.localtime(moment)
    return time.mktime((day.tm_year, day.tm_mon, day.tm_mday, 12, 0, 0, 0, 0, -1))


def number(value: float | None, digits: int = 4) -> str:
    """A figure with so many significant digits: 0.0812, 8.1e-5; a dash for none."""
    if value is None:
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.{digits}g}"
    mantissa, exponent = f"{value:.{max(digits - 3, 1)}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def rate(seconds: float | None) -> str:
    """Speed of training: 1.48 s/it, or 3.2 it/s where that is the larger number."""
    if not seconds or not math.isfinite(seconds):
        return "–"
    return f"{seconds:.2f} s/it" if seconds >= 1 else f"{1 / seconds:.1f} it/s"


def device(identity: str, indices: dict[str, int]) -> str:
    """A device as lists name it: gpu0 by its UUID, cpu as it is."""
    if identity in indices:
        return f"gpu{indices[identity]}"
    return identity if len(identity) <= 8 else identity[:8]


def at_home(path: str) -> str:
    """A path as one types it: with `~` for the user's home."""
    home = os.path.expanduser("~").rstrip("/")
    return f"~{path[len(home) :]}" if home and path.startswith(f"{home}/") else path
