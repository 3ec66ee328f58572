"""The rows of all runs and projects, as the host told them last; the one place in the app that knows them."""

from __future__ import annotations

from engine.protocol.browse import ProjectSummary
from engine.protocol.messages import JobSummary, WorkspaceNews
from loratui.figures import LIVE


class Board:
    """What runs there are. `take` brings it up to date; everything else only looks."""

    def __init__(self) -> None:
        self._rows: dict[str, JobSummary] = {}
        self.projects: list[ProjectSummary] = []
        self.runner = False
        self.told = False
        """Whether the host has said anything yet."""

    def take(self, news: WorkspaceNews) -> set[str]:
        """Ids of the runs that are new, different or gone."""
        changed = {row.id for row in news.jobs} | set(news.gone)
        if news.whole:
            changed |= set(self._rows)
            self._rows = {}
        for identity in news.gone:
            self._rows.pop(identity, None)
        self._rows.update((row.id, row) for row in news.jobs)
        if news.projects is not None:
            self.projects = news.projects
        self.runner, self.told = news.runner, True
        return changed

    def run(self, identity: str) -> JobSummary | None:
        return self._rows.get(identity)

    def runs(self, project: str = "") -> list[JobSummary]:
        """Those of a project, or all; newest first."""
        rows = [row for row in self._rows.values() if not project or row.project == project]
        return sorted(rows, key=lambda row: (row.submitted, row.id), reverse=True)

    def waiting(self) -> list[JobSummary]:
        """Next first."""
        return sorted((row for row in self._rows.values() if row.position), key=lambda row: row.position or 0)

    def live(self) -> list[JobSummary]:
        """Running, paused or stalled; the one that moved last first."""
        return sorted((row for row in self._rows.values() if row.state in LIVE), key=lambda row: -row.updated)

    def counts(self, project: str) -> dict[str, int]:
        """State → runs of a project."""
        found: dict[str, int] = {}
        for row in self._rows.values():
            if row.project == project:
                found[row.state] = found.get(row.state, 0) + 1
        return found
