"""What the preset of `tiny` teaches: subjects that it has never seen, from four pictures each, measured by a ruler.

    python -m benchmarks.subject --emoji emoji-datasource-twitter-16.0.0.tgz

Each subject is trained twice, with prior preservation and without, as a user would do it: a job's directory, a worker
process, an adapter file. Then base and adapters draw the same prompts from the same seeds, on colours that were not in
training. Prompts, seeds, sampler and ruler are fixed here and the thresholds in `subject_report`; what is trained comes
from the preset, so that this measures what users get.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from rich.console import Console

from benchmarks.ruler import Ruler, background, moved
from benchmarks.shots import SEEDS, Painter, Shot
from benchmarks.subject_report import BASE, NO_PRIOR, PRIOR, Outcome, Row
from engine import protocol, tiny
from engine.config import PRESETS, Request, Train, UserError, to_toml
from engine.tiny.datasets import HELD_OUT, SUBJECTS, caption, folder
from engine.tiny.drawings import Emoji, unreadable
from engine.worker import ALLOCATOR

TOP = 5
KNOWN_STEP = 19
"""Of the 446 emoji that the first weights knew, each 19th is drawn to see whether it has changed: 24."""


def subject_shots(subject: str) -> list[Shot]:
    """The subject by its training captions' form, on the colours that were not in training."""
    return [Shot(subject, colour, caption(subject, colour), seed) for colour in HELD_OUT for seed in SEEDS]


def class_shots(subject: str) -> list[Shot]:
    """The subject's class on every colour; the class images of the training are all on white."""
    name = SUBJECTS[subject]
    return [Shot(name, colour, tiny.CAPTIONS[0].format(name=name, colour=colour), SEEDS[0]) for colour in tiny.COLOURS]


def known_shots(emoji: Emoji) -> list[Shot]:
    """Emoji that have nothing to do with any subject, spread over all that the first weights knew."""
    colours = list(tiny.COLOURS) * len(emoji.names)
    pairs = zip(emoji.first_known()[::KNOWN_STEP], colours, strict=False)
    return [Shot(name, colour, tiny.CAPTIONS[0].format(name=name, colour=colour), SEEDS[0]) for name, colour in pairs]


@dataclass
class Examiner:
    """Draws what a subject is judged by and holds it against the ruler."""

    ruler: Ruler
    known: list[Shot]
    draw: Callable[[list[Shot], Path | None], list]

    def __post_init__(self) -> None:
        self._unmoved: dict[str, list] = {}

    def examine(self, subject: str, variant: str, adapter: Path | None) -> Row:
        """Measure the base (no adapter) or an adapter."""
        shots = subject_shots(subject)
        images = self.draw(shots, adapter)
        ranks = [self._rank(shot, image) for shot, image in zip(shots, images, strict=True)]
        class_right, class_moved = self._drift(f"class of {subject}", class_shots(subject), adapter)
        known_right, known_moved = self._drift("known", self.known, adapter)
        return Row(
            subject=subject,
            variant=variant,
            top1=mean(rank == 1 for rank in ranks),
            top5=mean(rank <= TOP for rank in ranks),
            background=mean(background(image) == shot.colour for shot, image in zip(shots, images, strict=True)),
            class_right=class_right,
            class_moved=class_moved,
            known_right=known_right,
            known_moved=known_moved,
        )

    def _drift(self, group: str, shots: list[Shot], adapter: Path | None) -> tuple[float, float]:
        """What became of pictures that the training was not about: share still in the top 5, mean distance moved."""
        if group not in self._unmoved:
            self._unmoved[group] = self.draw(shots, None)
        before = self._unmoved[group]
        after = self.draw(shots, adapter) if adapter else before
        right = mean(self._rank(shot, image) <= TOP for shot, image in zip(shots, after, strict=True))
        return right, mean(moved(*pair) for pair in zip(before, after, strict=True))

    def _rank(self, shot: Shot, image) -> int:
        return self.ruler.rank(image, shot.name, shot.colour)


def configure(subject: str, prior: bool, steps: int | None) -> Train:
    """The preset on a subject's pictures, as a user would fill it in."""
    request = Request()
    request.lay(PRESETS["dreambooth"]["tiny"], "the preset")
    chosen = {"prompt": tiny.CAPTIONS[0].format(name=SUBJECTS[subject], colour="white")} if prior else {"weight": 0.0}
    request.lay(
        {
            "name": folder(subject).name,
            "model": {"base": "tiny"},
            "dataset": {"subsets": [{"path": str(folder(subject))}]},
            "prior": chosen,
            "training": {"steps": steps} if steps else {},
        },
        "the benchmark",
    )
    return request.checked(Train)


