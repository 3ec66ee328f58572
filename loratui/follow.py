"""Following a job in the terminal: its journal as progress bars with rate and ETA, or as plain lines where there is no
terminal. Narration goes to stderr; nothing here is data.

Ctrl-C asks the worker to save and stop, waits for it, and says how to go on.
"""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engine import protocol
from loratui import runs

STAGES = {
    "check": "looking at the images",
    "load": "loading the base",
    "class-images": "drawing class images",
    "cache": "encoding the images",
    "train": "training",
    "draw": "drawing pictures",
}


@dataclass
class Outcome:
    """How an attempt ended, and what it said on the way."""

    directory: Path
    end: protocol.End | None = None
    plan: protocol.PlanMade | None = None
    samples: list[protocol.Sample] = field(default_factory=list)
    checkpoints: list[protocol.Checkpoint] = field(default_factory=list)
    validations: list[protocol.Validation] = field(default_factory=list)
    refused: list[protocol.Refused] = field(default_factory=list)
    last: protocol.Step | None = None

    @property
    def code(self) -> int:
        return self.end.code if self.end else protocol.FAILED


def follow(directory: Path, *options: str, console: Console | None = None, quiet: bool = False) -> Outcome:
    """Start the worker of a job and follow it to the end of the attempt, which Ctrl-C brings about early."""
    console = console or Console(stderr=True, highlight=False)
    reader = protocol.JournalReader(directory / protocol.JOURNAL)
    for _ in reader.read():
        pass
    process = runs.start(directory, *options)
    outcome = Outcome(directory)
    teller = _Silent() if quiet else _Bars(console) if console.is_terminal else _Lines(console)
    with teller:
        _pump(process, reader, outcome, teller)
    _conclude(outcome, console)
    return outcome


def _pump(process: subprocess.Popen, reader: protocol.JournalReader, outcome: Outcome, teller: _Teller) -> None:
    """Read the journal until the worker is gone and nothing is left to read."""
    while True:
        try:
            gone = process.poll() is not None
            for event in reader.read():
                _note(outcome, event)
                teller.tell(event)
            if gone:
                return
            time.sleep(0.1)
        except KeyboardInterrupt:
            teller.say("stopping: the run is being saved (this can take a step)")
            _terminate(process)


def _terminate(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)


def _note(outcome: Outcome, event: protocol.AnyEvent) -> None:
    match event:
        case protocol.End():
            outcome.end = event
        case protocol.PlanMade():
            outcome.plan = event
        case protocol.Sample():
            outcome.samples.append(event)
        case protocol.Checkpoint():
            outcome.checkpoints.append(event)
        case protocol.Validation():
            outcome.validations.append(event)
        case protocol.Refused():
            outcome.refused.append(event)
        case protocol.Step():
            outcome.last = event


def _conclude(outcome: Outcome, console: Console) -> None:
    """Say how it ended, unless it simply finished."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    end = outcome.end
    if end is None:
        log = outcome.directory / protocol.LOG
        say(f"the worker ended without a word; its last words in {log}:")
        say(runs.tail(log))
        say(f"resume with: loratui resume {outcome.directory.name}")
    elif end.state == "refused":
        for problem in outcome.refused:
            say(problem.text())
    elif end.state == "stopped":
        say(f"stopped after step {end.step}; resume with: loratui resume {outcome.directory.name}")
    elif end.state == "failed":
        say(f"failed at step {end.step}: {end.cause}")
        for advice in end.advice:
            say(f"  try {advice}" if "=" in advice or ":" in advice else f"  {advice}")
        if outcome.checkpoints:
            say(f"the last saved adapter: {outcome.directory / outcome.checkpoints[-1].adapter}")


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


class _Silent(_Teller):
    pass


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
            case protocol.Notice() | protocol.PlanMade() | protocol.Resumed():
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
        case protocol.Checkpoint():
            return f"step {event.step}: saved {event.adapter}"
    return ""
