"""What every job has: its directory, its journal, and what somebody outside wants of it.

Commands are read by a thread (engine.control) and honoured here, where the job says that it can: `tick` wherever it can
end or hold still, `attend` where it can also do something else for a moment.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engine import protocol
from engine.control import Control
from engine.journal import Journal


class Stopped(Exception):
    """The job was asked to stop, and has reached a point where it can."""


class Released(Stopped):
    """The job was asked to give its device back for now."""


@dataclass
class Context:
    """A job's surroundings. Everything here is called from the job's own thread."""

    directory: Path
    journal: Journal
    control: Control
    dry_run: bool = False
    _stage: str = ""
    _told: float = field(default=0.0)

    def tick(self, *_: object) -> None:
        """End here or hold still here, if that is wanted. Raises Stopped."""
        if self.control.wanted:
            self._end_if_wanted()
            if self.control.paused and not self.control.held:
                self._hold("inside", lambda: None)

    def attend(self, serve: Callable[[protocol.ControlLine], None]) -> None:
        """`tick` between two steps, where `serve` carries out what commands ask for; while the job holds still, too."""

        def serve_all() -> None:
            while (line := self.control.take()) is not None:
                serve(line)

        while self.control.wanted:
            self._end_if_wanted()
            if self.control.paused:
                self._hold("between", serve_all)
            else:
                serve_all()

    def _end_if_wanted(self) -> None:
        match self.control.ending():
            case "stopped":
                raise Stopped
            case "released":
                raise Released

    def _hold(self, where: Literal["between", "inside"], serve: Callable[[], None]) -> None:
        with self._held(where):
            self.journal.emit(protocol.Paused(step=self.journal.status.step))
            while self.control.paused:
                self._end_if_wanted()
                serve()
                self.control.wait()
        self._end_if_wanted()
        self.journal.emit(protocol.Continued(step=self.journal.status.step))

    @contextlib.contextmanager
    def _held(self, where: Literal["between", "inside"]) -> Iterator[None]:
        self.control.held = where
        try:
            yield
        finally:
            self.control.held = ""

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
