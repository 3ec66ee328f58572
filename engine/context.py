"""What every job has: its directory, its journal, and the wish of somebody outside that it stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from engine import protocol
from engine.journal import Journal


class Stopped(Exception):
    """The job was asked to stop, and has reached a point where it can."""


@dataclass
class Context:
    """`stop` is set from a signal handler or another thread; jobs call `tick` wherever they can end cleanly."""

    directory: Path
    journal: Journal
    stop: threading.Event
    dry_run: bool = False
    _stage: str = ""
    _told: float = field(default=0.0)

    def tick(self, *_: object) -> None:
        if self.stop.is_set():
            raise Stopped

    def stage(self, name: str, total: int = 0, unit: str = "") -> None:
        self._stage, self._told = name, 0.0
        self.journal.emit(protocol.Stage(name=name, total=total, unit=unit))
        self.tick()

    def progress(self, done: int, total: int) -> None:
        """Tell how far the stage has come, at most ten times a second and always at its end."""
        now = time.monotonic()
        if done >= total or now - self._told >= 0.1:
            self._told = now
            self.journal.emit(protocol.Progress(stage=self._stage, done=done, total=total))
        self.tick()

    def notices(self, texts: Iterable[str]) -> None:
        events = [protocol.Notice(text=text) for text in texts]
        if events:
            self.journal.emit(*events)
