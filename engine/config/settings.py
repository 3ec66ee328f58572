"""`settings.toml` in the workspace: what holds for all runs of it, and for the app.

A mistake in it is told and stops nothing. The `[app]` section stands apart: a slip in a key binding must not switch off
the command that powers a rented machine down, nor the other way round.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from engine.config.schema import check
from engine.config.sources import read_file
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


class App(Struct, frozen=True, forbid_unknown_fields=True):
    """The terminal program. The ids of actions and the names of themes are checked where their tables are: there."""

    theme: Annotated[str, Meta(description="name of the theme", min_length=1)] = "loratui-dark"
    mouse: Annotated[bool, Meta(description="clicks and the wheel are taken; false: left to the terminal")] = True
    pictures: Annotated[
        Literal["auto", "half-blocks", "kitty", "sixel"],
        Meta(description="how pictures are drawn; auto: the finest that the terminal answers for"),
    ] = "auto"
    adapters: Annotated[
        list[Annotated[str, Meta(min_length=1)]],
        Meta(description="folders of adapters beside those of the projects; a relative one starts at the workspace"),
    ] = []
    keys: Annotated[
        dict[str, str], Meta(description='keys of an action by its id, parted by commas; "": the action has no key')
    ] = {}


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    retries: Annotated[int, Meta(description="how often a crashed run is started again by itself", ge=0, le=100)] = 0
    hooks: Hooks = Hooks()
    app: App = App()


def read_settings(workspace: Path) -> tuple[Settings | None, list[Problem]]:
    """The settings of a workspace, the defaults where there are none. None where those of the runs are wrong; an
    `[app]` that is wrong is replaced by its defaults. With every problem of the file."""
    (settings, of_runs), (app, of_app) = _read(workspace)
    return settings and msgspec.structs.replace(settings, app=app or App()), of_runs + of_app


def read_app(workspace: Path) -> tuple[App, list[Problem]]:
    """The `[app]` section of a workspace's settings, its defaults where it is wrong. With every problem of the file."""
    (_, of_runs), (app, of_app) = _read(workspace)
    return app or App(), of_runs + of_app


def _read(workspace: Path) -> tuple[tuple[Settings | None, list[Problem]], tuple[App | None, list[Problem]]]:
    path = workspace / FILE
    tables: dict[str, Any] = {}
    try:
        if path.exists():
            tables = read_file(path)
    except UserError as error:
        return (None, list(error.problems)), (None, [])
    app = check(App, tables.pop("app", {}), lambda field: str(path), "app")
    return check(Settings, tables, lambda field: str(path)), app
