"""Runs as the engine leaves them on disk: finished, failed, crashed, waiting, and live ones whose lock is held here.

The story is that of a training whose loss falls; every figure of it is a function of the step.
"""

from __future__ import annotations

import math
import re
import time
from pathlib import Path

import msgspec
from PIL import Image

from engine import journal, locks, protocol
from engine.host import launch

NOW = 1_795_000_000.0
"""The clock of the app under test: 2026-11-18, 11:06:40 UTC."""
PROMPTS = ("an ohwx cat on a sofa", "an ohwx cat [best quality] in rain")

CONFIG = """kind = "train"
name = "{name}"

[model]
base = "tiny"

[[dataset.subsets]]
path = "{images}"

[training]
steps = {of}

[prior]
weight = 0.0
"""


class Recorder:
    """Writes runs into a workspace. Locks that it holds are let go of by `close`."""

    def __init__(self, workspace: Path):
        self.workspace = workspace
        self._held: list[locks.Lock] = []

    def close(self) -> None:
        for lock in self._held:
            lock.release()

    def project(self, name: str) -> Path:
        """A project without runs, if there is none of that name yet."""
        folder = self.workspace / "projects" / name
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        return folder

    def run(
        self,
        project: str = "my-cat",
        name: str = "dreambooth r16",
        state: str = "done",
        steps: int = 200,
        of: int = 200,
        ago: float = 3600.0,
        cause: str = "",
        advice: tuple[str, ...] = (),
        samples: int = 4,
        log: str = "",
    ) -> str:
        """A run submitted `ago` seconds before NOW. `state`: as a status has it, or `crashed`. Gives its id."""
        started = NOW - ago
        stamp = time.strftime("%Y%m%d-%H%M", time.gmtime(started))
        identity = f"{stamp}-{re.sub('[^a-z0-9]+', '-', name)}"
        directory = self.project(project) / "runs" / identity
        directory.mkdir()
        ended = "" if state in ("crashed", "running", "paused") else state
        events = list(story(steps, of, started, samples, ended, cause, advice))
        if state == "paused":
            events.append(protocol.Paused(t=events[-1].t, step=steps))
        self._write(directory, name, events, of, started)
        if log:
            (directory / protocol.LOG).write_text(log)
        return identity

    def live(self, project: str = "my-cat", name: str = "pivotal r16", **story) -> str:
        """A run that a worker has in hand: this process holds its lock. `append` makes it go on."""
        identity = self.run(project, name, **({"state": "running", "steps": 120, "ago": 760.0} | story))
        directory = self._directory(identity)
        status = msgspec.json.decode((directory / protocol.STATUS).read_bytes(), type=protocol.Status)
        status.updated = time.time()
        (directory / protocol.STATUS).write_bytes(status.to_bytes())
        self._held.append(locks.take(directory))
        return identity

    def operation(self, project: str = "my-cat", name: str = "blend", *said: protocol.Event) -> str:
        """A live operation on files, begun ten seconds ago, and what it has said. `append` makes it go on."""
        identity = f"{time.strftime('%Y%m%d-%H%M', time.gmtime(NOW))}-{re.sub('[^a-z0-9]+', '-', name)}"
        directory = self.project(project) / "runs" / identity
        directory.mkdir()
        attempt = protocol.Attempt(t=NOW - 10, number=1, pid=1, host=journal.host(), boot_id=journal.boot_id())
        self._write(directory, name, [attempt, *said], 0, NOW - 10, "operate")
        self._held.append(locks.take(directory))
        self.append(identity)
        return identity

    def waiting(self, project: str = "my-cat", name: str = "rank 64", ago: float = 60.0) -> str:
        """A run in the queue. This process plays the runner, so nothing starts it."""
        started = NOW - ago
        identity = f"{time.strftime('%Y%m%d-%H%M', time.gmtime(started))}-{re.sub('[^a-z0-9]+', '-', name)}"
        directory = self.project(project) / "runs" / identity
        directory.mkdir()
        self._write(directory, name, [], 200, started)
        path = self.workspace / "queue.json"
        entries = msgspec.json.decode(path.read_bytes()) if path.exists() else {"waiting": [], "running": []}
        entries["waiting"].append(f"projects/{project}/runs/{identity}")
        path.write_bytes(msgspec.json.encode(entries))
        if len(entries["waiting"]) == 1:
            self._held.append(locks.take(launch.runner_lock(self.workspace)))
        return identity

    def append(self, identity: str, *events: protocol.Event) -> None:
        """Let a live run say something."""
        directory = self._directory(identity)
        status = msgspec.json.decode((directory / protocol.STATUS).read_bytes(), type=protocol.Status)
        with (directory / protocol.JOURNAL).open("ab") as file:
            for event in events:
                file.write(protocol.encode(event))
                journal.summarise(status, event)
        status.updated = time.time()
        (directory / protocol.STATUS).write_bytes(status.to_bytes())

    def images(self, folder: Path, count: int = 4, caption: str = "an ohwx cat {number}") -> Path:
        """A folder of small pictures, each with a caption unless that is empty."""
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(folder / f"IMG_{number:04}.png", number)
            if caption:
                (folder / f"IMG_{number:04}.txt").write_text(caption.format(number=number) + "\n")
        return folder

    def _directory(self, identity: str) -> Path:
        return next(self.workspace.glob(f"projects/*/runs/{identity}"))

    def _write(
        self,
        directory: Path,
        name: str,
        events: list[protocol.Event],
        of: int,
        started: float,
        kind: str = "train",
    ) -> None:
        config = CONFIG.format(name=name, images=self.workspace / "images", of=of)
        (directory / protocol.CONFIG).write_text(config)
        submission = protocol.Submission(
            kind=kind,
            name=name,
            interpreter="python",
            environment={},
            submitted=started,
            host=journal.host(),
            needs_device=True,
        )
        (directory / protocol.SUBMISSION).write_bytes(msgspec.json.encode(submission))
        status = protocol.Status(steps=of)
        for event in events:
            journal.summarise(status, event)
        if events:
            status.device = "cpu"
            (directory / protocol.JOURNAL).write_bytes(b"".join(map(protocol.encode, events)))
        (directory / protocol.STATUS).write_bytes(status.to_bytes())
        for event in events:
            if isinstance(event, protocol.Sample):
                (directory / event.path).parent.mkdir(exist_ok=True)
                picture(directory / event.path, event.step + event.index)


