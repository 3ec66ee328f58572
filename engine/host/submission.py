"""Making jobs: a request becomes a folder that appears whole, with everything frozen that the job needs to run the same
whoever starts it; and one that has ended becomes a waiting one again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine import files, journal, locks, protocol
from engine.config import Job, Operate, Problem, Request, UserError, to_toml
from engine.config.operations import ON_DEVICE
from engine.config.settings import Settings, read_settings
from engine.host import launch, liveness, queue
from engine.protocol import messages

NEEDS_DEVICE = {"train": True, "generate": True}
"""Whether a kind of job computes with torch for long. With operations it depends on which; see `needs_device`."""

PATIENCE = 2.0
"""Seconds in which a worker that has said its last word lets go of its job."""


def submit(workspace: Path, params: messages.Submit) -> messages.Submitted:
    """Freeze a request into a folder and queue it. Raises UserError with everything that is wrong with it."""
    request = Request()
    request.lay(params.config, "request")
    config = request.checked()
    with mendable(workspace):
        directory = create(workspace, config, params.hold)
        if not params.hold:
            try:
                with queue.changing(workspace) as entries:
                    _enter(entries, queue.name_of(workspace, directory), params.first)
            except BaseException:
                shutil.rmtree(directory, ignore_errors=True)
                raise
    if not params.hold:
        start_runner(workspace)
    waits = needs_device(config) and not params.hold
    return messages.Submitted(id=directory.name, path=str(directory), queued=waits)


def needs_device(config: Job) -> bool:
    """Whether a job waits for a device. One that does not is started at once, beside whatever runs."""
    if isinstance(config, Operate):
        return config.operation in ON_DEVICE
    return NEEDS_DEVICE[type(config).__struct_config__.tag]


def create(workspace: Path, config: Job, held: bool = False) -> Path:
    """Write the folder of a job, whole under its name from the first. A `held` one does not claim to wait.

    Raises OSError where the disk refuses.
    """
    runs = workspace / "projects" / config.project / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    temporary = runs / f".{secrets.token_hex(8)}.tmp"
    status = protocol.Status(state="queued", updated=round(time.time(), 3))
    if held:
        status.state, status.cause = "stopped", "it has not been started"
    try:
        temporary.mkdir()
        (temporary / protocol.CONFIG).write_text(to_toml(config), encoding="utf-8")
        (temporary / protocol.SUBMISSION).write_bytes(_frozen(workspace, config))
        (temporary / protocol.STATUS).write_bytes(status.to_bytes())
        for file in temporary.iterdir():
            files.sync(file)
        files.sync(temporary)
        directory = _named(temporary, runs, config.name)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    files.sync(runs)
    return directory


def read_submission(workspace: Path, directory: Path) -> protocol.Submission:
    """How a job is to be run. One that was never submitted, or whose submission is damaged, is submitted by this
    process. Raises UserError where its config can't be read either."""
    path = directory / protocol.SUBMISSION
    try:
        return msgspec.json.decode(path.read_bytes(), type=protocol.Submission)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        request = Request()
        request.read(directory / protocol.CONFIG)
        files.write_bytes(path, _frozen(workspace, request.checked()))
        return msgspec.json.decode(path.read_bytes(), type=protocol.Submission)


def requeue(workspace: Path, directory: Path, first: bool = False, crashes: int = 0) -> None:
    """Let a job that has ended wait again; it will go on from its last saved state.

    Raises UserError where it is alive or not this workspace's, OSError where the disk refuses.
    """
    with asleep(directory), queue.changing(workspace) as entries:
        name = queue.name_of(workspace, directory)
        read_submission(workspace, directory)
        status = liveness.status_of(directory)
        status.state, status.cause, status.crashes = "queued", "", crashes
        write_status(directory, status)
        if name in entries.running:
            entries.running.remove(name)
        _enter(entries, name, first)


