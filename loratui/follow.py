"""Following a job in the terminal: its journal as progress bars with rate and ETA, as plain lines where there is no
terminal, or as JSON. Narration goes to stderr; only the JSON stream is data.

The host reads the journal; a host that dies is started again, and nothing is missed, since the journal is the truth.
"""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engine import protocol
from engine.protocol import messages
from loratui.client import Host, HostGone, connect

STAGES = {
    "check": "looking at the images",
    "load": "loading the base",
    "class-images": "drawing class images",
    "cache": "encoding the images",
    "train": "training",
    "draw": "drawing pictures",
}
ENDED = ("done", "stopped", "failed", "refused", "crashed", "released", "elsewhere")
ACKNOWLEDGED_IN = 30.0
"""Seconds to wait for a job to answer a command."""


class Left(Exception):
    """Ctrl-C, where it means: leave the job running."""


@dataclass
class Outcome:
    """Where an attempt has come to, and what it said on the way."""

    directory: Path
    offset: int = 0
    """Bytes of the journal that were read."""
    state: str = "queued"
    end: protocol.End | None = None
    plan: protocol.PlanMade | None = None
    samples: list[protocol.Sample] = field(default_factory=list)
    checkpoints: list[protocol.Checkpoint] = field(default_factory=list)
    refused: list[protocol.Refused] = field(default_factory=list)
    last: protocol.Step | None = None
    log: str = ""

    @property
    def code(self) -> int:
        return self.end.code if self.end else protocol.FAILED

    def note(self, event: protocol.AnyEvent) -> None:
        match event:
            case protocol.Attempt():
                self.end, self.refused = None, []
            case protocol.End():
                self.end = event
            case protocol.PlanMade():
                self.plan = event
            case protocol.Sample():
                self.samples.append(event)
            case protocol.Checkpoint():
                self.checkpoints.append(event)
            case protocol.Refused():
                self.refused.append(event)
            case protocol.Step():
                self.last = event


def follow(
    directory: Path, offset: int, console: Console | None = None, how: str = "auto", stop_on_interrupt: bool = True
) -> Outcome:
    """Follow a job from a place in its journal to the end of the attempt, and say how it ended.

    how: auto (bars in a terminal, else lines), lines, json or quiet. Ctrl-C asks the job to save and stop, or raises
    Left where the job is not ours to stop.
    """
    console = console or Console(stderr=True, highlight=False)
    outcome = Outcome(directory, offset)
    teller = _teller(console, how)
    with teller:
        while True:
            try:
                with connect() as host:
                    _pump(host, outcome, teller, stop_on_interrupt)
                    break
            except HostGone:
                teller.say("the host died; starting another one")
    if how not in ("json", "quiet"):
        _conclude(outcome, console)
    elif how == "quiet":
        for problem in outcome.refused:
            console.print(problem.text(), markup=False, soft_wrap=True)
    return outcome


def watch(run: str, how: str) -> int:
    """Follow a job that somebody has started, from its beginning. Returns the exit code; Ctrl-C leaves it running."""
    with connect() as host:
        directory = Path(host.call("jobs.show", messages.JobRef(job=run)).summary.path)
    try:
        return follow(directory, 0, how=how, stop_on_interrupt=False).code
    except Left:
        print(f"{directory.name} goes on; `loratui runs stop {directory.name}` stops it", file=sys.stderr)
        return protocol.INTERRUPTED


def acknowledgement(host: Host, command: messages.Control) -> tuple[str, bool]:
    """Send a command and wait for the job's answer: what it says, and whether the command was taken."""
    summary = host.call("jobs.show", messages.JobRef(job=command.job)).summary
    offset = journal_size(Path(summary.path))
    identity = host.call("jobs.control", command).id
    if not identity:
        return f"{summary.id}: {command.name} is done", True
    host.call("jobs.watch", messages.Watch(job=summary.path, offset=offset))
    deadline = time.monotonic() + ACKNOWLEDGED_IN
    while time.monotonic() < deadline:
        told = host.heard(0.5)
        for event in told.events if isinstance(told, messages.JobEvents) else ():
            if isinstance(event, protocol.Acknowledged) and event.command == identity:
                return f"{summary.id}: {event.text or command.name}", event.taken
    return f"{summary.id}: no answer to {command.name} yet; it will be honoured when the run can", True


def journal_size(directory: Path) -> int:
    """Bytes in a job's journal at this moment."""
    try:
        return (directory / protocol.JOURNAL).stat().st_size
    except OSError:
        return 0


def _pump(host: Host, outcome: Outcome, teller: _Teller, stop_on_interrupt: bool) -> None:
    """Read until the job has ended. The first Ctrl-C stops it, where it may; further ones change nothing."""
    job = str(outcome.directory)
    host.call("jobs.watch", messages.Watch(job=job, offset=outcome.offset))
    asked = False
    while True:
        try:
            told = host.heard(0.5)
        except KeyboardInterrupt:
            if not stop_on_interrupt:
                raise Left from None
            if not asked:
                asked = True
                teller.say("stopping: the run is being saved")
                with contextlib.suppress(Exception):
                    host.call("jobs.control", messages.Control(job=job, name="stop"))
            continue
        if not isinstance(told, messages.JobEvents):
            continue
        for event in told.events:
            outcome.note(event)
            teller.tell(event)
        if told.state == "queued" != outcome.state or (
            told.state == "queued" and not outcome.offset and not told.events
        ):
            teller.say("waiting for a device; `loratui queue list` shows what is ahead")
        outcome.offset, outcome.state = told.offset, told.state
        if told.state in ENDED:
            outcome.log = host.call("jobs.show", messages.JobRef(job=job)).log if outcome.end is None else ""
            return


