"""Where a job says it: the files of its directory, how a journal is read, and the summary that lists show."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from engine.protocol.events import AnyEvent, decode

CONFIG, SUBMISSION, JOURNAL, CONTROL = "config.toml", "submission.json", "events.jsonl", "control.jsonl"
STATUS, LOG, HOOKS = "status.json", "engine.log", "hooks.jsonl"
CHECKPOINTS, SAMPLES = "checkpoints", "samples"

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
"""Exit codes of a worker and of every command."""


def workspace() -> Path:
    """LORATUI_WORKSPACE, by default ~/loratui: everything that is written lies in it."""
    return Path(os.environ.get("LORATUI_WORKSPACE") or "~/loratui").expanduser().absolute()


class JournalReader:
    """Reads the events of a journal as they are appended; a last line still being written waits for its newline."""

    def __init__(self, path: Path, offset: int = 0):
        self.path, self.offset = path, offset

    def read(self) -> Iterator[AnyEvent]:
        """Every event that has been completed since the last call."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self.offset += len(line)
                    event = decode(line)
                    if event is not None:
                        yield event
        except FileNotFoundError:
            return


class Status(msgspec.Struct, kw_only=True):
    """`status.json`: a summary of a job for lists, replaced atomically; never the truth about liveness."""

    state: Literal["queued", "running", "paused", "released", "done", "stopped", "failed", "refused"] = "queued"
    stage: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    validation: float | None = None
    best: float | None = None
    """Least validation loss so far."""
    device: str = ""
    """UUID of the device that it was given, or `cpu`."""
    host: str = ""
    boot_id: str = ""
    pid: int = 0
    attempt: int = 0
    crashes: int = 0
    """Attempts that died without a last event since a person last queued it."""
    started: float = 0.0
    updated: float = 0.0
    cause: str = ""

    def to_bytes(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def read_status(directory: Path) -> Status:
    """The status of a job; a default one where none was written yet."""
    try:
        return msgspec.json.decode((directory / STATUS).read_bytes(), type=Status)
    except (OSError, ValueError, RecursionError):  # ValueError: msgspec's own, and bytes that are not UTF-8
        return Status()


class Submission(msgspec.Struct, kw_only=True):
    """`submission.json`: who asked for a job and with what, frozen, so that it runs the same whoever starts it."""

    kind: str
    name: str
    interpreter: str
    environment: dict[str, str]
    """The variables that matter to it: threads, caches, allocators, visible devices."""
    submitted: float
    host: str
    needs_device: bool
    device: str = "auto"
    """`runtime.device` of the config."""
    retries: int = 0
    """How often it is started again after a crash; a failure of its own is not tried again."""


class ControlLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A line of `control.jsonl`. Fields as in messages.Control."""

    id: str
    t: float
    name: str
    release: bool = False
    prompt: str = ""
    field: str = ""
    value: float = 0.0


class HookLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A line of `hooks.jsonl`: a command from the settings that was run for the job, and how it ended."""

    t: float
    on: str
    """on_checkpoint, on_done or on_failed."""
    step: int
    command: str
    code: int
    seconds: float = 0.0
    text: str = ""
    """The end of what it printed."""
