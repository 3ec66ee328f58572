"""Runs on disk, as the terminal program sees them: submitting a job, starting its worker, finding one again.

A job is a directory, and starting one is a process on it in a session of its own, so that it outlives the terminal.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from engine import protocol
from engine.config import Job, Problem, UserError, to_toml
from loratui.child import engine_command, engine_environment
from loratui.workspace import runs_folder, workspace


def submit(config: Job) -> Path:
    """Write a job's directory, with its request frozen. Returns it."""
    folder = runs_folder(config.project)
    slug = re.sub(r"[^\w.-]+", "-", config.name).strip("-.") or "run"
    stamp = f"{time.strftime('%Y%m%d-%H%M')}-{slug}"
    for name in (stamp, *(f"{stamp}-{number}" for number in range(2, 10_000))):
        try:
            (folder / name).mkdir()
        except FileExistsError:
            continue
        (folder / name / protocol.CONFIG).write_text(to_toml(config), encoding="utf-8")
        return folder / name
    raise FileExistsError(stamp)


def start(directory: Path, *options: str) -> subprocess.Popen:
    """Start the worker of a job. What it prints goes to the job's log."""
    with (directory / protocol.LOG).open("ab") as log:
        return subprocess.Popen(
            engine_command("worker", str(directory), *options),
            env=engine_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def discard(directory: Path) -> None:
    """Remove the directory of a job that was only tried."""
    shutil.rmtree(directory)


def find(name: str) -> Path:
    """A run by its path, its id, or the end of its id when one alone has it. UserError names the likely ones."""
    if (Path(name) / protocol.CONFIG).is_file():
        return Path(name).absolute()
    runs = sorted(path.parent for path in workspace().glob(f"projects/*/runs/*/{protocol.CONFIG}"))
    exact = [run for run in runs if run.name == name]
    matching = exact or [run for run in runs if run.name.endswith(f"-{name}")]
    if len(matching) == 1:
        return matching[0]
    shown = ", ".join(run.name for run in (matching or runs)[-5:])
    raise UserError(
        Problem(
            where=str(workspace()),
            expected="the id of a run, the end of one, or a run's folder",
            found=f"{name!r}, which {len(matching)} runs have" if matching else repr(name),
            advice=f"there are: {shown}" if shown else "there are no runs yet",
        )
    )


def last_end(directory: Path) -> protocol.End | None:
    """How the last attempt ended, if it did by itself."""
    end = None
    for event in protocol.JournalReader(directory / protocol.JOURNAL).read():
        if isinstance(event, protocol.Attempt):
            end = None
        elif isinstance(event, protocol.End):
            end = event
    return end


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log, for telling how a worker died."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.path.getsize(path) - 8192))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
