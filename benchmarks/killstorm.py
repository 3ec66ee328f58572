"""Whether anything that is killed loses anything: random `kill -9`s of host, runner and worker over a queue of runs.

    python -m benchmarks.killstorm [--kills 50] [--seed 1] [--json] [--record]

Three short runs are trained undisturbed, as the reference. Then the same three wait in the queue of another workspace
while processes are killed at random moments, and somebody does what a user or a box does about it: resume what has
crashed, look at the list, start the runner again. Where all is done before the kills are, the three are queued anew.
At the end every journal must be whole, every file too, every loss, adapter and picture the same as the undisturbed one,
the queue empty, and no process left. Victims are found by what only they have: our workspace in their environment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from safetensors import safe_open

from benchmarks.killstorm_report import Kill, Outcome, record, tables
from engine import locks, protocol
from engine.host import launch, liveness, queue

ROOT = Path(__file__).resolve().parents[1]
STEPS = 30
SUBJECTS = ("octopus", "cupcake", "hedgehog")
WEIGHTS = {"worker": 5, "runner": 3, "host": 2}
"""How often each is the victim."""
SETTINGS = {
    "training.steps": STEPS, "training.batch": 2, "training.validate_every": 10, "prior.images": 3, "prior.steps": 4,
    "sampling.every": 10, "sampling.steps": 3, "saving.every": 5, "runtime.threads": 1, "runtime.device": "cpu",
}  # fmt: skip
PATIENCE = 90.0
"""Seconds to wait for a victim to be there, in the stage that was drawn, before another kill is drawn."""
GIVE_UP = 3600.0
"""Seconds for all."""
MODULES = {"engine": "host", "engine.runner": "runner", "engine.worker": "worker"}


@dataclass(frozen=True)
class Process:
    """One of ours that is alive."""

    pid: int
    kind: str
    """host, runner, worker, or the module of another."""
    arguments: tuple[str, ...]


class Box:
    """A workspace with locks of its own, so that nothing else on this machine makes its runs wait or is killed."""

    def __init__(self, folder: Path):
        self.workspace = folder / "ws"
        self.workspace.mkdir(parents=True)
        self.runtime = folder / "locks"
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        self.environment = os.environ | {
            "LORATUI_WORKSPACE": str(self.workspace),
            locks.RUNTIME: str(self.runtime),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }

    def enter(self) -> None:
        """Let this process look at the box with the engine's own eyes."""
        os.environ[locks.RUNTIME] = str(self.runtime)

    def start(self, *arguments: str, stdout=subprocess.DEVNULL) -> subprocess.Popen:
        """`python -m …` in a session of its own. What it says on stderr is kept, for tracebacks."""
        with (self.workspace.parent / "said").open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=self.environment,
                cwd=self.workspace.parent,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=said,
                start_new_session=True,
            )

    def submit(self) -> list[Path]:
        """Queue the three runs. Returns their folders."""
        folders = []
        for name in SUBJECTS:
            before = set(queue.runs(self.workspace))
            sets = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
            prompt = 'sampling.prompts=["a ohwx thing on a red background --d 7"]'
            data = str(ROOT / "engine" / "tiny" / "subjects" / name)
            done = self.start(
                "loratui", "train", "--preset", "dreambooth", "--base", "tiny", "--data", data, "--class-prompt",
                "a squid", "--name", name, "--detach", *sets, "--set", prompt,
            ).wait()  # fmt: skip
            if done:
                raise SystemExit((self.workspace.parent / "said").read_text())
            folders += set(queue.runs(self.workspace)) - before
        return folders

    def processes(self) -> list[Process]:
        """Everything alive that belongs to this workspace, but for this process."""
        mark = f"LORATUI_WORKSPACE={self.workspace}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if int(entry.name) == os.getpid() or mark not in (entry / "environ").read_bytes().split(b"\0"):
                    continue
                words = (entry / "cmdline").read_bytes().decode().split("\0")[:-1]
                module = words[words.index("-m") + 1] if "-m" in words else " ".join(words)
                found.append(Process(int(entry.name), MODULES.get(module, module), tuple(words)))
        return found


