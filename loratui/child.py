"""How the terminal program starts the engine: in a process of its own, by the same Python, as `python -m engine.…`."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def engine_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs `engine.<module>`."""
    return [sys.executable, "-m", f"engine.{module}", *arguments]


def engine_environment() -> dict[str, str]:
    """This process's environment, changed so that the child finds the engine that belongs to this program and no other.

    A Python file in the current folder is not imported (a user's own `engine.py`!), and a checkout that was never
    installed finds its own packages. Both hold for the child's children too.
    """
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file():
        others = [environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else []
        environment["PYTHONPATH"] = os.pathsep.join([str(checkout), *others])
    return environment
