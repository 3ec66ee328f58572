"""The entry point: `loratui` alone opens the app, anything behind it is a command.

The two have their own imports, so that neither waits for the other's.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run what was asked for, and exit."""
    if len(sys.argv) == 1 and sys.stdin.isatty() and sys.stdout.isatty():
        sys.exit(open_app())
    from loratui.cli import main as command_line

    command_line()


def open_app() -> int:
    """Open the app on the workspace. Returns the exit code: 0, or 1 after a crash."""
    from engine.config import UserError
    from engine.config.settings import Settings, read_settings
    from loratui import mending
    from loratui.workspace import workspace

    try:
        folder = workspace()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    settings, problems = read_settings(folder)
    from loratui.app import Workbench

    mending.forgiving_decoder()
    app = Workbench(folder, settings or Settings(), [str(problem) for problem in problems])
    app.run(mouse=app.settings.app.mouse)
    return app.return_code or 0
