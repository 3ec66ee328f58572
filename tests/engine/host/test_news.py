"""Whoever watches a workspace is told everything once, then what changes, whoever changes it; for next to nothing."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from engine import files, journal, locks, protocol
from engine.host import jobs, launch, news, projects, queue, records
from engine.host.methods import Methods
from engine.host.pipe import HIGH, Outbox
from engine.host.server import Then
from engine.protocol import browse, messages


@pytest.fixture(autouse=True)
def no_runner(runners):
    return runners


@pytest.fixture
def survey(workspace):
    return news.Survey(workspace)


def write(directory: Path, **status) -> None:
    files.write_bytes(directory / protocol.STATUS, protocol.Status(**{"updated": time.time(), **status}).to_bytes())


def here(**status) -> dict:
    return {"state": "running", "host": journal.host(), "boot_id": journal.boot_id(), "attempt": 1, **status}


def long_ago(workspace: Path) -> None:
    """Let everything look as if nobody had touched it for an hour."""
    for folder, _, names in os.walk(workspace, topdown=False):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            os.utime(path, (time.time() - 3600,) * 2)


def states(told: messages.WorkspaceNews | None) -> dict[str, str]:
    return {row.name: row.state for row in told.jobs} if told is not None else {}


def test_the_first_news_is_everything_newest_first(workspace, survey, make):
    oldest = make("a", project="cats", state="done")
    newest = make("b", project="dogs", state="failed", cause="it went wrong")
    for directory, when in ((oldest, 1000.0), (newest, 2000.0)):
        submission = msgspec.json.decode((directory / protocol.SUBMISSION).read_bytes())
        (directory / protocol.SUBMISSION).write_bytes(msgspec.json.encode(submission | {"submitted": when}))
    (workspace / "projects" / "empty").mkdir()
    told = survey.look()
    assert told.whole and not told.runner and told.gone == []
    assert told.jobs == records.summaries(workspace) and [row.name for row in told.jobs] == ["b", "a"]
    assert told.projects == projects.projects(workspace, told.jobs).projects
    assert survey.look() is None


def test_a_workspace_that_is_not_there_yet_is_told_and_watched(workspace, survey, make):
    shutil.rmtree(workspace)
    assert survey.look() == messages.WorkspaceNews(projects=[], whole=True)
    make("a", state="done")
    assert states(survey.look()) == {"a": "done"}


def test_a_job_that_another_program_submits_is_told_with_its_place(workspace, survey, submit, tell):
    long_ago(workspace)
    survey.look()
    submit("a", tell())
    submit("b", tell(), first=True)
    told = survey.look()
    assert {row.name: row.position for row in told.jobs} == {"a": 2, "b": 1}
    assert not told.whole and [(one.name, one.jobs) for one in told.projects] == [("default", 2)]
    jobs.move(records.find(workspace, "a"), 1)
    told = survey.look()
    assert {row.name: row.position for row in told.jobs} == {"a": 1, "b": 2} and told.projects is None


def test_the_life_of_a_job_is_told(workspace, survey, make):
    directory = make("a", state="stopped")
    long_ago(workspace)
    survey.look()
    jobs.retry(directory)
    assert states(survey.look()) == {"a": "queued"}
    with locks.hold(directory):
        with queue.changing(workspace) as entries:
            entries.waiting, entries.running = [], entries.waiting
        told = survey.look()
        assert states(told) == {"a": "running"} and told.projects[0].running == 1
        write(directory, **here(step=3))
        assert survey.look().jobs[0].step == 3
        assert survey.look() is None
        write(directory, **here(step=4, state="paused"))
        assert states(survey.look()) == {"a": "paused"}
    told = survey.look()
    assert states(told) == {"a": "crashed"} and told.projects[0].running == 0
    write(directory, **here(cause="killed by signal 9"))
    assert "signal 9" in survey.look().jobs[0].cause
    write(directory, state="done")
    assert states(survey.look()) == {"a": "done"}


def test_a_finished_job_that_is_started_by_hand_is_told_at_the_next_recount(workspace, survey, make):
    directory = make("a", state="stopped")
    long_ago(workspace)
    survey.look()
    with locks.hold(directory):
        write(directory, **here())
        assert survey.look() is None
        survey._recount_at = time.monotonic()
        assert states(survey.look()) == {"a": "running"}


def test_a_job_of_another_machine_is_found_dead_when_it_was_silent_for_long(workspace, survey, make, monkeypatch):
    directory = make("a", **here(host="elsewhere"))
    assert states(survey.look()) == {"a": "elsewhere"}
    later = time.time() + 7200
    monkeypatch.setattr(time, "time", lambda: later)
    survey._recount_at = time.monotonic()
    assert states(survey.look()) == {"a": "crashed"}
    assert (directory / protocol.STATUS).exists()


def test_a_removed_job_is_gone(workspace, survey, make):
    directory, _ = make("a", state="done"), make("b", state="done")
    long_ago(workspace)
    survey.look()
    jobs.remove(directory)
    told = survey.look()
    assert told.gone == [directory.name] and told.jobs == [] and [one.jobs for one in told.projects] == [1]
    assert survey.look() is None


def test_a_job_whose_folder_vanishes_during_a_look_is_no_news_of_another_kind(workspace, survey, make, monkeypatch):
    directory = make("a", **here())
    survey.look()
    real = survey._list

    def list_first(everything):
        found = real(everything)
        shutil.rmtree(directory)
        return found

    monkeypatch.setattr(survey, "_list", list_first)
    assert survey.look() is None
    monkeypatch.setattr(survey, "_list", real)
    assert survey.look().gone == [directory.name]


def test_projects_that_come_and_go_are_told(workspace, survey, make):
    directory = make("a", project="cats", state="done")
    long_ago(workspace)
    survey.look()
    projects.create(workspace, "birds")
    assert [one.name for one in survey.look().projects] == ["birds", "cats"]
    projects.rename(workspace, "cats", "dogs")
    told = survey.look()
    assert [one.name for one in told.projects] == ["birds", "dogs"]
    assert [(row.id, row.project) for row in told.jobs] == [(directory.name, "dogs")] and told.gone == []
    projects.remove(workspace, "dogs")
    told = survey.look()
    assert [one.name for one in told.projects] == ["birds"] and told.gone == [directory.name]


def test_a_runner_that_comes_and_goes_is_told(workspace, survey):
    assert not survey.look().runner
    with locks.hold(launch.runner_lock(workspace)):
        assert survey.look() == messages.WorkspaceNews(runner=True)
    assert survey.look() == messages.WorkspaceNews()


def test_two_changes_within_a_tick_of_the_clock_are_both_told(workspace, survey, make):
    make("a", state="done")
    survey.look()
    runs = workspace / "projects" / "default" / "runs"
    before = runs.stat()
    make("b", state="done")
    os.utime(runs, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert states(survey.look()) == {"b": "done"}


def test_a_queue_that_is_damaged_stops_no_news(workspace, survey, make):
    make("a")
    (workspace / queue.FILE).write_bytes(b"{")
    assert states(survey.look()) == {"a": "queued"}


def test_nothing_is_read_where_nothing_moves(workspace, survey, make, monkeypatch):
    for number in range(5):
        make(f"a{number}", state="done")
    long_ago(workspace)
    survey.look()
    monkeypatch.setattr(os, "open", lambda path, *_: pytest.fail(f"{path} is opened") if "runs" in str(path) else -1)
    monkeypatch.setattr(os, "scandir", lambda path: pytest.fail(f"{path} is listed"))
    monkeypatch.setattr(locks, "held", lambda guarded: False)
    stat, looked_at = os.stat, []
    monkeypatch.setattr(os, "stat", lambda path, **kind: (looked_at.append(str(path)), stat(path, **kind))[1])
    assert survey.look() is None
    assert {Path(path).name for path in looked_at} <= {"projects", "runs", queue.FILE}
    assert len(looked_at) < 8


def test_a_folder_that_can_not_be_read_hides_itself_and_nothing_else(workspace, survey, make, monkeypatch):
    make("a", project="cats", state="done")
    make("b", project="dogs", state="done")
    scandir = os.scandir

    def refuse(path):
        if "dogs" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert states(survey.look()) == {"a": "done"}


# The thread


class Listener:
    """The end of the pipe."""

    def __init__(self) -> None:
        source, sink = os.pipe()
        self.outbox = Outbox(sink)
        self.file = os.fdopen(source, "rb")

    def next(self) -> messages.WorkspaceNews:
        reply = msgspec.json.decode(self.file.readline(), type=messages.Reply)
        assert reply.method == "workspace"
        return msgspec.json.decode(reply.params, type=messages.WorkspaceNews)


@pytest.fixture
def listener(wait):
    listener = Listener()
    yield listener
    listener.file.close()
    wait(lambda: (listener.outbox.put(b"\n"), not listener.outbox.wait_for_room())[1])


@pytest.fixture
def table(workspace, listener, monkeypatch):
    monkeypatch.setattr(news, "INTERVAL", 0.01)
    return Methods(workspace, listener.outbox).table()


def call(table, method: str, params: messages.Message) -> messages.Message:
    told = table[method](params)
    if isinstance(told, Then):
        told.act()
        return told.result
    return told


def test_a_host_tells_what_is_new_and_everything_again_to_who_asks_again(table, listener, make):
    directory = make("a", state="done")
    call(table, "workspace.watch", messages.Nothing())
    assert listener.next().whole
    write(directory, state="failed")
    told = listener.next()
    assert states(told) == {"a": "failed"} and not told.whole
    call(table, "workspace.watch", messages.Nothing())
    assert listener.next().whole


def test_what_is_changed_through_a_host_is_told_without_waiting(table, listener, monkeypatch):
    call(table, "workspace.watch", messages.Nothing())
    listener.next()
    monkeypatch.setattr(news, "INTERVAL", 1e6)
    call(table, "projects.create", browse.ProjectRef(name="cats"))
    told = listener.next()
    while told.projects is None:
        told = listener.next()
    assert [one.name for one in told.projects] == ["cats"]


def test_a_disk_that_fails_for_a_moment_ends_nothing(table, listener, make, monkeypatch, wait):
    make("a", state="done")
    call(table, "workspace.watch", messages.Nothing())
    listener.next()
    failed = []
    real = news.Survey.look

    def fail(survey):
        if len(failed) < 2:
            failed.append(1)
            raise OSError(5, "Input/output error")
        return real(survey)

    monkeypatch.setattr(news.Survey, "look", fail)
    told = listener.next()
    assert told.whole and len(failed) == 2


def test_nothing_is_looked_at_while_nobody_reads(table, listener, make, monkeypatch, wait):
    directory = make("a", state="done")
    call(table, "workspace.watch", messages.Nothing())
    listener.next()
    asked, looks = [], []
    room, look = listener.outbox.wait_for_room, news.Survey.look
    monkeypatch.setattr(news.Survey, "look", lambda survey: (looks.append(1), look(survey))[1])
    listener.outbox.put(b"x" * (2 * HIGH) + b"\n")
    monkeypatch.setattr(listener.outbox, "wait_for_room", lambda: (asked.append(1), room())[1])
    wait(lambda: asked)
    before = len(looks)
    write(directory, state="failed")
    call(table, "projects.create", browse.ProjectRef(name="cats"))
    assert len(looks) == before
    assert len(listener.file.readline()) == 2 * HIGH + 1
    told = listener.next()
    assert states(told) == {"a": "failed"} and [one.name for one in told.projects] == ["cats", "default"]


def test_a_runner_that_was_killed_with_jobs_in_hand_is_started_again(workspace, table, listener, make, runners, wait):
    directory = make("a", **here())
    with queue.changing(workspace) as entries:
        entries.running.append(queue.name_of(workspace, directory))
    call(table, "workspace.watch", messages.Nothing())
    assert states(listener.next()) == {"a": "crashed"}
    wait(lambda: runners)
    assert runners == [workspace]