def _conclude(outcome: Outcome, console: Console) -> None:
    """Say how it ended, unless it simply finished."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    end, name = outcome.end, outcome.directory.name
    if end is None:
        if outcome.state == "stopped":
            say("it was taken out of the queue before it began")
            return
        say(f"{outcome.state}: the worker is gone without a last word. The end of {outcome.directory / protocol.LOG}:")
        say(outcome.log)
        say(f"resume with: loratui resume {name}")
    elif end.state == "refused":
        for problem in outcome.refused:
            say(problem.text())
    elif end.state == "released":
        say(f"paused after step {end.step}, its device given back; resume with: loratui resume {name}")
    elif end.state == "stopped":
        say(f"stopped after step {end.step}; resume with: loratui resume {name}")
    elif end.state == "failed":
        say(f"failed at step {end.step}: {end.cause}")
        for advice in end.advice:
            say(f"  {advice}")
        if outcome.checkpoints:
            say(f"the last saved adapter: {outcome.directory / outcome.checkpoints[-1].adapter}")


def _teller(console: Console, how: str) -> _Teller:
    if how == "json":
        return _Json()
    if how == "quiet":
        return _Teller()
    return _Bars(console) if how == "auto" and console.is_terminal else _Lines(console)


class _Teller:
    """Tells events to a person."""

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def tell(self, event: protocol.AnyEvent) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class _Json(_Teller):
    """The journal itself, on stdout."""

    def tell(self, event: protocol.AnyEvent) -> None:
        sys.stdout.write(protocol.encode(event).decode())
        sys.stdout.flush()


class _Lines(_Teller):
    """One line for what matters, and one every few seconds for steps: for logs and screen readers."""

    SECONDS = 5.0

    def __init__(self, console: Console):
        self.console = console
        self._told = 0.0

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def tell(self, event: protocol.AnyEvent) -> None:
        now = time.monotonic()
        if isinstance(event, protocol.Stage):
            self._told = now
        if isinstance(event, protocol.Refused):
            return
        if isinstance(event, protocol.Step | protocol.Progress):
            if now - self._told < self.SECONDS:
                return
            self._told = now
        text = describe(event)
        if text:
            self.say(text)


class _Bars(_Teller):
    """A bar for each stage, with what was said above them."""

    def __init__(self, console: Console):
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}", justify="right"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._stage = ""

    def __enter__(self):
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def say(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def tell(self, event: protocol.AnyEvent) -> None:
        match event:
            case protocol.Stage():
                self._enter(event)
            case protocol.Progress():
                self._advance(event.stage, event.done, event.total)
            case protocol.Step():
                self._advance("train", event.step, None, _rate(event))
            case (
                protocol.Notice() | protocol.PlanMade() | protocol.Resumed() | protocol.Acknowledged()
                | protocol.Paused() | protocol.Continued() | protocol.Changed()
            ):  # fmt: skip
                self.say(describe(event))

    def _enter(self, stage: protocol.Stage) -> None:
        if self._stage in self._tasks and self._stage != "train":
            self.progress.update(self._tasks[self._stage], total=1, completed=1)
        self._stage = stage.name
        total = stage.total or None
        if stage.name not in self._tasks:
            title = STAGES.get(stage.name, stage.name)
            self._tasks[stage.name] = self.progress.add_task(title, total=total, note="", count="")
        elif stage.name != "train":
            self.progress.reset(self._tasks[stage.name], total=total)

    def _advance(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        if stage in self._tasks:
            task = self._tasks[stage]
            total = total or self.progress.tasks[task].total
            self.progress.update(task, completed=done, total=total, note=note, count=f"{done}/{total:.0f}")


def _rate(event: protocol.Step) -> str:
    loss = "not finite" if event.loss is None else f"{event.loss:.4f}"
    return f"{event.seconds:.2f} s/it  loss {loss}"


def describe(event: protocol.AnyEvent) -> str:
    """An event in a line; empty for one that says nothing to a person."""
    match event:
        case protocol.Stage():
            return f"{STAGES.get(event.name, event.name)}…"
        case protocol.Progress():
            return f"{STAGES.get(event.stage, event.stage)}: {event.done}/{event.total}"
        case protocol.Notice():
            return f"note: {event.text}"
        case protocol.PlanMade():
            sources = ", ".join(f"{count} from {source}" for source, count in event.captions.items())
            return f"{event.text}\nbase: {event.base}; {event.modules} modules adapted; captions: {sources}"
        case protocol.Resumed():
            return f"going on after step {event.step}"
        case protocol.Step():
            return f"step {event.step}: {_rate(event)}"
        case protocol.Validation():
            loss = "not finite" if event.loss is None else f"{event.loss:.4f}"
            return f"step {event.step}: fixed-noise loss {loss} on {event.count} {event.images} images"
        case protocol.Sample():
            return f"step {event.step}: drew {event.path}"
        case protocol.Acknowledged():
            return f"{event.name}: {event.text}" if event.text else f"{event.name}: taken"
        case protocol.Paused():
            return f"paused after step {event.step}"
        case protocol.Continued():
            return f"going on after step {event.step}"
        case protocol.Changed():
            return f"from the step after {event.step} on, {event.field} = {event.value:g}"
        case protocol.Checkpoint():
            return f"step {event.step}: saved {event.adapter}"
        case protocol.Refused():
            return event.text()
    return ""
