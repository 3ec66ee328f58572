"""What the subject benchmark says: its rows, the thresholds that they are held against, tables and JSON.

The thresholds are promises of the project; a change that misses one is a change for the worse, not a reason to move it.
"""

from __future__ import annotations

import io
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import mean

import msgspec
from rich import box
from rich.console import Console, Group
from rich.table import Table

BASE, PRIOR, NO_PRIOR = "base", "with prior", "no prior"
VARIANTS = (BASE, PRIOR, NO_PRIOR)

LEARNED = 0.60
"""At least this share of the adapter's pictures has the true subject among the five nearest emoji."""
UNSEEN = 0.10
"""At most this share of the base's own pictures has."""
BACKGROUND = 0.80
"""The adapter hits the requested background at least this often, as a part of the base's rate."""

RESULTS = Path(__file__).with_name("results-subject.md")


@dataclass(frozen=True)
class Row:
    """One subject drawn by the base or by an adapter. Shares of 0..1; `moved` from the base, in levels of 0..255."""

    subject: str
    variant: str
    top1: float
    top5: float
    background: float
    class_right: float
    class_moved: float
    known_right: float
    known_moved: float
    seconds: float = 0.0
    """Of the whole training job, start and class images included."""
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """One threshold and how far the measurement is from it."""

    claim: str
    found: str
    passed: bool


def averages(rows: Sequence[Row]) -> list[Row]:
    """Each variant over all subjects."""
    return [_average(variant, [row for row in rows if row.variant == variant]) for variant in VARIANTS]


def _average(variant: str, rows: Sequence[Row]) -> Row:
    measured = [name for name, kind in Row.__annotations__.items() if kind == "float"]
    return Row("all", variant, **{name: mean(getattr(row, name) for row in rows) for name in measured})


def judge(base: Row, prior: Row, plain: Row) -> list[Verdict]:
    """Hold the averages of the three variants against the thresholds."""
    ratio = prior.background / base.background if base.background else 0.0
    return [
        Verdict(f"with the adapter, top 5 in at least {LEARNED:.0%}", f"{prior.top5:.0%}", prior.top5 >= LEARNED),
        Verdict(f"without it, top 5 in at most {UNSEEN:.0%}", f"{base.top5:.0%}", base.top5 <= UNSEEN),
        Verdict(f"background right at {BACKGROUND} of the base's rate", f"{ratio:.2f}", ratio >= BACKGROUND),
        Verdict(
            "the class moves less with a prior",
            f"{prior.class_moved:.1f}, {plain.class_moved:.1f} without",
            prior.class_moved < plain.class_moved,
        ),
    ]


@dataclass(frozen=True)
class Outcome:
    """Everything that a run of the benchmark found."""

    rows: list[Row]
    averages: list[Row]
    verdicts: list[Verdict]
    settings: str
    seconds: float
    machine: str
    versions: dict[str, str]

    @classmethod
    def of(cls, rows: list[Row], settings: str, seconds: float) -> Outcome:
        """Average and judge the rows of a run that trained with `settings` and took `seconds` on this machine."""
        names = ("torch", "diffusers", "transformers", "numpy")
        versions = {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
        overall = averages(rows)
        return cls(rows, overall, judge(*overall), settings, round(seconds), machine(), versions)

    def json(self) -> str:
        return msgspec.json.format(msgspec.json.encode(asdict(self)), indent=2).decode()

    def tables(self) -> Group:
        """The tables for a terminal."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        place = f"{self.settings}\n{self.machine}; {versions}; {self.seconds:.0f} s in all"
        return Group(_measurements([*self.rows, *self.averages]), _verdicts(self.verdicts), place)

    def record(self) -> None:
        """Keep the tables in results-subject.md, in place of what was there."""
        console = Console(file=io.StringIO(), width=100, color_system=None)
        console.print(self.tables(), markup=False, highlight=False)
        RESULTS.write_text(
            f"# Last results of `benchmarks.subject`\n\n```text\n{console.file.getvalue().rstrip()}\n```\n"
        )


def _measurements(rows: Sequence[Row]) -> Table:
    caption = "right: in the top 5; moved: from the base's own picture, levels of 0..255"
    table = Table(caption=caption, box=box.HORIZONTALS, padding=0, pad_edge=False)
    for heading in ("subject", ""):
        table.add_column(heading)
    for heading in ("top 1", "top 5", "back-\nground", "class\nright", "class\nmoved", "known\nright", "known\nmoved"):
        table.add_column(heading, justify="right")
    for heading in ("train-\ning s", "its\nCPU s"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.subject if row.variant == BASE else "",
            row.variant,
            *(f"{share:.0%}" for share in (row.top1, row.top5, row.background, row.class_right)),
            f"{row.class_moved:.1f}",
            f"{row.known_right:.0%}",
            f"{row.known_moved:.1f}",
            *(f"{spent:.0f}" if spent else "" for spent in (row.seconds, row.cpu_seconds)),
            end_section=row.variant == NO_PRIOR,
        )
    return table


def _verdicts(verdicts: Sequence[Verdict]) -> Table:
    table = Table("what is promised", "found", "", box=box.HORIZONTALS, pad_edge=False)
    for verdict in verdicts:
        table.add_row(verdict.claim, verdict.found, "holds" if verdict.passed else "MISSED")
    return table


def machine() -> str:
    """The processor's name and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = (line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line)
        name = next(models, name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"
