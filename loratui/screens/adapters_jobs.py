"""The jobs that the panel of adapters has started, or found running: how far they are and what came of them.

What a job says may come often: it is taken in here, and the owner is told that something is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.text import Text

from engine import protocol
from engine.protocol.base import Message
from engine.protocol.messages import JobEvents, JobSummary, Submit, Submitted
from loratui import answers, figures
from loratui.telling import STAGES
from loratui.widgets.columns import clean, cut
from loratui.widgets.sparkline import bar

if TYPE_CHECKING:
    from loratui.bench import Bench

KIND = "operate"
SHOWN = 3
"""Lines: those that are live, and the last that ended."""
WAITING = ("queued", *figures.LIVE)
"""States that a job leaves by itself."""


@dataclass
class Task:
    """One job, as far as it has been told."""

    id: str
    name: str
    state: str = "queued"
    stage: str = ""
    done: int = 0
    total: int = 0
    began: float = 0.0
    """When the stage did, and `last`, when it was last heard of: seconds since 1970 by the job's clock."""
    last: float = 0.0
    refused: list[protocol.Refused] = field(default_factory=list)
    answer: Message | None = None
    end: protocol.End | None = None

    @property
    def live(self) -> bool:
        return self.state in WAITING

    @property
    def left(self) -> float | None:
        """Seconds that the stage will take, where that can be told."""
        if not 0 < self.done < self.total:
            return None
        return (self.last - self.began) / self.done * (self.total - self.done)

    @property
    def outputs(self) -> list[str]:
        return self.end.outputs if self.end else []

    def problems(self) -> str:
        """What went wrong, and what helps; empty where nothing did."""
        if self.refused:
            return "\n".join(one.text() for one in self.refused)
        if self.state in ("failed", "crashed", "refused"):
            cause = self.end.cause if self.end else "its process ended without a word"
            return "\n".join([cause, *(self.end.advice if self.end else [])])
        return ""

    def take(self, events: Iterable[protocol.AnyEvent]) -> None:
        for event in events:
            self.last = event.t or self.last
            match event:
                case protocol.Attempt():
                    self.refused, self.answer, self.end, self.stage = [], None, None, ""
                case protocol.Stage():
                    self.stage, self.total, self.done, self.began = event.name, event.total, 0, event.t
                case protocol.Progress():
                    self.done, self.total = event.done, event.total
                case protocol.Refused():
                    self.refused.append(event)
                case protocol.Answer():
                    self.answer = answers.decoded(event)
                case protocol.End():
                    self.end = event


class Tasks:
    """`news()` is called when a line has changed, `ended(task)` once for each task that was seen to end."""

    def __init__(self, bench: Bench, news: Callable[[], None], ended: Callable[[Task], None]):
        self._bench, self._news, self._ended = bench, news, ended
        self._tasks: dict[str, Task] = {}
        self._heard: dict[str, Callable[[JobEvents], None]] = {}

    @property
    def last(self) -> Task | None:
        """The one that was started last."""
        return next(reversed(self._tasks.values()), None)

    async def start(self, operation: str, name: str, request: dict[str, Any]) -> bool:
        """Start an operation as a job of the open project. False where it was refused, which is said."""
        config = {"kind": KIND, "name": name, "operation": operation, "request": request}
        if self._bench.project:
            config["project"] = self._bench.project
        submitted: Submitted | None = await self._bench.tried("jobs.submit", Submit(config=config))
        if submitted is None:
            return False
        self._follow(submitted.id, name)
        return True

    def find(self, rows: Iterable[JobSummary]) -> None:
        """Follow the live operations among these jobs: an earlier start of the app may have left them."""
        for row in rows:
            if row.kind == KIND and row.state in WAITING and row.id not in self._tasks:
                self._follow(row.id, row.name)

    def _follow(self, identity: str, name: str) -> None:
        if identity in self._tasks:
            return
        self._tasks[identity] = Task(identity, name)
        for task in [one for one in self._tasks.values() if not one.live][: -SHOWN + 1]:
            del self._tasks[task.id]
        heard = self._heard[identity] = partial(self._hear, identity)
        self._bench.follow(identity, heard)
        self._news()

    def _hear(self, identity: str, told: JobEvents) -> None:
        task = self._tasks.get(identity)
        if task is None or identity not in self._heard:
            return
        if told.gone:
            del self._tasks[identity], self._heard[identity]
            self._news()
            return
        if told.restarted:
            task = self._tasks[identity] = Task(identity, task.name)
        task.take(told.events)
        task.state = told.state
        if not task.live:
            self._bench.unfollow(identity, self._heard.pop(identity))
            self._ended(task)
        self._news()

    def lines(self, width: int) -> list[Text]:
        """The last tasks, the newest at the bottom."""
        tasks = sorted(self._tasks.values(), key=lambda task: task.live)[-SHOWN:]
        return [task_line(task, width) for task in tasks]


def task_line(task: Task, width: int) -> Text:
    """A task in a line: its state, name, how far it is, or what came of it."""
    name = cut(clean(task.name), max(10, width // 3))
    sign = figures.STATES.get(task.state, "?")[0]
    line = Text().append(f"{sign} {name}", f"$state-{task.state}").append("  ")
    if not task.live:
        return line.append(cut(clean(_outcome(task)), max(0, width - line.cell_len)))
    stage = STAGES.get(task.stage, clean(task.stage)) or "starting"
    if not task.total:
        return line.append(stage)
    left = f"  {figures.duration(task.left)} left" if task.left is not None else ""
    tail = f" {task.done:,}/{task.total:,}{left}"
    line.append(f"{stage} ")
    room = width - line.cell_len - cell_len(tail)
    return line.append_text(bar(task.done / task.total, min(24, room)) if room >= 4 else Text()).append(tail)


def _outcome(task: Task) -> str:
    if problems := task.problems():
        return problems.partition("\n")[0]
    if task.state == "done":
        return answers.in_a_line(task.answer) or "done"
    return f"{task.state}; nothing was written" if task.state == "stopped" else task.state
