"""The draft behind the form: read from the host, saved to it after every step, and what the host knows about it.

The host keeps the draft, so that a closed terminal loses nothing that was entered. What the engine says of the base
decides which of a preset's values hold. The arithmetic is asked for a moment after the last step; of several answers
the one to the latest question counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from engine.config import PRESETS, Problem, UserError
from engine.protocol.browse import Draft, PlanRun, ProjectRef, RunPlan
from engine.protocol.messages import BaseSummary, Message, ResolveBase
from loratui.client import HostError, HostGone
from loratui.draft import Setup, place, variant
from loratui.screens.train_rows import BASE
from loratui.widgets.panel import Panel

PATIENCE = 0.3
"""Seconds without a step after which the arithmetic is asked for."""
KEPT = 100
"""Steps that can be undone."""
DEFAULT = Draft(project="").preset


class Keeper:
    """The setup of the open project. `changed` is called whenever anything that is shown may be different."""

    def __init__(self, panel: Panel, changed: Callable[[], None]):
        self._panel, self._changed = panel, changed
        self.setup: Setup | None = None
        self.facts: BaseSummary | None = None
        """Of the base, once the engine has told."""
        self.plan: RunPlan | None = None
        self.planning = False
        """Whether the arithmetic is older than the setup."""
        self.trouble = ""
        """Why the host did not answer."""
        self._base: str | None = None
        """The base that `facts` or `_base_problems` are about."""
        self._base_problems: tuple[Problem, ...] = ()
        self._plan_problems: tuple[Problem, ...] = ()
        self._before: list[Setup] = []
        self._unsaved: Draft | None = None
        self._saving = False
        self._timer: Any = None

    # --- reading and saving -------------------------------------------------------------------------------------------

    def open(self, project: str) -> None:
        """Take up a project's draft in place of what is here; an empty name for none."""
        self._before = []
        self.setup = self.facts = self.plan = self._base = None
        self._base_problems = self._plan_problems = ()
        self.trouble = ""
        self._changed()
        self.read(project)

    def read(self, project: str) -> None:
        """See what the draft is by now: other panels and other apps write it too."""
        if project:
            self._panel.run_worker(self._read(project), group="read", exclusive=True)

    async def _read(self, project: str) -> None:
        before = self._content()
        draft: Draft | None = await self._panel.bench.tried("drafts.read", ProjectRef(name=project))
        if draft is None or project != self._panel.bench.project or self._saving or before != self._content():
            return
        if draft.problem and self.setup is None:
            self._panel.bench.say(f"{draft.problem}. The form is empty; that draft is kept beside the new one", "error")
        preset = draft.preset if draft.preset in PRESETS else DEFAULT
        if preset != draft.preset:
            self._panel.bench.say(f"there is no preset {draft.preset}: {preset} takes its place", "warning")
        setup = Setup(project, preset, self.setup.variant if self.setup else variant("embedded", ""), draft.config)
        if setup != self.setup:
            self._before = []
            self._take(setup)
        else:
            self._ask()

    def _content(self) -> tuple[str, str, Any] | None:
        """What is saved of the setup."""
        return (self.setup.project, self.setup.preset, self.setup.changes) if self.setup else None

    def apply(self, setup: Setup) -> None:
        """Take a step of the user's, save it, and find out what it comes to."""
        if self.setup is None or setup == self.setup or setup.project != self.setup.project:
            return
        self._before = [*self._before[1 - KEPT :], self.setup]
        self._take(setup)
        self._save()

    @property
    def undoable(self) -> bool:
        return bool(self._before)

    def undo(self) -> None:
        """Go back by one step."""
        if self._before and self.setup:
            self._take(replace(self._before.pop(), variant=self.setup.variant))
            self._save()

    def back(self) -> None:
        """Another host is there: ask it what the old one did not answer."""
        if self.setup is not None:
            self._base = None
            self._ask()

    def _take(self, setup: Setup) -> None:
        self.setup = setup
        if self._base != self._named_base():
            self._base = self.facts = None
            self._base_problems = ()
        self._changed()
        self._ask()

    def _save(self) -> None:
        setup = self.setup
        self._unsaved = Draft(project=setup.project, preset=setup.preset, config=setup.changes)
        if not self._saving:
            self._saving = True
            self._panel.run_worker(self._saved, group="save")

    async def _saved(self) -> None:
        """Write the latest setup, one at a time, until there is no later one."""
        try:
            while (draft := self._unsaved) is not None:
                try:
                    await self._panel.bench.call("drafts.write", draft)
                except HostGone:
                    continue  # the next call waits for another host
                except (UserError, HostError) as error:
                    self._panel.bench.say(f"The draft is not saved. {error}", "error")
                if self._unsaved is draft:
                    self._unsaved = None
        finally:
            self._saving = False

    # --- what the engine knows ----------------------------------------------------------------------------------------

    def problems(self, setup: Setup | None = None, typing: str = "") -> list[Problem]:
        """All that is wrong, each thing once: in the setup, or in another one while its field `typing` is typed into,
        of which the host knows nothing yet."""
        setup = setup or self.setup
        if setup is None:
            return []
        told = [one for one in (*self._base_problems, *self._plan_problems) if not typing or place(one.field) != typing]
        return list({(one.field, one.expected): one for one in (*told, *setup.checked[1])}.values())

    def _named_base(self) -> str:
        base = self.setup.value(BASE) if self.setup else ""
        return base if isinstance(base, str) else ""

    def _ask(self) -> None:
        """Have the base looked at if it is another one, and the arithmetic made once the user rests."""
        if self._base != self._named_base():
            self._panel.run_worker(self._resolve, group="base", exclusive=True)
        self.planning = True
        if self._timer is not None:
            self._timer.stop()
        self._timer = self._panel.set_timer(PATIENCE, self._start_plan)

    async def _resolve(self) -> None:
        """Find out what the base is, unless that is known. A hub is asked over the network, which may take long."""
        base = self._named_base()
        if base == self._base:
            return
        facts, problems, trouble = None, (), ""
        if base:
            facts, problems, trouble = await self._asked("bases.resolve", ResolveBase(base=base))
        if trouble:
            self.trouble = trouble
        if trouble or base != self._named_base() or base == self._base:
            return  # no answer, or one that comes too late
        self._base, self.facts, self._base_problems = base, facts, problems
        told = variant(facts.kind, facts.family) if facts else self.setup.variant
        if told != self.setup.variant:
            self.setup = replace(self.setup, variant=told)
            self._ask()
        self._changed()

    def base_in_words(self) -> str:
        """What the base is; empty where it is none."""
        if self.facts is not None:
            return f"{self.facts.title}, {self.facts.default_resolution} px"
        return "looking what it is …" if self._named_base() not in ("", self._base) else ""

    def _start_plan(self) -> None:
        self._panel.run_worker(self._plan, group="plan", exclusive=True)

    async def _plan(self) -> bool:
        """Have the arithmetic of the setup made. False where it could not be, or is that of a former setup."""
        setup = self.setup
        if setup is None:
            return False
        plan, problems, trouble = await self._asked("runs.plan", PlanRun(config=setup.table))
        if setup is not self.setup:
            return False
        self.plan, self.trouble, self.planning = plan, trouble, False
        local = {(problem.field, problem.expected) for problem in setup.checked[1]}
        told = plan.problems if plan else problems
        self._plan_problems = tuple(one for one in told if (one.field, one.expected) not in local)
        self._changed()
        return not trouble

    async def settle(self) -> bool:
        """Bring all that the host knows about the setup up to date. False where the host did not answer, or the setup
        was changed meanwhile."""
        self.planning = True
        self._changed()
        await self._resolve()
        return self._base == self._named_base() and await self._plan()

    async def _asked(self, method: str, params: Message) -> tuple[Any, tuple[Problem, ...], str]:
        """The answer, or what is wrong with the question, or why there is no answer."""
        try:
            return await self._panel.bench.call(method, params), (), ""
        except UserError as error:
            return None, error.problems, ""
        except HostError as error:
            return None, (), str(error)
        except HostGone:
            return None, (), "the host has ended meanwhile"
