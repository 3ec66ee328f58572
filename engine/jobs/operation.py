"""An operation on files as a job: the same function as the command line runs, told through the journal.

It holds still and ends wherever the operation tells how it comes along, so between two layers or tensors. What was
being written is then removed; the next attempt begins anew.
"""

from __future__ import annotations

import msgspec

from engine import protocol
from engine.config import Operate
from engine.config.operations import checked
from engine.context import Context
from engine.operate import Reporter
from engine.operate import run as perform
from engine.protocol.base import Message
from engine.protocol.operations import CheckpointWritten, Composed, Fitted, Interpolated


class JournalReporter(Reporter):
    """Tells a job's journal. Every word may raise Stopped."""

    def __init__(self, context: Context):
        super().__init__(context.journal.emit)
        self._context = context

    def stage(self, name: str, total: int = 0, unit: str = "") -> None:
        super().stage(name, total, unit)
        self._context.tick()

    def progress(self, done: int) -> None:
        super().progress(done)
        self._context.tick()


def run(config: Operate, context: Context) -> list[str]:
    """Run the job. Returns the files and folders that it made."""
    request = checked(config.operation, config.request)
    if context.dry_run:
        return []
    answer = perform(request, config.operation, JournalReporter(context))
    context.journal.emit(protocol.Answer(result=msgspec.Raw(msgspec.json.encode(answer))))
    return outputs(answer)


def outputs(answer: Message) -> list[str]:
    """The files and folders that an answer tells of."""
    match answer:
        case Composed():
            return [answer.out, *answer.tokens.values()]
        case Interpolated():
            return list(answer.files)
        case CheckpointWritten() | Fitted():
            return [answer.out]
    return []
