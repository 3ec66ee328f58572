"""Workspaces with real hosts, runners and terminals; workers that tell a story instead of training."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from e2e_tools import DEADLINE, ROOT, alive
from PIL import Image

from engine import locks, protocol


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
