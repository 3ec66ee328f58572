"""One runner after another: what lives is taken over, what was cut short goes on, and nothing is started twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from host_jobs import attempts, events, states

from engine import locks, protocol, runner
from engine.host import jobs, launch, liveness, queue
from engine.protocol import messages


def test_the_next_runner_takes_over_what_lives_and_starts_none_of_it_twice(workspace, submit, tell, hand):
    directory, behind = submit("a", tell(1000), 10.0), submit("b")
    first = hand()
    first.turn_until(lambda: jobs.summary(directory).step > 0)
    second = hand()
    second.runner.turn()
    assert states(directory, behind) == ["running", "queued"] and any("taken over" in line for line in second.said)
    jobs.control(directory, messages.Control(job="", name="stop"))
    next(iter(first.runner.live.values())).process.wait()
    second.finish()
    assert states(directory, behind) == ["stopped", "done"] and attempts(directory) == 1
    assert queue.read(workspace) == queue.Entries()


def test_a_worker_of_which_the_killed_runner_wrote_nothing_is_taken_over_too(workspace, submit, tell, hand):
    directory = submit(story=tell(1000), speed=10.0)
    before = (workspace / queue.FILE).read_bytes()
    hand().turn_until(lambda: jobs.summary(directory).step > 0)
    (workspace / queue.FILE).write_bytes(before)
    second = hand()
    second.turn_until(lambda: queue.read(workspace).running)
    assert queue.read(workspace).waiting == [] and attempts(directory) == 1


def test_what_crashed_while_there_was_no_runner_has_its_retries_too(workspace, submit, tell, hand):
    (workspace / "settings.toml").write_text("retries = 1\n")
    directory = submit(story=tell(20, end=""), speed=10.0)
    first = hand()
    first.turn_until(lambda: jobs.summary(directory).step > 0)
    process = next(iter(first.runner.live.values())).process
    process.kill()
    process.wait()
    hand().finish()
    assert attempts(directory) == 2 and liveness.status_of(directory).crashes == 1


def test_a_job_whose_start_was_cut_short_by_the_machine_s_end_is_started(
    workspace, make, interpreter, tell, hand, monkeypatch
):
    monkeypatch.setenv("LORATUI_STORY", str(tell()))
    monkeypatch.setenv("LORATUI_SPEED", "0")
    directory = make()
    (workspace / queue.FILE).write_text(json.dumps({"running": [queue.name_of(workspace, directory)]}))
    hand().finish()
    assert states(directory) == ["done"]


def test_interrupted_runs_are_resumed_and_those_that_a_person_stopped_are_not(submit, tell, hand, names):
    story = tell(1000)
    folders = {name: submit(name, story, 10.0) for name in ("crashed", "signalled", "told", "cancelled", "held")}
    one = hand()
    for name, how in (("crashed", signal.SIGKILL), ("signalled", signal.SIGTERM), ("told", None)):
        one.turn_until(lambda name=name: jobs.summary(folders[name]).step > 0)
        if how is None:
            jobs.control(folders[name], messages.Control(job="", name="stop"))
        else:
            os.kill(liveness.status_of(folders[name]).pid, how)
    one.turn_until(lambda: jobs.summary(folders["cancelled"]).step > 0)
    os.kill(liveness.status_of(folders["cancelled"]).pid, signal.SIGTERM)
    one.turn_until(lambda: jobs.state_of(folders["cancelled"]) == "stopped")
    jobs.retry(folders["cancelled"])
    for name in ("cancelled", "held"):
        jobs.cancel(folders[name]) if jobs.summary(folders[name]).position else None
    one.runner.live.clear()
    hand(resume=True)
    assert sorted(names()) == ["crashed", "signalled"]


def test_a_submission_while_the_runner_lets_go_is_seen_by_its_last_look(workspace, submit, monkeypatch):
    late = []

    class Idle:
        told_to_end = False

        def wait(self, seconds):
            pass

    real = locks.Lock.release

    def release(lock):
        real(lock)
        if lock.path == locks.lock_path(launch.runner_lock(workspace)) and not late:
            monkeypatch.setattr(launch, "ensure_runner", lambda workspace: False)
            late.append(submit("late"))

    monkeypatch.setattr(runner, "Alarm", Idle)
    monkeypatch.setattr(locks.Lock, "release", release)
    assert runner.serve(workspace, print, resume=False, foreground=False) == 0
    assert states(*late) == ["done"]


# Processes


@pytest.fixture
def start(workspace, interpreter, wait):
    """Start a runner as a process; at the end of the test none is left, nor any worker of this workspace."""
    started = []

    def start(*options):
        process = subprocess.Popen(
            [sys.executable, "-m", "engine.runner", workspace, *options],
            env=launch.engine_environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for directory in queue.runs(workspace):
        if locks.held(directory):
            os.kill(liveness.status_of(directory).pid, signal.SIGKILL)
    wait(lambda: not launch.runner_alive(workspace))


def test_of_two_runners_one_works_and_the_other_leaves(workspace, submit, tell, runners, start, wait):
    directory = submit(story=tell(1000), speed=10.0)
    both = [start("--foreground"), start("--foreground")]
    wait(lambda: any(process.poll() is not None for process in both))
    loser, winner = sorted(both, key=lambda process: process.poll() is None)
    assert loser.returncode == protocol.FAILED and "another runner is at work" in loser.stderr.read()
    wait(lambda: jobs.summary(directory).step > 0)
    assert launch.runner_alive(workspace) and winner.poll() is None and attempts(directory) == 1


def test_the_worker_of_a_killed_runner_goes_on_and_so_does_the_queue_with_the_next(submit, tell, runners, start, wait):
    directory, behind = submit("a", tell(40), 20.0), submit("b")
    first = start()
    wait(lambda: jobs.summary(directory).step > 0)
    first.kill()
    first.wait()
    assert states(directory) == ["running"]
    second = start()
    assert second.wait(60) == 0
    assert states(directory, behind) == ["done", "done"] and attempts(directory) == attempts(behind) == 1


def test_a_runner_in_the_foreground_takes_its_runs_along_and_the_next_goes_on_with_them(
    workspace, submit, tell, runners, start, wait, names
):
    folders = [submit("a", tell(30), 20.0), submit("b")]
    first = start("--foreground")
    wait(lambda: jobs.summary(folders[0]).step > 0)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == protocol.INTERRUPTED
    assert names() == ["a", "b"] and not locks.held(folders[0])
    assert start("--foreground", "--resume").wait(60) == 0
    assert states(*folders) == ["done", "done"] and len(events(folders[0], protocol.Resumed)) == 1


def test_a_runner_in_the_background_leaves_its_runs_alone_when_it_is_told_to_end(submit, tell, runners, start, wait):
    directory = submit(story=tell(1000), speed=10.0)
    process = start()
    wait(lambda: jobs.summary(directory).step > 0)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0 and states(directory) == ["running"]


SUBMITTER = """
import sys
from pathlib import Path
from engine.host import jobs
from engine.protocol import messages
import json
sys.executable = sys.argv[3]
for name in "abc":
    config = json.loads(sys.argv[2]) | {"name": name}
    jobs.submit(Path(sys.argv[1]), messages.Submit(config=config))
print("submitted", flush=True)
sys.stdin.read()
"""


def test_three_queued_jobs_run_to_their_end_after_the_terminal_that_queued_them_is_gone(
    workspace, interpreter, tell, start, wait, monkeypatch
):
    monkeypatch.setenv("LORATUI_STORY", str(tell(6)))
    monkeypatch.setenv("LORATUI_SPEED", "20")
    config = {"kind": "train", "model": {"base": "tiny"}, "dataset": {"subsets": [{"path": "/x"}]}}
    config["prior"] = {"weight": 0.0}
    terminal = subprocess.Popen(
        [sys.executable, "-c", SUBMITTER, workspace, json.dumps(config), interpreter],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert terminal.stdout.readline() == "submitted\n"
    os.killpg(terminal.pid, signal.SIGHUP)
    terminal.communicate()
    folders = [Path(folder) for folder in queue.runs(workspace)]
    assert len(folders) == 3
    wait(lambda: states(*folders) == ["done"] * 3 and not launch.runner_alive(workspace))
    assert (workspace / launch.RUNNER_LOG).read_text().count("started on cpu") == 3
