"""What a killed process loses: nothing. Real terminals, hosts and runners; workers that tell a story instead of
training, but where the training itself is what must survive. Every wait is for something to be seen, never for a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from PIL import Image

from engine import locks, protocol

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 120.0
"""Seconds after which a test gives up; nothing here takes that long on a machine that does anything else."""
REAL = ["--set", "training.batch=2", "--set", "prior.weight=0", "--set", "sampling.every=0", "--set", "saving.every=3",
        "--set", "training.validate_every=0", "--set", "sampling.steps=2"]  # fmt: skip


@pytest.fixture
def box(tmp_path, monkeypatch):
    """A workspace and locks of the test's own. Whatever of it is alive at the end is killed."""
    workspace = tmp_path / "ws"
    monkeypatch.setenv("LORATUI_WORKSPACE", str(workspace))
    monkeypatch.setenv(locks.RUNTIME, str(tmp_path / "locks"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield workspace
    for pid, _ in alive(workspace):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def story(box, tmp_path, monkeypatch):
    """Let workers tell of `steps` steps at `pace` steps a second, in place of training."""
    program, site = tmp_path / "python", tmp_path / "site"
    program.write_text(
        f'#!/bin/sh\n[ "$2" = engine.worker ] && exec "{sys.executable}" -m engine.replay "$LORATUI_STORY" "$3" '
        f'--speed "$LORATUI_PACE"\nexec "{sys.executable}" "$@"\n'
    )
    program.chmod(0o755)
    site.mkdir()
    (site / "sitecustomize.py").write_text(f"import sys\n\nsys.executable = {str(program)!r}\n")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{site}")

    def story(steps: int, pace: float) -> None:
        events = [
            protocol.PlanMade(t=0.5, text="a plan", steps=steps, epochs=1.0, images=3),
            protocol.Stage(t=0.5, name="train"),
            *(protocol.Step(t=float(step), step=step, loss=1.0 / step) for step in range(1, steps + 1)),
            protocol.End(t=float(steps), state="done", code=protocol.DONE, step=steps, outputs=["a.safetensors"]),
        ]
        path = tmp_path / f"story-{steps}.jsonl"
        path.write_bytes(b"".join(map(protocol.encode, events)))
        monkeypatch.setenv("LORATUI_STORY", str(path))
        monkeypatch.setenv("LORATUI_PACE", str(pace))

    return story


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, colour in enumerate(("red", "lime", "blue")):
        Image.new("RGB", (64, 64), colour).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def terminal(box):
    """A tmux server of the test's own: `terminal(words)` runs them in a new session, whose name is returned."""
    folder = tempfile.mkdtemp(prefix="tmux-")  # a socket's path may not be long
    Path(folder, "config").write_text("set -g remain-on-exit on\n")  # what was said last can be read

    def tmux(*words: str) -> str:
        command = ["tmux", "-S", f"{folder}/socket", "-f", f"{folder}/config", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE).stdout

    tmux.open = lambda *words: tmux("new-session", "-d", "-s", "it", "-x", "120", "-y", "40", *words)
    yield tmux
    tmux("kill-server")
    shutil.rmtree(folder)


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "loratui", *map(str, arguments)]


def loratui(*arguments, cwd=None) -> subprocess.CompletedProcess:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=DEADLINE, cwd=cwd)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def train(images, *options) -> list[str]:
    return ["train", "--preset", "dreambooth", "--base", "tiny", "--data", str(images), *options]


def queued(images, *options) -> str:
    """Queue a run. Returns its id."""
    done = loratui(*train(images, *options), "--detach")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def listed() -> dict[str, dict]:
    return {job["id"]: job for job in json.loads(loratui("runs", "list", "--json").stdout)}


def alive(workspace: Path) -> list[tuple[int, str]]:
    """Every process of a workspace but for this one: pid, module."""
    mark, found = f"LORATUI_WORKSPACE={workspace}".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(entry.name) != os.getpid() and mark in (entry / "environ").read_bytes().split(b"\0"):
                words = (entry / "cmdline").read_bytes().decode().split("\0")
                found.append((int(entry.name), words[words.index("-m") + 1] if "-m" in words else words[0]))
    return found


