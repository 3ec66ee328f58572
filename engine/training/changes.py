"""What was changed in a live run: the values in force, and those that an attempt before this one came to later on.

A run that was killed goes on from a state that may be older than a change. The journal knows at which step it was made,
and there it is made again, so that the run ends in the bits of one that was not killed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from engine import protocol


@dataclass
class Changes:
    """`values`: field of the config → the value in force, part of the training state. `ahead`: to be made again."""

    values: dict[str, float] = field(default_factory=dict)
    ahead: list[protocol.Changed] = field(default_factory=list)

    def go_on(self, told: Iterable[protocol.Changed], step: int) -> None:
        """Take up what a journal tells, for a run that goes on after `step`. A change that was made later, but at an
        earlier step, was made by an attempt that had gone back: it replaces those of the same field ahead of it."""
        course: list[protocol.Changed] = []
        for change in told:
            course = [former for former in course if former.field != change.field or former.step < change.step]
            course.append(change)
        self.ahead = sorted((change for change in course if change.step >= step), key=lambda change: change.step)

    def reach(self, step: int) -> None:
        """Make again what was changed up to this step."""
        while self.ahead and self.ahead[0].step <= step:
            change = self.ahead.pop(0)
            self.values[change.field] = change.value

    def make(self, field: str, value: float) -> None:
        """Change a field now; what a former attempt made of it later is void."""
        self.values[field] = value
        self.ahead = [change for change in self.ahead if change.field != field]

    def words(self) -> list[str]:
        """What is not as the config has it, and from where on."""
        later = [(change.field, change.value, f" from step {change.step + 1} on") for change in self.ahead]
        now = [(name, value, "") for name, value in self.values.items()]
        return [f"{name} = {value:g}{when}, as it was set in the live run" for name, value, when in now + later]


def told(journal: Path) -> list[protocol.Changed]:
    """The changes of a journal, in its order. Lines of other events are passed over undecoded, since there are many."""
    with journal.open("rb") as file:
        events = [protocol.decode(line) for line in file if b'"changed"' in line]
    return [event for event in events if isinstance(event, protocol.Changed)]
