"""Lines in and lines out, in bounded memory: the two ends of the pipe, which know nothing of what the lines mean.

A line that is too long is dropped while it comes, never gathered. What goes out waits in an `Outbox` that a thread
empties; whoever produces without being asked (watched journals) waits for room in it first, so that a reader who is
slow, or stopped for an hour, costs the few hundred kilobytes that it may hold.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
from collections import deque
from collections.abc import Iterator

CHUNK = 1 << 16
HIGH = 1 << 18
"""Bytes that may wait in an outbox before those who ask for room are made to wait."""


class Splitter:
    """Cuts a stream of bytes into lines of at most `longest` bytes."""

    def __init__(self, longest: int):
        self.longest = longest
        self._parts: list[bytes] = []
        self._length = 0
        self._skipping = False

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        """The lines that `chunk` completes, without their newlines; None for one that was too long."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._keep(end)
            yield self._taken()
        self._keep(rest)

    def end(self) -> Iterator[bytes | None]:
        """What the stream ended with, where it lacks a newline."""
        if self._length:
            yield self._taken()

    def _keep(self, part: bytes) -> None:
        self._length += len(part)
        self._skipping = self._length > self.longest
        if self._skipping:
            self._parts.clear()
        elif part:
            self._parts.append(part)

    def _taken(self) -> bytes | None:
        line = None if self._skipping else b"".join(self._parts)
        self._parts.clear()
        self._length, self._skipping = 0, False
        return line


def read_lines(source: int, longest: int) -> Iterator[bytes | None]:
    """The lines of a file descriptor, as `Splitter.feed` gives them, until its end."""
    splitter = Splitter(longest)
    while chunk := os.read(source, CHUNK):
        yield from splitter.feed(chunk)
    yield from splitter.end()


class Outbox:
    """Lines on their way to a file descriptor, in their order. Once nobody reads there any more, they are dropped."""

    def __init__(self, sink: int):
        self._sink = sink
        self._lines: deque[bytes] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._broken = False
        threading.Thread(target=self._write, name="outbox", daemon=True).start()

    def put(self, line: bytes) -> None:
        """Add a line, newline included. Never waits."""
        with self._changed:
            if not self._broken:
                self._lines.append(line)
                self._waiting += len(line)
                self._changed.notify_all()

    def wait_for_room(self) -> bool:
        """Wait until less than HIGH bytes are waiting. False: nobody reads any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting < HIGH or self._broken)
            return not self._broken

    def drain(self, seconds: float) -> bool:
        """Wait until nothing is waiting, for some seconds. Whether that came true."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting or self._broken, seconds)

    def listened(self) -> bool:
        """Whether somebody still holds the other end."""
        poll = select.poll()
        poll.register(self._sink, 0)
        return not self._broken and not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                batch = b"".join(self._lines)
                self._lines.clear()
            try:
                for start in range(0, len(batch), CHUNK):
                    _write_all(self._sink, batch[start : start + CHUNK])
                    with self._changed:
                        self._waiting -= min(CHUNK, len(batch) - start)
                        self._changed.notify_all()
            except OSError:
                with self._changed:
                    self._broken, self._waiting = True, 0
                    self._lines.clear()
                    self._changed.notify_all()
                return


def _write_all(sink: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sink, view) :]


def take_standard_streams() -> tuple[int, int]:
    """Keep stdin and stdout for the protocol, under new numbers that no child inherits.

    What prints goes to standard error from now on, and what reads finds nothing.
    """
    source, sink = os.dup(0), os.dup(1)
    os.set_blocking(source, True)
    os.set_blocking(sink, True)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return source, sink


def bound_log(most: int = 1 << 20, kept: int = 1 << 16) -> None:
    """Shorten the file behind standard error to its end, where it has become too long.

    Only a log, that is a file opened for appending and reading; a terminal or a redirection of the user's stays as it
    is.
    """
    with contextlib.suppress(OSError):
        flags = fcntl.fcntl(2, fcntl.F_GETFL)
        if flags & os.O_APPEND and flags & os.O_ACCMODE == os.O_RDWR and (size := os.fstat(2).st_size) > most:
            end = os.pread(2, kept, size - kept)
            os.ftruncate(2, 0)
            _write_all(2, end[end.find(b"\n") + 1 :])
