"""Methods about the workspace as a whole and its projects: what is new in it, their names, drafts and plans."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from engine.host.pipe import Outbox
from engine.host.server import Method, Then
from engine.protocol import browse
from engine.protocol.base import Nothing

if TYPE_CHECKING:
    from engine.host.news import WorkspaceWatch

MANY = 1 << 30


class ProjectMethods:
    """Those of one host; `table` names them. What each needs is imported when it is first called."""

    def __init__(self, workspace: Path, outbox: Outbox):
        self._workspace, self._outbox = workspace, outbox

    def table(self) -> dict[str, Method]:
        return {
            "workspace.watch": self.watch,
            "projects.list": self.list,
            "projects.create": self.create,
            "projects.rename": self.rename,
            "projects.remove": self.remove,
            "drafts.read": self.read_draft,
            "drafts.write": self.write_draft,
            "runs.plan": self.plan,
        }

    def hurry(self) -> None:
        """Something was changed through this host: who watches the workspace hears of it at once."""
        if "_news" in vars(self):
            self._news.hurry()

    def watch(self, params: Nothing) -> Then:
        return Then(Nothing(), self._news.watch)

    def list(self, params: Nothing) -> browse.Projects:
        from engine.host import projects, records

        return projects.projects(self._workspace, records.summaries(self._workspace, limit=MANY))

    def create(self, params: browse.ProjectRef) -> browse.ProjectSummary:
        from engine.host import projects

        return projects.create(self._workspace, params.name)

    def rename(self, params: browse.RenameProject) -> browse.ProjectSummary:
        from engine.host import projects

        return projects.rename(self._workspace, params.name, params.to)

    def remove(self, params: browse.ProjectRef) -> browse.Trashed:
        from engine.host import projects

        return projects.remove(self._workspace, params.name)

    def read_draft(self, params: browse.ProjectRef) -> browse.Draft:
        from engine.host import drafts

        return drafts.read(self._workspace, params.name)

    def write_draft(self, params: browse.Draft) -> Nothing:
        from engine.host import drafts

        drafts.write(self._workspace, params)
        return Nothing()

    def plan(self, params: browse.PlanRun) -> browse.RunPlan:
        from engine.host import plans

        return plans.run_plan(self._workspace, params.config)

    @functools.cached_property
    def _news(self) -> WorkspaceWatch:
        from engine.host.news import WorkspaceWatch

        return WorkspaceWatch(self._outbox, self._workspace)
