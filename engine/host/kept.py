"""What is remembered of files and folders, for as long as they are untouched.

Whether something was touched is told by its stamp: a folder's time, or a file's time, size and number. A folder's time
can be trusted only once it has some age, since two changes within one tick of a clock look like one.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

TICK_NS, COARSE_TICK_NS = 100_000_000, 2_000_000_000
"""Age from which a time can be trusted: on file systems that note fractions of a second, and on those that do not."""

Stamp = tuple[int, int, int]


class Kept:
    """Values that hold for as long as their stamp does; of more than `most` the one unused for longest is dropped."""

    def __init__(self, most: int):
        self._most = most
        self._values: OrderedDict[Hashable, tuple[Any, Any]] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._mutex = threading.Lock()

    def get(self, key: Hashable, stamp: Any, make: Callable[[], Any], lasting: bool = True) -> Any:
        """The value under `key`, made anew unless it was made at the same stamp. `lasting`: whether it may be kept.

        Who asks for a value that is just being made waits for it: a search is asked for at each key that is typed.
        """
        with self._mutex:
            if self._holds(key, stamp):
                return self._values[key][1]
            turn = self._making.setdefault(key, threading.Lock()) if lasting else threading.Lock()
        with turn:
            with self._mutex:
                if self._holds(key, stamp):
                    return self._values[key][1]
            try:
                value = make()
                if lasting:
                    self._keep(key, stamp, value)
                return value
            finally:
                with self._mutex:
                    if self._making.get(key) is turn:
                        del self._making[key]

    def _holds(self, key: Hashable, stamp: Any) -> bool:
        held = key in self._values and self._values[key][0] == stamp
        if held:
            self._values.move_to_end(key)
        return held

    def _keep(self, key: Hashable, stamp: Any, value: Any) -> None:
        with self._mutex:
            self._values[key] = (stamp, value)
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)


def settled(changed: int) -> bool:
    """Whether another change would show in a time (nanoseconds since 1970) that was just read."""
    return time.time_ns() - changed > (TICK_NS if changed % 1_000_000_000 else COARSE_TICK_NS)


def stamp(facts: os.stat_result) -> Stamp:
    """What tells a file from what it was before, or from another of its name."""
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def regular(path: str | os.PathLike[str]) -> os.stat_result | str:
    """The file's facts, or why it is none that could be read. A pipe of that name would never end."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a null character
        return (getattr(error, "strerror", None) or "it can't be read").lower()
    return facts if stat.S_ISREG(facts.st_mode) else "no regular file"
