"""A workspace and locks of a test's own, and workers that tell a story instead of training."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

import pytest

from engine import locks, protocol
from engine.config import Request
from engine.host import jobs, launch, queue, submission
from engine.protocol import messages
from engine.runner import Runner

DEADLINE = 60.0
"""Seconds after which a test gives up waiting; nothing here takes that long on a machine that does anything else."""


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv(locks.RUNTIME, str(tmp_path / "runtime"))
    return tmp_path / "runtime"


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    folder = tmp_path / "ws"
    folder.mkdir()
    monkeypatch.setenv("LORATUI_WORKSPACE", str(folder))
    return folder


@pytest.fixture
def runners(monkeypatch):
    """No runner is started; the workspaces that asked for one are noted."""
    asked = []
    monkeypatch.setattr(launch, "ensure_runner", lambda workspace: asked.append(workspace))
    return asked


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """A Python whose `engine.worker` tells the recording that LORATUI_STORY names, at LORATUI_SPEED."""
    program = tmp_path / "python"
    program.write_text(
        f'#!/bin/sh\nif [ "$2" = engine.worker ]; then\n'
        f'  exec "{sys.executable}" -m engine.replay "$LORATUI_STORY" "$3" --speed "$LORATUI_SPEED"\nfi\n'
        f'exec "{sys.executable}" "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return program


def config(name: str, project: str = "default", device: str = "auto") -> dict:
    return {
        "kind": "train",
        "name": name,
        "project": project,
        "model": {"base": "tiny"},
        "dataset": {"subsets": [{"path": "/images"}]},
        "prior": {"weight": 0.0},
        "runtime": {"device": device},
    }


@pytest.fixture
def make(workspace):
    """Make the folder of a job, with a status as its worker may have left it."""

    def make(name: str = "cat", project: str = "default", **status) -> Path:
        request = Request()
        request.lay(config(name, project), "test")
        directory = submission.create(workspace, request.checked())
        if status:
            told = protocol.Status(**{"updated": time.time(), **status})
            (directory / protocol.STATUS).write_bytes(told.to_bytes())
        return directory

    return make


@pytest.fixture
def tell(tmp_path):
    """Write a recording: `steps` steps a second apart, a checkpoint at every second one, and an end or none."""
    numbers = itertools.count()

    def tell(steps: int = 4, end: str = "done") -> Path:
        events: list[protocol.Event] = [
            protocol.Attempt(number=1, pid=1, host="elsewhere", boot_id=""),
            protocol.PlanMade(text="a plan", steps=steps, epochs=1.0, images=1),
            protocol.Stage(name="train"),
        ]
        for step in range(1, steps + 1):
            events.append(protocol.Step(step=step, loss=1.0 / step))
            if step % 2 == 0:
                events.append(protocol.Checkpoint(step=step, adapter=f"checkpoints/a-step{step:06d}.safetensors"))
        if end:
            codes = {"done": protocol.DONE, "failed": protocol.FAILED}
            outputs = ["a.safetensors"] if end == "done" else []
            cause = "it went wrong" if end == "failed" else ""
            events.append(protocol.End(state=end, code=codes[end], step=steps, outputs=outputs, cause=cause))
        path = tmp_path / f"story-{next(numbers)}.jsonl"
        lines = (protocol.encode(type(event)(**fields(event) | {"t": 1000.0 + number})) for number, event in
                 enumerate(events))  # fmt: skip
        path.write_bytes(b"".join(lines))
        return path

    return tell


def fields(event: protocol.Event) -> dict:
    return {name: getattr(event, name) for name in event.__struct_fields__}


@pytest.fixture
def submit(workspace, interpreter, tell, monkeypatch):
    """Submit a job whose worker tells a story: at once, or at a speed."""

    def submit(name: str = "cat", story: Path | None = None, speed: float = 0.0, **request) -> Path:
        monkeypatch.setenv("LORATUI_STORY", str(story or tell()))
        monkeypatch.setenv("LORATUI_SPEED", str(speed))
        first, hold = request.pop("first", False), request.pop("hold", False)
        told = jobs.submit(workspace, messages.Submit(config=config(name, **request), first=first, hold=hold))
        return Path(told.path)

    return submit


class Hand:
    """A runner in this process, turned by hand, and what it says."""

    def __init__(self, workspace: Path, resume: bool = False):
        self.said: list[str] = []
        self.runner = Runner(workspace, self.said.append)
        self.runner.take_over(resume)

    def turn_until(self, condition) -> None:
        until(lambda: (self.runner.turn(), condition())[1], lambda: self.said)

    def finish(self) -> None:
        """Turn until nothing is left to do."""
        until(lambda: not self.runner.turn(), lambda: self.said)


@pytest.fixture
def hand(workspace, runners):
    """Start a runner in this process. A test that ends before it has ended takes its workers with it."""
    made = []

    def hand(resume: bool = False) -> Hand:
        made.append(Hand(workspace, resume))
        return made[-1]

    yield hand
    for one in made:
        for live in one.runner.live.values():
            if live.process is not None:
                live.process.kill()
                live.process.wait()


@pytest.fixture
def wait():
    """Wait for a condition, as long as it takes and not for ever."""
    return until


def until(condition, told=lambda: "") -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.01)


@pytest.fixture
def names(workspace):
    """The names of the jobs that wait, in their order."""
    return lambda: [Path(name).name.split("-", 2)[2] for name in queue.read(workspace).waiting]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What is tried again is tried at once, so that tests need not wait for it."""
    monkeypatch.setattr("engine.runner.BACKOFF", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
