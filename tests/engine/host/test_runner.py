"""The runner: jobs in their order on free devices, to their end, good or bad.

Its workers are processes that tell a recording; the runner is turned by hand.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from pathlib import Path

import pytest
from host_jobs import attempts, events, states

from engine import files, journal, locks, protocol
from engine.host import jobs, launch, liveness, placement, queue, submission
from engine.protocol import messages

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


def test_the_time_of_a_clock_that_was_set_back_holds_nothing_up(submit, hand, monkeypatch):
    directory = submit()
    monkeypatch.setattr(journal.time, "time", lambda: 1.0)
    hand().finish()
    assert states(directory) == ["done"]
