"""A program in a pseudo-terminal: what it writes and when, what it costs, and keys for it.

Bytes are counted as they leave the program, which is what a connection would carry before compression. A screen is not
emulated: a text is taken to be visible when it has been written, escape sequences taken out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

ESCAPE = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[@-Z\\-_=>])")


@dataclass(frozen=True)
class Cost:
    """Of some seconds: bytes written a second, and per cent of one core."""

    bytes_per_second: float
    cpu: float
    host_cpu: float


class Pty:
    """Start `command` in a pseudo-terminal of `columns`×`rows`; a context manager that ends it."""

    def __init__(self, command: Sequence[str], environ: dict[str, str], columns: int = 120, rows: int = 40):
        self.started = time.perf_counter()
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execvpe(command[0], list(command), environ)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.written: list[tuple[float, bytes]] = []

    def __enter__(self) -> Pty:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.write(self._master, b"\x1bq")
        deadline = time.perf_counter() + 3
        while psutil.pid_exists(self.pid) and time.perf_counter() < deadline:
            self.read(0.05)
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    break
        else:
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        os.close(self._master)

    def press(self, keys: bytes) -> float:
        """Send keys; gives the moment."""
        moment = time.perf_counter()
        os.write(self._master, keys)
        return moment

    def read(self, seconds: float) -> bytes:
        """What is written within so many seconds."""
        until, pieces = time.perf_counter() + seconds, []
        while (left := until - time.perf_counter()) > 0:
            if select.select([self._master], [], [], left)[0]:
                try:
                    piece = os.read(self._master, 1 << 16)
                except OSError:  # the program has ended
                    break
                self.written.append((time.perf_counter(), piece))
                pieces.append(piece)
        return b"".join(pieces)

    def until(self, text: str, since: float | None = None, patience: float = 30.0) -> float:
        """Seconds from `since` (the start) until `text` has been written after it. Raises TimeoutError."""
        since = self.started if since is None else since
        deadline = time.perf_counter() + patience
        seen = b"".join(piece for moment, piece in self.written if moment >= since)
        wanted = text.encode()
        while time.perf_counter() < deadline:
            if select.select([self._master], [], [], 0.2)[0]:
                piece = os.read(self._master, 1 << 16)
                self.written.append((time.perf_counter(), piece))
                seen += piece
                if wanted in ESCAPE.sub(b"", seen):
                    return time.perf_counter() - since
        raise TimeoutError(f"{text!r} was not written within {patience:g} s")

    def first_text(self) -> float:
        """Seconds from the start until the first character that is neither blank nor part of an escape sequence."""
        while True:
            if not select.select([self._master], [], [], 30)[0]:
                raise TimeoutError("nothing was drawn")
            piece = os.read(self._master, 1 << 16)
            self.written.append((time.perf_counter(), piece))
            if ESCAPE.sub(b"", b"".join(one for _, one in self.written)).strip():
                return time.perf_counter() - self.started

    def cost(self, seconds: float) -> Cost:
        """Watch the program for so many seconds."""
        before, host_before = self._cpu()
        began = time.perf_counter()
        count = len(self.read(seconds))
        passed = time.perf_counter() - began
        after, host_after = self._cpu()
        return Cost(count / passed, 100 * (after - before) / passed, 100 * (host_after - host_before) / passed)

    def memory(self) -> tuple[float, float]:
        """MB (10⁶ bytes) resident in the program, and in its host."""
        program = psutil.Process(self.pid)
        host = sum(child.memory_info().rss for child in program.children() if _is_host(child))
        return program.memory_info().rss / 1e6, host / 1e6

    def _cpu(self) -> tuple[float, float]:
        program = psutil.Process(self.pid)
        return _seconds(program), sum(_seconds(child) for child in program.children() if _is_host(child))


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _is_host(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()[-2:] == ["-m", "engine"]
    return False