def settings(config: Train) -> str:
    """The settings that decide what a run learns, in a line."""
    adapter, training, optimizer, prior = config.adapter, config.training, config.optimizer, config.prior
    return (
        f"{training.steps} steps of {training.batch} images beside as many class images (of {prior.images}), "
        f"rank {adapter.rank} on {adapter.targets}, lr_unet {optimizer.lr_unet:g}, snr_gamma {config.loss.snr_gamma:g}"
    )


def train(config: Train, directory: Path, workspace: Path) -> tuple[Path, float, float]:
    """Run the job in a worker process. Returns the adapter's file, seconds and CPU seconds."""
    directory.mkdir(parents=True)
    (directory / protocol.CONFIG).write_text(to_toml(config))
    root = str(Path(__file__).resolve().parents[1])
    environment = os.environ | {"LORATUI_WORKSPACE": str(workspace), "PYTHONSAFEPATH": "1", "PYTHONPATH": root}
    started, spent = time.monotonic(), _cpu_seconds_of_children()
    with (directory / protocol.LOG).open("wb") as log:
        worker = [sys.executable, "-m", "engine.worker", str(directory)]
        code = subprocess.run(worker, env=environment, stdout=log, stderr=log, check=False).returncode
    if code != protocol.DONE:
        raise SystemExit(f"{directory}: the training ended with {code}\n{(directory / protocol.LOG).read_text()}")
    seconds, cpu_seconds = time.monotonic() - started, _cpu_seconds_of_children() - spent
    return directory / f"{config.name}.safetensors", seconds, cpu_seconds


def _cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(
    examiner: Examiner, subjects: Iterable[str], steps: int | None, workspace: Path, say: Callable[[str], None]
) -> list[Row]:
    """Every subject by the base, with prior preservation and without: three rows each."""
    rows = []
    for subject in subjects:
        say(f"{subject}: the base alone")
        rows.append(examiner.examine(subject, BASE, None))
        for variant, prior in ((PRIOR, True), (NO_PRIOR, False)):
            say(f"{subject}: training {variant}")
            directory = workspace / "runs" / f"{folder(subject).name}-{'prior' if prior else 'plain'}"
            adapter, seconds, cpu_seconds = train(configure(subject, prior, steps), directory, workspace)
            say(f"{subject}: {seconds:.0f} s; drawing")
            row = examiner.examine(subject, variant, adapter)
            rows.append(replace(row, seconds=round(seconds, 1), cpu_seconds=round(cpu_seconds, 1)))
    return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--emoji", type=Path, help="folder or .tgz of the npm package emoji-datasource-twitter 16.0.0")
    parser.add_argument(
        "--subjects", type=int, choices=range(1, len(SUBJECTS) + 1), default=len(SUBJECTS), help="only the first ones"
    )
    parser.add_argument("--steps", type=int, help="instead of the preset's")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--record", action="store_true", help="keep the tables in results-subject.md beside this file")
    return parser.parse_args()


def main() -> int:
    """Print the tables. Returns 0 if every threshold held, 1 if one did not, 2 for a wrong option."""
    if any(name not in os.environ for name in ALLOCATOR):
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.subject", *sys.argv[1:]], ALLOCATOR | os.environ)
    asked, started = arguments(), time.monotonic()
    try:
        if asked.emoji is None:
            raise UserError(unreadable("--emoji", "nothing"))
        emoji, example = Emoji.read(asked.emoji), configure(next(iter(SUBJECTS)), True, asked.steps)
    except UserError as error:
        print(error, file=sys.stderr)
        return protocol.REFUSED
    examiner = Examiner(Ruler(emoji), known_shots(emoji), Painter().draw)
    subjects = list(SUBJECTS)[: asked.subjects]
    with tempfile.TemporaryDirectory() as workspace:
        rows = measure(examiner, subjects, asked.steps, Path(workspace), lambda text: print(text, file=sys.stderr))
    outcome = Outcome.of(rows, settings(example), time.monotonic() - started)
    if asked.json:
        print(outcome.json())
    else:
        Console().print(outcome.tables(), markup=False, highlight=False)
    if asked.record:
        outcome.record()
    return protocol.DONE if all(verdict.passed for verdict in outcome.verdicts) else protocol.FAILED


if __name__ == "__main__":
    sys.exit(main())
