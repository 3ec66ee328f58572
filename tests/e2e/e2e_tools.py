"""What tests with real processes need: commands, who is alive, what a run has said, and waiting for something."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from engine import protocol

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = float(os.environ.get("LORATUI_DEADLINE", 120))
"""Seconds after which a test gives up; nothing here takes that long on a machine that does anything else."""


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
    path = next(workspace.glob(f"projects/*/runs/{run}/{protocol.JOURNAL}"), None)
    text = path.read_text() if path else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def steps(workspace: Path, run: str) -> list[int]:
    return [event["step"] for event in events(workspace, run) if event["event"] == "step"]


def ended(workspace: Path, run: str) -> str:
    """How a run's last attempt has ended; empty while it has not."""
    last = (events(workspace, run) or [{}])[-1]
    return last.get("state", "") if last.get("event") == "end" else ""


def until(condition, told=lambda: ""):
    """Wait until something is true, and return it. `told`: what to say if it never is."""
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)
    return found


def only_run(workspace: Path) -> str:
    return until(lambda: [path.name for path in workspace.glob("projects/*/runs/2*")])[0]
