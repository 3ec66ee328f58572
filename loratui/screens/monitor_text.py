"""What the monitor says of a run, in words: pure functions from what is known to lines of text.

Styles are names of theme variables (see `monitor_lines`). Times are coarse: what reads the same is not drawn again.
What comes from files goes through `clean` here, and is never markup.
"""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass

from rich.text import Text

from engine.protocol.messages import JobDetails, JobSummary
from loratui import answers, figures
from loratui.history import History, Progress
from loratui.telling import STAGES
from loratui.widgets.columns import clean
from loratui.widgets.sparkline import bar

SILENCE = {"train": 60.0, "load": 300.0}
"""Seconds without an event from which on the monitor says so, by stage. The engine calls it stalled much later."""
USUAL_SILENCE = 120.0
SLOW = 20
"""Steps that may be missing before a training that is slow by itself counts as silent."""
GOES_ON = ("stopped", "released", "failed", "crashed", "refused")
"""States from which a retry goes on."""
TROUBLE = ("failed", "refused", "crashed", "stalled", "elsewhere")
GAP = "  "


@dataclass(frozen=True)
class Seen:
    """A run at a moment."""

    id: str
    history: History
    state: str
    """As messages.State has it; empty before anything is known."""
    row: JobSummary | None
    now: float
    details: JobDetails | None = None

    @property
    def live(self) -> bool:
        return self.state in figures.LIVE

    @property
    def trains(self) -> bool:
        return self.row is None or self.row.kind == "train"

    @property
    def draws(self) -> bool:
        """Whether it is there to draw pictures."""
        return self.row is not None and self.row.kind == "generate"

    @property
    def total(self) -> int:
        return self.history.total or (self.row.steps if self.row else 0)

    @property
    def silence(self) -> float:
        """Seconds since the last event, where that is longer than it should be; else 0."""
        if self.state != "running" or not self.history.last:
            return 0.0
        stage = self.history.stage.name if self.history.stage else ""
        patience = max(SILENCE.get(stage, USUAL_SILENCE), SLOW * (self.history.seconds or 0.0))
        passed = self.now - self.history.last
        return passed if passed > patience else 0.0


def state(word: str) -> Text:
    """A state with its sign and its colour."""
    return Text(figures.STATES.get(word, word), style=f"$state-{word}")


def title(seen: Seen, width: int) -> Text:
    """The line at the top: which run, how it stands, how far, how fast, until when. What matters least goes first."""
    row, told = seen.row, seen.history
    name = clean(row.name if row else seen.id)
    parts: list[tuple[int, Text]] = [
        (5, Text(clean(row.project) if row else "")),
        (0, Text(name, style="bold")),
        (0, state(seen.state)),
        (1, Text(place(seen))),
        (4, Text(figures.rate(told.seconds) if seen.live and told.step else "")),
        (3, Text(when(seen))),
        (2, Text(f"? silent for {coarse(seen.silence)}" if seen.silence else "", style="$state-stalled")),
    ]
    while True:
        line = Text(GAP).join(part for _, part in parts if part.plain)
        least = max(parts, key=lambda part: part[0])
        if line.cell_len + 2 <= width or not least[0]:
            return Text(" ").append_text(line)
        parts.remove(least)


def nothing(panel: str, known: bool) -> Text:
    """The line at the top where there is no run to show."""
    words = "no run yet: 3 sets one up" if known else "waiting for the host"
    return Text(" ").append(panel, "bold").append(f"{GAP}{words}")


def place(seen: Seen) -> str:
    """How far it is: steps, or the stage before there are any."""
    told = seen.history
    if seen.state == "queued":
        return f"place {seen.row.position}" if seen.row and seen.row.position else ""
    stage = told.stage
    if seen.live and stage and (stage.name != "train" or not told.step):
        return f"{STAGES.get(stage.name, stage.name)}{_count(stage)}"
    if told.step or seen.trains:
        return f"{told.step:,}/{seen.total:,}" if seen.total else ""
    return ""


def _count(stage: Progress) -> str:
    return f" {stage.done:,}/{stage.total:,}" if stage.total else ""


def when(seen: Seen) -> str:
    """When it will end, or how long it took."""
    told = seen.history
    if seen.state == "running":
        stage = told.stage.name if told.stage else ""
        if seen.silence:
            return ""
        if told.ends and stage in ("train", "draw"):
            return f"ends {clock(told.ends + 59, seen.now)}"
        spent = told.spent(seen.now)
        return f"for {coarse(spent)}" if spent >= 10 else ""
    if seen.live or seen.state == "queued" or not told.last:
        return ""
    return f"took {figures.duration(told.spent())}, until {clock(told.last, seen.now)}"


def clock(moment: float, now: float) -> str:
    """A time of day; with the day where it is another."""
    then = time.localtime(moment)
    if then[:3] == time.localtime(now)[:3]:
        return time.strftime("%H:%M", then)
    return time.strftime("%a %H:%M" if abs(moment - now) < 6 * 86400 else "%Y-%m-%d", then)


