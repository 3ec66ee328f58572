"""Jobs as directories: submitting, finding, judging, commanding, removing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from engine import journal, locks, protocol
from engine.config import UserError
from engine.host import jobs, launch, liveness, queue, records
from engine.protocol import messages


@pytest.fixture(autouse=True)
def no_runner(runners):
    return runners


def submission_of(directory: Path) -> protocol.Submission:
    return msgspec.json.decode((directory / protocol.SUBMISSION).read_bytes(), type=protocol.Submission)


def here(**status) -> dict:
    """A status as a worker on this machine writes it."""
    return {"state": "running", "host": journal.host(), "boot_id": journal.boot_id(), "attempt": 1, **status}


# Submitting


def test_a_submitted_job_is_a_folder_with_everything_in_it_queued_and_a_runner_is_called(submit, names, runners):
    directory = submit("my cat")
    assert directory.name.endswith("-my-cat") and directory.parent.parent.name == "default"
    assert 'name = "my cat"' in (directory / protocol.CONFIG).read_text()
    row = jobs.summary(directory)
    assert (row.state, row.position, row.kind, row.name) == ("queued", 1, "train", "my cat")
    assert names() == ["my-cat"] and runners == [directory.parents[3]]
    assert submission_of(directory).interpreter == sys.executable
    assert not [path for path in directory.parent.iterdir() if path.name.startswith(".")]


def test_what_matters_of_the_environment_is_frozen_and_secrets_are_not(submit, monkeypatch):
    for name, value in {"HF_HOME": "/hub", "CUDA_VISIBLE_DEVICES": "1", "HF_TOKEN": "hf_secret", "AWS_SECRET": "x",
                        "EDITOR": "vi", locks.DEVICE: "GPU-1"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    frozen = submission_of(submit()).environment
    assert frozen["HF_HOME"] == "/hub" and frozen["CUDA_VISIBLE_DEVICES"] == "1" and frozen["PYTHONSAFEPATH"] == "1"
    assert not {"HF_TOKEN", "AWS_SECRET", "EDITOR", locks.DEVICE} & set(frozen)


def test_a_job_finds_the_submitter_s_variables_unset_ones_too_and_the_runner_s_secrets(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    thawed = launch.thaw({"HF_HOME": "/hub"})
    assert thawed["HF_HOME"] == "/hub" and thawed["HF_TOKEN"] == "hf_secret" and "CUDA_VISIBLE_DEVICES" not in thawed


def test_every_mistake_of_a_request_is_told_and_nothing_is_left_behind(workspace):
    table = {"kind": "train", "model": {"base": "tiny"}, "adapter": {"rank": 0}, "nmae": 1}
    with pytest.raises(UserError) as refused:
        jobs.submit(workspace, messages.Submit(config=table))
    assert {problem.field for problem in refused.value.problems} == {"adapter.rank", "nmae", "dataset"}
    assert not list(workspace.iterdir())


def test_a_held_job_waits_for_nobody_and_can_be_started_later(submit, names, runners):
    directory = submit(hold=True)
    assert jobs.summary(directory).state == "stopped" and names() == [] and runners == []
    assert jobs.retry(directory).queued
    assert names() == ["cat"] and jobs.summary(directory).state == "queued"


def test_submitters_at_the_same_time_get_different_jobs_and_none_is_lost(workspace, submit, names):
    submit("first")
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: submit("same"), range(16)))
    assert len(set(folders)) == 16
    assert sorted(names()) == sorted(["first", "same", *(f"same-{number}" for number in range(2, 17))])


def test_an_id_means_one_job_in_all_projects(submit, workspace):
    first, second = submit("twin", project="one"), submit("twin", project="two")
    assert first.name != second.name
    assert jobs.find(workspace, second.name) == second


def test_a_name_of_many_wide_letters_still_makes_a_folder(submit):
    assert submit("猫" * 80).is_dir()


@pytest.mark.parametrize("place", ["engine.files.write_bytes", "engine.files.sync"])
def test_a_disk_that_refuses_is_named_and_nothing_is_left_of_the_job(submit, workspace, monkeypatch, place):
    def refuse(path, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(place, refuse)
    with pytest.raises(UserError) as refused:
        submit()
    (problem,) = refused.value.problems
    assert str(workspace) in problem.where and "No space left" in problem.found and "room" in problem.advice
    assert not list((workspace / "projects" / "default" / "runs").iterdir())


# States


@pytest.mark.parametrize(
    ("status", "alive", "state"),
    [
        ({"state": "queued"}, False, "queued"),
        ({"state": "queued", "updated": 1.0}, True, "running"),
        (here(), True, "running"),
        (here(state="paused", updated=1.0), True, "paused"),
        (here(updated=1.0), True, "stalled"),
        (here(updated=time.time() - 1000, stage="train"), True, "stalled"),
        (here(updated=time.time() - 1000, stage="load"), True, "running"),
        (here(updated=time.time() + 9e6), True, "running"),
        (here(), False, "crashed"),
        (here(state="paused"), False, "crashed"),
        (here(boot_id="another"), False, "crashed"),
        (here(host="another"), False, "elsewhere"),
        (here(host="another", updated=1.0), False, "crashed"),
        (here(host="another", state="paused", updated=1.0), False, "elsewhere"),
        ({"state": "done"}, False, "done"),
        ({"state": "released"}, False, "released"),
    ],
)
def test_a_state_is_told_from_lock_machine_and_boot(make, status, alive, state):
    directory = make(**status)
    lock = locks.take(directory) if alive else None
    assert jobs.state_of(directory) == jobs.summary(directory).state == state
    if lock:
        lock.release()


def test_a_crash_is_told_with_the_end_of_the_log_and_what_to_do(make):
    directory = make(**here(cause="its process died without a last word (killed by SIGKILL)"))
    (directory / protocol.LOG).write_text("step 3\nRuntimeError: out of something\n\n")
    row = jobs.summary(directory)
    assert row.state == "crashed" and "SIGKILL" in row.cause and "RuntimeError: out of something" in row.cause
    assert any("resume" in advice for advice in row.advice)
    assert "step 3" in jobs.details(directory).log
    assert "restarted" in jobs.summary(make("dog", **here(boot_id="another"))).cause


def test_a_worker_that_ends_in_good_order_between_two_looks_has_not_crashed(make, monkeypatch):
    directory = make(**here())

    def ends_meanwhile(guarded):
        (directory / protocol.STATUS).write_bytes(protocol.Status(state="done").to_bytes())
        return False

    monkeypatch.setattr(locks, "held", ends_meanwhile)
    assert jobs.summary(directory).state == "done"


@pytest.mark.parametrize("content", [b"", b'{"state": "runn', b'{"state": "of another version"}', b"\xff\xfe", None])
def test_a_damaged_status_is_told_from_the_journal(make, content):
    directory = make(**here())
    with journal.Journal(directory) as log:
        log.emit(protocol.Step(step=7, loss=0.5), protocol.End(state="done", code=0, step=7))
    if content is None:
        (directory / protocol.STATUS).unlink()
    else:
        (directory / protocol.STATUS).write_bytes(content)
    row = jobs.summary(directory)
    assert (row.state, row.step, row.loss) == ("done", 7, 0.5)


def test_there_is_a_row_for_every_folder_whatever_it_holds(workspace, make):
    runs = make().parent
    (runs / "20260101-1200-empty").mkdir()
    damaged = make("damaged")
    for name in (protocol.STATUS, protocol.SUBMISSION, protocol.CONFIG):
        (damaged / name).write_bytes(b"\xff")
    odd = make("odd")
    (odd / protocol.STATUS).unlink()
    (odd / protocol.STATUS).mkdir()
    (runs / ".hidden.tmp").mkdir()
    (runs / "a file").write_text("")
    rows = {row.name: row for row in jobs.summaries(workspace)}
    assert {name: row.state for name, row in rows.items()} == {
        "cat": "queued", "empty": "stopped", "damaged": "stopped", "odd": "stopped",
    }  # fmt: skip
    assert rows["empty"].submitted == time.mktime((2026, 1, 1, 12, 0, 0, 0, 0, -1))
    assert jobs.details(runs / "20260101-1200-empty").config == ""


def test_a_folder_that_is_gone_has_a_row_too(make):
    directory = make(**here())
    with locks.hold(directory):
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
        assert jobs.summary(directory).state == "stopped"
    assert jobs.state_of(directory) == "stopped"


def test_lists_are_newest_first_of_one_project_and_no_longer_than_asked(workspace, make):
    for number, name in enumerate(("a", "b", "c")):
        directory = make(name, project="other" if name == "b" else "default")
        told = json.loads((directory / protocol.SUBMISSION).read_text()) | {"submitted": float(number)}
        (directory / protocol.SUBMISSION).write_text(json.dumps(told))
    assert [row.name for row in jobs.summaries(workspace)] == ["c", "b", "a"]
    assert [row.name for row in jobs.summaries(workspace, project="other")] == ["b"]
    assert [row.name for row in jobs.summaries(workspace, limit=2)] == ["c", "b"]


def test_details_tell_files_that_are_finished_and_the_advice_of_the_end(make):
    directory = make(state="failed")
    (directory / protocol.CHECKPOINTS).mkdir()
    for name in ("a-step1.safetensors", ".a-step2.tmp.safetensors", "a-step1.state"):
        (directory / protocol.CHECKPOINTS / name).write_bytes(b"x" * 10)
    end = protocol.End(state="failed", code=1, cause="out of memory", advice=["training.batch = 1"], step=1)
    (directory / protocol.JOURNAL).write_bytes(
        protocol.encode(protocol.Stage(name="x" * 70_000)) + protocol.encode(end)
    )
    told = jobs.details(directory)
    assert told.summary.advice == ["training.batch = 1"]
    assert told.checkpoints == [str(directory / protocol.CHECKPOINTS / "a-step1.safetensors")]
    assert told.bytes > 70_000 and "[model]" in told.config


# Finding


def test_a_job_is_found_by_id_by_the_end_of_it_and_by_its_folder(workspace, make):
    cat, dog = make("cat"), make("hot dog")
    assert jobs.find(workspace, cat.name) == jobs.find(workspace, "cat") == jobs.find(workspace, str(cat)) == cat
    assert jobs.find(workspace, "dog") == dog


def test_a_job_is_found_by_its_id_without_a_look_at_all_others(workspace, make, monkeypatch):
    directory = make("cat", project="a")
    make("dog", project="b")
    monkeypatch.setattr(queue, "runs", lambda workspace: pytest.fail("all runs are listed"))
    assert jobs.find(workspace, directory.name) == directory


def test_an_id_that_two_projects_have_is_nobodys(workspace, make):
    directory = make("cat", project="a")
    shutil.copytree(directory.parents[1], workspace / "projects" / "b")
    with pytest.raises(UserError, match="which 2 runs have"):
        jobs.find(workspace, directory.name)


def test_a_name_of_none_or_of_several_is_answered_with_what_there_is(workspace, make):
    with pytest.raises(UserError, match="no runs yet"):
        jobs.find(workspace, "cat")
    make("cat", project="a"), make("big cat", project="b", state="done")
    with pytest.raises(UserError, match="which 2 runs have"):
        jobs.find(workspace, "cat")


# Commands


def control(directory, name, **arguments):
    return jobs.control(directory, messages.Control(job=directory.name, name=name, **arguments))


def commands(directory):
    lines = (directory / protocol.CONTROL).read_bytes().splitlines()
    return [msgspec.json.decode(line, type=protocol.ControlLine) for line in lines if line.endswith(b"}")]


def test_a_live_job_gets_its_commands_as_lines_behind_whatever_was_torn(make):
    directory = make(**here())
    (directory / protocol.CONTROL).write_bytes(b'{"id": "to')
    with locks.hold(directory):
        first = control(directory, "set", field="optimizer.lr_unet", value=1e-5)
        second = control(directory, "pause", release=True)
    told = commands(directory)
    assert [command.id for command in told] == [first.id, second.id] and first.id != second.id
    assert (told[0].field, told[0].value, told[1].release) == ("optimizer.lr_unet", 1e-5, True)


@pytest.mark.parametrize("name", ["pause", "stop", "checkpoint", "sample", "set"])
def test_a_job_that_does_not_run_takes_no_commands(make, name):
    directory = make(state="done")
    with pytest.raises(UserError, match="done"):
        control(directory, name)
    assert not (directory / protocol.CONTROL).exists()


def test_stopping_a_waiting_job_takes_it_out_of_the_queue_and_resuming_brings_it_back(submit, names):
    directory = submit()
    assert control(directory, "stop").id == ""
    assert names() == [] and jobs.summary(directory).state == "stopped"
    assert control(directory, "resume").id == ""
    assert names() == ["cat"]
    with pytest.raises(UserError, match="queued"):
        control(directory, "resume")


@pytest.mark.parametrize("state", ["stopped", "failed", "released", "refused", "running"])
def test_an_ended_job_is_queued_again_and_keeps_what_it_has_reached(make, names, runners, state):
    directory = make(**here(state=state, step=50, attempt=2, crashes=1))
    told = jobs.retry(directory)
    assert (told.id, told.queued, names()) == (directory.name, True, ["cat"])
    status = liveness.status_of(directory)
    assert (status.state, status.step, status.attempt, status.crashes) == ("queued", 50, 2, 0)
    assert runners


def test_a_job_from_before_there_were_submissions_can_be_queued(make, names):
    directory = make(state="stopped")
    (directory / protocol.SUBMISSION).unlink()
    jobs.retry(directory)
    assert names() == ["cat"] and submission_of(directory).name == "cat"


def test_what_is_done_or_alive_or_elsewhere_is_not_queued_again(make):
    alive = make("alive", **here())
    with locks.hold(alive):
        for directory in (make("done", state="done"), make("far", **here(host="another")), alive):
            with pytest.raises(UserError):
                jobs.retry(directory)


# Removing


def test_a_removed_job_lies_in_the_trash_under_a_name_that_was_free(workspace, submit, make, names):
    for _ in range(2):
        directory = submit("cat")
        moved = directory.with_name("20260101-1200-cat")
        directory.rename(moved)
        with queue.changing(workspace) as entries:
            entries.waiting[:] = ["projects/default/runs/20260101-1200-cat"]
        told = jobs.remove(moved)
        assert told.bytes > 0 and (Path(told.trash) / protocol.CONFIG).exists() and not moved.exists()
        assert names() == []
    assert sorted(path.name for path in (workspace / "trash" / "default").iterdir()) == [
        "20260101-1200-cat",
        "20260101-1200-cat-2",
    ]


def test_a_live_job_is_not_removed(make):
    directory = make(**here())
    with locks.hold(directory), pytest.raises(UserError, match="running"):
        jobs.remove(directory)
    assert directory.exists()


def test_nothing_outside_of_a_workspace_is_removed(tmp_path):
    (tmp_path / "photos").mkdir()
    for folder in (tmp_path / "photos", tmp_path, Path("/")):
        with pytest.raises(UserError):
            jobs.remove(folder)
    assert (tmp_path / "photos").exists()


DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.signal = lambda *_: None\n"


@pytest.fixture
def work(tell):
    """Start a worker on a job by hand."""
    started = []

    def work(directory, before=""):
        program = f"{before}import engine.replay\nraise SystemExit(engine.replay.main())"
        started.append(subprocess.Popen([sys.executable, "-c", program, tell(1000), directory, "--speed", "1"]))
        return started[-1]

    yield work
    for process in started:
        process.kill()
        process.wait()


def test_a_forced_removal_lets_a_live_job_save_and_stop_first(make, work, wait):
    directory = make()
    process = work(directory)
    wait(lambda: jobs.summary(directory).step > 0)
    trash = Path(jobs.remove(directory, force=True).trash)
    assert process.wait() == protocol.INTERRUPTED
    assert records.last_end(trash).state == "stopped" and not directory.exists()


def test_a_forced_removal_kills_what_does_not_stop(make, work, wait, monkeypatch):
    monkeypatch.setattr(jobs, "SAVING", 0.2)
    directory = make()
    process = work(directory, DEAF)
    wait(lambda: jobs.summary(directory).step > 0)
    jobs.remove(directory, force=True)
    assert process.wait() == -9 and not directory.exists()
