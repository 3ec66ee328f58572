"""Alive means that a lock is held, whatever files say, and a lock ends with its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from engine import locks


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    """A folder of locks of this test's own."""
    monkeypatch.setenv(locks.RUNTIME, str(tmp_path / "runtime"))


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a folder until it is killed."""
    program = (
        f"from engine import locks, protocol\nfrom pathlib import Path\nwith locks.hold(Path({str(tmp_path)!r})):\n"
    )
    program += "    print('held', flush=True)\n    input()\n"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_is_held_while_its_process_lives_and_no_longer(holder, tmp_path):
    assert locks.held(tmp_path)
    with pytest.raises(locks.Held), locks.hold(tmp_path, patience=0):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not locks.held(tmp_path)
    with locks.hold(tmp_path, patience=0):
        assert locks.held(tmp_path)


def test_a_lock_is_let_go_however_its_holder_ends(tmp_path):
    with pytest.raises(ValueError, match="in between"), locks.hold(tmp_path):
        raise ValueError("in between")
    assert not locks.held(tmp_path)


def test_two_ways_to_a_job_lead_to_one_lock(tmp_path):
    (tmp_path / "job").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "job")
    with locks.hold(tmp_path / "job"):
        assert locks.held(tmp_path / "link")
        assert not locks.held(tmp_path)


def test_asking_leaves_nothing_behind(tmp_path):
    assert not locks.held(tmp_path)
    assert list(locks.runtime_folder().iterdir()) == []


def test_a_probe_does_not_keep_a_worker_from_starting(tmp_path, monkeypatch):
    """A reader that asks at the wrong moment holds the lock for an instant; the worker waits that long."""
    probe = locks.take(tmp_path, shared=True)
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: probe.release())
    with locks.hold(tmp_path):
        assert locks.held(tmp_path)


def test_locks_are_not_in_the_folder_that_ends_with_the_login(monkeypatch, tmp_path):
    monkeypatch.delenv(locks.RUNTIME)
    usual = locks.runtime_folder()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert locks.runtime_folder() == usual
    assert tmp_path not in usual.parents


def test_a_folder_of_locks_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runtime").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        locks.runtime_folder()