class Storm:
    """The kills, and whoever cleans up behind them."""

    def __init__(self, box: Box, kills: int, seed: int):
        self.box, self.kills = box, kills
        self.outcome = Outcome(seed)
        self.runs: list[Path] = []
        self.watched: list[tuple[Path, Path]] = []
        """Journals as `runs watch --json` has told them, and the runs that they are of."""
        self._random = random.Random(seed)
        self._began = time.monotonic()
        self._watcher: subprocess.Popen | None = None
        self._helper: subprocess.Popen | None = None
        self._draw()

    def rage(self) -> None:
        self.runs += self.box.submit()
        while True:
            if time.monotonic() - self._began > GIVE_UP:
                self.outcome.problems.append(f"not done in {GIVE_UP:.0f} s")
                break
            states = {run: liveness.state_of(run) for run in self.runs}
            if all(state == "done" for state in states.values()):
                if len(self.outcome.kills) == self.kills:
                    break
                self.runs += self.box.submit()
                continue
            self._watch(states)
            self._tend(states)
            if len(self.outcome.kills) < self.kills:
                self._strike(states)
            time.sleep(0.1)
        self._settle()
        self.outcome.seconds = time.monotonic() - self._began

    def _draw(self) -> None:
        """Whom to kill next, where, and how long after it is there."""
        self._victim = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        self._in_training = self._random.random() < 0.5
        self._delay = self._random.uniform(0.0, 3.0 if self._in_training else 6.0)
        self._seen: float | None = None
        self._drawn = time.monotonic()

    def _strike(self, states: dict[Path, str]) -> None:
        now = time.monotonic()
        alive = self.box.processes()
        workers = {process.pid for process in alive if process.kind == "worker"}
        stage = next((_stage(run, workers) for run in states if states[run] == "running"), "none")
        targets = [process for process in alive if process.kind == self._victim]
        if targets and (not self._in_training or stage == "train") and self._seen is None:
            self._seen = now
        if self._seen is not None and now >= self._seen + self._delay and targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._random.choice(targets).pid, signal.SIGKILL)
                self.outcome.kills.append(Kill(self._victim, stage, round(now - self._began, 1)))
            self._draw()
        elif now - self._drawn > PATIENCE:
            self._draw()

    def _watch(self, states: dict[Path, str]) -> None:
        """Somebody follows what runs, through a host that may be killed."""
        running = [run for run in self.runs if states[run] == "running"]
        if running and (self._watcher is None or self._watcher.poll() is not None):
            told = self.box.workspace.parent / f"watched-{len(self.watched)}"
            with told.open("wb") as output:
                self._watcher = self.box.start("loratui", "runs", "watch", "--json", str(running[0]), stdout=output)
            self.watched.append((told, running[0]))

    def _tend(self, states: dict[Path, str]) -> None:
        """One thing at a time, as a person does."""
        if self._helper is not None and self._helper.poll() is None:
            return
        broken = [run for run in self.runs if states[run] not in ("done", "queued", *liveness.ALIVE)]
        choices = [("loratui", verb, run.name) for run in broken for verb in ("resume", "retry")]
        if not launch.runner_alive(self.box.workspace):
            choices.append(("engine.runner", "--resume"))
            if not broken:
                choices.append(("loratui", "list"))
        if choices:
            module, verb, *rest = self._random.choice(choices)
            self.outcome.commands[verb] += 1
            words = {"resume": ["resume", "--detach"], "retry": ["runs", "retry"], "list": ["runs", "list"]}
            workspace = [str(self.box.workspace)] if module == "engine.runner" else []
            self._helper = self.box.start(module, *words.get(verb, [verb]), *rest, *workspace)

    def _settle(self) -> None:
        """Whoever is about to end does so; who is left after that is a stray."""
        deadline = time.monotonic() + 30
        while (left := self.box.processes()) and time.monotonic() < deadline:
            for process in (self._watcher, self._helper):
                if process is not None:
                    process.poll()
            time.sleep(0.2)
        for process in left:
            self.outcome.problems.append(f"left alive: {process.kind} {process.pid} {' '.join(process.arguments)}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def _stage(run: Path, workers: set[int]) -> str:
    """What a live run is at; `start` as long as its worker has told of no stage."""
    stage, pid = "start", 0
    for event in protocol.JournalReader(run / protocol.JOURNAL).read():
        match event:
            case protocol.Attempt():
                stage, pid = "start", event.pid
            case protocol.Stage() if pid in workers:
                stage = event.name
    return stage


def undisturbed(box: Box) -> dict[str, Path]:
    """The three runs, left alone. Name → folder."""
    folders = box.submit()
    deadline = time.monotonic() + GIVE_UP
    while any(liveness.state_of(folder) in ("queued", *liveness.ALIVE) for folder in folders):
        if time.monotonic() > deadline:
            raise SystemExit(f"the undisturbed runs are not done after {GIVE_UP:.0f} s")
        time.sleep(0.2)
    for folder in folders:
        if (state := liveness.state_of(folder)) != "done":
            raise SystemExit(f"{folder}: expected an undisturbed run that is done; it is {state}")
    return {name_of(folder): folder for folder in folders}


def name_of(run: Path) -> str:
    """The subject that a run is named after."""
    return next(name for name in SUBJECTS if name in run.name)


def examine(storm: Storm, reference: dict[str, Path]) -> None:
    """Hold everything that the storm has left against the reference."""
    outcome, workspace = storm.outcome, storm.box.workspace
    for run in storm.runs:
        outcome.problems += [f"{run.name}: {problem}" for problem in _run(run, reference[name_of(run)], outcome)]
    for told, run in storm.watched:
        if not _telling(run / protocol.JOURNAL).startswith(_telling(told)):
            outcome.problems.append(f"{run.name}: `runs watch` has told something else than the journal")
        outcome.compared["watchers"] += 1
    entries = queue.read(workspace)
    if entries.waiting or entries.running:
        outcome.problems.append(f"the queue is not empty: {entries}")
    for path in sorted(workspace.rglob("*")):
        if path.is_file() and (problem := _broken(path)):
            outcome.problems.append(f"{path.relative_to(workspace)}: {problem}")
    for log in (workspace.parent / "said", workspace / "host.log", workspace / launch.RUNNER_LOG):
        if log.exists() and "Traceback" in (text := log.read_text(errors="replace")):
            last = re.findall(r"^\w[\w.]*(?:Error|Exception|Gone)\b.*$", text, re.MULTILINE)
            outcome.problems.append(f"{log.name}: {text.count('Traceback')} tracebacks: {Counter(last).most_common(3)}")


def _telling(journal: Path) -> bytes:
    """A journal without its progress, of which a host tells only the latest."""
    lines = journal.read_bytes().splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(b'{"event":"progress"'))


