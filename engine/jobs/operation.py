"""An operation on files as a job: the same function as the command line runs, told through the journal.

It holds still and ends wherever the operation tells how it comes along, so between two layers or tensors. What was
being written is then removed; the next attempt begins anew.
"""

from __future__ import annotations

import msgspec

from engine import files, protocol
from engine.config import Operate
from engine.config.operations import checked
from engine.context import Context
from engine.operate import Reporter
from engine.operate import run as perform
from engine.protocol.base import Message
from engine.protocol.operations import Interpolated

ANSWER, LONGEST_ANSWER = "answer.json", 1 << 19
"""File and bytes: no reader of a journal takes a line of more than twice that."""


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
    _tell(config.operation, msgspec.json.encode(answer), context)
    return outputs(answer)


def _tell(name: str, answer: bytes, context: Context) -> None:
    if len(answer) > LONGEST_ANSWER:
        files.write_bytes(context.directory / ANSWER, answer + b"\n")
        context.notices([f"the answer is too long for the journal: it is in {ANSWER}"])
    else:
        context.journal.emit(protocol.Answer(operation=name, result=msgspec.Raw(answer)))


def outputs(answer: Message) -> list[str]:
    """The files and folders that an answer says were made."""
    if isinstance(answer, Interpolated):
        return list(answer.files)
    out = getattr(answer, "out", "")
    return list(dict.fromkeys([out, *getattr(answer, "tokens", {}).values()])) if out else []
