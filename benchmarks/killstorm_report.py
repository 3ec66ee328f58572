"""What a storm of kills has done, as tables for a person and as a section of results.md."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).with_name("results.md")
TITLE = "## Killstorm"
STAGES = ("none", "start", "check", "load", "class-images", "cache", "train", "draw")


@dataclass
class Kill:
    victim: str
    stage: str
    """Stage of the run that was at work."""
    at: float
    """Seconds since the storm began."""


@dataclass
class Outcome:
    """What a storm has done, and everything that it should not have done."""

    seed: int
    kills: list[Kill] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)
    """Run → attempts."""
    compared: Counter[str] = field(default_factory=Counter)
    """What was held against the reference → how many."""
    commands: Counter[str] = field(default_factory=Counter)
    """What was done about kills → how often."""
    undisturbed: float = 0.0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def tables(outcome: Outcome) -> list[Table | str]:
    """What happened, for a person."""
    told = {kill.stage for kill in outcome.kills}
    stages = [stage for stage in STAGES if stage in told] + sorted(told - set(STAGES))
    counted = Counter((kill.victim, kill.stage) for kill in outcome.kills)
    kills = Table("kill -9 of", *stages, "all")
    for victim in ("worker", "runner", "host"):
        row = [counted[victim, stage] for stage in stages]
        kills.add_row(victim, *map(str, row), str(sum(row)))
    compared = ", ".join(f"{count} {name}" for name, count in sorted(outcome.compared.items()))
    return [
        kills,
        f"{len(outcome.kills)} kills, seed {outcome.seed}, in {outcome.seconds:.0f} s; "
        f"three runs undisturbed: {outcome.undisturbed:.0f} s",
        "attempts: " + ", ".join(f"{run} {count}" for run, count in outcome.attempts.items()),
        "done about them: " + ", ".join(f"{verb} {count}×" for verb, count in outcome.commands.most_common()),
        f"held against the undisturbed: {compared}",
        *([f"WRONG: {problem}" for problem in outcome.problems] or ["every journal whole, every file the same"]),
    ]


def record(outcome: Outcome) -> None:
    """Put the tables into the section of results.md that is ours, and leave the others as they are."""
    with tempfile.TemporaryFile("w+") as paper:
        console = Console(file=paper, width=110, color_system=None)
        for part in tables(outcome):
            console.print(part, markup=False, highlight=False)
        paper.seek(0)
        section = f"{TITLE}\n\n```text\n{paper.read().rstrip()}\n```\n"
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results\n"
    others = re.sub(rf"^{re.escape(TITLE)}$.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    RESULTS.write_text(f"{others.rstrip()}\n\n{section}", encoding="utf-8")
