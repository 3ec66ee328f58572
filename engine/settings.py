"""`settings.toml` in the workspace: what holds for all runs of it. A mistake in it is told and stops nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from engine.config import check, read_file
from engine.errors import Problem, UserError

FILE = "settings.toml"

Commands = Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(description="shell lines, run one after another")]


class Hooks(Struct, frozen=True, forbid_unknown_fields=True):
    """Commands that the runner has run by `sh -c`, with the run's facts in the environment (see `engine.hooks`)."""

    on_checkpoint: Commands = []
    """An adapter was saved: LORATUI_ADAPTER."""
    on_done: Commands = []
    on_failed: Commands = []
    """The run failed, was refused, or crashed and is not tried again: LORATUI_STATE, LORATUI_CAUSE."""
    on_queue_empty: Commands = []
    """The last run has ended and none waits."""
    timeout: Annotated[float, Meta(description="a command that takes longer is killed", extra={"unit": "s"}, gt=0)] = (
        600.0
    )


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    retries: Annotated[int, Meta(description="how often a crashed run is started again by itself", ge=0, le=100)] = 0
    hooks: Hooks = Hooks()


def read_settings(workspace: Path) -> tuple[Settings | None, list[Problem]]:
    """The settings of a workspace, the defaults where there are none; None and the reasons where they are wrong."""
    path = workspace / FILE
    if not path.exists():
        return Settings(), []
    try:
        return check(Settings, read_file(path), lambda field: str(path))
    except UserError as error:
        return None, list(error.problems)
