"""Projects: the folders in which the jobs of one subject lie, with the draft of the next one.

A project is moved or thrown away only while all its jobs rest, under the queue's lock, and by one rename: a job is
known by its folder, to the queue, to its lock and to its worker. So whoever is killed here has moved all or nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from engine import files, locks
from engine.errors import Problem, UserError
from engine.host import launch, liveness, queue, records
from engine.protocol.browse import Projects, ProjectSummary, Trashed
from engine.protocol.messages import JobSummary

SHOWN = 3
"""Jobs that a refusal names."""


def projects(workspace: Path, jobs: Iterable[JobSummary]) -> Projects:
    """The workspace's projects by name; `jobs`: those of all of them."""
    of: dict[str, list[JobSummary]] = {}
    for job in jobs:
        of.setdefault(job.project, []).append(job)
    try:
        names = {entry.name for entry in os.scandir(workspace / "projects") if entry.is_dir() and entry.name[0] != "."}
    except OSError:
        names = set()
    return Projects(projects=[summary(workspace, name, of.get(name, [])) for name in sorted(names | set(of))])


def summary(workspace: Path, name: str, jobs: Iterable[JobSummary]) -> ProjectSummary:
    """A project; `jobs`: its own."""
    folder = workspace / "projects" / name
    try:
        updated = [folder.stat().st_mtime]
    except OSError:
        updated = [0.0]
    running = 0
    for job in jobs:
        updated.append(job.updated)
        running += job.state in liveness.ALIVE
    return ProjectSummary(name=name, path=str(folder), jobs=len(updated) - 1, running=running, updated=max(updated))


def find(workspace: Path, name: str) -> Path:
    """The folder of a project. Raises UserError where there is none of that name."""
    folder = workspace / "projects" / name
    plain = name.isprintable() and not name.startswith(".") and not set(name) & set("/\\")
    if name and plain and os.path.isdir(folder):
        return folder
    raise UserError(
        Problem(
            where="project",
            field="name",
            expected=f"a project of {workspace}",
            found=repr(name[:100]),
            advice="it may have been renamed or removed since",
        )
    )


def create(workspace: Path, name: str) -> ProjectSummary:
    """Make a project's folder. Raises UserError for what is no plain folder name, or is there already."""
    folder = _new(workspace, name)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise _taken(folder) from None
    (folder / "runs").mkdir()
    return summary(workspace, name, [])


def rename(workspace: Path, name: str, to: str) -> ProjectSummary:
    """Give a project another name. Raises UserError where one of its jobs does not rest, or the name is no good.

    What is written inside it stays as it was, paths that lead into it too.
    """
    from engine.host.submission import mendable

    folder, target = find(workspace, name), _new(workspace, to)
    if target != folder:
        with mendable(workspace), queue.changing(workspace) as entries:
            _check_rest(workspace, folder, entries)
            if os.path.lexists(target):
                raise _taken(target)
            os.rename(folder, target)
            entries.running[:] = [_moved(job, name, to) for job in entries.running]
            files.sync(target.parent)
    return summary(workspace, to, [row for row in records.summaries(workspace, to)])


def remove(workspace: Path, name: str) -> Trashed:
    """Move a project to the workspace's trash. Raises UserError where one of its jobs does not rest."""
    from engine.host.jobs import thrown
    from engine.host.submission import mendable

    folder = find(workspace, name)
    size = records.size_of(folder)
    with mendable(workspace), queue.changing(workspace) as entries:
        _check_rest(workspace, folder, entries)
        entries.running[:] = [job for job in entries.running if _moved(job, name, "") == job]
        trash = thrown(folder, workspace / "trash")
        files.sync(folder.parent)
    return Trashed(path=str(folder), trash=str(trash), bytes=size)


def _new(workspace: Path, name: str) -> Path:
    """The folder for a name. Raises UserError for what is no plain folder name."""
    if not name.isprintable() or not name.strip() or name.startswith(".") or set(name) & set("/\\") or len(name) > 80:
        raise UserError(
            Problem(
                where="project",
                field="name",
                expected="a plain folder name of at most 80 characters that does not begin with a dot",
                found=repr(name[:100]),
                advice="choose one without slashes",
            )
        )
    return workspace / "projects" / name


def _taken(folder: Path) -> UserError:
    return UserError(
        Problem(where=str(folder), expected="a new project", found="one of that name", advice="choose another name")
    )


def _check_rest(workspace: Path, folder: Path, entries: queue.Entries) -> None:
    """Refuse where a job of the project runs, waits, or is still in the hands of a runner."""
    busy: dict[str, list[str]] = {}
    in_hand = set(entries.running) if launch.runner_alive(workspace) else set()
    for name in sorted(os.listdir(folder / "runs")) if (folder / "runs").is_dir() else ():
        directory = folder / "runs" / name
        entry = f"projects/{folder.name}/runs/{name}"
        if name.startswith(".") or not directory.is_dir():
            continue
        state = liveness.state_of(directory)
        if entry in entries.waiting or state == "queued":
            busy.setdefault("waiting", []).append(name)
        elif state in liveness.ALIVE or state == "elsewhere" or entry in in_hand or locks.held(directory):
            busy.setdefault("running", []).append(name)
    if busy:
        found = [f"{len(names)} {word} ({_few(names)})" for word, names in sorted(busy.items())]
        raise UserError(
            Problem(
                where=folder.name,
                expected="a project whose jobs all rest",
                found=" and ".join(found),
                advice="stop what runs and take what waits out of the queue first",
            )
        )


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")


def _moved(job: str, name: str, to: str) -> str:
    """How the queue calls a job whose project has another name now."""
    before = f"projects/{name}/"
    return f"projects/{to}/{job[len(before) :]}" if job.startswith(before) else job
