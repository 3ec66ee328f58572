"""Giving memory back to the system, for operations that hold one layer at a time.

glibc keeps freed buffers of up to 32 MB on its heap, where the small tensors that stay pin them down: without this an
extraction from SD 1.5 ended at 1.5 GB, of which it used a tenth.
"""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""`mallopt`'s names of its settings."""


def give_back() -> None:
    """From now on buffers of a megabyte or more are the system's again as soon as they are freed. Only with glibc."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for setting, value in ((_MMAP_MAX, 1 << 16), (_MMAP_THRESHOLD, 1 << 20), (_TRIM_THRESHOLD, 1 << 26)):
            libc.mallopt(setting, value)
