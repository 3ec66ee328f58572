"""Commands from the settings, run by the runner when something has happened to a run: copy files home, notify, stop a
rented machine.

They run one after another in processes of their own, so that none holds up a run, and how they end changes nothing: it
is written to the run's `hooks.jsonl` and said in the runner's log. Each command is a line for `sh -c`, in the
workspace's folder, and finds the facts in its environment:

LORATUI_HOOK (which of the four), LORATUI_WORKSPACE, and of the run LORATUI_RUN, LORATUI_PROJECT, LORATUI_PATH,
LORATUI_STATE, LORATUI_STEP, LORATUI_STEPS, LORATUI_ADAPTER (a file, empty where there is none) and LORATUI_CAUSE.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec

from engine import files, protocol
from engine.config.settings import FILE, Settings, read_settings
from engine.host import launch, liveness, records

ENOUGH = 1000
"""Characters of a command's output that are kept, from its end."""


@dataclass(frozen=True)
class Task:
    """A command that is to be run. Of a run, or of the whole workspace where there is no directory."""

    on: str
    command: str
    facts: dict[str, str]
    directory: Path | None = None
    step: int = 0

    @property
    def about(self) -> str:
        return f"{self.on} of {self.directory.name}" if self.directory else self.on


@dataclass
class Running:
    task: Task
    process: subprocess.Popen
    output: IO[bytes]
    began: float = field(default_factory=time.monotonic)


class Hooks:
    """The commands that are due, in order, and the one that runs. `turn` moves them on and never waits."""

    def __init__(self, workspace: Path, say: Callable[[str], None]):
        self.workspace, self._say = workspace, say
        self.settings = Settings()
        self._stamp: tuple[int, ...] | None = None
        self._due: deque[Task] = deque()
        self._running: Running | None = None

    @property
    def busy(self) -> bool:
        return bool(self._due or self._running)

    def concerns(self, directory: Path) -> bool:
        """Whether a command for this run is due or runs."""
        running = [self._running.task] if self._running else []
        return any(task.directory == directory for task in (*running, *self._due))

    def turn(self) -> None:
        """Take up changed settings, bury the command that has ended, start the next."""
        self._refresh()
        if self._running is not None and not self._ended(self._running):
            return
        self._running = None
        while self._due and self._running is None:
            self._running = self._started(self._due.popleft())

    def checkpoint(self, directory: Path, event: protocol.Checkpoint, already: Iterable[tuple] = ()) -> None:
        """An adapter was saved. `already`: the commands that another runner has run for it, see `handled`."""
        self._queue("on_checkpoint", directory, event.step, str(directory / event.adapter), already)

    def ended(self, directory: Path, state: str, cause: str, already: Iterable[tuple] = ()) -> None:
        """A run has come to its end, for good or not."""
        on = {"done": "on_done", "failed": "on_failed", "refused": "on_failed", "crashed": "on_failed"}.get(state)
        if on is None:
            return
        end = records.last_end(directory)
        outputs = [name for name in end.outputs if name.endswith(".safetensors")] if end is not None else []
        adapter = str(directory / outputs[0]) if outputs else ""
        self._queue(on, directory, liveness.status_of(directory).step, adapter, already, state, cause)

    def queue_empty(self) -> None:
        """The last run has ended, and none waits."""
        for command in self.settings.hooks.on_queue_empty:
            self._due.append(Task("on_queue_empty", command, self._facts("on_queue_empty")))

    def _queue(
        self,
        on: str,
        directory: Path,
        step: int,
        adapter: str,
        already: Iterable[tuple] = (),
        state: str = "running",
        cause: str = "",
    ) -> None:
        facts = self._facts(on) | {
            "LORATUI_RUN": directory.name,
            "LORATUI_PROJECT": directory.parent.parent.name,
            "LORATUI_PATH": str(directory),
            "LORATUI_STATE": state,
            "LORATUI_STEP": str(step),
            "LORATUI_STEPS": str(liveness.status_of(directory).steps),
            "LORATUI_ADAPTER": adapter,
            "LORATUI_CAUSE": cause,
        }
        for command in getattr(self.settings.hooks, on):
            if (on, step, command) not in already:
                self._due.append(Task(on, command, facts, directory, step))

    def _facts(self, on: str) -> dict[str, str]:
        return {"LORATUI_HOOK": on, "LORATUI_WORKSPACE": str(self.workspace)}

    def _refresh(self) -> None:
        """Read the settings where they have changed. Wrong ones are told of, and the former stay."""
        try:
            found = os.stat(self.workspace / FILE)
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        except OSError:
            stamp = ()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        settings, problems = read_settings(self.workspace)
        for problem in problems:
            self._say(f"settings: {problem}")
        if settings is None:
            self._say(f"{FILE} is left aside until it is right")
        else:
            self.settings = settings

    def _started(self, task: Task) -> Running | None:
        try:
            output = tempfile.TemporaryFile()  # noqa: SIM115 closed when the command has ended
            process = subprocess.Popen(
                ["/bin/sh", "-c", task.command],
                env=launch.foreign_environment() | task.facts,
                cwd=self.workspace,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            self._report(task, 127, 0.0, str(error))
            return None
        return Running(task, process, output)

    def _ended(self, running: Running) -> bool:
        seconds = time.monotonic() - running.began
        code = running.process.poll()
        late = code is None and seconds > self.settings.hooks.timeout
        if late:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.process.pid, signal.SIGKILL)
            code = running.process.wait()
        if code is None:
            return False
        with running.output as output:
            output.seek(max(0, output.seek(0, os.SEEK_END) - 4 * ENOUGH))
            text = output.read().decode(errors="replace").strip()[-ENOUGH:]
        if late:
            text = f"killed after {self.settings.hooks.timeout:g} s\n{text}".strip()
        self._report(running.task, code, seconds, text)
        return True

    def _report(self, task: Task, code: int, seconds: float, text: str) -> None:
        """Write down how a command ended, and say it where it did not end well."""
        if code:
            self._say(f"{task.about} failed with code {code}: {task.command}" + (f": {text}" if text else ""))
        if task.directory is None:
            return
        line = protocol.HookLine(
            t=round(time.time(), 3),
            on=task.on,
            step=task.step,
            command=task.command,
            code=code,
            seconds=round(seconds, 3),
            text=text,
        )
        try:
            files.append_line(task.directory / protocol.HOOKS, msgspec.json.encode(line))
        except OSError as error:
            self._say(f"{task.about}: {error}")


def checkpoints(directory: Path, offset: int) -> tuple[list[protocol.Checkpoint], int]:
    """The checkpoints that a journal tells of behind an offset, and the offset behind them.

    Everything else is passed over undecoded. A journal that has become shorter has lost a torn line to a new worker.
    """
    found: list[protocol.Checkpoint] = []
    path = directory / protocol.JOURNAL
    with contextlib.suppress(OSError):
        offset = min(offset, os.stat(path).st_size)
        with path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                offset += len(line)
                event = protocol.decode(line) if b'"checkpoint"' in line else None
                if isinstance(event, protocol.Checkpoint):
                    found.append(event)
    return found, offset


def handled(directory: Path) -> set[tuple[str, int, str]]:
    """The commands that have been run for a run: (on, step, command)."""
    found = set()
    with contextlib.suppress(OSError):
        for line in (directory / protocol.HOOKS).read_bytes().splitlines():
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                told = msgspec.json.decode(line, type=protocol.HookLine)
                found.add((told.on, told.step, told.command))
    return found
