"""The folders that the engine writes to, besides a job's own."""

from __future__ import annotations

import os
from pathlib import Path


def workspace() -> Path:
    """LORATUI_WORKSPACE, by default ~/loratui: everything that is written lies in it."""
    return Path(os.environ.get("LORATUI_WORKSPACE") or "~/loratui").expanduser().absolute()


def cache(*names: str) -> Path:
    """A folder of the workspace's cache, made when missing. Its content can be deleted at any time."""
    folder = workspace().joinpath("cache", *names)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