def loss(step: int) -> float:
    return 0.06 + 0.08 * math.exp(-step / 60) + 0.02 * math.sin(step * 1.7)


def story(steps: int, of: int, started: float, samples: int, state: str, cause: str, advice: tuple[str, ...]):
    """The events of one attempt that came as far as `steps`."""
    seconds = 1.5
    yield protocol.Attempt(t=started, number=1, pid=1, host=journal.host(), boot_id=journal.boot_id())
    yield protocol.Stage(t=started, name="check", total=24, unit="images")
    text = f"24 images × 1 repeat = 24 per epoch ÷ batch 2 = 12 steps · {of / 12:.4g} epochs = {of:,} steps"
    yield protocol.PlanMade(
        t=started + 1, text=text, steps=of, epochs=of / 12, images=24, modules=192, base="tiny", captions={".txt": 24}
    )
    yield protocol.Stage(t=started + 2, name="train", total=of, unit="steps")
    every = max(1, of // samples) if samples else of + 1
    for step in range(1, steps + 1):
        t = started + 2 + step * seconds
        yield protocol.Step(
            t=t, step=step, loss=loss(step), grad_norm=0.5, seconds=seconds,
            lr={"unet": 1e-4 * (1 - step / (of + 1)), "text_encoder": 5e-6},
        )  # fmt: skip
        if step % max(1, of // 20) == 0:
            yield protocol.Validation(t=t, step=step, loss=loss(step) + 0.01, images="held-out", count=3)
        if step % every == 0:
            for index, prompt in enumerate(PROMPTS):
                yield protocol.Sample(
                    t=t, step=step, path=f"samples/step-{step:06}-p{index}-s42.png", prompt=prompt, seed=42, index=index
                )
        if step % max(1, of // 10) == 0:
            yield protocol.Checkpoint(t=t, step=step, adapter=f"checkpoints/run-step{step:06}.safetensors")
    if state:
        yield protocol.End(
            t=started + 3 + steps * seconds, state=state, code={"done": 0, "refused": 2, "failed": 1}.get(state, 130),
            cause=cause, advice=list(advice), step=steps, seconds=steps * seconds,
        )  # fmt: skip


def picture(path: Path, number: int) -> None:
    """A small picture that tells its number: a gradient with a bright block."""
    image = Image.new("RGB", (16, 16))
    image.putdata([(x * 16, y * 16, (number * 40) % 256) for y in range(16) for x in range(16)])
    image.paste((255, 255, 255), (number % 12, number % 12, number % 12 + 4, number % 12 + 4))
    image.save(path)
