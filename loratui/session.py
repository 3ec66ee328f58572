"""What the app finds again at its next start: panel, project, selections, filters, theme. `app/session.json`.

It is saved whenever it changes, since a terminal that is closed leaves no time. What is there and can't be read is as
good as nothing: a session is a convenience, and never a reason not to start.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec


class Session(msgspec.Struct, kw_only=True):
    version: int = 1
    panel: str = "projects"
    project: str = ""
    theme: str = ""
    """As chosen in the app; empty: that of the settings."""
    panels: dict[str, dict[str, Any]] = {}
    """Panel → what it wants to find again."""


def load(folder: Path) -> Session:
    """The session of a workspace; a new one where there is none that this version understands."""
    with contextlib.suppress(OSError, ValueError):
        session = msgspec.json.decode(_path(folder).read_bytes(), type=Session)
        if session.version == Session().version:
            return session
    return Session()


def save(folder: Path, session: Session) -> None:
    """Replace the saved session. A folder that can't be written to is not the user's concern here."""
    path = _path(folder)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(msgspec.json.encode(session))
        os.replace(temporary, path)


def _path(folder: Path) -> Path:
    return folder / "app" / "session.json"
