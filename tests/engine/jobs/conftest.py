"""Small training jobs on the embedded base, and processes to run them in that can be killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from engine import protocol, worker
from engine.config import Request, to_toml
from engine.training import state

ROOT = Path(__file__).parents[3]

SETTINGS = {
    "kind": "train",
    "name": "oct",
    "model": {"base": "tiny"},
    "adapter": {"rank": 2, "alpha": 2.0, "targets": "attention", "dropout": 0.2},
    "dataset": {"resolution": 32},
    "prior": {"images": 5, "prompt": "a cat", "steps": 2},
    "training": {"steps": 4, "batch": 2, "accumulate": 2, "ema": 0.9, "validate_every": 2},
    "optimizer": {"lr_unet": 2e-3, "lr_text": 5e-4},
    "sampling": {"prompts": ["ohwx cat"], "every": 2, "steps": 2},
    "saving": {"every": 2, "precision": "fp32"},
    "runtime": {"threads": 1, "precision": "fp32", "device": "cpu"},
}
"""Everything at once that has a state or draws: dropout, prior preservation with class images drawn in chunks of 4 and
1, accumulation, averaged weights, a trained text encoder, random flips."""


@dataclass
class Run:
    """A job's directory and what lies in it."""

    directory: Path

    def start(self, **options) -> int:
        """One attempt in this process."""
        return worker.run_job(self.directory, **options)

    def events(self, *kinds: type[protocol.Event]) -> list[protocol.AnyEvent]:
        """What the journal says; every line must be an event."""
        lines = (self.directory / protocol.JOURNAL).read_bytes().splitlines()
        decoded = [protocol.decode(line) for line in lines]
        assert None not in decoded
        return [event for event in decoded if not kinds or isinstance(event, kinds)]

    @property
    def end(self) -> protocol.End:
        """How the last attempt ended by itself."""
        last = self.events()[-1]
        assert isinstance(last, protocol.End)
        return last

    @property
    def stage(self) -> str:
        return self.events(protocol.Stage)[-1].name

    @property
    def checkpoints(self) -> Path:
        return self.directory / protocol.CHECKPOINTS

    @property
    def resumed(self) -> list[int]:
        """The steps that attempts went on from."""
        return [event.step for event in self.events(protocol.Resumed)]

    @property
    def states(self) -> list[int]:
        """Steps of the states that are there and whole."""
        found = [state.load(path) for path in state.find(self.checkpoints)]
        return [facts.step for facts, _ in filter(None, found)]

    def adapter(self, path: str = "oct.safetensors") -> tuple[str, dict[str, torch.Tensor]]:
        """The hash and the tensors of an adapter."""
        with safe_open(self.directory / path, framework="pt") as file:
            return file.metadata()["sshs_model_hash"], {key: file.get_tensor(key) for key in sorted(file.keys())}

    def leftovers(self) -> list[Path]:
        """Files and folders that were not brought to their end."""
        return [path for path in self.directory.rglob("*") if ".tmp" in path.name]

    def equals(self, other: Run) -> bool:
        """Whether both ended in the same bits, in the finished adapter and in every checkpoint."""
        names = sorted(path.name for path in other.checkpoints.glob("*.safetensors"))
        paths = ["oct.safetensors", *(f"{protocol.CHECKPOINTS}/{name}" for name in names)]
        pairs = [(self.adapter(path), other.adapter(path)) for path in paths]
        return all(
            mine[0] == theirs[0]
            and list(mine[1]) == list(theirs[1])
            and all(torch.equal(mine[1][key], theirs[1][key]) for key in mine[1])
            for mine, theirs in pairs
        )


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two pictures of noise."""
    folder = tmp_path_factory.mktemp("images")
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="session")
def submit(images: Path) -> Callable[..., Run]:
    """Write a job's directory: `submit(folder, {"training": {"steps": 2}})`, over the settings above."""

    def write(directory: Path, *changes: dict) -> Run:
        request = Request()
        subset = {"path": str(images), "class_tokens": "ohwx cat", "flip": True}
        for table in (SETTINGS, {"dataset": {"subsets": [subset]}}, *changes):
            request.lay(table, "test")
        directory.mkdir(parents=True)
        (directory / protocol.CONFIG).write_text(to_toml(request.checked()))
        return Run(directory)

    return write


class Attempts:
    """Talks with the process of attempts.py."""

    def __init__(self):
        environment = worker.ALLOCATOR | os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        program = [sys.executable, str(Path(__file__).with_name("attempts.py"))]
        self.process = subprocess.Popen(
            program, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, run: Run, workspace: Path, **fault) -> tuple[int, dict[str, int]]:
        """One attempt at a job, under a fault if one is named. Returns its exit code and the calls of each stage."""
        request = {"directory": str(run.directory), "workspace": str(workspace), "fault": fault or None}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        return answer["code"], answer["calls"]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="session")
def attempt() -> Iterator[Attempts]:
    """`attempt(run, workspace, place=…, name=…, nth=…, act=…)`: see attempts.py."""
    attempts = Attempts()
    yield attempts
    attempts.close()


@dataclass
class Undisturbed:
    """A run that nothing happened to, where it left its caches, and how many calls its stages made."""

    run: Run
    workspace: Path
    calls: dict[str, int]


@pytest.fixture(scope="session")
def undisturbed(attempt: Attempts, submit: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    run = submit(folder / "job")
    code, calls = attempt(run, folder, place="calls", name="no such stage")
    assert code == protocol.DONE
    return Undisturbed(run, folder, calls)


@pytest.fixture
def workspace(undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The workspace of this process, its caches filled by the undisturbed run; torch's threads are put back after."""
    monkeypatch.setenv("LORATUI_WORKSPACE", str(undisturbed.workspace))
    threads = torch.get_num_threads()
    yield undisturbed.workspace
    torch.set_num_threads(threads)


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Run], Run]:
    """A copy of a run, to do something to."""
    return lambda run: Run(shutil.copytree(run.directory, tmp_path / "copy"))
