"""The queue on disk: its order, what is dropped from it, and how it comes back when it is damaged."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine import files, locks, protocol
from engine.config import UserError
from engine.host import jobs, queue


@pytest.fixture(autouse=True)
def no_runner(runners):
    return runners


def test_jobs_wait_in_the_order_of_their_submission_and_may_be_put_first(submit, names):
    for name in ("a", "b"):
        submit(name)
    submit("urgent", first=True)
    assert names() == ["urgent", "a", "b"]


@pytest.mark.parametrize(("place", "order"), [(1, "cabd"), (2, "acbd"), (3, "abcd"), (9, "abdc"), (0, "cabd")])
def test_a_waiting_job_is_moved_to_a_place(submit, names, place, order):
    folders = {name: submit(name) for name in "abcd"}
    told = jobs.move(folders["c"], place)
    assert names() == list(order) == [row.name for row in told.jobs]
    assert [row.position for row in told.jobs] == [1, 2, 3, 4] and not told.runner


def test_a_cancelled_job_stays_and_says_why_it_does_not_run(submit, names):
    first, _ = submit("a"), submit("b")
    assert [row.name for row in jobs.cancel(first).jobs] == ["b"] == names()
    row = jobs.summary(first)
    assert (row.state, row.position) == ("stopped", None) and "queue" in row.cause


def test_what_does_not_wait_is_neither_moved_nor_cancelled(make):
    directory = make(state="done")
    for change in (lambda: jobs.move(directory, 1), lambda: jobs.cancel(directory)):
        with pytest.raises(UserError, match="waits in the queue; found one that is done"):
            change()


def test_a_job_whose_worker_is_starting_is_not_cancelled(workspace, submit):
    directory = submit()
    with queue.changing(workspace) as entries:
        entries.running.append(entries.waiting.pop())
    with locks.hold(directory), pytest.raises(UserError, match="running"):
        jobs.cancel(directory)


def test_a_job_whose_folder_is_gone_leaves_the_queue(workspace, submit, names):
    directory = submit("a")
    submit("b")
    directory.rename(workspace / "elsewhere")
    assert [row.name for row in jobs.waiting(workspace).jobs] == ["b"]
    submit("c")
    assert names() == ["b", "c"]


def test_names_that_lead_out_of_the_workspace_or_to_no_job_are_dropped(workspace, submit, names):
    directory = submit("a")
    (workspace / "other" / "x" / "runs" / "y").mkdir(parents=True)
    good = directory.relative_to(workspace).as_posix()
    bad = ["../../etc", "/etc", "projects/default/runs/..", "other/x/runs/y", "projects/default/runs", "", f"./{good}"]
    (workspace / queue.FILE).write_text(json.dumps({"waiting": [*bad, good, good], "running": bad}))
    with queue.changing(workspace):
        pass
    assert json.loads((workspace / queue.FILE).read_text()) == {"waiting": [good], "running": []}


@pytest.mark.parametrize("content", ["", '{"waiting": [', "[1, 2]", '{"waiting": [3]}', "\0"])
def test_a_damaged_queue_is_set_aside_and_made_again_from_the_jobs(workspace, submit, make, names, content):
    for name in ("b", "a"):
        submit(name)
    make("done", state="done")
    running = make("running", state="running")
    (workspace / queue.FILE).write_text(content)
    with locks.hold(running):
        assert names() == ["a", "b"]
        submit("c")
        assert names() == ["a", "b", "c"]
        assert [Path(name).name for name in queue.read(workspace).running] == [running.name]
    assert (workspace / f"{queue.FILE}.damaged").read_text() == content


def test_a_job_that_was_submitted_and_never_queued_is_found(workspace, make, names):
    make("stray")
    make("other", state="stopped")
    alive = make("alive")
    with locks.hold(alive):
        queue.adopt_strays(workspace)
    assert names() == ["stray"]


def test_changes_at_the_same_time_are_all_made(workspace, make, names):
    folders = [make(f"job{number}") for number in range(12)]

    def append(directory):
        with queue.changing(workspace) as entries:
            entries.waiting.append(queue.name_of(workspace, directory))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(append, folders))
    assert sorted(names()) == sorted(f"job{number}" for number in range(12))


def test_a_change_that_fails_leaves_the_queue_as_it_was(workspace, submit, monkeypatch):
    submit("first")
    before = (workspace / queue.FILE).read_bytes()
    sync = files.sync

    def refuse(path):
        if "queue" in path.name:
            raise OSError(28, os.strerror(28), str(path))
        sync(path)

    monkeypatch.setattr(files, "sync", refuse)
    with pytest.raises(UserError, match="No space left"):
        submit("second")
    assert (workspace / queue.FILE).read_bytes() == before
    assert not [path for path in workspace.iterdir() if path.name.startswith(".")]


def test_who_keeps_the_queue_for_too_long_is_not_waited_for(workspace, submit, monkeypatch):
    monkeypatch.setattr(queue, "PATIENCE", 0.0)
    with locks.hold(workspace / queue.FILE), pytest.raises(UserError, match="somebody else is changing"):
        submit()


def test_a_job_with_a_damaged_status_still_waits(submit, names):
    directory = submit()
    (directory / protocol.STATUS).write_text("")
    row = jobs.summary(directory)
    assert (row.state, row.position) == ("queued", 1)


def test_a_workspace_behind_a_link_is_the_same_workspace(tmp_path, workspace, submit):
    directory = submit()
    (tmp_path / "link").symlink_to(workspace)
    seen = tmp_path / "link" / directory.relative_to(workspace)
    assert queue.name_of(workspace, seen) == queue.name_of(tmp_path / "link", directory)
    jobs.cancel(seen)
    assert jobs.waiting(workspace).jobs == []