def kill(workspace: Path, module: str) -> None:
    """kill -9 of the one process that runs `module`, and wait until it is gone."""
    (pid,) = [pid for pid, running in alive(workspace) if running == module]
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in dict(alive(workspace)))


def events(workspace: Path, run: str) -> list[dict]:
    path = workspace / "projects" / "default" / "runs" / run / protocol.JOURNAL
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def steps(workspace: Path, run: str) -> list[int]:
    return [event["step"] for event in events(workspace, run) if event["event"] == "step"]


def ended(workspace: Path, run: str) -> str:
    """How a run's last attempt has ended; empty while it has not."""
    last = (events(workspace, run) or [{}])[-1]
    return last.get("state", "") if last.get("event") == "end" else ""


def until(condition):
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def only_run(workspace: Path) -> str:
    return until(lambda: [path.name for path in workspace.glob("projects/default/runs/2*")])[0]


def test_a_run_goes_on_when_its_whole_terminal_is_gone(box, story, images, terminal):
    story(300, 60.0)
    terminal.open(*command(*train(images)))
    run = only_run(box)
    until(lambda: len(steps(box, run)) > 5)
    terminal("kill-session", "-t", "it")
    at_death = len(steps(box, run))
    until(lambda: not {"loratui", "engine"} & {module for _, module in alive(box)})
    assert ended(box, run) == ""
    until(lambda: ended(box, run))
    assert at_death < 300 and steps(box, run) == list(range(1, 301))
    (job,) = listed().values()
    assert (job["id"], job["state"], job["step"], job["steps"]) == (run, "done", 300, 300)


def test_three_queued_runs_run_to_their_end_after_the_terminal_that_queued_them_is_gone(box, story, images, terminal):
    story(20, 40.0)
    shell = " && ".join(" ".join(command(*train(images, "--name", name), "--detach")) for name in ("a", "b", "c"))
    terminal.open(f"{shell}; sleep 1000")
    until(lambda: len(list(box.glob("projects/default/runs/2*"))) == 3)
    until(lambda: "loratui" not in {module for _, module in alive(box)})
    terminal("kill-session", "-t", "it")
    runs = sorted(path.name for path in box.glob("projects/default/runs/2*"))
    until(lambda: all(ended(box, run) for run in runs))
    starts = [events(box, run)[0]["t"] for run in runs]
    assert {run: job["state"] for run, job in listed().items()} == dict.fromkeys(runs, "done")
    assert starts == sorted(starts) and events(box, runs[0])[-1]["t"] <= starts[1], "one device: one after another"
    until(lambda: not alive(box))


def test_watch_goes_on_with_another_host_when_its_own_is_killed_and_misses_nothing(box, story, images):
    story(200, 50.0)
    run = queued(images)
    told = box.parent / "told"
    with told.open("wb") as output:
        watch = subprocess.Popen(command("runs", "watch", "--json", run), stdout=output, stderr=subprocess.PIPE)
    until(lambda: told.read_bytes().count(b"step") > 5)
    kill(box, "engine")
    _, said = watch.communicate(timeout=DEADLINE)
    assert watch.returncode == 0 and b"Traceback" not in said, said
    journal = (box / "projects" / "default" / "runs" / run / protocol.JOURNAL).read_bytes()
    assert told.read_bytes() == journal and steps(box, run) == list(range(1, 201))


def test_a_killed_runner_is_followed_by_another_at_the_next_command_and_the_queue_goes_on(box, story, images):
    story(200, 50.0)
    first, second = queued(images, "--name", "first"), queued(images, "--name", "second")
    until(lambda: steps(box, first))
    kill(box, "engine.runner")
    assert ended(box, first) == "" and events(box, second) == []
    assert set(listed()) == {first, second}
    until(lambda: ended(box, second))
    assert ended(box, first) == ended(box, second) == "done"
    assert [event["number"] for event in events(box, first) if event["event"] == "attempt"] == [1]
    until(lambda: not alive(box))


