"""`python -m engine.replay JOURNAL DIRECTORY [--speed X]`: a worker that computes nothing and tells a recorded story.

It holds the job's lock and writes its journal as a worker does, at the recorded pace or another, makes the files that
the story tells of, and obeys commands and SIGTERM. So whatever follows jobs can be seen and tested without a model. A
recording without an end ends as it does: without a word, like a worker that was killed.
"""

from __future__ import annotations

import argparse
import base64
import os
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec

from engine import files, journal, locks, protocol
from engine.host.launch import CONTROL_OFFSET

LOOK = 0.05
"""Seconds between two looks at the commands."""

EMPTY_ADAPTER = (2).to_bytes(8, "little") + b"{}"
PIXEL = base64.b64decode(
    b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


class Ended(Exception):
    """The story was cut short."""

    def __init__(self, state: str):
        self.state = state


class Replay:
    """One attempt of a job. It goes on behind the step that the attempt before it has reached."""

    def __init__(self, log: journal.Journal, speed: float, stop: threading.Event):
        self._log, self._speed, self._stop = log, speed, stop
        path = log.directory / protocol.CONTROL
        size = path.stat().st_size if path.exists() else 0
        self._commands, self._offset = path, int(os.environ.get(CONTROL_OFFSET, size))
        self._paused = False

    def run(self, recording: Path) -> int:
        """Tell the recording; `speed` times as fast as it was, or 0: at once. Returns the exit code."""
        number, done = self._log.status.attempt + 1, self._log.status.step
        self._log.emit(protocol.Attempt(number=number, pid=os.getpid(), host=journal.host(), boot_id=journal.boot_id()))
        if done:
            self._log.emit(protocol.Resumed(step=done))
        before = None
        try:
            for event in protocol.JournalReader(recording).read():
                told = isinstance(event, protocol.Step | protocol.Checkpoint | protocol.Sample | protocol.Validation)
                if isinstance(event, protocol.Attempt | protocol.Resumed) or (told and done and event.step <= done):
                    continue
                self._wait((event.t - before) / self._speed if before and self._speed else 0.0)
                before = event.t
                self._tell(event)
                if isinstance(event, protocol.End):
                    return event.code
        except Ended as ended:
            self._log.emit(protocol.End(state=ended.state, code=protocol.INTERRUPTED, step=self._log.status.step))
            return protocol.INTERRUPTED
        return protocol.FAILED

    def _tell(self, event: protocol.Event) -> None:
        match event:
            case protocol.Checkpoint():
                self._file(event.adapter, EMPTY_ADAPTER)
            case protocol.Sample():
                self._file(event.path, PIXEL)
            case protocol.End():
                for name in event.outputs:
                    self._file(name, EMPTY_ADAPTER)
        self._log.emit(event)

    def _file(self, name: str, content: bytes) -> None:
        """Make a file of the story, unless it lies outside of the job."""
        path = (self._log.directory / name).resolve()
        if path.is_relative_to(self._log.directory.resolve()):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_bytes(path, content)

    def _wait(self, seconds: float) -> None:
        """Let time pass, and longer while paused. Raises Ended."""
        until = time.monotonic() + seconds
        while True:
            self._obey()
            left = until - time.monotonic()
            if left <= 0 and not self._paused:
                return
            self._stop.wait(LOOK if self._paused else min(LOOK, left))

    def _obey(self) -> None:
        if self._stop.is_set():
            raise Ended("stopped")
        for line in self._new_lines():
            command = msgspec.json.decode(line, type=protocol.ControlLine)
            self._log.emit(protocol.Acknowledged(command=command.id, name=command.name, taken=True))
            step = self._log.status.step
            match command.name:
                case "stop":
                    raise Ended("stopped")
                case "pause" if command.release:
                    raise Ended("released")
                case "pause":
                    self._paused = True
                    self._log.emit(protocol.Paused(step=step))
                case "resume":
                    self._paused = False
                    self._log.emit(protocol.Continued(step=step))
                case "set":
                    self._log.emit(protocol.Changed(step=step, field=command.field, value=command.value))
                case "checkpoint":
                    self._tell(protocol.Checkpoint(step=step, adapter=f"checkpoints/replay-step{step:06d}.safetensors"))
                case "sample":
                    path = f"samples/step-{step:06d}-asked.png"
                    self._tell(protocol.Sample(step=step, path=path, prompt=command.prompt, seed=0))

    def _new_lines(self) -> list[bytes]:
        try:
            with self._commands.open("rb") as file:
                file.seek(self._offset)
                lines = [line for line in file if line.endswith(b"\n")]
        except FileNotFoundError:
            return []
        self._offset += sum(map(len, lines))
        return [line for line in lines if line.strip()]


def replay(recording: Path, directory: Path, speed: float = 0.0, stop: threading.Event | None = None) -> int:
    """Be the worker of a job, and tell `recording`. Returns the exit code; raises locks.Held."""
    with locks.hold(directory), journal.Journal(directory) as log:
        log.status.device = os.environ.get(locks.DEVICE, "")
        return Replay(log, speed, stop or threading.Event()).run(recording)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.replay", description="Tell a recorded journal again.")
    parser.add_argument("journal", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--speed", type=float, default=1.0, help="times as fast as it was; 0: at once")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    locks.inherit()
    if device := os.environ.get(locks.DEVICE):
        locks.take(locks.device(device), patience=2.0)
    options.directory.mkdir(parents=True, exist_ok=True)
    try:
        return replay(options.journal, options.directory, options.speed, stop)
    except locks.Held:
        print(f"{options.directory}: another worker has it", file=sys.stderr)
        return protocol.FAILED


if __name__ == "__main__":
    sys.exit(main())
