"""The sample pictures of a run as a table: a row a prompt, a column a step; of a job that does not train, the pictures
by their number. A picture's place comes from a journal, so it is looked for inside the run's folder, and elsewhere only
where the job was asked to write there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from engine import protocol
from loratui.history import History
from loratui.widgets.columns import clean

Cell = tuple[int, int]
"""A step (or number) and the index of a prompt."""


@dataclass(frozen=True)
class Table:
    steps: list[int] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    pictures: dict[Cell, Path] = field(default_factory=dict)
    notes: dict[Cell, str] = field(default_factory=dict)
    """What is written below a picture."""


def by_step(history: History, folder: Path) -> Table:
    """The samples of a training."""
    steps, rows, samples = history.grid()
    index = {row: place for place, row in enumerate(rows)}
    table = Table(steps, [clean(prompt) for _, prompt, _ in rows])
    for (step, row), sample in samples.items():
        _put(table, (step, index[row]), inside(folder, sample.path), f"step {step:,} · {_words(sample)}")
    return table


def by_number(history: History, folder: Path) -> Table:
    """The pictures of a job that draws: numbered from 1, a row for each prompt."""
    _, rows, samples = history.grid()
    prompts = list(dict.fromkeys(prompt for _, prompt, _ in rows))
    table = Table(list(range(1, len(samples) + 1)), [clean(prompt) for prompt in prompts])
    ordered = sorted(samples.values(), key=lambda sample: sample.index)
    for number, sample in enumerate(ordered, start=1):
        path = Path(sample.path) if sample.path.startswith("/") else inside(folder, sample.path)
        _put(table, (number, prompts.index(sample.prompt)), path, _words(sample))
    return table


def inside(folder: Path, name: str) -> Path | None:
    """A file of a run's folder; None for a name that leads out of it."""
    parts = Path(name).parts
    return folder / name if name and not name.startswith("/") and ".." not in parts and "\0" not in name else None


def _put(table: Table, cell: Cell, path: Path | None, note: str) -> None:
    if path is not None:
        table.pictures[cell] = path
        table.notes[cell] = note


def _words(sample: protocol.Sample) -> str:
    return f"seed {sample.seed} · {clean(sample.prompt)}"
