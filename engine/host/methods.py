"""What each method of the protocol does, and the little that a host keeps between them: who is followed, the sampler.

A method takes its params and gives its result, and may take as long as it needs: it has a thread of its own. What it
needs is imported when it is first called, since a host is started by every command. Methods about projects and about
folders have modules of their own.
"""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import Problem, UserError
from engine.host.folder_methods import FolderMethods
from engine.host.pipe import Outbox
from engine.host.project_methods import ProjectMethods
from engine.host.server import Method, Then
from engine.host.watch import Watcher, whole_lines
from engine.protocol import JOURNAL, messages

if TYPE_CHECKING:
    from engine.host.devices import Devices

NOTHING = messages.Nothing()
CHANGING = {
    "jobs": ("submit", "retry", "remove", "control"),
    "queue": ("move", "cancel"),
    "projects": ("create", "rename", "remove"),
}
"""Methods after which the workspace is not what it was."""


class Methods:
    """The methods of one host on one workspace."""

    def __init__(self, workspace: Path, outbox: Outbox):
        self._workspace, self._outbox = workspace, outbox
        self._watcher = Watcher(outbox, _state)
        self._projects = ProjectMethods(workspace, outbox)
        self._folders = FolderMethods(workspace, outbox)

    def table(self) -> dict[str, Method]:
        """Name → method. `hello` is the server's own."""
        everything = self._own() | self._projects.table() | self._folders.table()
        changing = {f"{group}.{verb}" for group, verbs in CHANGING.items() for verb in verbs}
        return {name: self._telling(method) if name in changing else method for name, method in everything.items()}

    def _telling(self, method: Method) -> Method:
        """The method, and a look at what it has changed in the workspace."""
        return lambda params: Then(method(params), self._projects.hurry)

    def _own(self) -> dict[str, Method]:
        return {
            "jobs.submit": self.submit,
            "jobs.list": self.list_jobs,
            "jobs.show": self.show,
            "jobs.watch": self.watch,
            "jobs.unwatch": self.unwatch,
            "jobs.control": self.control,
            "jobs.retry": self.retry,
            "jobs.remove": self.remove,
            "jobs.log": self.log,
            "queue.list": self.list_queue,
            "queue.move": self.move,
            "queue.cancel": self.cancel,
            "devices.list": self.list_devices,
            "devices.watch": self.watch_devices,
            "devices.unwatch": self.unwatch_devices,
            "bases.resolve": self.resolve,
        }

    def submit(self, params: messages.Submit) -> messages.Submitted:
        from engine.host import jobs

        return jobs.submit(self._workspace, params)

    def list_jobs(self, params: messages.ListJobs) -> messages.Jobs:
        from engine.host import records, submission

        submission.revive(self._workspace)
        return messages.Jobs(jobs=records.summaries(self._workspace, params.project, params.limit))

    def show(self, params: messages.JobRef) -> messages.JobDetails:
        from engine.host import records

        return records.details(self._found(params.job))

    def watch(self, params: messages.Watch) -> Then:
        from engine.host import submission

        directory = self._found(params.job)
        if params.offset < 0:
            raise UserError(Problem(where="offset", expected="bytes, from 0 on", found=str(params.offset)))
        submission.revive(self._workspace)
        watching = messages.Watching(id=directory.name, size=whole_lines(directory / JOURNAL))
        return Then(watching, functools.partial(self._watcher.watch, directory.name, directory, params.offset))

    def unwatch(self, params: messages.JobRef) -> messages.Nothing:
        self._watcher.unwatch(params.job)
        return NOTHING

    def control(self, params: messages.Control) -> messages.Command:
        from engine.host import jobs

        return jobs.control(self._found(params.job), params)

    def retry(self, params: messages.JobRef) -> messages.Submitted:
        from engine.host import jobs

        return jobs.retry(self._found(params.job))

    def remove(self, params: messages.Remove) -> messages.Removed:
        from engine.host import jobs

        return jobs.remove(self._found(params.job), params.force)

    def log(self, params: messages.LogRef) -> messages.LogPiece:
        from engine.host import logs

        return logs.piece(self._found(params.job), params.offset)

    def list_queue(self, params: messages.Nothing) -> messages.Queue:
        from engine.host import jobs, submission

        submission.revive(self._workspace)
        return jobs.waiting(self._workspace)

    def move(self, params: messages.Move) -> messages.Queue:
        from engine.host import jobs

        return jobs.move(self._found(params.job), params.position)

    def cancel(self, params: messages.JobRef) -> messages.Queue:
        from engine.host import jobs

        return jobs.cancel(self._found(params.job))

    def list_devices(self, params: messages.Nothing) -> messages.DeviceFigures:
        return self._devices.figures()

    def watch_devices(self, params: messages.Nothing) -> messages.Nothing:
        self._devices.watch()
        return NOTHING

    def unwatch_devices(self, params: messages.Nothing) -> messages.Nothing:
        self._devices.unwatch()
        return NOTHING

    def resolve(self, params: messages.ResolveBase) -> messages.BaseSummary:
        from engine.models.resolve import resolve_base

        facts = resolve_base(params.base)
        return messages.BaseSummary(**asdict(facts) | {"path": str(facts.path)})

    def _found(self, job: str) -> Path:
        from engine.host import records

        return records.find(self._workspace, job)

    @functools.cached_property
    def _devices(self) -> Devices:
        from engine.host.devices import Devices

        return Devices(self._outbox, self._workspace, functools.partial(_holders, self._workspace))


def _state(directory: Path) -> messages.State:
    from engine.host import records

    state = records.summary(directory).state
    # A worker that has ended between the look at its status and the look at its lock has not crashed.
    return records.summary(directory).state if state == "crashed" else state


def _holders(workspace: Path) -> dict[str, str]:
    """UUID of a device → id of this workspace's job that holds it."""
    from engine.host import liveness, queue

    found = {}
    for name in queue.read(workspace).running:
        directory = workspace / name
        status = liveness.status_of(directory)
        if status.device and liveness.judge(directory, status).alive:
            found[status.device] = directory.name
    return found
