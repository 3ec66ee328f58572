"""The side of the panel of adapters: what is known of the file at the cursor, and the blend at its foot.

Tensors are read once the cursor has stayed on a file for a moment, and no longer than it stays.
"""

from __future__ import annotations

import asyncio
from functools import partial

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine.protocol.browse import AdapterHeader
from loratui.screens.adapters_blend import Blend, blend_lines
from loratui.screens.adapters_report import PAUSE, Reports, report_lines
from loratui.screens.adapters_words import details, name_of
from loratui.screens.monitor_lines import Lines


class Side(Vertical):
    """Details of a file above, the blend below where there is one."""

    DEFAULT_CSS = """
    Side #right { height: 1fr; }
    Side #details { height: auto; padding: 0 1; }
    Side #blend { display: none; height: auto; }
    Side #blend.-some { display: block; }
    Side #blend Lines { padding: 0 1; }
    """

    def __init__(self, blend: Blend):
        super().__init__(classes="side")
        self._blend = blend
        self._found: AdapterHeader | None = None
        self._everything, self._now = False, 0.0
        self._reports = Reports()
        self._reading = ""
        """Path of the file that is being read, or will be in a moment."""

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="framed", id="right", can_focus=True):
            yield Static("", id="details", markup=False)
        with Vertical(classes="framed", id="blend") as blend:
            blend.border_title = Content("blend")
            yield Lines()

    def on_resize(self) -> None:
        self.call_after_refresh(self.tell_blend)

    def show(self, found: AdapterHeader | None, everything: bool, now: float, read: bool) -> None:
        """Show a file, with `everything` all of its metadata. `read`: whether its tensors are to be read."""
        self._found, self._everything, self._now = found, everything, now
        right = self.query_one("#right")
        right.border_title = Content(name_of(found) if found else "")
        right.border_subtitle = Content("all metadata" if everything else "")
        self._tell()
        if not read or found is None or found.problem or self._reports.of(found):
            self.rest()
        elif self._reading != found.path:
            self._reading = found.path
            self.run_worker(partial(self._read, found), group="report", exclusive=True)

    def rest(self) -> None:
        """Read nothing more."""
        if self._reading:
            self._reading = ""
            self.workers.cancel_group(self, "report")

    async def _read(self, found: AdapterHeader) -> None:
        await asyncio.sleep(PAUSE)
        await self._reports.read(found)
        self._reading = ""
        self._tell()

    def _tell(self) -> None:
        found = self._found
        report = report_lines(self._reports.of(found)) if found and not found.problem else []
        shown = details(found, report, self._everything, self._now) if found else ""
        self.query_one("#details", Static).update(shown)

    def tell_blend(self) -> None:
        """The blend is another, or has another room."""
        box = self.query_one("#blend")
        box.set_class(bool(len(self._blend)), "-some")
        lines = blend_lines(self._blend, max(20, self.size.width - 4)) if len(self._blend) else []
        shown = box.query_one(Lines)
        shown.styles.height = len(lines)
        shown.tell(lines)
