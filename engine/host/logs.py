"""A job's log, `engine.log`, a piece at a time: whole lines of text, whatever its worker and its libraries printed.

The log is not ours alone, so nothing is expected of it: no encoding, no end of a line, no bound. Offsets count its
bytes, so who reads on from `end` reads everything once.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from engine import locks, protocol
from engine.protocol.messages import LogPiece

PIECE = 1 << 16
"""Bytes of a piece at most."""

_COLOURS = re.compile("\x1b\\[[0-?]*[ -/]*[@-~]")
_STEERING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")
"""What else moves a terminal's cursor or changes its state."""


def piece(directory: Path, offset: int) -> LogPiece:
    """What the log says from `offset` on, a negative one counted from its end: there it begins with the next line.

    The beginning of a line waits for its end while the job lives. A line longer than a piece comes in several. Empty
    where there is no log, or nothing behind `offset`; a `size` below `offset` says that the log was begun anew.
    """
    try:
        start, data, size = _read(directory / protocol.LOG, offset)
    except OSError:
        return LogPiece(text="", start=0, end=0, size=0)
    last = start + len(data) == size
    if data[-1:] != b"\n" and not (last and data and not locks.held(directory)):
        newline = data.rfind(b"\n") + 1
        data = data[:newline] if newline or len(data) < PIECE else _whole_characters(data)
    text = _COLOURS.sub("", data.decode(errors="replace"))
    text = _STEERING.sub("\N{REPLACEMENT CHARACTER}", text)
    return LogPiece(text=text, start=start, end=start + len(data), size=size)


def _read(path: Path, offset: int) -> tuple[int, bytes, int]:
    """Where a piece begins, its bytes, and the size of the whole."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = os.fstat(descriptor).st_size
        start = min(offset, size) if offset >= 0 else _line_from(descriptor, max(0, size + offset), size)
        return start, os.pread(descriptor, min(PIECE, size - start), start), size
    finally:
        os.close(descriptor)


def _line_from(descriptor: int, start: int, size: int) -> int:
    """Where the first line begins that does not begin before `start`; `start` itself where none does for long."""
    if not start:
        return 0
    before = os.pread(descriptor, min(PIECE, size - start) + 1, start - 1)
    newline = before.find(b"\n")
    return start + newline if newline >= 0 else start


def _whole_characters(data: bytes) -> bytes:
    """The data without the beginning of a character at its end."""
    for length in range(1, 4):
        if (last := data[-length]) >= 0xC0:
            whole = length == (2 if last < 0xE0 else 3 if last < 0xF0 else 4)
            return data if whole else data[:-length]
        if last < 0x80:
            break
    return data
