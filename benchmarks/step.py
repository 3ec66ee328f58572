"""How long a training step takes, and how much memory it holds: loratui against PEFT layers in a plain loop.

    python -m benchmarks.step [--case tiny] [--rounds 30] [--steps 5] [--json]

Both sides train the same adapter on the same frozen UNet with the same cached inputs, precision, SDPA attention and
fused AdamW, each in a process of its own that stays alive; see `step_sides`. The sides take turns, a few steps each,
and swap places every round, so that whatever else the machine does hits both; what counts is the median of the rounds'
ratios. Before anything is timed their losses and gradient norms are compared: a benchmark of two different things is
refused.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.worker import ALLOCATOR

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("ours", "peft")
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Relative difference of losses and gradient norms that is still rounding."""


@dataclass(frozen=True)
class Case:
    """A step to measure: `base` is tiny (its real weights) or sd15 (Stable Diffusion 1.5's shape, random weights)."""

    name: str
    base: str
    size: int
    """Side of the square latents."""
    batch: int
    rank: int
    device: str
    dtype: str
    targets: str = "attention"


CASES = {
    case.name: case
    for case in (
        Case("tiny", "tiny", 16, 8, 8, "cpu", "float32"),
        Case("sd15", "sd15", 16, 1, 16, "cpu", "float32"),
        Case("sd15-gpu-1", "sd15", 64, 1, 16, "cuda", "bfloat16"),
        Case("sd15-gpu-4", "sd15", 64, 4, 16, "cuda", "bfloat16"),
    )
}


class Side:
    """One child process: `ours` or `peft`. It speaks one line of JSON per answer and waits between questions."""

    def __init__(self, name: str, case: Case, threads: int):
        environment = os.environ | ALLOCATOR | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.step_sides", name, json.dumps(asdict(case))],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the side '{self.name}' died with code {self.process.wait()}; its error is above")
        return json.loads(line)

    def run(self, steps: int) -> float:
        """Seconds a step, over so many steps."""
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self.answer()["seconds"] / steps

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(case: Case, rounds: int, steps: int, threads: int) -> dict[str, Any]:
    """Run one case. Raises SystemExit when the sides don't compute the same thing."""
    sides = [Side(name, case, threads) for name in SIDES]
    try:
        facts = {side.name: side.answer() for side in sides}
        compare(case, facts)
        if "skipped" in facts["ours"]:
            return {"case": asdict(case), "skipped": facts["ours"]["skipped"]}
        for side in sides:
            side.run(steps)
        seconds: dict[str, list[float]] = {name: [] for name in SIDES}
        for index in range(rounds):
            for side in sides if index % 2 == 0 else sides[::-1]:
                seconds[side.name].append(side.run(steps))
    finally:
        for side in sides:
            side.close()
    result: dict[str, Any] = {
        "case": asdict(case),
        "device": facts["ours"]["device"],
        "factors": facts["ours"]["factors"],
        "rounds": rounds,
        "steps": steps,
        "threads": threads,
    }
    for name in SIDES:
        result[name] = {"seconds": spread(seconds[name]), "peak_bytes": facts[name]["peak_bytes"]}
    result["ratio"] = spread([ours / peft for ours, peft in zip(*seconds.values(), strict=True)])
    result["memory_ratio"] = facts["ours"]["peak_bytes"] / facts["peft"]["peak_bytes"]
    return result


def compare(case: Case, facts: dict[str, dict[str, Any]]) -> None:
    """Check that both sides train the same thing: same size, same losses and gradient norms over the first steps."""
    ours, peft = (facts[name] for name in SIDES)
    if "skipped" in ours:
        return
    if ours["factors"] != peft["factors"]:
        raise SystemExit(f"{case.name}: {ours['factors']} trainable numbers against {peft['factors']}")
    for what in ("losses", "norms"):
        for step, (mine, other) in enumerate(zip(ours[what], peft[what], strict=True), 1):
            if not abs(mine - other) <= TOLERANCE[case.dtype] * abs(other):
                raise SystemExit(f"{case.name}: {what} differ at step {step}: ours {mine}, PEFT {other}")


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, _, high = quantiles(values, n=4)
    return {"median": median(values), "low": low, "high": high}


def table(results: list[dict[str, Any]]) -> Table:
    """The results, as they are printed."""
    out = Table(title="One training step, ours against PEFT layers in a plain loop (median, quartiles)")
    for heading in ("case", "ours s/step", "PEFT s/step", "ratio", "ours MB", "PEFT MB", "ratio"):
        out.add_column(heading, justify="left" if heading == "case" else "right")
    for result in results:
        case = result["case"]
        title = f"{case['name']}: {case['batch']}×{case['size']}×{case['size']}, {case['targets']}, rank {case['rank']}"
        if "skipped" in result:
            out.add_row(title, f"skipped: {result['skipped']}")
            continue
        out.add_row(
            title,
            *(show(result[name]["seconds"], 4) for name in SIDES),
            show(result["ratio"], 3),
            *(f"{result[name]['peak_bytes'] / 1e6:.1f}" for name in SIDES),
            f"{result['memory_ratio']:.3f}",
        )
    return out


def show(values: dict[str, float], digits: int) -> str:
    return f"{values['median']:.{digits}f} ({values['low']:.{digits}f}-{values['high']:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES, help="only this one; may be repeated")
    parser.add_argument("--targets", choices=("attention", "transformer", "locon"), default="attention")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=5, help="of each side in a round")
    parser.add_argument("--threads", type=int, default=1, help="of each process, on a CPU")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    asked = parser.parse_args()
    results = []
    for name in asked.case or CASES:
        print(f"measuring {name} …", file=sys.stderr)
        case = replace(CASES[name], targets=asked.targets)
        results.append(measure(case, max(2, asked.rounds), asked.steps, asked.threads))
    if asked.json:
        print(json.dumps(results, indent=1))
    else:
        Console().print(table(results))


if __name__ == "__main__":
    main()
