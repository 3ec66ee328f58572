"""The entry point: `loratui` alone opens the app, anything behind it is a command.

The two have their own imports, so that neither waits for the other's.
"""

from __future__ import annotations

import os
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
    from engine.config.settings import read_app
    from loratui import mending
    from loratui.workspace import workspace

    try:
        folder = workspace()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    settings, problems = read_app(folder)
    complaints = [str(problem) for problem in problems]
    paint = None
    if settings.pictures != "half-blocks":
        from loratui.widgets.pixels import choose

        choice = choose(settings.pictures, os.environ)
        paint = choice.paint
        if settings.pictures not in ("auto", choice.protocol):
            complaints.append(f"pictures are drawn as half blocks: {choice.reason}")
    from loratui.app import Workbench

    mending.forgiving_decoder()
    app = Workbench(folder, settings, complaints, paint)
    app.run(mouse=settings.mouse)
    return app.return_code or 0