def coarse(seconds: float) -> str:
    """A span that goes on, told so that it changes seldom: 40 s, 12 min, 3 h 05."""
    if seconds < 60:
        return f"{int(seconds // 10) * 10} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02}"


def at_step(history: History, step: int | None) -> list[Text]:
    """The figures of a step, or of the last one: a line of losses and one of learning rates."""
    steps = history.steps
    index = steps.index(history.step if step is None else step)
    if index < 0:
        return []
    number = steps.steps[index]
    losses = [
        f"{' ' if step is None else '▏'}step {number:,}",
        f"loss {_loss(steps.losses[index])}",
        f"smoothed {_loss(steps.smoothed.values[index])}",
    ]
    if len(history.validation.steps):
        losses.append(f"val {figures.number(history.validation.at(number), 3)}")
    rates = [f"lr {short(part)} {figures.number(course[index], 3)}" for part, course in _told_at(steps.rates, index)]
    if history.validation.best is not None:
        best_step, best = history.validation.best
        rates.append(f"best val {figures.number(best, 3)} at {best_step:,}")
    return [Text(GAP.join(losses)), Text(f" {GAP.join(rates)}")]


def _told_at(rates: dict[str, array], index: int) -> list[tuple[str, array]]:
    return [(part, course) for part, course in rates.items() if course[index] == course[index]]


def _loss(value: float) -> str:
    return figures.number(value, 3) if value == value else "not finite"


def short(part: str) -> str:
    """A part of the model as figures name it."""
    return {"text_encoder": "text", "text_encoder_2": "text 2"}.get(part, clean(part))


def trouble(seen: Seen) -> list[Text]:
    """What went wrong with a run and what to do, or how one that was left off goes on; nothing for one that is well."""
    told, row = seen.history, seen.details.summary if seen.details else seen.row
    style = f"$state-{seen.state}"
    if seen.state == "refused" and told.refused:
        lines = [Text(f"✗ {clean(problem.text())}", style=style) for problem in told.refused]
        where = "Train (3)" if seen.trains else "Adapters (5)" if not seen.draws else "the request"
        return [*lines, Text(f"→ set it right in {where} and start again; r tries the same once more")]
    if seen.state in TROUBLE:
        at = f" at step {told.step:,}" if told.step and seen.state in ("failed", "crashed") else ""
        cause = told.end.cause if told.end and told.end.cause else row.cause if row else ""
        lines = [Text(f"{figures.STATES[seen.state]}{at}: {clean(cause) or 'it did not say why'}", style=style)]
        advice = told.end.advice if told.end and told.end.advice else row.advice if row else []
        lines += [Text(f"→ {clean(one)}") for one in advice]
        if seen.state in GOES_ON:
            lines.append(Text(f"→ r tries it again{_from_where(told)}; Z shows its log"))
        return lines
    if seen.state in ("stopped", "released"):
        words = "device given back" if seen.state == "released" else "saved"
        cause = f" ({clean(row.cause)})" if row and row.cause else ""
        done = f"after step {told.step:,}, {words}" if told.step else "before its first step"
        if not seen.trains and not seen.draws:
            return [Text(f"{figures.STATES[seen.state]}: nothing was written{cause}; r begins anew", style=style)]
        return [Text(f"{figures.STATES[seen.state]} {done}{cause}; r goes on from there", style=style)]
    return []


def _from_where(told: History) -> str:
    return " from its last saved state" if told.checkpoints else ""


def story(seen: Seen, width: int) -> list[Text]:
    """What there is to say before the first step: what the run will be, and how far its preparations are."""
    told = seen.history
    if seen.state == "queued":
        waits = seen.row.position if seen.row else None
        where = f"It waits in the queue, at place {waits}." if waits else "It is held back: nothing starts it."
        return [Text(where), Text("The panel Projects (1) moves it or takes it out.", style="dim")]
    lines = [Text(clean(told.plan.text)), Text("")] if told.plan else []
    for stage in told.stages.values():
        going = seen.live and stage is told.stage
        sign = "●" if going else "✓" if seen.live or seen.state == "done" else "·"
        words = STAGES.get(stage.name, clean(stage.name))
        line = Text(
            f"{sign} {words:<24}{_count(stage) if going or stage.done else '':>12}",
            style="$state-running" if going else "",
        )
        if going and stage.total:
            room = max(4, min(40, width - line.cell_len - 4))
            line.append("  ").append_text(bar(stage.done / stage.total, room))
        lines.append(line)
    if told.end and told.end.state == "done" and not seen.draws:
        lines += [Text(""), *(Text(f"✓ {clean(what)}", style="$state-done") for what in _outcome(told))]
    if not lines and not seen.history.last:
        lines = [Text("It has not said anything yet.", style="dim")]
    if seen.details and seen.details.log:
        lines += [Text(""), Text("the end of its log:", style="dim")]
        lines += [Text(clean(line)) for line in seen.details.log.splitlines()]
    return lines


def _outcome(told: History) -> list[str]:
    """What a job without steps has found and written."""
    gist = answers.in_a_line(answers.decoded(told.answer)) if told.answer else ""
    return [one for one in (gist, *told.end.outputs) if one]
