"""SIGTERM means: save, then stop, resumable. The signals are real, and so is one worker started as users' are."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from engine import protocol, worker
from engine.training.milestones import Milestones


@pytest.mark.parametrize(("stage", "share"), [("class-images", 0.3), ("draw", 0.2), ("train", 0.4)])
def test_a_run_that_is_told_to_stop_saves_and_can_be_resumed_to_the_same_bits(
    stage, share, attempt, submit, undisturbed, tmp_path
):
    run = submit(tmp_path / "job")
    workspace = tmp_path if stage == "class-images" else undisturbed.workspace
    nth = int(share * undisturbed.calls[stage])
    code, _ = attempt(run, workspace, place="calls", name=stage, nth=nth, act="terminate")
    assert (code, run.stage) == (protocol.INTERRUPTED, stage)
    assert (run.end.state, run.end.code) == ("stopped", protocol.INTERRUPTED)
    assert protocol.read_status(run.directory).state == "stopped"
    saved = [run.end.step] if run.end.step else []
    assert run.states[-1:] == saved
    assert bool(saved) == (stage == "train")
    assert attempt(run, workspace)[0] == protocol.DONE
    assert run.resumed == saved
    assert run.equals(undisturbed.run)


def test_what_a_stop_left_undone_after_a_step_is_made_good(submit, undisturbed, workspace, tmp_path, monkeypatch):
    run, stop = submit(tmp_path / "job"), threading.Event()
    draw = Milestones._draw

    def stopping(self, step: int) -> None:
        if step == 2:
            stop.set()
        draw(self, step)

    monkeypatch.setattr(Milestones, "_draw", stopping)
    assert run.start(stop=stop) == protocol.INTERRUPTED
    assert run.states == [2]
    monkeypatch.undo()
    monkeypatch.setenv("LORATUI_WORKSPACE", str(workspace))
    assert run.start() == protocol.DONE
    for kind in (protocol.Sample, protocol.Validation):
        assert [event.step for event in run.events(kind)] == [0, 2, 4]
    losses = [event.loss for event in run.events(protocol.Validation)]
    assert losses == [event.loss for event in undisturbed.run.events(protocol.Validation)]
    assert run.equals(undisturbed.run)


@pytest.fixture
def start():
    """Start a worker as the terminal program does; it does not outlive the test."""
    workers = []

    def started(run, workspace) -> subprocess.Popen:
        environment = os.environ | {"LORATUI_WORKSPACE": str(workspace), "OMP_NUM_THREADS": "1"}
        with (run.directory / protocol.LOG).open("ab") as log:
            program = [sys.executable, "-m", "engine.worker", str(run.directory)]
            workers.append(subprocess.Popen(program, env=environment, stdout=log, stderr=log))
        return workers[-1]

    yield started
    for process in workers:
        process.kill()
        process.wait()


def test_a_second_worker_says_that_there_is_one_and_sigterm_ends_the_first(
    attempt, start, submit, undisturbed, tmp_path
):
    run = submit(tmp_path / "job", {"training": {"steps": 100_000, "validate_every": 0}, "sampling": {"prompts": []}})
    first = start(run, undisturbed.workspace)
    reader = protocol.JournalReader(run.directory / protocol.JOURNAL)
    while not any(isinstance(event, protocol.Step) for event in reader.read()):
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.fail(f"ended with {first.wait(timeout=0.05)}: {(run.directory / protocol.LOG).read_text()}")
    assert attempt(run, undisturbed.workspace)[0] == protocol.FAILED
    assert "another worker has it" in (run.directory / protocol.LOG).read_text()
    first.send_signal(signal.SIGTERM)
    assert first.wait() == protocol.INTERRUPTED
    assert len(run.events(protocol.Attempt)) == 1
    assert run.states[-1] == run.end.step > 0


def test_a_worker_takes_its_allocator_from_the_environment_it_starts_itself_with(submit, tmp_path, monkeypatch):
    replaced = []
    for name in worker.ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["worker", str(tmp_path)])
    monkeypatch.setattr(os, "execve", lambda *arguments: replaced.append(arguments) or sys.exit(0))
    with pytest.raises(SystemExit):
        worker.main()
    ((program, arguments, environment),) = replaced
    assert (program, arguments[1:]) == (sys.executable, ["-m", "engine.worker", str(tmp_path)])
    assert worker.ALLOCATOR.items() <= environment.items()
