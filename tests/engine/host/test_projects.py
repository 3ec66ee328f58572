"""Projects are listed, made, renamed and thrown away; only while their jobs rest, and never by halves."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from engine import journal, locks
from engine.errors import UserError
from engine.host import launch, projects, queue, records
from engine.protocol.messages import JobSummary


@pytest.fixture(autouse=True)
def no_runner(runners):
    return runners


def row(project: str, state: str, updated: float) -> JobSummary:
    return JobSummary(id="a", project=project, kind="train", name="a", state=state, path="/", updated=updated)


def wait_in_queue(workspace: Path, directory: Path) -> None:
    with queue.changing(workspace) as entries:
        entries.waiting.append(queue.name_of(workspace, directory))


def names(workspace: Path) -> list[str]:
    return sorted(path.name for path in (workspace / "projects").iterdir())


def test_projects_are_the_folders_and_what_runs_in_them(tmp_path):
    for name in ("cats", "empty", ".trash"):
        (tmp_path / "projects" / name).mkdir(parents=True)
    late = time.time() + 1000
    jobs = [row("cats", "running", 5.0), row("cats", "done", late), row("cats", "stalled", 7.0)]
    cats, empty = projects.projects(tmp_path, jobs).projects
    assert (cats.name, cats.path, cats.jobs, cats.running) == ("cats", str(tmp_path / "projects" / "cats"), 3, 2)
    assert cats.updated == late
    assert (empty.name, empty.jobs, empty.running) == ("empty", 0, 0)
    assert empty.updated > 0


def test_a_workspace_that_is_not_there_has_no_projects(tmp_path):
    assert projects.projects(tmp_path / "nowhere", []).projects == []


def test_a_project_is_made_once(tmp_path):
    made = projects.create(tmp_path, "my cats ü")
    assert (tmp_path / "projects" / "my cats ü" / "runs").is_dir()
    assert projects.projects(tmp_path, []).projects == [made]
    with pytest.raises(UserError, match="a new project"):
        projects.create(tmp_path, "my cats ü")


ODD_NAMES = ["", " ", ".", "..", ".hidden", "a/b", "a\\b", "a\0b", "a\nb", "../up", "x" * 200]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_project_is_a_plain_folder_name(tmp_path, name):
    with pytest.raises(UserError, match="a plain folder name"):
        projects.create(tmp_path, name)
    assert not (tmp_path / "projects").exists()


# Renaming


def test_a_renamed_project_takes_its_jobs_along(workspace, make):
    directory = make(project="cats", state="stopped")
    made = projects.rename(workspace, "cats", "dogs [b]")
    assert (made.name, made.jobs, made.path) == ("dogs [b]", 1, str(workspace / "projects" / "dogs [b]"))
    found = records.find(workspace, directory.name)
    assert found == workspace / "projects" / "dogs [b]" / "runs" / directory.name
    assert records.summary(found).project == "dogs [b]"
    assert names(workspace) == ["dogs [b]"]


def test_a_project_keeps_a_name_that_it_has_already(workspace, make):
    make(project="cats", state="done")
    assert projects.rename(workspace, "cats", "cats").jobs == 1


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_project_is_not_renamed_to_what_is_no_plain_folder_name(workspace, make, name):
    make(project="cats", state="done")
    with pytest.raises(UserError, match="a plain folder name"):
        projects.rename(workspace, "cats", name)
    assert names(workspace) == ["cats"]


@pytest.mark.parametrize("name", [*ODD_NAMES, "../projects/cats", "cats/runs", "nothing"])
def test_what_is_no_project_is_neither_renamed_nor_removed(workspace, make, name):
    make(project="cats", state="done")
    for attempt in (lambda: projects.rename(workspace, name, "dogs"), lambda: projects.remove(workspace, name)):
        with pytest.raises(UserError, match="expected a project of"):
            attempt()
    assert names(workspace) == ["cats"]


@pytest.mark.parametrize("empty", [True, False])
def test_a_project_is_not_renamed_onto_another(workspace, make, empty):
    make(project="cats", state="done")
    other = workspace / "projects" / "dogs"
    other.mkdir()
    if not empty:
        (other / "note.txt").touch()
    with pytest.raises(UserError, match="a new project"):
        projects.rename(workspace, "cats", "dogs")
    assert names(workspace) == ["cats", "dogs"]


@pytest.fixture(params=["rename", "remove"])
def move(request, workspace):
    if request.param == "rename":
        return lambda: projects.rename(workspace, "cats", "dogs")
    return lambda: projects.remove(workspace, "cats")


def test_a_project_with_a_live_job_stays_where_it_is(workspace, make, move):
    make("other", project="cats", state="done")
    directory = make(project="cats", state="running", host=journal.host(), boot_id=journal.boot_id())
    with locks.hold(directory), pytest.raises(UserError, match=rf"1 running \({directory.name}\)") as refused:
        move()
    assert "stop what runs" in refused.value.problems[0].advice
    assert names(workspace) == ["cats"]


def test_a_project_with_jobs_that_wait_stays_where_it_is(workspace, make, move):
    for number in range(5):
        wait_in_queue(workspace, make(f"c{number}", project="cats"))
    with pytest.raises(UserError, match=r"5 waiting \(\S+-c0, \S+-c1, \S+-c2 …\)"):
        move()
    assert names(workspace) == ["cats"] and len(queue.read(workspace).waiting) == 5


def test_a_project_whose_job_runs_on_another_machine_stays_where_it_is(workspace, make, move):
    make(project="cats", state="running", host="another", boot_id="x")
    with pytest.raises(UserError, match="1 running"):
        move()


def test_a_project_whose_job_a_live_runner_has_in_hand_stays_where_it_is(workspace, make, move):
    directory = make(project="cats", state="done")
    with queue.changing(workspace) as entries:
        entries.running.append(queue.name_of(workspace, directory))
    with locks.hold(launch.runner_lock(workspace)), pytest.raises(UserError, match="1 running"):
        move()


def test_what_a_dead_runner_had_in_hand_is_known_by_its_new_name(workspace, make):
    other = make(project="cats2", state="stopped")
    directory = make(project="cats", state="stopped")
    with queue.changing(workspace) as entries:
        entries.running += [queue.name_of(workspace, other), queue.name_of(workspace, directory)]
    projects.rename(workspace, "cats", "dogs")
    assert queue.read(workspace).running == [
        f"projects/cats2/runs/{other.name}", f"projects/dogs/runs/{directory.name}"
    ]  # fmt: skip


def test_a_disk_that_refuses_leaves_a_project_whole(workspace, make, move, monkeypatch):
    directory = make(project="cats", state="done")
    before = queue.read(workspace)

    def refuse(*paths):
        raise PermissionError(13, "Permission denied", str(paths[0]))

    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr("shutil.move", refuse)
    with pytest.raises(UserError, match="a workspace that can be written to"):
        move()
    assert directory.is_dir() and queue.read(workspace) == before


# Removing


def test_a_removed_project_lies_in_the_trash_beside_what_was_there_before(workspace, make):
    for expected in ("cats", "cats-2", "cats-3"):
        directory = make(project="cats", state="done")
        size = records.size_of(directory.parents[1])
        told = projects.remove(workspace, "cats")
        assert told.path == str(workspace / "projects" / "cats") and told.bytes == size > 0
        assert told.trash == str(workspace / "trash" / expected)
        assert (workspace / "trash" / expected / "runs" / directory.name / "config.toml").is_file()
        assert names(workspace) == []


def test_the_queue_forgets_a_removed_project(workspace, make):
    directory = make(project="cats", state="stopped")
    with queue.changing(workspace) as entries:
        entries.running.append(queue.name_of(workspace, directory))
    projects.remove(workspace, "cats")
    assert queue.read(workspace) == queue.Entries()
