"""When the app dies of a defect: the details go to a file, and the person is told in words."""

from __future__ import annotations

import contextlib
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text


def report(error: BaseException, workspace: Path) -> Text:
    """Write the traceback to `app.log` in the workspace; what to say about it on the restored terminal."""
    from rich.text import Text

    details = "".join(traceback.format_exception(error))
    where = workspace / "app.log"
    written = False
    with contextlib.suppress(OSError):
        workspace.mkdir(parents=True, exist_ok=True)
        with where.open("a", encoding="utf-8") as file:
            file.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}\n{details}\n")
        written = True
    text = f"loratui has crashed: {type(error).__name__}: {error}\n"
    text += f"The details are in {where}.\n" if written else details
    return Text(text + "Runs and the queue go on; `loratui` opens where you were.")
