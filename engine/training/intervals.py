"""When a run draws, validates and saves: arithmetic of its steps. Light: a host tells it before there is a run."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import Train


@dataclass(frozen=True)
class Intervals:
    """Steps between pictures, validations and checkpoints; 0 means at the end only (and pictures at the start)."""

    sample: int
    validate: int
    save: int


def intervals(config: Train, steps: int, batches_per_epoch: int) -> Intervals:
    """The intervals of a run, `auto` resolved: 4 pictures, 20 validations, 10 checkpoints."""

    def every(setting: int | str, times: int) -> int:
        return max(1, steps // times) if setting == "auto" else setting

    per_epoch = max(1, round(batches_per_epoch / config.training.accumulate))
    sample = config.sampling.epochs * per_epoch or every(config.sampling.every, 4)
    return Intervals(sample, every(config.training.validate_every, 20), every(config.saving.every, 10))


def due(step: int, every: int, steps: int) -> bool:
    """Whether something with this interval happens after `step`. It always happens after the last."""
    return step == steps or bool(every and step and step % every == 0)


def times(every: int, steps: int) -> int:
    """After how many of the steps 1 … `steps` it is due."""
    return steps // every + bool(steps % every) if every else 1
