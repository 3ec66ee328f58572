"""`python -m benchmarks.terminal_lag FILE`: the app, with a probe of how late its event loop is.

A task sleeps 20 ms over and over; what a sleep takes longer is the lag that a key would have met. FILE gets the lags in
milliseconds, one a line, as they come.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from loratui import app, start

NAP = 0.02


class Probed(app.Workbench):
    """The app and a probe."""

    async def on_mount(self) -> None:
        self.run_worker(self._probe(Path(sys.argv[1])), name="probe")
        await super().on_mount()

    async def _probe(self, path: Path) -> None:
        with path.open("w", buffering=1) as file:
            while True:
                before = time.perf_counter()
                await asyncio.sleep(NAP)
                file.write(f"{(time.perf_counter() - before - NAP) * 1000:.3f}\n")


if __name__ == "__main__":
    app.Workbench = Probed
    sys.exit(start.open_app())
