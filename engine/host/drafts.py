"""`draft.toml` in a project's folder: what its form holds, from one session to the next.

A draft need not make a config yet, so nothing but its being TOML is asked of it. One that can't be read, since a person
edited it say, is never written over: it is kept beside the new one under another name.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from engine import files
from engine.errors import Problem, UserError
from engine.host import projects
from engine.host.submission import mendable
from engine.protocol.browse import Draft

FILE = "draft.toml"


def read(workspace: Path, project: str) -> Draft:
    """The draft of a project; an empty one where there is none or, with its `problem`, where it can't be read.

    Raises UserError where there is no such project.
    """
    path = projects.find(workspace, project) / FILE
    try:
        return _read(path, project)
    except FileNotFoundError:
        return Draft(project=project)
    except (OSError, ValueError, RecursionError) as error:
        return Draft(project=project, problem=f"{FILE} can't be read: {getattr(error, 'strerror', None) or error}")


def write(workspace: Path, draft: Draft) -> None:
    """Replace the draft of a project, whole or not at all. Its `problem` is not written.

    Raises UserError for what TOML can't hold, where there is no such project, or where the disk refuses.
    """
    path = projects.find(workspace, draft.project) / FILE
    content = _content(draft)
    with mendable(workspace):
        if os.path.lexists(path) and read(workspace, draft.project).problem:
            os.replace(path, _free(path))
        files.write_bytes(path, content)


def _read(path: Path, project: str) -> Draft:
    """Raises OSError, ValueError or RecursionError."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    preset, config = tables.pop("preset", ""), tables.pop("config", {})
    if tables or not isinstance(preset, str) or not isinstance(config, dict):
        raise ValueError("expected `preset`, a text, and `config`, a table, and nothing else")
    return Draft(project=project, preset=preset, config=config) if preset else Draft(project=project, config=config)


def _content(draft: Draft) -> bytes:
    tables: dict[str, Any] = {"preset": draft.preset, "config": draft.config}
    try:
        content = tomli_w.dumps(tables).encode()
        tomllib.loads(content.decode())
    except (TypeError, ValueError, RecursionError) as error:
        problem = Problem(where=draft.project, field="config", expected="values that TOML holds", found=str(error))
        raise UserError(problem) from None
    return content


def _free(path: Path) -> Path:
    """The first name beside a draft that nothing has."""
    number = 1
    while os.path.lexists(other := path.with_name(f"draft-unreadable-{number}.toml")):
        number += 1
    return other
