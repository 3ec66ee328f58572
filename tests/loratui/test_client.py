"""A host is started, asked, heard, lost and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine import protocol
from engine.config import UserError
from engine.protocol import messages
from loratui import client
from loratui.client import HostError, HostGone, connect

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LORATUI_WORKSPACE", str(tmp_path / "ws"))
    monkeypatch.setenv("LORATUI_RUNTIME_DIR", str(tmp_path / "locks"))
    return tmp_path / "ws"


def job(workspace: Path, steps: int, name: str = "20260101-0000-cat") -> Path:
    directory = workspace / "projects" / "default" / "runs" / name
    directory.mkdir(parents=True)
    (directory / protocol.CONFIG).write_text('kind = "train"\nname = "cat"\n')
    (directory / protocol.STATUS).write_bytes(protocol.Status(state="done", steps=steps).to_bytes())
    lines = (protocol.encode(protocol.Step(step=step, loss=0.5)) for step in range(steps))
    (directory / protocol.JOURNAL).write_bytes(b"".join(lines))
    return directory


def test_a_command_asks_and_is_answered_in_types(workspace):
    job(workspace, 3)
    with connect() as host:
        assert (host.hello.version, host.hello.workspace) == (messages.VERSION, str(workspace))
        (row,) = host.call("jobs.list", messages.ListJobs()).jobs
        assert isinstance(row, messages.JobSummary)
        assert (row.id, row.state, row.steps) == ("20260101-0000-cat", "done", 3)


def test_a_users_mistake_is_raised_with_its_problems():
    with connect() as host:
        with pytest.raises(UserError) as caught:
            host.call("jobs.show", messages.JobRef(job="nothing"))
        assert caught.value.problems[0].advice == "there are no runs yet"
        assert host.call("queue.list") == messages.Queue(jobs=[], runner=False)


def test_a_misuse_of_the_protocol_is_raised_as_such():
    with connect() as host, pytest.raises(HostError, match="job") as caught:
        host.call("jobs.show", messages.Nothing())
    assert caught.value.code == messages.INVALID_PARAMS


def test_another_version_is_refused_with_advice(monkeypatch):
    monkeypatch.setattr(messages, "VERSION", messages.VERSION + 1)
    with pytest.raises(UserError, match="update both"), connect():
        pass


def test_a_journal_is_heard_from_an_offset_on(workspace):
    directory = job(workspace, 20_000)
    with connect() as host:
        watching = host.call("jobs.watch", messages.Watch(job="cat"))
        assert watching == messages.Watching(id=directory.name, size=(directory / protocol.JOURNAL).stat().st_size)
        found, told = [], None
        while told is None or told.offset < watching.size:
            told = host.heard()
            found += [event.step for event in told.events]
            assert host.call("queue.list").jobs == [], "a call between two notifications loses neither"
        assert (found, told.state) == (list(range(20_000)), "done")
        assert host.heard(timeout=0.0) is None


def test_a_host_that_dies_is_told_with_its_last_words(workspace):
    with connect() as host:
        (workspace / client.LOG).open("ab").write(b"an old line\nits last word\n")
        os.kill(host.hello.pid, signal.SIGKILL)
        with pytest.raises(HostGone, match="its last word") as caught:
            host.heard()
        assert caught.value.code == -signal.SIGKILL
        with pytest.raises(HostGone):
            host.call("queue.list")


def test_a_host_that_can_not_start_says_why(monkeypatch):
    monkeypatch.setattr(client, "COMMAND", (sys.executable, "-m", "engine.missing"))
    with pytest.raises(HostGone, match=r"No module named engine\.missing"), connect():
        pass


def test_a_host_ends_with_its_connection():
    with connect() as host:
        process = host._process
    assert process.returncode == 0


def test_a_host_does_not_hear_the_terminals_interrupt():
    with connect() as host:
        assert os.getpgid(host.hello.pid) != os.getpgid(0)
        assert os.getsid(host.hello.pid) == os.getsid(0)


def test_a_workspace_that_can_not_be_made_can_still_be_asked_about(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LORATUI_WORKSPACE", str(tmp_path / "file" / "ws"))
    with connect() as host:
        assert host.call("jobs.list").jobs == []


def test_a_users_own_engine_in_the_current_folder_is_not_run(tmp_path):
    for name in ("engine.py", "msgspec.py", "psutil.py"):
        (tmp_path / name).write_text("raise SystemExit('the user\\'s own file was run')")
    code = "from loratui.client import connect\nwith connect() as host: print(host.call('devices.list').cpu >= 0)"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_command_that_connects_imports_no_event_loop():
    code = "import sys, loratui.client; print('asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
