"""What is new in a workspace, its jobs, projects and queue, as notifications `workspace`.

The directories are the truth and anybody may change them, so they are looked at about once a second, and by as little
as tells: the times of the projects' folders and of the queue, and the status of those jobs alone that live, wait or
have moved lately. Now and then all jobs are looked at, which costs the time of each status. A change that moves none of
these marks is told that much later.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from engine import locks, protocol
from engine.host import launch, liveness, projects, queue, records
from engine.host.kept import settled
from engine.host.pipe import Outbox, bound_log
from engine.host.server import notification
from engine.protocol.browse import ProjectSummary
from engine.protocol.messages import JobSummary, WorkspaceNews

INTERVAL = 1.0
"""Seconds between two looks."""
RECOUNT = 30.0
"""Seconds between two looks at every job."""
WARM = 60.0
"""Seconds for which a job that has moved is looked at each time."""
COARSE = 60.0
"""Seconds by which the time of a project must move to be news: its jobs have their own."""

Mark = tuple[int, ...] | None
"""What changes when a file or folder does; None where there is none."""


@dataclass(eq=False)
class _Project:
    name: str
    runs: str
    mark: Mark = ()
    jobs: dict[str, _Job] = field(default_factory=dict)
    summary: ProjectSummary | None = None
    touched: bool = True
    """Whether its summary may have changed."""


@dataclass(eq=False)
class _Job:
    path: str
    project: _Project
    mark: Mark = ()
    """Of its status."""
    row: JobSummary | None = None
    warm_until: float = 0.0

    @property
    def state(self) -> str:
        return self.row.state if self.row is not None else ""


class Survey:
    """What is known of a workspace. `look` brings it up to date and says what is different."""

    def __init__(self, workspace: Path):
        self._workspace = workspace
        self._folder = str(workspace / "projects")
        self._mark: Mark = ()
        self._projects: dict[str, _Project] = {}
        self._warm: set[_Job] = set()
        self._queue: Mark = ()
        self._entries = queue.Entries()
        self._places: dict[str, int] = {}
        self._runner = False
        self._recount_at = 0.0

    @property
    def orphaned(self) -> bool:
        """Whether a runner was killed with jobs in hand."""
        return bool(self._entries.running) and not self._runner

    def look(self) -> WorkspaceNews | None:
        """What is different since the last look, the first time everything; None where nothing is."""
        whole, now = not self._recount_at, time.monotonic()
        recount = now >= self._recount_at
        if recount:
            self._recount_at = now + RECOUNT
        known = set(self._projects)
        new, left = self._list(recount)
        requeued = self._requeued()
        asked = self._jobs() if recount else {*self._warm, *new, *requeued}.difference(left)
        stirred = [job for job in asked if self._stirred(job, now, job in requeued, recount)]
        self._warm = {job for job in asked if job.state in (*liveness.ALIVE, "queued") or now < job.warm_until}
        former, self._runner = self._runner, locks.held(launch.runner_lock(self._workspace))
        rows = sorted((job.row for job in stirred), key=lambda row: (row.submitted, row.id), reverse=True)
        gone = self._gone(left)
        moved = self._summarise(recount) or known != set(self._projects)
        if not (whole or rows or gone or moved or former != self._runner):
            return None
        summaries = [self._projects[name].summary for name in sorted(self._projects)] if whole or moved else None
        return WorkspaceNews(jobs=rows, gone=gone, projects=summaries, runner=self._runner, whole=whole)

    def _list(self, everything: bool) -> tuple[list[_Job], list[_Job]]:
        """Bring projects and jobs up to date with the folders that are there; the jobs that came, and that went."""
        new, left = [], []
        mark = _folder_mark(self._folder)
        if everything or mark != self._mark:
            names = _folders(self._folder)
            for name in self._projects.keys() - names:
                left += self._projects.pop(name).jobs.values()
            for name in names - self._projects.keys():
                self._projects[name] = _Project(name, f"{self._folder}/{name}/runs")
            self._mark = _trusted(mark)
        for project in self._projects.values():
            mark = _folder_mark(project.runs)
            if everything or mark != project.mark:
                names = _folders(project.runs)
                left += [project.jobs.pop(name) for name in project.jobs.keys() - names]
                come = {name: _Job(f"{project.runs}/{name}", project) for name in names - project.jobs.keys()}
                project.jobs |= come
                project.touched = True
                project.mark = _trusted(mark)
                new += come.values()
        return new, left

    def _requeued(self) -> set[_Job]:
        """The jobs that are in the queue, or were, where it has changed."""
        stamp = queue.stamp(self._workspace)
        if stamp == self._queue:
            return set()
        self._queue, former = stamp, self._entries
        try:
            self._entries = queue.read(self._workspace)
        except OSError:
            self._entries = queue.Entries()
        self._places = {name: place for place, name in enumerate(self._entries.waiting, 1)}
        found = set()
        for name in (*former.waiting, *former.running, *self._entries.waiting, *self._entries.running):
            _, project, _, job = name.split("/") if name.count("/") == 3 else ("", "", "", "")
            if project in self._projects and job in self._projects[project].jobs:
                found.add(self._projects[project].jobs[job])
        return found

    def _jobs(self) -> set[_Job]:
        return {job for project in self._projects.values() for job in project.jobs.values()}

    def _stirred(self, job: _Job, now: float, requeued: bool, everything: bool) -> bool:
        """Look at a job, as far as needed. Whether its row is another."""
        mark = _file_mark(f"{job.path}/{protocol.STATUS}")
        # The live die, and the silent of other machines fall dead, with nothing written.
        mortal = job.state in liveness.ALIVE or (everything and job.state == "elsewhere")
        if mark == job.mark and not (requeued or mortal):
            return False
        if mark is None and not os.path.isdir(job.path):
            return False  # It has just been removed: the next look at the folder says so.
        row = records.summary(Path(job.path), self._places)
        different = row != job.row
        if mark != job.mark and mark is not None:
            job.warm_until = now + WARM - max(0.0, time.time() - mark[0] / 1e9)
        elif different and job.row is not None:
            job.warm_until = now + WARM
        job.mark, job.row = mark, row
        job.project.touched |= different
        return different

    def _gone(self, left: Iterable[_Job]) -> list[str]:
        """Ids of the jobs that left and are nowhere else, as those of a renamed project are."""
        ids = {job.row.id for job in left if job.row is not None}
        if ids:
            ids -= {os.path.basename(job.path) for job in self._jobs()}
        return sorted(ids)

    def _summarise(self, everything: bool) -> bool:
        """Bring the projects' summaries up to date. Whether one is another to a person."""
        moved = False
        for project in self._projects.values():
            if project.touched or everything:
                rows = (job.row for job in project.jobs.values() if job.row is not None)
                summary = projects.summary(self._workspace, project.name, rows)
                project.touched = False
                if _news(project.summary, summary):
                    project.summary, moved = summary, True
        return moved


