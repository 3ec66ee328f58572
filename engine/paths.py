"""The folders that the engine writes to, besides a job's own."""

from __future__ import annotations

from pathlib import Path

from engine.protocol import workspace


def cache(*names: str) -> Path:
    """A folder of the workspace's cache, made when missing. Its content can be deleted at any time."""
    folder = workspace().joinpath("cache", *names)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
