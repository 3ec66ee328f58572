"""Workers that die where a test wants them to.

Run as a program, this imports everything that a worker needs, once, and then forks for each line of JSON that it reads:
a kill costs what the job did before it and not the seconds of imports. A child is `engine.worker.main()` on a job's
directory, with real signals, and a fault: a place, how often it is passed before something happens, and what happens.

    {"directory": …, "workspace": …, "fault": {"place": "rename", "name": "*.state", "nth": 2, "act": "kill"}}

Places: `calls`, the function calls in the stage `name`, Python's and C's, so that any moment of its work can be hit;
`create`, `rename`, `remove`, the moment before that is done with a file or folder whose (new) name matches `name`.
Acts: `kill` is SIGKILL; `terminate` is SIGTERM; `tear` lets the next long write be killed when a part of it is on the
disk; `fill` fills up the disk that the job lies on. The answer is a line with the exit code, negative for a signal, and
the calls that were counted in each stage.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

TORN = 1000
"""Bytes of a torn file that reach the disk."""

BALLAST = "ballast"
"""File that fills a disk, in the job's directory."""

AUDITED = {
    "create": {"open": 0, "os.mkdir": 0},
    "rename": {"os.rename": 1},
    "remove": {"os.remove": 0, "os.rmdir": 0},
}
"""Place → Python's audit events for it, and which of their arguments is the path."""


def main() -> None:
    import torch

    import engine.jobs.train  # noqa: F401
    from engine.models.load import load_family

    load_family("tiny", vae=None, prediction="auto", dtype=torch.float32, device=torch.device("cpu"))
    for line in sys.stdin:
        request = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os._exit(attempt(answer=writing, **request))
        os.close(writing)
        with os.fdopen(reading) as pipe:
            calls = json.loads(pipe.read() or "{}")
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"code": code, "calls": calls}), flush=True)


def attempt(directory: str, workspace: str, fault: dict | None, answer: int) -> int:
    """What a forked child does. Returns the worker's exit code."""
    from engine import worker

    with open(Path(directory) / "engine.log", "ab", buffering=0) as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    os.environ["LORATUI_WORKSPACE"] = workspace
    sys.argv = ["worker", directory]
    calls: Counter[str] = Counter()
    if fault is not None:
        plant(Fault(**fault), calls)
    code = worker.main()
    sys.setprofile(None)
    os.write(answer, json.dumps(calls).encode())
    return code


class Fault:
    """Counts passages of its place and acts at the nth."""

    def __init__(self, place: str, name: str, nth: int = 1, act: str = "kill"):
        self.place, self.name, self.left = place, name, nth
        self.act = {"kill": self.kill, "terminate": self.terminate, "tear": self.tear, "fill": self.fill}[act]

    def passed(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.act()

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def terminate(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def tear(self) -> None:
        """A write beyond the largest size of a file is cut short there, and then a signal that Python ignores kills."""
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (TORN, TORN))

    def fill(self) -> None:
        with contextlib.suppress(OSError), open(Path(sys.argv[1]) / BALLAST, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))


def plant(fault: Fault, calls: Counter[str]) -> None:
    """Arm a fault in this process, for good."""
    if fault.place == "calls":
        watch_calls(fault, calls)
    else:
        watch_files(fault, AUDITED[fault.place])


def watch_files(fault: Fault, events: dict[str, int]) -> None:
    def hook(event: str, arguments: tuple) -> None:
        if event in events:
            path = arguments[events[event]]
            if isinstance(path, str | Path) and fnmatch(Path(path).name, fault.name):
                fault.passed()

    sys.addaudithook(hook)


def watch_calls(fault: Fault, calls: Counter[str]) -> None:
    """Count the calls of each stage that the journal tells of; those in `fault.name` are passages of the fault."""
    from engine import journal, protocol

    stage = ""
    emit = journal.Journal.emit

    def watched(log: journal.Journal, *events: protocol.Event) -> None:
        nonlocal stage
        emit(log, *events)
        stage = next((event.name for event in events if isinstance(event, protocol.Stage)), stage)

    def called(frame: object, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            calls[stage] += 1
            if stage == fault.name:
                fault.passed()

    journal.Journal.emit = watched
    sys.setprofile(called)


if __name__ == "__main__":
    main()
