"""Following a job from the terminal, and how it ended, in words.

The host reads the journal; a host that dies is started again, and nothing is missed, since the journal is the truth.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from engine import protocol
from engine.config import UserError
from engine.protocol import messages
from loratui.client import Host, HostGone, connect
from loratui.telling import Teller, teller

ENDED = ("done", "stopped", "failed", "refused", "crashed", "released", "elsewhere")
ACKNOWLEDGED_IN = 30.0
"""Seconds to wait for a job to answer a command."""
TRIES = 5
"""Hosts that may die one after another before they have answered once."""


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

    how: as in `telling.teller`. Ctrl-C asks the job to save and stop, or raises Left where the job is not ours to stop.
    """
    console = console or Console(stderr=True, highlight=False)
    outcome = Outcome(directory, offset)
    failed = 0
    with _interrupts() as interrupts, teller(console, how) as telling:
        while True:
            try:
                with connect() as host:
                    failed = 0
                    _pump(host, outcome, telling, interrupts, stop_on_interrupt)
                    break
            except HostGone:
                failed += 1
                if failed == TRIES:
                    raise
                telling.say("the host died; starting another one")
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
    console = Console(highlight=False) if how == "plain" else None
    try:
        return follow(directory, 0, console, how, stop_on_interrupt=False).code
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


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Ctrl-C, noted down in the list and not raised: it can't fall between lines that belong together.

    Where it is ignored, as in a shell's background commands, it stays so.
    """
    caught: list[int] = []
    former = signal.getsignal(signal.SIGINT)
    if former != signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, former)


def _pump(host: Host, outcome: Outcome, telling: Teller, interrupts: list[int], stop_on_interrupt: bool) -> None:
    """Read until the job has ended. The first Ctrl-C stops it, where it may; further ones change nothing."""
    job = str(outcome.directory)
    host.call("jobs.watch", messages.Watch(job=job, offset=outcome.offset))
    asked = False
    while True:
        told = host.heard(0.25)
        if interrupts and not stop_on_interrupt:
            raise Left
        if interrupts and not asked:
            asked = True
            telling.say("stopping: the run is being saved")
            with contextlib.suppress(UserError):  # It has ended by itself meanwhile, and will say so.
                host.call("jobs.control", messages.Control(job=job, name="stop"))
        if not isinstance(told, messages.JobEvents):
            continue
        for event in told.events:
            outcome.note(event)
            telling.tell(event)
        if told.state == "queued" != outcome.state or (
            told.state == "queued" and not outcome.offset and not told.events
        ):
            telling.say("waiting for a device; `loratui queue list` shows what is ahead")
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
