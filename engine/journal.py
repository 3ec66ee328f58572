"""The journal of a job: the one writer of its events, and of the status that summarises them.

Every event is appended and flushed by itself, so a kill can tear at most the last line; opening a journal cuts such a
line away. A disk that takes nothing more must neither end a run nor leave half a line in the middle: events then wait
in memory for the next chance, and some room is kept in reserve for the last of them, which says how the run ended.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from pathlib import Path

import msgspec

from engine import files, protocol

RESERVE = 1 << 16
"""Bytes that are kept on the disk for the end of a run."""


class Journal:
    """Appends events to `directory/events.jsonl`. Safe to call from several threads."""

    STATUS_SECONDS = 1.0

    def __init__(self, directory: Path):
        self.directory = directory
        self.status = protocol.read_status(directory)
        self._status_written = 0.0
        self._mutex = threading.Lock()
        self._waiting = b""
        self._failing = False
        path = directory / protocol.JOURNAL
        cut_torn_line(path)
        self._file = path.open("ab", buffering=0)
        self._reserve = directory / ".reserve.tmp"
        with contextlib.suppress(OSError):
            self._reserve.write_bytes(os.urandom(RESERVE))

    def close(self) -> None:
        """Give the reserve back, and write what had to wait."""
        self._reserve.unlink(missing_ok=True)
        self._append()
        self._write_status()
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def emit(self, *events: protocol.Event) -> None:
        """Append events, stamped with the time, in one write. Never raises for a disk that refuses them."""
        now = time.time()
        stamped = [msgspec.structs.replace(event, t=round(now, 3)) for event in events]
        with self._mutex:
            self._waiting += b"".join(protocol.encode(event) for event in stamped)
            self._append()
            for event in stamped:
                summarise(self.status, event)
            if now - self._status_written >= self.STATUS_SECONDS or any(map(_weighty, stamped)):
                self._write_status()

    def _append(self) -> None:
        """Write what waits. A disk that fills up may take a part of it; the rest goes on waiting."""
        try:
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]
            self._failing = False
        except OSError as error:
            self._complain(error)

    def _write_status(self) -> None:
        try:
            files.write_bytes(self.directory / protocol.STATUS, self.status.to_bytes())
            self._status_written = time.time()
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        """Say it on standard error, once; that may be a file on the same disk."""
        if not self._failing:
            self._failing = True
            with contextlib.suppress(OSError):
                print(f"journal: {error}", file=sys.stderr)


_WEIGHTY = protocol.Attempt | protocol.Stage | protocol.Checkpoint | protocol.Paused | protocol.Continued | protocol.End


def _weighty(event: protocol.Event) -> bool:
    return isinstance(event, _WEIGHTY)


def summarise(status: protocol.Status, event: protocol.Event) -> None:
    """Bring a status up to date with one event."""
    status.updated = event.t
    match event:
        case protocol.Attempt():
            status.state, status.cause = "running", ""
            status.attempt, status.pid, status.host, status.boot_id = event.number, event.pid, event.host, event.boot_id
            status.started = status.started or event.t
        case protocol.Resumed():
            status.step = event.step
        case protocol.Stage():
            status.stage = event.name
        case protocol.PlanMade():
            status.steps = event.steps
        case protocol.Step():
            status.step, status.loss = event.step, event.loss
        case protocol.Validation(loss=loss) if loss is not None:
            status.validation = loss
            status.best = loss if status.best is None else min(status.best, loss)
        case protocol.Paused():
            status.state = "paused"
        case protocol.Continued():
            status.state = "running"
        case protocol.End():
            status.state, status.cause = event.state, event.cause


def cut_torn_line(path: Path) -> None:
    """Drop what follows the last newline: a line that a killed worker did not finish."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            end = start
        file.truncate(0)


def boot_id() -> str:
    """What tells one start of this machine from another; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def host() -> str:
    return socket.gethostname()
