"""Operations on files from the terminal: the engine does one in a process of its own, and says how it comes along."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass, field
from typing import IO, Any

import msgspec
from rich.console import Console

from engine import protocol
from engine.protocol.operations import ANSWERS, Answer, OperationEvent, decode_operation
from loratui.child import engine_command, engine_environment
from loratui.telling import Teller, teller

PATIENCE = 10.0
"""Seconds for an interrupted operation to clean up after itself."""
LAST_WORDS = 4096
"""Bytes of what a process said on stderr that are shown where it failed."""


@dataclass
class Outcome:
    """How an operation ended."""

    code: int = protocol.FAILED
    answer: Any = None
    """The struct of `engine.protocol.operations.ANSWERS`, where it is done."""
    refused: list[protocol.Refused] = field(default_factory=list)
    end: protocol.End | None = None


def run(name: str, request: dict[str, Any], how: str = "auto") -> Outcome:
    """Do an operation and wait for its end. What it says on the way goes to stderr; how: as in `telling.teller`.

    Ctrl-C ends it, leaving nothing half-written.
    """
    console = Console(stderr=True, highlight=False)
    outcome = Outcome()
    with tempfile.TemporaryFile() as words, teller(console, how) as telling:
        process = subprocess.Popen(
            engine_command("operate", name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            env=engine_environment(),
            process_group=0,
        )
        try:
            process.stdin.write(msgspec.json.encode(request))
            process.stdin.close()
            _listen(process.stdout, name, outcome, telling)
            code = process.wait()
        except BrokenPipeError:
            code = process.wait()
        except BaseException:
            process.terminate()
            _reaped(process)
            raise
        said = _end_of(words)
    outcome.code = outcome.end.code if outcome.end else protocol.FAILED
    _conclude(outcome, code, said, console)
    return outcome


def _listen(lines: IO[bytes], name: str, outcome: Outcome, telling: Teller) -> None:
    for line in lines:
        event: OperationEvent = decode_operation(line)
        match event:
            case Answer():
                outcome.answer = msgspec.json.decode(event.result, type=ANSWERS[name])
            case protocol.Refused():
                outcome.refused.append(event)
            case protocol.End():
                outcome.end = event
            case _:
                telling.tell(event)


def _reaped(process: subprocess.Popen) -> None:
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_of(words: IO[bytes]) -> str:
    size = words.seek(0, 2)
    words.seek(max(0, size - LAST_WORDS))
    return words.read().decode(errors="replace").strip()


def _conclude(outcome: Outcome, code: int, said: str, console: Console) -> None:
    """Say what went wrong, if anything did."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    for refused in outcome.refused:
        say(refused.text())
    if outcome.end is None:
        say(f"the operation ended with code {code} and without a word; it may have run out of memory")
        say(said)
    elif outcome.end.state == "failed":
        say(f"failed: {outcome.end.cause}")
        for advice in outcome.end.advice:
            say(f"  {advice}")
        say(said)
