"""The journal of a job: the one writer of its events, and of the status that summarises them.

Every event is appended and flushed by itself, so a kill can tear at most the last line; opening a journal cuts such a
line away. A journal that can't be written must not end a run: the event is lost, the run goes on, and the loss is told
on standard error.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from pathlib import Path

import msgspec

from engine import files, protocol


class Journal:
    """Appends events to `directory/events.jsonl`. Safe to call from several threads."""

    STATUS_SECONDS = 1.0

    def __init__(self, directory: Path):
        self.directory = directory
        self.status = protocol.read_status(directory)
        self._status_written = 0.0
        self._mutex = threading.Lock()
        path = directory / protocol.JOURNAL
        cut_torn_line(path)
        self._file = path.open("ab", buffering=0)

    def close(self) -> None:
        self._write_status()
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def emit(self, *events: protocol.Event) -> None:
        """Append events, stamped with the time, in one write."""
        now = time.time()
        stamped = [msgspec.structs.replace(event, t=round(now, 3)) for event in events]
        with self._mutex:
            try:
                self._file.write(b"".join(protocol.encode(event) for event in stamped))
            except OSError as error:
                print(f"journal: {error}", file=sys.stderr)
            for event in stamped:
                summarise(self.status, event)
            if now - self._status_written >= self.STATUS_SECONDS or any(map(_weighty, stamped)):
                self._write_status()

    def _write_status(self) -> None:
        try:
            files.write_bytes(self.directory / protocol.STATUS, self.status.to_bytes())
            self._status_written = time.time()
        except OSError as error:
            print(f"status: {error}", file=sys.stderr)


def _weighty(event: protocol.Event) -> bool:
    return isinstance(event, protocol.Attempt | protocol.Stage | protocol.End | protocol.Checkpoint)


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
