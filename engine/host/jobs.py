"""Jobs, for host and runner alike: all that can be done to one. A job is a directory, and its workspace the folder four
levels above; nothing of it is kept in memory.

Every function here may be called from several processes at once. What can't be done is refused with a UserError that
says why; what a live job makes of a command is said by the job, in its journal.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import time
from pathlib import Path

import msgspec

from engine import files, journal, locks, protocol
from engine.config import Problem, UserError
from engine.host import launch, liveness, queue
from engine.host.liveness import state_of
from engine.host.records import details, find, last_end, size_of, summaries, summary
from engine.host.submission import asleep, mendable, requeue, start_runner, submit, write_status
from engine.protocol import messages

__all__ = [
    "cancel",
    "control",
    "details",
    "find",
    "last_end",
    "move",
    "remove",
    "retry",
    "state_of",
    "submit",
    "summaries",
    "summary",
    "thrown",
    "waiting",
    "workspace_of",
]

WAITS = "a job that waits in the queue"
SAVING, DYING = 60.0, 5.0
"""Seconds that a forced removal gives a worker to save and stop, and then to be killed."""


def workspace_of(directory: Path) -> Path:
    """The workspace that a job lies in. Raises UserError for a folder that lies in none."""
    directory = directory.absolute()
    workspace = directory.parents[3] if len(directory.parents) > 3 else directory
    queue.name_of(workspace, directory)
    return workspace


def control(directory: Path, params: messages.Control) -> messages.Command:
    """Give a command to a job. The id that comes back is that of its acknowledgement in the journal.

    It is empty where no worker is needed: to stop a waiting job takes it out of the queue, to resume one that has ended
    queues it again.
    """
    row = summary(directory)
    if params.name == "stop" and row.state == "queued":
        with contextlib.suppress(_Started):
            _unqueue(directory)
            return messages.Command(id="")
    elif params.name == "resume" and row.state not in liveness.ALIVE:
        retry(directory)
        return messages.Command(id="")
    elif row.state not in liveness.ALIVE:
        raise _refused(row, f"a job that runs, for `{params.name}`")
    line = protocol.ControlLine(id=secrets.token_hex(6), t=round(time.time(), 3), name=params.name)
    for name in ("release", "prompt", "field", "value"):
        setattr(line, name, getattr(params, name))
    with mendable(directory):
        files.append_line(directory / protocol.CONTROL, msgspec.json.encode(line))
    return messages.Command(id=line.id)


def retry(directory: Path) -> messages.Submitted:
    """Queue a job that has ended without being done; it goes on from its last saved state."""
    workspace = workspace_of(directory)
    row = summary(directory)
    if row.state in ("queued", "done", "elsewhere", *liveness.ALIVE):
        raise _refused(row, "a job that has ended before it was done")
    with mendable(directory):
        requeue(workspace, directory)
    start_runner(workspace)
    return messages.Submitted(id=directory.name, path=str(directory), queued=True)


def waiting(workspace: Path) -> messages.Queue:
    """The jobs that wait, next first."""
    names = queue.read(workspace).waiting
    places = {name: place for place, name in enumerate(names, 1)}
    rows = [summary(workspace / name, places) for name in names if (workspace / name).is_dir()]
    return messages.Queue(jobs=[row for row in rows if row.position is not None], runner=launch.runner_alive(workspace))


def move(directory: Path, position: int) -> messages.Queue:
    """Put a waiting job at a place, from 1; one beyond the last is the last."""
    workspace = workspace_of(directory)
    name = queue.name_of(workspace, directory)
    with mendable(workspace), queue.changing(workspace) as entries:
        if name not in entries.waiting:
            raise _refused(summary(directory), WAITS)
        entries.waiting.remove(name)
        entries.waiting.insert(max(0, position - 1), name)
    return waiting(workspace)


def cancel(directory: Path) -> messages.Queue:
    """Take a waiting job out of the queue. Its folder stays, and it can be resumed."""
    try:
        _unqueue(directory)
    except _Started:
        raise _refused(summary(directory), WAITS) from None
    return waiting(workspace_of(directory))


def remove(directory: Path, force: bool = False) -> messages.Removed:
    """Move a job to its workspace's trash. A live one is refused, or stopped first with `force`."""
    workspace = workspace_of(directory)
    name = queue.name_of(workspace, directory)
    row = summary(directory)
    if row.state in ("elsewhere", *liveness.ALIVE) and not force:
        raise _refused(row, "a job that does not run", "stop it first, or force it")
    if row.state in liveness.ALIVE:
        _halt(directory)
    size = size_of(directory)
    with mendable(workspace), asleep(directory), queue.changing(workspace) as entries:
        for names in (entries.waiting, entries.running):
            if name in names:
                names.remove(name)
        trash = thrown(directory, workspace / "trash" / directory.parent.parent.name)
    return messages.Removed(id=directory.name, trash=str(trash), bytes=size)


class _Started(Exception):
    """The job is no longer waiting."""


def _unqueue(directory: Path) -> None:
    workspace = workspace_of(directory)
    name = queue.name_of(workspace, directory)
    with mendable(workspace), queue.changing(workspace) as entries:
        status = liveness.status_of(directory)
        if name not in entries.waiting and (status.state != "queued" or locks.held(directory)):
            raise _Started
        with asleep(directory):
            status.state, status.cause = "stopped", "it was taken out of the queue"
            write_status(directory, status)
        if name in entries.waiting:
            entries.waiting.remove(name)


def _halt(directory: Path) -> None:
    """End a live worker: it is asked to save and stop, and killed if it does not."""
    for number, patience in ((signal.SIGTERM, SAVING), (signal.SIGKILL, DYING)):
        deadline, sent = time.monotonic() + patience, 0
        while time.monotonic() < deadline:
            if not locks.held(directory):
                return
            status = liveness.status_of(directory)
            here = (status.host, status.boot_id) == (journal.host(), journal.boot_id())
            if here and status.state in ("running", "paused") and status.pid not in (0, sent):
                sent = status.pid
                with contextlib.suppress(ProcessLookupError):
                    os.kill(sent, number)
            time.sleep(0.05)
    raise _refused(summary(directory), "a job that can be stopped", "end its worker by hand")


def thrown(directory: Path, trash: Path) -> Path:
    """Move a folder into the trash, under the first name that is free there."""
    trash.mkdir(parents=True, exist_ok=True)
    for name in (directory.name, *(f"{directory.name}-{number}" for number in range(2, 10_000))):
        if not (trash / name).exists():
            shutil.move(directory, trash / name)
            return trash / name
    raise FileExistsError(str(trash / directory.name))


def _refused(row: messages.JobSummary, expected: str, advice: str = "") -> UserError:
    found = f"one that is {row.state}" + (f": {row.cause}" if row.cause else "")
    return UserError(Problem(where=row.id, expected=expected, found=found, advice=advice))
