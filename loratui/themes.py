"""Where the themes are: beside the packages in a checkout, inside this package once a wheel is installed.

The files are data (`*.toml`, one theme a file), so that a theme can be read, copied and changed without knowing Python.
"""

from __future__ import annotations

from pathlib import Path


def themes_folder() -> Path:
    """The folder of the themes that come with loratui."""
    package = Path(__file__).resolve().parent
    checkout = package.parent
    return checkout / "themes" if (checkout / "pyproject.toml").is_file() else package / "themes"
