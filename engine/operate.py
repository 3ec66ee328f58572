"""One operation on files, in a process of its own: `python -m engine.operate NAME`, the request as JSON on stdin.

On stdout come the events of a job, one JSON line each, with the answer before the end; whatever else is printed goes to
stderr. The exit code is that of `End`. To add an operation: its request in `engine.config.operations`, its answer in
`engine.protocol.operations`, and its function here. Light until the function's module is imported.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec

from engine import protocol
from engine.config.operations import ON_DEVICE, Operation, checked
from engine.errors import Problem, UserError
from engine.protocol.base import Message
from engine.protocol.operations import Answer

OPERATIONS = {
    "inspect": "engine.operations.adapter_files:inspect",
    "convert": "engine.operations.adapter_files:convert",
    "edit_metadata": "engine.operations.adapter_files:edit_metadata",
    "compose": "engine.operations.compose:compose",
    "interpolate": "engine.operations.compose:interpolate",
    "resize": "engine.operations.compose:resize",
    "diff": "engine.operations.diff:diff",
    "extract": "engine.operations.extract:extract",
    "fit_weights": "engine.operations.fit:fit_weights",
    "convert_checkpoint": "engine.operations.checkpoints:convert",
    "merge": "engine.operations.merge:merge",
    "caption": "engine.operations.caption:caption",
}
"""Name → `module:function`; the function takes a request and a Reporter and returns a message."""

EVERY = 0.1
"""Seconds between two events of progress."""


class Reporter:
    """How an operation tells what it does. `emit` takes events; tests give a list's `append`."""

    def __init__(self, emit: Callable[[protocol.Event], None]):
        self._emit = emit
        self._stage, self._total, self._told = "", 0, 0.0

    def stage(self, name: str, total: int = 0, unit: str = "") -> None:
        """It turns to something else, which has `total` units, or nobody knows how many."""
        self._stage, self._total, self._told = name, total, 0.0
        self._emit(protocol.Stage(name=name, total=total, unit=unit))

    def progress(self, done: int) -> None:
        """So many units of the stage are done. Cheap to call often."""
        now = time.monotonic()
        if done == self._total or now - self._told >= EVERY:
            self._told = now
            self._emit(protocol.Progress(stage=self._stage, done=done, total=self._total))

    def notice(self, text: str, where: str = "") -> None:
        """Something that the user should know and that stops nothing."""
        self._emit(protocol.Notice(text=text, where=where))


def operate(name: str, data: bytes, emit: Callable[[protocol.Event], None]) -> int:
    """Do the operation called `name` with a JSON request. Everything is told by `emit`; returns the exit code."""
    started = time.monotonic()
    try:
        request, reporter = checked(name, _table(data)), Reporter(emit)
        with _device(request, name, reporter):
            answer = run(request, name, reporter)
        emit(Answer(operation=name, result=msgspec.Raw(msgspec.json.encode(answer))))
        end = protocol.End(state="done", code=protocol.DONE)
    except UserError as error:
        for problem in error.problems:
            emit(protocol.Refused(**{field: getattr(problem, field) for field in problem.__struct_fields__}))
        end = protocol.End(state="refused", code=protocol.REFUSED, cause=str(error.problems[0]))
    except KeyboardInterrupt:
        end = protocol.End(state="stopped", code=protocol.INTERRUPTED, cause="interrupted")
    except Exception as error:
        cause, advice = _explain(error)
        end = protocol.End(state="failed", code=protocol.FAILED, cause=cause, advice=advice)
    emit(msgspec.structs.replace(end, seconds=round(time.monotonic() - started, 3)))
    return end.code


def run(request: Operation, name: str, reporter: Reporter) -> Message:
    """Call the operation's function."""
    module, _, function = OPERATIONS[name].partition(":")
    return getattr(importlib.import_module(module), function)(request, reporter)


def _device(request: Operation, name: str, reporter: Reporter) -> contextlib.AbstractContextManager:
    """Hold the device that an operation computes on: one job at a time has it, and this is as good as one."""
    if name not in ON_DEVICE:
        return contextlib.nullcontext()
    from engine.host import placement

    return placement.holding(request.device, reporter.notice)


def _table(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise UserError(Problem(where="request", expected="a JSON object", found=str(error))) from None


def _explain(error: Exception) -> tuple[str, list[str]]:
    """The cause of a failure that is no mistake of the user's, and what helps."""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "out of memory", ["close other programs, or use a machine with more memory"]
    if isinstance(error, OSError):
        place = f": {error.filename}" if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return f"{error.strerror or error}{place}", [
            "make room on the disk" if full else "check that the folder can be written to"
        ]
    traceback.print_exc()
    return f"{type(error).__name__}: {error}", ["this is a defect of loratui: stderr tells more"]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str], source: BinaryIO, sink: BinaryIO) -> int:
    """The process: one operation by its name."""

    def emit(event: protocol.Event) -> None:
        sink.write(protocol.encode(event))
        sink.flush()

    if len(arguments) != 1:
        print(f"usage: python -m engine.operate {{{','.join(OPERATIONS)}}}", file=sys.stderr)
        return protocol.REFUSED
    return operate(arguments[0], source.read(), emit)


QUIET_THREADS = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
"""Idle threads otherwise spin against those of a training beside. Read when torch is loaded, which comes later."""


if __name__ == "__main__":
    os.environ |= QUIET_THREADS | os.environ
    for _number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(_number, _interrupt)
    # what a library prints must not get between the events
    _sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.exit(main(sys.argv[1:], sys.stdin.buffer, _sink))
