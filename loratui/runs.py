"""Jobs from commands: handing one to the engine, following it, and trying one out without starting it."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import msgspec

from engine import protocol
from engine.config import Job, Train, to_toml
from engine.protocol.messages import JobDetails, JobRef, Submit
from loratui.child import engine_command, engine_environment
from loratui.client import connect
from loratui.workspace import cache_folder


def submit(config: Job) -> Path:
    """Put a job into the queue. Returns its folder."""
    with connect() as host:
        submitted = host.call("jobs.submit", Submit(config=msgspec.to_builtins(config)))
    return Path(submitted.path)


def show(run: str) -> JobDetails:
    """A job by its id, the end of it, or its folder. Raises UserError where there is none."""
    with connect() as host:
        return host.call("jobs.show", JobRef(job=run))


def retry(run: str) -> Path:
    """Put a job that has ended back into the queue. Returns its folder."""
    with connect() as host:
        return Path(host.call("jobs.retry", JobRef(job=run)).path)


def rehearse(config: Train) -> tuple[list[protocol.AnyEvent], str]:
    """Go as far as a run's plan, in a folder that is then removed. Returns what was said, and the end of the log."""
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="dry-run-") as folder:
        directory = Path(folder)
        (directory / protocol.CONFIG).write_text(to_toml(config), encoding="utf-8")
        done = subprocess.run(
            engine_command("worker", folder, "--dry-run"),
            env=engine_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        events = list(protocol.JournalReader(directory / protocol.JOURNAL).read())
        return events, done.stderr[-4096:]