class WorkspaceWatch:
    """Tells the client what `Survey` finds. The thread starts with the first call."""

    def __init__(self, outbox: Outbox, workspace: Path):
        self._outbox, self._workspace = outbox, workspace
        self._survey = Survey(workspace)
        self._mutex = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._revive_at = 0.0

    def watch(self) -> None:
        """Tell everything, and then what changes."""
        with self._mutex:
            self._survey = Survey(self._workspace)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="workspace", daemon=True)
                self._thread.start()
        self._wake.set()

    def hurry(self) -> None:
        """Look now: something was changed through this host."""
        self._wake.set()

    def _run(self) -> None:
        while self._outbox.wait_for_room():
            self._wake.clear()
            with self._mutex:
                survey = self._survey
            try:
                news = survey.look()
                if news is not None:
                    self._outbox.put(notification("workspace", news))
                self._revive(survey)
            except Exception:  # Whatever a disk makes of it, the next look begins anew.
                traceback.print_exc()
                bound_log()
                with self._mutex:
                    self._survey = self._survey if self._survey is not survey else Survey(self._workspace)
            self._wake.wait(INTERVAL)

    def _revive(self, survey: Survey) -> None:
        """Whoever looks sees to it that somebody has the jobs in hand."""
        if survey.orphaned and time.monotonic() >= self._revive_at:
            from engine.host import submission

            self._revive_at = time.monotonic() + RECOUNT
            submission.revive(self._workspace)


def _news(former: ProjectSummary | None, summary: ProjectSummary) -> bool:
    if former is None:
        return True
    told = former.name, former.path, former.jobs, former.running
    return told != (summary.name, summary.path, summary.jobs, summary.running) or (
        abs(summary.updated - former.updated) >= COARSE
    )


def _file_mark(path: str) -> Mark:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_ino, facts.st_size


def _folder_mark(path: str) -> Mark:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_ino


def _trusted(mark: Mark) -> Mark:
    """A folder's mark, if what comes next will move it; else one that nothing equals."""
    return mark if mark is None or settled(mark[0]) else ()


def _folders(path: str) -> set[str]:
    """The folders in one that may not be there. Raises OSError where a disk can't tell, which is not to say that they
    are gone."""
    try:
        with os.scandir(path) as entries:
            return {entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()}
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return set()
