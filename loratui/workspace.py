"""The workspace: the one folder that holds everything loratui writes, `LORATUI_WORKSPACE` or `~/loratui`.

Nothing outside it is ever written, so that a person can move it to a larger disk, back it up or delete it, and be done.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "LORATUI_WORKSPACE"
DEFAULT_PROJECT = "default"


def workspace_path() -> Path:
    """Where the workspace is or would be: absolute, `~` expanded. Creates nothing."""
    return Path(os.environ.get(VARIABLE) or "~/loratui").expanduser().absolute()


def workspace() -> Path:
    """The workspace, created if it is missing. Raises `UserError` where it can't be created or written to."""
    return _made(workspace_path())


def runs_folder(project: str = DEFAULT_PROJECT) -> Path:
    """`projects/<project>/runs` in the workspace, created: one folder a job. `project` is a plain folder name."""
    if project in ("", ".", "..") or "/" in project or "\\" in project or "\0" in project:
        raise _refusal(project, "a project's name: a plain folder name", "a path", "choose one without slashes")
    return _made(workspace() / "projects" / project / "runs")


def cache_folder() -> Path:
    """`cache` in the workspace, created: what can be deleted at any time and is made again when it is needed."""
    return _made(workspace() / "cache")


def _made(folder: Path) -> Path:
    advice = f"set {VARIABLE} to a folder that you can write to"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(str(folder), "a folder that can be created", error.strerror or str(error), advice) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _refusal(str(folder), "a folder that can be written to", "no permission", advice)
    return folder


def _refusal(where: str, expected: str, found: str, advice: str) -> Exception:
    # Imported here because the schema takes longer to load than the rest of this file.
    from engine.config import Problem, UserError

    return UserError(Problem(where=where, expected=expected, found=found, advice=advice))
