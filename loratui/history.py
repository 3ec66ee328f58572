"""What a run has said so far, as its journal tells it: figures by step, samples, checkpoints, stages, how it ended.

Pure: `take` is given every event once, in order, and everything else only looks. The last attempt of a step wins, so an
attempt that goes on behind an earlier step makes what came after it void. Pictures are the exception: the engine does
not draw again what lies on the disk, so those of a void step come back when the run has reached it once more.
"""

from __future__ import annotations

import statistics
from bisect import insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from engine import protocol
from loratui.curves import LARGEST_STEP, Curve, Smoothed, Steps
from loratui.outcomes import Outcomes
from loratui.telling import describe

SMOOTHING = 0.98
RECENT = 50
"""Steps over which the speed is told."""
LINES = 4000
"""Lines of events that are kept; half of them go when there are more."""

Row = tuple[int, str, int]
"""What tells one row of samples from another: place among the prompts, prompt, seed."""


@dataclass
class Progress:
    """How far a stage has come."""

    name: str
    total: int
    unit: str
    done: int = 0


@dataclass(frozen=True)
class Line:
    """An event as the list of events shows it."""

    t: float
    text: str


class History:
    """Everything that is known of one run."""

    def __init__(self, smoothing: float = SMOOTHING):
        self.steps = Steps(smoothing)
        self.validation = Curve()
        self.validated_on = ""
        """The images that the validation loss is of: held-out or training."""
        self.checkpoints: dict[int, str] = {}
        """Step → adapter file, relative to the run's folder."""
        self.changes: list[protocol.Changed] = []
        self.plan: protocol.PlanMade | None = None
        self.stage: Progress | None = None
        self.stages: dict[str, Progress] = {}
        """Those of this attempt, in order."""
        self.paused = False
        self.attempt = 0
        self.answer: protocol.Answer | None = None
        """What an operation had to say."""
        self.end: protocol.End | None = None
        self.refused: list[protocol.Refused] = []
        self.outcomes = Outcomes()
        self.lines: list[Line] = []
        self.lines_gone = 0
        """Lines that were told before the first of `lines`."""
        self.first = self.last = 0.0
        """Times of the first and last event, seconds since 1970."""
        self.samples_version = 0
        """Another number when `grid` has something else to say."""
        self._samples: dict[tuple[int, Row], protocol.Sample] = {}
        self._reached = 0
        self._hidden: list[int] = []
        """Steps of samples that an attempt has yet to reach again; sorted."""
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._spent = self._began = 0.0

    # --- events -------------------------------------------------------------------------------------------------------

    def take(self, events: Iterable[protocol.AnyEvent]) -> None:
        """Take in the next events of the journal."""
        for event in events:
            if type(event) is protocol.Step:
                self._step(event)
            else:
                self._other(event)
            self.last = event.t or self.last

    def _step(self, event: protocol.Step) -> None:
        if not 0 < event.step <= LARGEST_STEP:
            return
        if event.step <= self.steps.last:
            self._void(event.step - 1)
        self.steps.append(event.step, event.loss, event.lr)
        if event.seconds > 0:
            self._seconds.append(event.seconds)
        if event.step > self._reached:
            self._reach(event.step)
        if event.loss is None:
            self._say(event, f"step {event.step}: the loss was not a finite number")

    def _other(self, event: protocol.AnyEvent) -> None:
        self.first = self.first or event.t
        self.outcomes.take(event)
        match event:
            case protocol.Progress():
                self._progress(event)
                return
            case protocol.Sample():
                self._sample(event)
                return
            case protocol.Attempt():
                self._attempt(event)
            case protocol.Resumed():
                self._void(event.step)
            case protocol.Stage():
                self.stage = Progress(event.name, event.total, event.unit)
                self.stages[event.name] = self.stage
            case protocol.PlanMade():
                self.plan = event
            case protocol.Validation() if 0 <= event.step <= LARGEST_STEP:
                self.validation.put(event.step, event.loss)
                self.validated_on = event.images
            case protocol.Checkpoint():
                self.checkpoints[event.step] = event.adapter
            case protocol.Changed():
                self.changes.append(event)
            case protocol.Paused():
                self.paused = True
            case protocol.Continued():
                self.paused = False
            case protocol.Refused():
                self.refused.append(event)
            case protocol.Answer():
                self.answer = event
            case protocol.End():
                self.end, self.paused = event, False
        self._say(event, describe(event))

    def _attempt(self, event: protocol.Attempt) -> None:
        if self._began:
            self._spent += max(0.0, self.last - self._began)
        self._began, self.attempt = event.t, event.number
        self.end, self.paused, self.stage, self.stages = None, False, None, {}
        self.refused = []
        self._seconds.clear()
        if event.number > 1:
            self._say(event, f"attempt {event.number}")

    def _progress(self, event: protocol.Progress) -> None:
        if self.stage is None or self.stage.name != event.stage:
            self.stage = self.stages[event.stage] = Progress(event.stage, event.total, "")
        self.stage.done, self.stage.total = event.done, event.total

    def _sample(self, event: protocol.Sample) -> None:
        if not 0 <= event.step <= LARGEST_STEP:
            return
        self._samples[event.step, (event.index, event.prompt, event.seed)] = event
        self.samples_version += 1
        self._reach(event.step)
        beginning = f"step {event.step}: drew " if self.plan else "drew "
        before = self.lines[-1].text if self.lines else ""
        if before.startswith(beginning):
            del self.lines[-1]
            beginning = f"{before}, "
        self._say(event, f"{beginning}p{event.index}")

    def _say(self, event: protocol.AnyEvent, text: str) -> None:
        self.lines += [Line(event.t, line) for line in text.splitlines() if line.strip()]
        if len(self.lines) > LINES:
            del self.lines[: LINES // 2]
            self.lines_gone += LINES // 2

    def _void(self, step: int) -> None:
        """Nothing counts of what came after a step."""
        self.steps.cut(step)
        self.validation.cut(step)
        self.checkpoints = {at: path for at, path in self.checkpoints.items() if at <= step}
        self.changes = [change for change in self.changes if change.step <= step]
        self._reached = step
        self._hidden = sorted({at for at, _ in self._samples if at > step})
        self.samples_version += 1

    def _reach(self, step: int) -> None:
        self._reached = max(step, self._reached)
        if self._hidden and self._hidden[0] <= step:
            self._hidden = [at for at in self._hidden if at > step]
            self.samples_version += 1

    # --- what is told of it -------------------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """The last step that was done; 0 for none."""
        return self.steps.last

    @property
    def total(self) -> int:
        """Steps of the whole run; 0 where they are not known."""
        if self.plan is not None:
            return self.plan.steps
        stage = self.stages.get("train")
        return stage.total if stage else 0

    @property
    def seconds(self) -> float | None:
        """Seconds per step: the median of the last ones."""
        return statistics.median(self._seconds) if self._seconds else None

    @property
    def ends(self) -> float | None:
        """When the last step will be done, seconds since 1970; None where nothing tells."""
        left = self.total - self.step
        return self.last + left * self.seconds if self.seconds and self.step and left > 0 else None

    def spent(self, now: float | None = None) -> float:
        """Seconds that the attempts took together; up to `now` for one that is still at it."""
        if not self._began:
            return 0.0
        return self._spent + max(0.0, (self.last if now is None else now) - self._began)

    def grid(self) -> tuple[list[int], list[Row], dict[tuple[int, Row], protocol.Sample]]:
        """Steps and rows in order, and the sample of each step and row that has one."""
        shown = {cell: sample for cell, sample in self._samples.items() if cell[0] <= self._reached}
        steps = sorted({step for step, _ in shown})
        rows: list[Row] = []
        for row in {row: None for _, row in shown}:
            insort(rows, row)
        return steps, rows, shown

    def sampled(self) -> list[int]:
        """Steps that have samples, in order."""
        return sorted({step for step, _ in self._samples if step <= self._reached})

    def smooth(self, smoothed: Smoothed) -> None:
        """Take a mean that was made elsewhere from these losses, or from the first of them."""
        self.steps.smoothed = smoothed.extend(self.steps.losses)
