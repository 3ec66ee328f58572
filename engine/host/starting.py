"""Starting one waiting job: a device, the locks of both, a process; and what the runner keeps of it while it is alive.

The job's lock and the device's are taken here and handed to the worker, so that from here on both are held, whatever
becomes of the runner.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from engine import locks, protocol
from engine.host import launch, liveness, placement, queue
from engine.journal import boot_id


class CannotStart(Exception):
    """The job can't be started as it is, now or later."""


@dataclass
class Live:
    """A job whose worker runs, or did when it was last looked at."""

    name: str
    directory: Path
    process: subprocess.Popen | None = None
    """None: another runner has started it."""
    attempt: int = 0
    """The last one before the worker was started."""
    retries: int = 0
    device: str | None = None
    read_to: int = 0
    """Bytes of its journal that have been looked through."""
    already: set[tuple] = field(default_factory=set)
    """The hooks' commands that another runner has run for it."""
    told_to_go: bool = False
    _pid: int = 0

    @property
    def adopted(self) -> bool:
        return self.process is None

    def alive(self) -> bool:
        return locks.held(self.directory) if self.process is None else self.process.poll() is None

    def pid(self) -> int:
        """Its worker's, which may be asked for when the folder is gone; 0 where it is not known."""
        if self.process is not None:
            return self.process.pid
        status = liveness.status_of(self.directory)
        if status.pid and status.boot_id == boot_id():
            self._pid = status.pid
        return self._pid

    def terminate(self) -> None:
        """Ask the worker to save and stop."""
        self.told_to_go = True
        if self.alive() and (pid := self.pid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def start(
    workspace: Path, name: str, job: protocol.Submission, machine: placement.Machine, busy: set[str]
) -> Live | None:
    """Start a job that waits, on a free device if it needs one; None where it has to wait on.

    Devices that are `busy` are passed over, and those that turn out to be are added.

    Raises CannotStart, OSError where the system refuses, and UserError where the queue can't be changed.
    """
    if not job.needs_device:
        return _start(workspace, name, job, None, [])
    for device in placement.choices(job, machine.uuids()):
        lock = None if device in busy else locks.take(locks.device(device))
        if lock is None:
            busy.add(device)
            continue
        try:
            return _start(workspace, name, job, device, [lock])
        finally:
            lock.release()
    return None


def _start(
    workspace: Path, name: str, job: protocol.Submission, device: str | None, taken: list[locks.Lock]
) -> Live | None:
    live = None
    try:
        with queue.changing(workspace) as entries:
            lock = locks.take(workspace / name) if name in entries.waiting else None
            if lock is None:
                return None
            try:
                live = _spawn(workspace, name, job, device, [lock, *taken])
            finally:
                lock.release()
            entries.waiting.remove(name)
            entries.running.append(name)
    except OSError:
        if live is None:
            raise
    return live


def _spawn(workspace: Path, name: str, job: protocol.Submission, device: str | None, taken: list[locks.Lock]) -> Live:
    directory = workspace / name
    if not os.access(job.interpreter, os.X_OK):
        raise CannotStart(f"the interpreter that it was submitted with is not there: {job.interpreter}")
    environment = launch.thaw(job.environment) | placement.environment(job, device) | _place(workspace, directory)
    live = Live(
        name=name,
        directory=directory,
        attempt=liveness.status_of(directory).attempt,
        retries=job.retries,
        device=device,
        read_to=_size(directory / protocol.JOURNAL),
    )
    live.process = launch.start_worker(
        job.interpreter, directory, directory / protocol.LOG, environment, taken, workspace
    )
    return live


def _place(workspace: Path, directory: Path) -> dict[str, str]:
    return {
        "LORATUI_WORKSPACE": str(workspace),
        launch.CONTROL_OFFSET: str(_size(directory / protocol.CONTROL)),
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def ending(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "nobody saw how"
    if code >= 0:
        return f"code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
