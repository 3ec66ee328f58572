"""What the benchmark of the embedded base says: its figures, the bars that they are held against, table and JSON.

The bars are promises of the project; weights that miss one are worse weights, not a reason to move it.
"""

from __future__ import annotations

import io
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console, Group
from rich.table import Table

from benchmarks.subject_report import machine

RESULTS = Path(__file__).with_name("results-tiny-base.md")
SHARE, DECIBEL, SECONDS, RANK = "share", "dB", "s", "rank"


@dataclass(frozen=True)
class Figure:
    """One measured figure. Shares are of 0..1."""

    exam: str
    what: str
    found: float
    unit: str
    meaning: str
    ideal: float | None = None
    """The same figure of the very pictures that were asked for: what this way of measuring can give at most."""
    bar: float | None = None
    """The least that is promised."""

    @property
    def missed(self) -> bool:
        return self.bar is not None and self.found < self.bar


@dataclass(frozen=True)
class Outcome:
    """Everything that a run of the benchmark found."""

    base: str
    learned: int
    """Emoji that count as known."""
    figures: list[Figure]
    pictures: int
    seconds: float
    machine: str
    versions: dict[str, str]

    @classmethod
    def of(cls, base: str, learned: int, figures: Sequence[Figure], pictures: int, seconds: float) -> Outcome:
        """With the machine and the versions that it was measured on."""
        names = ("torch", "diffusers", "transformers", "numpy")
        versions = {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
        return cls(base, learned, list(figures), pictures, round(seconds), machine(), versions)

    def json(self) -> str:
        return msgspec.json.format(msgspec.json.encode(asdict(self)), indent=2).decode()

    def tables(self) -> Group:
        """The tables for a terminal."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        place = (
            f"base {self.base}; {self.learned} emoji count as learned; {self.pictures} pictures\n"
            f"{self.machine}; {versions}; {self.seconds:.0f} s in all"
        )
        return Group(_table(self.figures), _meanings(self.figures), place)

    def record(self) -> None:
        """Keep the table in results-tiny-base.md, in place of what was there."""
        console = Console(file=io.StringIO(), width=100, color_system=None)
        console.print(self.tables(), markup=False, highlight=False)
        lines = "\n".join(line.rstrip() for line in console.file.getvalue().rstrip().splitlines())
        RESULTS.write_text(f"# Last results of `benchmarks.tiny_base`\n\n```text\n{lines}\n```\n")


def _table(figures: Sequence[Figure]) -> Table:
    caption = "ideal: the same figure of the very pictures that were asked for"
    table = Table(caption=caption, box=box.HORIZONTALS, padding=(0, 1), pad_edge=False)
    for heading in ("exam", "figure"):
        table.add_column(heading, no_wrap=True)
    for heading in ("found", "ideal", "bar"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    exam = ""
    for figure in figures:
        if exam not in ("", figure.exam):
            table.add_section()
        table.add_row(
            figure.exam if figure.exam != exam else "",
            figure.what,
            shown(figure.found, figure.unit),
            "" if figure.ideal is None else shown(figure.ideal, figure.unit),
            "" if figure.bar is None else shown(figure.bar, figure.unit),
            "" if figure.bar is None else "MISSED" if figure.missed else "holds",
        )
        exam = figure.exam
    return table


def _meanings(figures: Sequence[Figure]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    for figure in figures:
        if figure.meaning:
            table.add_row(f"{figure.exam}, {figure.what}:", figure.meaning)
    return table


def shown(value: float, unit: str) -> str:
    """A figure as the table has it."""
    if unit == SHARE:
        return f"{value:.1%}"
    return f"{value:.2f} {unit}" if unit != RANK else f"{value:.2f}"
