"""The runner: jobs in their order on free devices, to their end, whatever becomes of the runner itself.

Its workers are processes that tell a recording; the runner is turned by hand, or is a process where it gets killed.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine import files, journal, locks, protocol, runner
from engine.host import jobs, launch, liveness, placement, queue, submission
from engine.protocol import messages


def states(*directories: Path) -> list[str]:
    return [jobs.state_of(directory) for directory in directories]


def events(directory: Path, kind: type) -> list:
    read = protocol.JournalReader(directory / protocol.JOURNAL).read()
    return [event for event in read if isinstance(event, kind)]


def attempts(directory: Path) -> int:
    return len(events(directory, protocol.Attempt))


# Order and devices


def test_jobs_run_one_after_another_in_the_order_of_the_queue(workspace, submit, hand):
    folders = [submit(name) for name in "abc"]
    jobs.move(folders[2], 1)
    one = hand()
    one.finish()
    assert states(*folders) == ["done"] * 3
    started = [line.split(":")[0][-1] for line in one.said if "started on cpu" in line]
    assert started == ["c", "a", "b"]
    spans = [(liveness.status_of(directory).started, events(directory, protocol.End)[0].t) for directory in folders]
    spans.sort()
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
    assert queue.read(workspace) == queue.Entries()


def test_a_job_is_told_its_device_its_workspace_and_where_its_commands_begin(workspace, submit, tell, hand):
    directory = submit(story=tell(1000), speed=10.0)
    (directory / protocol.CONTROL).write_bytes(b'{"id": "old", "t": 0, "name": "stop"}\n')
    one = hand()
    one.turn_until(lambda: jobs.summary(directory).step > 0)
    (live,) = one.runner.live.values()
    told = dict(
        pair.split("=", 1) for pair in Path(f"/proc/{live.process.pid}/environ").read_text().split("\0") if pair
    )
    assert told[locks.DEVICE] == liveness.status_of(directory).device == "cpu"
    assert told["LORATUI_WORKSPACE"] == str(workspace) and told["PYTHONSAFEPATH"] == "1"
    assert told[launch.CONTROL_OFFSET] == "38"
    assert os.getsid(live.process.pid) == live.process.pid
    assert locks.held(directory) and locks.held(locks.device("cpu"))
    jobs.control(directory, messages.Control(job="", name="stop"))
    one.finish()
    assert states(directory) == ["stopped"] and not locks.held(locks.device("cpu"))


def test_a_job_and_its_device_are_held_from_the_moment_of_its_start(submit, hand, monkeypatch):
    directory = submit()
    seen = []
    real = launch.start_worker

    def look(*arguments):
        process = real(*arguments)
        seen.append((locks.held(directory), locks.held(locks.device("cpu")), jobs.summary(directory).state))
        return process

    monkeypatch.setattr(launch, "start_worker", look)
    one = hand()
    one.runner.turn()
    seen.append((locks.held(directory), locks.held(locks.device("cpu")), jobs.summary(directory).state))
    assert seen == [(True, True, "running")] * 2
    one.finish()


def test_two_devices_have_a_worker_each_that_sees_no_other(submit, tell, hand, monkeypatch):
    monkeypatch.setattr(placement, "list_devices", lambda: ["GPU-a", "GPU-b"])
    folders = [submit(name, tell(1000), 10.0) for name in ("first", "second", "third")]
    one = hand()
    one.turn_until(lambda: all(liveness.status_of(directory).step for directory in folders[:2]))
    given = [liveness.status_of(directory).device for directory in folders]
    assert given == ["GPU-a", "GPU-b", ""]
    for live in one.runner.live.values():
        assert f"CUDA_VISIBLE_DEVICES={live.device}\0" in Path(f"/proc/{live.process.pid}/environ").read_text()
    jobs.control(folders[1], messages.Control(job="", name="stop"))
    one.turn_until(lambda: liveness.status_of(folders[2]).step)
    assert liveness.status_of(folders[2]).device == "GPU-b"


def test_a_device_in_use_by_another_workspace_is_waited_for(submit, hand):
    directory = submit()
    one = hand()
    with locks.hold(locks.device("cpu")):
        one.runner.turn()
        assert one.runner.turn() and states(directory) == ["queued"]
    one.finish()
    assert states(directory) == ["done"]


def test_a_job_that_needs_no_device_starts_beside_others(submit, tell, hand, monkeypatch):
    slow = submit("slow", tell(1000), 10.0)
    monkeypatch.setitem(submission.NEEDS_DEVICE, "train", False)
    quick = submit("quick")
    one = hand()
    one.turn_until(lambda: states(quick) == ["done"])
    assert states(slow) == ["running"] and liveness.status_of(quick).device == ""


def test_a_job_whose_device_is_busy_lets_others_pass(submit, hand, monkeypatch):
    monkeypatch.setattr(placement, "list_devices", lambda: ["GPU-a", "GPU-b"])
    first, second = submit("first", device="cuda:0"), submit("second", device="cuda:1")
    one = hand()
    with locks.hold(locks.device("GPU-a")):
        one.turn_until(lambda: states(second) == ["done"])
        assert states(first) == ["queued"]
    one.finish()
    assert liveness.status_of(first).device == "GPU-a"


@pytest.mark.parametrize(
    ("visible", "asked", "given"),
    [
        (None, "auto", ["GPU-aa", "GPU-ab", "MIG-c"]),
        (None, "cuda", ["GPU-aa", "GPU-ab", "MIG-c"]),
        (None, "cuda:1", ["GPU-ab"]),
        (None, "cuda:7", ["cpu"]),
        (None, "cpu", ["cpu"]),
        ("", "auto", ["cpu"]),
        ("-1", "auto", ["cpu"]),
        ("2,0", "auto", ["MIG-c", "GPU-aa"]),
        ("2,0", "cuda:1", ["GPU-aa"]),
        ("1,9,0", "auto", ["GPU-ab"]),
        ("GPU-ab,MIG", "auto", ["GPU-ab", "MIG-c"]),
        ("GPU-a,1", "auto", ["cpu"]),
    ],
)
def test_a_job_may_have_the_devices_that_its_submitter_saw_and_it_asks_for(visible, asked, given):
    job = protocol.Submission(
        kind="train", name="", interpreter="", environment={} if visible is None else {placement.VISIBLE: visible},
        submitted=0.0, host="", needs_device=True, device=asked,
    )  # fmt: skip
    assert placement.choices(job, ["GPU-aa", "GPU-ab", "MIG-c"]) == given
    assert placement.choices(job, []) == ["cpu"]


# Ends, good and bad


def test_a_crashed_job_is_started_again_as_often_as_the_settings_say_and_goes_on(workspace, submit, tell, hand, names):
    (workspace / "settings.toml").write_text("retries = 2\n")
    directory, behind = submit("a", tell(3, end="")), submit("b")
    one = hand()
    one.finish()
    assert attempts(directory) == 3 and states(directory, behind) == ["crashed", "done"]
    assert [event.step for event in events(directory, protocol.Resumed)] == [3, 3]
    assert "code 1" in jobs.summary(directory).cause
    last = [line for line in one.said if "b: started" in line or "crashed" in line][-1]
    assert last.endswith("b: started on cpu"), "\n".join(one.said)


def test_a_worker_that_is_killed_is_said_to_have_been(submit, tell, hand):
    directory = submit(story=tell(1000), speed=10.0)
    one = hand()
    one.turn_until(lambda: jobs.summary(directory).step > 0)
    next(iter(one.runner.live.values())).process.kill()
    one.finish()
    row = jobs.summary(directory)
    assert row.state == "crashed" and "SIGKILL" in row.cause


def test_a_failure_of_its_own_is_not_tried_again(workspace, submit, tell, hand):
    (workspace / "settings.toml").write_text("retries = 2\n")
    directory = submit(story=tell(3, end="failed"))
    hand().finish()
    assert attempts(directory) == 1 and jobs.summary(directory).cause == "it went wrong"


def test_a_worker_that_never_begins_fails_its_job_with_what_it_printed(submit, interpreter, hand):
    interpreter.write_text("#!/bin/sh\necho no such module >&2\nexit 3\n")
    directory, behind = submit("a"), submit("b")
    hand().finish()
    assert states(directory, behind) == ["failed", "failed"]
    cause = jobs.summary(directory).cause
    assert "before it began (code 3)" in cause and "no such module" in cause


def test_an_interpreter_that_is_gone_fails_its_jobs_alone(submit, interpreter, hand, monkeypatch):
    directory = submit("a")
    shutil.copy(interpreter, interpreter.with_name("python2"))
    monkeypatch.setattr(sys, "executable", str(interpreter.with_name("python2")))
    behind = submit("b")
    interpreter.unlink()
    hand().finish()
    assert states(directory, behind) == ["failed", "done"] and str(interpreter) in jobs.summary(directory).cause


def test_a_job_whose_config_and_submission_are_lost_fails_alone(submit, hand):
    directory, behind = submit("a"), submit("b")
    (directory / protocol.SUBMISSION).write_text("")
    (directory / protocol.CONFIG).write_text("kind = ")
    hand().finish()
    assert states(directory, behind) == ["failed", "done"]


def test_a_job_that_is_cancelled_before_its_turn_is_not_started(submit, hand):
    first, second = submit("a"), submit("b")
    jobs.cancel(second)
    hand().finish()
    assert states(first, second) == ["done", "stopped"] and attempts(second) == 0


def test_a_run_whose_folder_is_deleted_is_stopped_and_the_next_one_starts(submit, tell, hand):
    directory, behind = submit("a", tell(1000), 10.0), submit("b")
    one = hand()
    one.turn_until(lambda: jobs.summary(directory).step > 0)
    shutil.rmtree(directory)
    one.finish()
    assert states(behind) == ["done"] and not directory.exists()
    assert any("its folder is gone" in line for line in one.said)


def test_a_disk_that_is_full_when_a_job_starts_costs_nothing(workspace, submit, tell, hand, monkeypatch):
    directory, behind = submit("a", tell(1000), 10.0), submit("b")
    one = hand()
    real = files.write_bytes

    def refuse(path, content):
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr(files, "write_bytes", refuse)
    one.turn_until(lambda: jobs.state_of(directory) == "running")
    one.runner.turn()
    assert any("No space left" in line for line in one.said)
    assert len(one.runner.live) == 1 and len(queue.read(workspace).waiting) == 2
    monkeypatch.setattr(files, "write_bytes", real)
    one.turn_until(lambda: len(queue.read(workspace).waiting) == 1)
    jobs.control(directory, messages.Control(job="", name="stop"))
    one.finish()
    assert states(directory, behind) == ["stopped", "done"] and attempts(directory) == 1


def test_a_disk_that_refuses_the_start_itself_is_tried_again(submit, hand, monkeypatch):
    directory = submit()
    one = hand()
    real = launch.start_worker

    def refuse(*_):
        raise OSError(11, "try again")

    monkeypatch.setattr(launch, "start_worker", refuse)
    assert one.runner.turn() and one.runner.turn()
    assert states(directory) == ["queued"] and any("try again" in line for line in one.said)
    monkeypatch.setattr(launch, "start_worker", real)
    one.finish()
    assert states(directory) == ["done"]


# One runner after another


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


def test_the_time_of_a_clock_that_was_set_back_holds_nothing_up(submit, hand, monkeypatch):
    directory = submit()
    monkeypatch.setattr(journal.time, "time", lambda: 1.0)
    hand().finish()
    assert states(directory) == ["done"]
