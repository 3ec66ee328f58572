"""Locks: who has them, how they are handed to a child, and that they die with a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from engine import locks


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    folder = tmp_path / "runtime"
    monkeypatch.setenv(locks.RUNTIME, str(folder))
    return folder


CHILD = """
import sys
from pathlib import Path
from engine import locks
locks.inherit()
lock = locks.take(Path(sys.argv[1]))
print("has it" if lock else "has it not", flush=True)
sys.stdin.readline()
if lock:
    lock.release()
print("let go", flush=True)
sys.stdin.readline()
"""


def child(guarded, *handed):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(guarded)],
        env=os.environ | (locks.hand_over(*handed) if handed else {}),
        pass_fds=[lock.descriptor for lock in handed],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def test_a_device_has_one_lock_whatever_the_workspace_and_odd_names_stay_in_the_folder(runtime):
    assert locks.device("GPU-1f").parent == runtime
    assert locks.device("GPU-1f") == locks.lock_path(locks.device("GPU-1f")) != locks.device("GPU-2f")
    assert locks.device("../../etc").parent == runtime


def test_the_folder_of_locks_is_the_same_whatever_tmpdir_says(tmp_path, monkeypatch):
    monkeypatch.delenv(locks.RUNTIME)
    here = locks.runtime_folder()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert locks.runtime_folder() == here


def test_a_lock_has_one_holder_and_a_probe_leaves_no_file_behind(tmp_path, runtime):
    assert not locks.held(tmp_path) and not list(runtime.iterdir())
    lock = locks.take(tmp_path)
    assert lock is not None and locks.held(tmp_path)
    assert locks.take(tmp_path) is None
    lock.release()
    assert not locks.held(tmp_path)


def test_a_shared_lock_keeps_a_worker_out_and_does_not_look_alive(tmp_path):
    with locks.hold(tmp_path, shared=True):
        assert not locks.held(tmp_path)
        assert locks.take(tmp_path) is None


def test_a_child_has_what_it_was_handed_from_its_start_and_alone_when_the_giver_lets_go(tmp_path):
    lock = locks.take(tmp_path)
    process = child(tmp_path, lock)
    lock.release()
    assert locks.held(tmp_path)
    assert process.stdout.readline() == "has it\n"
    assert locks.held(tmp_path)
    process.stdin.write("\n")
    assert process.stdout.readline() == "let go\n"
    assert not locks.held(tmp_path)
    process.communicate("\n")


def test_a_killed_holder_holds_nothing(tmp_path):
    lock = locks.take(tmp_path)
    process = child(tmp_path, lock)
    lock.release()
    assert process.stdout.readline() == "has it\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not locks.held(tmp_path)


def test_a_stranger_s_descriptor_is_not_taken_for_a_lock(tmp_path, monkeypatch):
    first = locks.take(tmp_path)
    with open(tmp_path / "other", "w") as other:
        monkeypatch.setenv(locks.HANDED, f'{{"{first.path.name}": {other.fileno()}}}')
        locks.inherit()
        assert locks.take(tmp_path) is None
        other.write("still open")
    first.release()