def _run(run: Path, reference: Path, outcome: Outcome) -> list[str]:
    found = []
    lines = (run / protocol.JOURNAL).read_bytes().split(b"\n")
    if lines.pop():
        found.append("the journal ends in a torn line")
    events = []
    for number, line in enumerate(lines, 1):
        try:
            events.append(json.loads(line))
        except ValueError:
            found.append(f"journal, line {number}: {line[:80]!r}")
    attempts = [event["number"] for event in events if event["event"] == "attempt"]
    outcome.attempts[run.name] = len(attempts)
    if attempts != list(range(1, len(attempts) + 1)):
        found.append(f"attempts are numbered {attempts}")
    ends = [event["state"] for event in events if event["event"] == "end"]
    if ends != ["done"]:
        found.append(f"ends are {ends}")
    for kind, key in (("step", "loss"), ("validation", "loss")):
        ours, theirs = _last(events, kind, key), _last(_events(reference), kind, key)
        if ours != theirs:
            different = sorted(step for step in ours.keys() | theirs.keys() if ours.get(step) != theirs.get(step))
            found.append(f"{kind}s told differently or not at all: {different}")
        outcome.compared[f"{kind}s"] += len(theirs)
    if list(_last(_events(reference), "step", "loss")) != list(range(1, STEPS + 1)):
        found.append("the reference itself does not tell every step")
    for pattern, load in (("**/*.safetensors", _tensors), ("samples/*.png", _pixels)):
        names = [{path.relative_to(folder) for path in folder.glob(pattern)} for folder in (run, reference)]
        if names[0] != names[1]:
            found.append(f"files that only one of both has: {sorted(map(str, names[0] ^ names[1]))}")
        for name in sorted(names[0] & names[1]):
            ours, theirs = load(run / name), load(reference / name)
            if ours.keys() != theirs.keys() or not all(np.array_equal(ours[key], theirs[key]) for key in ours):
                found.append(f"{name} differs from the undisturbed one")
            outcome.compared[pattern.rpartition("*")[2].lstrip(".")] += 1
    return found


def _events(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / protocol.JOURNAL).read_bytes().splitlines()]


def _last(events: list[dict], kind: str, key: str) -> dict[int, float]:
    """Step → value, of the last attempt that tells of the step; in the order of steps."""
    return dict(sorted({event["step"]: event[key] for event in events if event["event"] == kind}.items()))


def _tensors(path: Path) -> dict[str, np.ndarray]:
    with safe_open(path, framework="np") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def _pixels(path: Path) -> dict[str, np.ndarray]:
    with Image.open(path) as image:
        return {"pixels": np.asarray(image.convert("RGB"))}


def _broken(path: Path) -> str:
    """What is wrong with a file; empty where nothing is."""
    if ".tmp" in path.name:
        return "half-written, and left behind"
    try:
        match path.suffix:
            case ".safetensors":
                _tensors(path)
            case ".png":
                _pixels(path)
            case ".json":
                json.loads(path.read_bytes())
    except Exception as error:
        return f"not whole: {error}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.killstorm", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.add_argument("--record", action="store_true", help="put the tables into benchmarks/results.md")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="killstorm-"))
    calm, storm = Box(folder / "calm"), Storm(Box(folder / "storm"), asked.kills, asked.seed)
    began = time.monotonic()
    calm.enter()
    reference = undisturbed(calm)
    storm.outcome.undisturbed = time.monotonic() - began
    storm.box.enter()
    storm.rage()
    examine(storm, reference)
    outcome = storm.outcome
    if asked.json:
        print(json.dumps(asdict(outcome), indent=2))
    else:
        console = Console()
        for part in tables(outcome):
            console.print(part, markup=False, highlight=False)
    if asked.record:
        record(outcome)
    if outcome.problems:
        print(f"kept for a look: {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