def test_ctrl_c_in_watch_leaves_the_run_going_and_says_so(box, story, images, terminal):
    story(100_000, 20.0)
    run = queued(images)
    until(lambda: steps(box, run))
    terminal.open(*command("runs", "watch", run))
    until(lambda: "training" in terminal("capture-pane", "-p", "-t", "it"))
    terminal("send-keys", "-t", "it", "C-c")
    until(lambda: "Pane is dead" in terminal("capture-pane", "-p", "-t", "it"))
    shown = terminal("capture-pane", "-p", "-J", "-t", "it")
    assert "status 130" in shown and f"{run} goes on" in shown and "Traceback" not in shown
    before = len(steps(box, run))
    until(lambda: len(steps(box, run)) > before)


def test_a_killed_worker_is_shown_as_crashed_with_advice_and_resume_finishes(box, images):
    run = queued(images, "--set", "training.steps=10", *REAL)
    until(lambda: len(steps(box, run)) >= 4)
    kill(box, "engine.worker")
    until(lambda: not alive(box))
    job = listed()[run]
    assert job["state"] == "crashed" and any("resume" in advice for advice in job["advice"]), job
    done = loratui("resume", run, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 10
    told = events(box, run)
    assert [event["number"] for event in told if event["event"] == "attempt"] == [1, 2]
    (resumed,) = (number for number, event in enumerate(told) if event["event"] == "resumed")
    saved = [event["step"] for event in told[:resumed] if event["event"] == "checkpoint"]
    assert told[resumed]["step"] >= saved[-1] > 0, "from the last saved state"
    assert sorted(set(steps(box, run))) == list(range(1, 11))


def test_a_live_run_answers_every_command(box, images):
    run = queued(images, "--set", "training.steps=100000", *REAL)
    until(lambda: steps(box, run))
    for words, event in (
        (["set", run, "optimizer.lr_unet", "0.001"], "changed"),
        (["checkpoint", run], "checkpoint"),
        (["sample", run, "a cat"], "sample"),
        (["pause", run], "paused"),
        (["resume", run], "continued"),
        (["stop", run], "end"),
    ):
        before = sum(told["event"] == event for told in events(box, run))
        done = loratui("runs", *words)
        assert done.returncode == 0 and run in done.stderr and "no answer" not in done.stderr, done.stderr
        until(lambda event=event, before=before: sum(told["event"] == event for told in events(box, run)) > before)
    taken = [told["name"] for told in events(box, run) if told["event"] == "acknowledged" and told["taken"]]
    assert taken == ["set", "checkpoint", "sample", "pause", "resume", "stop"]
    assert ended(box, run) == "stopped" and until(lambda: listed()[run]["state"] == "stopped")


def test_an_engine_py_in_the_current_folder_is_not_run(box, story, images):
    story(3, 0)
    for name in ("engine.py", "torch.py", "msgspec.py"):
        (images.parent / name).write_text(f"open({str(images.parent / 'owned')!r}, 'w')\n")
    scripts = f"import sys; sys.path.pop(0); sys.path[:0] = [{str(ROOT)!r}]; from loratui.cli import main; main()"
    words = [sys.executable, "-c", scripts, *train(images, "--json")]  # as the installed script: no folder of its own
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE, cwd=images.parent)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "done" and not (images.parent / "owned").exists()


def test_a_folder_deleted_under_a_live_run_leaves_the_list_and_the_queue_whole(box, story, images):
    story(100_000, 20.0)
    gone = queued(images, "--name", "gone")
    story(5, 0)
    after = queued(images, "--name", "after")
    until(lambda: steps(box, gone))
    shutil.rmtree(box / "projects" / "default" / "runs" / gone)
    assert list(listed()) == [after]
    until(lambda: ended(box, after))
    assert {run: job["state"] for run, job in listed().items()} == {after: "done"}
    until(lambda: not alive(box))