def fail(workspace: Path, directory: Path, cause: str) -> None:
    """Take a job out of the queue that can't be started."""
    with asleep(directory), queue.changing(workspace) as entries:
        name = queue.name_of(workspace, directory)
        for names in (entries.waiting, entries.running):
            if name in names:
                names.remove(name)
        status = liveness.status_of(directory)
        status.state, status.cause = "failed", cause
        write_status(directory, status)


def revive(workspace: Path) -> None:
    """Start a runner where one was killed with jobs in hand, so that they are seen to and the queue goes on.

    Whoever looks calls this, so it starts nothing that a person has stopped (a runner that ends in good order has
    nothing in hand) nor what belongs to another machine, and never raises.
    """
    with contextlib.suppress(OSError, UserError):
        entries = queue.read(workspace)
        if entries.running and not launch.runner_alive(workspace):
            path = workspace / entries.running[0]
            if path.is_dir() and read_submission(workspace, path).host == journal.host():
                start_runner(workspace)


def start_runner(workspace: Path) -> None:
    """See to it that somebody starts what waits. Raises UserError where no runner can be started."""
    try:
        launch.ensure_runner(workspace)
    except OSError as error:
        raise UserError(
            Problem(
                where=str(workspace / launch.RUNNER_LOG),
                expected="that a runner can be started for what is in the queue",
                found=error.strerror or str(error),
                advice="the job waits; `python -m engine.runner` starts one by hand",
            )
        ) from None


def write_status(directory: Path, status: protocol.Status) -> None:
    """Only for who keeps the worker out: a live one writes its own."""
    status.updated = round(time.time(), 3)
    files.write_bytes(directory / protocol.STATUS, status.to_bytes())


@contextlib.contextmanager
def asleep(directory: Path) -> Iterator[None]:
    """Keep workers away from a job for a moment. Raises UserError where one is there."""
    try:
        with locks.hold(directory, PATIENCE, shared=True):
            yield
    except locks.Held:
        advice = "stop it first"
        raise UserError(
            Problem(where=directory.name, expected="a job that does not run", found="one that is alive", advice=advice)
        ) from None


@contextlib.contextmanager
def mendable(workspace: Path) -> Iterator[None]:
    """Let what the disk refuses be the user's to mend."""
    try:
        yield
    except OSError as error:
        raise UserError(
            Problem(
                where=str(error.filename or workspace),
                expected="a workspace that can be written to",
                found=error.strerror or str(error),
                advice="make room or take back the permission that is missing, or choose another LORATUI_WORKSPACE",
            )
        ) from None


def _enter(entries: queue.Entries, name: str, first: bool) -> None:
    if name not in entries.waiting:
        entries.waiting.insert(0 if first else len(entries.waiting), name)


def _named(temporary: Path, runs: Path, name: str) -> Path:
    """Give a folder the first id that no project has. Of two that want one here, the file system lets one have it."""
    slug = re.sub(r"[^\w.-]+", "-", name)[:48].strip("-.") or "run"
    stamp = f"{time.strftime('%Y%m%d-%H%M')}-{slug}"
    for candidate in (stamp, *(f"{stamp}-{number}" for number in range(2, 10_000))):
        if any(runs.parents[1].glob(f"*/runs/{candidate}")):
            continue
        try:
            os.rename(temporary, runs / candidate)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        else:
            return runs / candidate
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(runs / stamp))


def _frozen(workspace: Path, config: Job) -> bytes:
    kind = type(config).__struct_config__.tag
    settings = read_settings(workspace)[0] or Settings()
    submission = protocol.Submission(
        kind=kind,
        name=config.name,
        interpreter=sys.executable,
        environment=launch.freeze() | {"LORATUI_WORKSPACE": str(workspace)},
        submitted=round(time.time(), 3),
        host=journal.host(),
        needs_device=needs_device(config),
        device=config.request.get("device", "auto") if isinstance(config, Operate) else config.runtime.device,
        retries=settings.retries,
    )
    return msgspec.json.format(msgspec.json.encode(submission), indent=2) + b"\n"
