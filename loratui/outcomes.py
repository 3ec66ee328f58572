"""What became of commands, told from a job's journal: taken or not, and what was then done.

An acknowledgement says that a command was read and what will be done. What was done follows later as an event of its
own kind, or as a notice that says why not. Commands of other apps are in here too: an id tells whose is whose.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine import protocol
from loratui.figures import number

Done = protocol.Paused | protocol.Continued | protocol.Checkpoint | protocol.Sample | protocol.Changed
WAITS_FOR: dict[str, type] = {
    "pause": protocol.Paused,
    "resume": protocol.Continued,
    "checkpoint": protocol.Checkpoint,
    "sample": protocol.Sample,
    "set": protocol.Changed,
    "stop": protocol.End,
}
"""Command → the event that shows it done."""
MAY_BE_LEFT = ("checkpoint", "sample", "set")
"""Commands that a notice may answer: there was nothing to do, or it could not be done."""


@dataclass
class Outcome:
    """One command that a job has read."""

    name: str
    taken: bool
    text: str
    """What the job said of it."""
    result: str = ""
    """What was done in the end; empty while that is awaited."""

    @property
    def settled(self) -> bool:
        return not self.taken or bool(self.result)


class Outcomes:
    """Command id → outcome, in the order in which the job read them."""

    def __init__(self) -> None:
        self._by_id: dict[str, Outcome] = {}
        self._open: list[Outcome] = []

    def of(self, identity: str) -> Outcome | None:
        """What is known of a command; None before the job has read it."""
        return self._by_id.get(identity)

    def take(self, event: protocol.AnyEvent) -> None:
        match event:
            case protocol.Acknowledged():
                outcome = self._by_id[event.command] = Outcome(event.name, event.taken, event.text)
                if event.taken and event.name in WAITS_FOR:
                    self._open.append(outcome)
            case protocol.End():
                self._settle(self._open, f"the run ended: {event.state} after step {event.step}")
            case protocol.Attempt():
                self._settle(self._open, "the run ended before")
            case protocol.Notice():
                self._settle([one for one in self._open if one.name in MAY_BE_LEFT][:1], event.text)
            case _:
                self._settle([one for one in self._open if isinstance(event, WAITS_FOR[one.name])], _words(event))

    def _settle(self, outcomes: list[Outcome], result: str) -> None:
        for outcome in outcomes:
            outcome.result = result
        self._open = [one for one in self._open if not one.result]


def _words(event: Done) -> str:
    match event:
        case protocol.Paused():
            return f"paused after step {event.step}"
        case protocol.Continued():
            return f"going on after step {event.step}"
        case protocol.Checkpoint():
            return f"saved step {event.step}"
        case protocol.Sample():
            return f"drew step {event.step}"
        case protocol.Changed():
            name = event.field.removeprefix("optimizer.")
            return f"{name} = {number(event.value, 3)} after step {event.step}"
    return ""
