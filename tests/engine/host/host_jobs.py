"""What became of jobs, by their folders."""

from __future__ import annotations

from pathlib import Path

from engine import protocol
from engine.host import jobs


def states(*directories: Path) -> list[str]:
    return [jobs.state_of(directory) for directory in directories]


def events(directory: Path, kind: type) -> list:
    read = protocol.JournalReader(directory / protocol.JOURNAL).read()
    return [event for event in read if isinstance(event, kind)]


def attempts(directory: Path) -> int:
    return len(events(directory, protocol.Attempt))
