"""Jobs as they lie on disk, for looking at: finding one by its name, its row in a list, its details.

A row costs two small files and, for a job that claims to be alive, one probe of its lock. Whatever a folder holds,
there is a row for it.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from engine import protocol
from engine.errors import Problem, UserError
from engine.host import liveness, queue
from engine.protocol.messages import JobDetails, JobSummary

TAIL_BYTES = 1 << 16
LOG_LINES = 40


class _Origin(msgspec.Struct):
    """What a list needs of a submission."""

    kind: str
    name: str
    submitted: float


_origin = msgspec.json.Decoder(_Origin)


def find(workspace: Path, name: str) -> Path:
    """A job by its folder, its id, or the end of its id when one alone has it. UserError names the likely ones."""
    # os.path's test: Path's own raises for a name that is too long for any folder.
    if name and any(os.path.isfile(os.path.join(name, file)) for file in (protocol.CONFIG, protocol.SUBMISSION)):
        return Path(os.path.abspath(name))
    matching = queue.named(workspace, name)
    if len(matching) == 1:
        return matching[0]
    runs = sorted(queue.runs(workspace), key=lambda run: run.name)
    matching = matching or [run for run in runs if run.name.endswith(f"-{name}")]
    if len(matching) == 1:
        return matching[0]
    shown = ", ".join(run.name for run in (matching or runs)[-5:])
    raise UserError(
        Problem(
            where=str(workspace),
            expected="the id of a run, the end of one, or a run's folder",
            found=f"{name!r}, which {len(matching)} runs have" if matching else repr(name),
            advice=f"there are: {shown}" if shown else "there are no runs yet",
        )
    )


def summaries(workspace: Path, project: str = "", limit: int = 1000) -> list[JobSummary]:
    """The rows of all jobs, or of a project's, newest first."""
    places = positions(workspace)
    rows = [summary(run, places) for run in queue.runs(workspace) if not project or run.parent.parent.name == project]
    rows.sort(key=lambda row: (row.submitted, row.id), reverse=True)
    return rows[:limit]


def summary(directory: Path, places: Mapping[str, int] | None = None) -> JobSummary:
    """The row of a job. `places`: its workspace's `positions`, where they are known already."""
    status, life = liveness.look(directory)
    origin = _origin_of(directory)
    project = directory.parent.parent
    if places is None:
        places = positions(project.parent.parent)
    place = places.get(f"projects/{project.name}/runs/{directory.name}")
    waits = place is not None and not life.alive
    return JobSummary(
        id=directory.name,
        project=project.name,
        kind=origin.kind,
        name=origin.name,
        state="queued" if waits else life.state,
        path=str(directory),
        stage="starting" if life.alive and status.state == "queued" else status.stage,
        step=status.step,
        steps=status.steps,
        loss=status.loss,
        validation=status.validation,
        best=status.best,
        device=status.device,
        position=place if waits else None,
        attempt=status.attempt,
        submitted=origin.submitted,
        started=status.started,
        updated=status.updated,
        cause="" if waits else life.cause,
        advice=[] if waits else list(life.advice),
    )


def positions(workspace: Path) -> dict[str, int]:
    """Places in the queue, from 1; none where it can't be read."""
    with contextlib.suppress(OSError):
        return {name: place for place, name in enumerate(queue.read(workspace).waiting, 1)}
    return {}


def details(directory: Path) -> JobDetails:
    """Everything about a job that a screen of its own shows, but for its events."""
    row = summary(directory)
    end = last_end(directory)
    if end is not None and end.advice and row.state == end.state:
        row = msgspec.structs.replace(row, advice=end.advice)
    try:
        config = (directory / protocol.CONFIG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        config = ""
    troubled = row.state in ("crashed", "failed", "stalled")
    return JobDetails(
        summary=row,
        config=config,
        outputs=[str(directory / name) for name in end.outputs] if end is not None else [],
        checkpoints=_files(directory / protocol.CHECKPOINTS, ".safetensors"),
        samples=_files(directory / protocol.SAMPLES, ".png"),
        bytes=size_of(directory),
        log=liveness.tail(directory / protocol.LOG, LOG_LINES) if troubled else "",
    )


def last_end(directory: Path) -> protocol.End | None:
    """The event that the journal ends with, where its last attempt has come to an end by itself."""
    end = None
    for line in _last_lines(directory / protocol.JOURNAL):
        match protocol.decode(line):
            case protocol.Attempt():
                end = None
            case protocol.End() as event:
                end = event
    return end


def told_to_stop(directory: Path) -> bool:
    """Whether a person stopped the job: its last attempt has taken the command, or it was taken out of the queue."""
    told = False
    for line in _last_lines(directory / protocol.JOURNAL):
        match protocol.decode(line):
            case protocol.Attempt():
                told = False
            case protocol.Acknowledged(name="stop", taken=True):
                told = True
    return told or bool(liveness.status_of(directory).cause)


def size_of(directory: Path) -> int:
    """Bytes of the files in a folder; those that vanish meanwhile don't count."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _origin_of(directory: Path) -> _Origin:
    """What the submission says; of a job that was never submitted, what its config and folder say."""
    try:
        return _origin.decode(liveness.content(f"{directory}/{protocol.SUBMISSION}"))
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        pass
    config = {}
    with contextlib.suppress(OSError, ValueError):
        config = tomllib.loads((directory / protocol.CONFIG).read_text(encoding="utf-8"))
    name = config.get("name", re.sub(r"^\d{8}-\d{4}-", "", directory.name))
    return _Origin(kind=str(config.get("kind", "train")), name=str(name), submitted=_stamp(directory))


def _stamp(directory: Path) -> float:
    """Seconds since 1970 by the time in a job's id, or by its folder."""
    with contextlib.suppress(ValueError, OverflowError):
        return time.mktime(time.strptime(directory.name[:13], "%Y%m%d-%H%M"))
    with contextlib.suppress(OSError):
        return directory.stat().st_mtime
    return 0.0


def _files(folder: Path, suffix: str) -> list[str]:
    """Finished files with their paths, in the order of their names."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError:
        return []
    return [str(folder / name) for name in names if name.endswith(suffix) and not name.startswith(".")]


def _last_lines(path: Path) -> list[bytes]:
    """The whole lines in a journal's last bytes."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - TAIL_BYTES))
            return [line for line in file.read().split(b"\n")[:-1] if line]
    except OSError:
        return []
