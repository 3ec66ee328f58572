"""The course of the learning rates: a pure function of the step, so that nothing has to be saved or restored."""

from __future__ import annotations

import math

from engine.config import Problem, Train


def warmup_steps(config: Train, steps: int) -> int:
    """Steps of linear rise: as asked for, or 5 % of the run and at most 100."""
    return min(100, steps // 20) if config.schedule.warmup == "auto" else config.schedule.warmup


def problems(config: Train, steps: int) -> list[Problem]:
    """What is wrong with a warm-up that a run of so many steps, which may be given in epochs, never comes out of."""
    if config.schedule.warmup == "auto" or config.schedule.warmup <= steps:
        return []
    return [
        Problem(
            where="the run",
            field="schedule.warmup",
            expected=f"at most the {steps} steps of the run",
            found=str(config.schedule.warmup),
            advice="the rates would never reach their height",
        )
    ]


def factor(kind: str, step: int, steps: int, warmup: int) -> float:
    """What the rates are multiplied with in step 1 … steps: up to 1 over the warm-up, then constant or down to 0."""
    if step <= warmup:
        return step / warmup
    if kind == "constant":
        return 1.0
    done = (step - 1 - warmup) / max(1, steps - warmup)
    return 1.0 - done if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
