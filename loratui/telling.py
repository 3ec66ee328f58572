"""How the events of a job are told: as bars in a terminal, as plain lines for logs and screen readers, or as the
journal itself on stdout. Texts out of events are data: none of them is taken for markup.
"""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engine import protocol

STAGES = {
    "check": "looking at the images",
    "load": "loading the base",
    "class-images": "drawing class images",
    "cache": "encoding the images",
    "train": "training",
    "draw": "drawing pictures",
    "read": "reading the adapters",
    "open": "opening the models",
    "compose": "composing layers",
    "compare": "comparing layers",
    "extract": "extracting layers",
    "layers": "measuring layers",
    "write": "writing the file",
    "fit": "learning weights",
}


def teller(console: Console, how: str) -> Teller:
    """How events are told: auto (bars in a terminal, else lines), lines, plain (a line an event), json,
    notices alone, or quiet."""
    if how == "json":
        return _Json()
    if how == "quiet":
        return Teller()
    if how == "notices":
        return _Notices(console)
    if how == "plain":
        return _Lines(console, seconds=0.0)
    return _Bars(console) if how == "auto" and console.is_terminal else _Lines(console)


class Teller:
    """Tells events to a person."""

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def tell(self, event: protocol.AnyEvent) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class _Json(Teller):
    """The journal itself, on stdout."""

    def tell(self, event: protocol.AnyEvent) -> None:
        sys.stdout.write(protocol.encode(event).decode())
        sys.stdout.flush()


class _Lines(Teller):
    """One line for what matters, and one every few seconds for steps: for logs and screen readers."""

    def __init__(self, console: Console, seconds: float = 5.0):
        self.console, self.seconds = console, seconds
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
            if now - self._told < self.seconds:
                return
            self._told = now
        text = describe(event)
        if text:
            self.say(text)


class _Notices(Teller):
    """What should be known whatever else is not told."""

    def __init__(self, console: Console):
        self.console = console

    def tell(self, event: protocol.AnyEvent) -> None:
        if isinstance(event, protocol.Notice):
            self.console.print(describe(event), markup=False, highlight=False, soft_wrap=True)


class _Bars(Teller):
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
            self.progress.update(
                task, completed=done, total=total, note=note, count=f"{done}/{total:.0f}" if total else f"{done}"
            )


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
        case protocol.End():
            return f"{event.state} after step {event.step}" if event.step else event.state
    return ""
