"""Which modules a config asks to adapt, by target set or pattern. Light: a host tells a run's size before it begins."""

from __future__ import annotations

from typing import NamedTuple

from engine.config import Train
from engine.models.sizes import SHARES

TARGET_SETS = tuple(SHARES)


class Asked(NamedTuple):
    """One wish, and the field that holds it. `targets` is a target set or else a pattern over module names."""

    field: str
    targets: str
    rank: int
    alpha: float


def asked(config: Train) -> list[Asked]:
    """The wishes of a config in their order: of those that hold a module, the last decides."""
    adapter, optimizer = config.adapter, config.optimizer
    found = [Asked("adapter.targets", adapter.targets, adapter.rank, adapter.alpha)] if optimizer.lr_unet else []
    if optimizer.lr_text:
        found.append(Asked("optimizer.lr_text", "text_encoder", adapter.rank, adapter.alpha))
    return found + [
        Asked(f"adapter.sets[{index}].targets", chosen.targets, chosen.rank, chosen.alpha)
        for index, chosen in enumerate(adapter.sets)
    ]
