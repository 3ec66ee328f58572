"""Workspaces for `benchmarks.terminal`: many ended runs, a recording to be told live, a hundred thousand images."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import msgspec
import tomli_w
from PIL import Image

from engine import journal, protocol

LINKS = 30_000
"""Hard links to one file; file systems have a limit."""


def runs(workspace: Path, count: int, project: str = "many") -> str:
    """Ended runs with journals of 200 steps. Gives the name of the newest."""
    folder = workspace / "projects" / project / "runs"
    folder.mkdir(parents=True)
    lines = b"".join(protocol.encode(event) for event in story(200, 0.5, 1_780_000_000.0))
    for number in range(count):
        submitted = 1_780_000_000.0 + number * 600
        directory = folder / f"{time.strftime('%Y%m%d-%H%M', time.localtime(submitted))}-run-{number:05}"
        directory.mkdir()
        _submission(directory, f"run-{number:05}", submitted)
        status = protocol.Status(
            state="done", step=200, steps=200, loss=0.08, validation=0.1, best=0.09, device="cpu", attempt=1,
            started=submitted, updated=submitted + 300, host=journal.host(),
        )  # fmt: skip
        (directory / protocol.STATUS).write_bytes(status.to_bytes())
        (directory / protocol.JOURNAL).write_bytes(lines)
        for path in (directory / protocol.STATUS, directory):
            os.utime(path, (submitted + 300, submitted + 300))  # of an earlier day
    return f"run-{count - 1:05}"


def story(steps: int, seconds: float, began: float):
    """Events of a training with a validation every 20 steps and a checkpoint every 100."""
    yield protocol.Attempt(t=began, number=1, pid=1, host=journal.host(), boot_id=journal.boot_id())
    yield protocol.PlanMade(
        t=began, text="24 images", steps=steps, epochs=steps / 12, images=24, modules=192, base="tiny"
    )
    yield protocol.Stage(t=began, name="train", total=steps, unit="steps")
    for step in range(1, steps + 1):
        t = began + step * seconds
        loss = 0.06 + 0.08 * math.exp(-step / 300) + 0.02 * math.sin(step * 1.7)
        lr = {"unet": 1e-4 * (1 - step / (steps + 1)), "text_encoder": 5e-6}
        yield protocol.Step(t=t, step=step, loss=loss, grad_norm=0.5, lr=lr, seconds=seconds)
        if step % 20 == 0:
            yield protocol.Validation(t=t, step=step, loss=loss + 0.01, images="held-out", count=3)
        if step % 100 == 0:
            yield protocol.Checkpoint(t=t, step=step, adapter=f"checkpoints/live-step{step:06}.safetensors")


def live(workspace: Path, seconds: float, project: str = "live") -> tuple[Path, Path]:
    """A job to be told live, and the recording of it at one step each so many seconds."""
    directory = workspace / "projects" / project / "runs" / f"{time.strftime('%Y%m%d-%H%M')}-told-live"
    directory.mkdir(parents=True)
    _submission(directory, "told-live", time.time())
    (directory / protocol.STATUS).write_bytes(protocol.Status(state="queued").to_bytes())
    recording = workspace / "recording.jsonl"
    recording.write_bytes(b"".join(map(protocol.encode, story(int(240 / seconds), seconds, 1_780_000_000.0))))
    return directory, recording


def images(workspace: Path, count: int, project: str = "pictures") -> Path:
    """A project whose one folder holds so many images, each with a name of its own."""
    folder = workspace / "images"
    folder.mkdir(parents=True)
    source = folder / "source"
    for number in range(count):
        if number % LINKS == 0:
            source = folder / f"IMG_{number:06}.png"
            Image.new("RGB", (64, 64), (number % 255, 90, 120)).save(source)
        else:
            os.link(source, folder / f"IMG_{number:06}.png")
    draft = workspace / "projects" / project / "draft.toml"
    draft.parent.mkdir(parents=True)
    (draft.parent / "runs").mkdir()
    table = {
        "preset": "dreambooth",
        "config": {"model": {"base": "tiny"}, "dataset": {"subsets": [{"path": str(folder)}]}},
    }
    draft.write_bytes(tomli_w.dumps(table).encode())
    return folder


def opened_at(workspace: Path, panel: str, project: str) -> None:
    """Have the app open there."""
    path = workspace / "app" / "session.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode({"version": 1, "panel": panel, "project": project}))


def _submission(directory: Path, name: str, submitted: float) -> None:
    submission = protocol.Submission(
        kind="train", name=name, interpreter="python", environment={}, submitted=submitted, host=journal.host(),
        needs_device=True,
    )  # fmt: skip
    (directory / protocol.SUBMISSION).write_bytes(msgspec.json.encode(submission))
    (directory / protocol.CONFIG).write_text(f'kind = "train"\nname = "{name}"\n')
