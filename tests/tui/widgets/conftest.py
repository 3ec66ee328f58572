"""One widget in a bare app: what it shows as lines of text, and which cells it asks the screen to paint."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from textual.geometry import Region
from textual.message import Message
from textual.widget import Widget

from loratui.widgets.painting import PaintsSpans


class Stage:
    """A widget under test. `said` has its messages, `regions` what it refreshed; None stands for all of it."""

    def __init__(self, app, pilot, widget: Widget, said: list[Message]) -> None:
        self.app, self.pilot, self.widget, self.said = app, pilot, widget, said
        self.regions: list[Region | None] = []
        refresh = widget.refresh

        def noted(*regions, **options):
            self.regions += regions or [None]
            return refresh(*regions, **options)

        widget.refresh = noted

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def settle(self) -> None:
        await self.pilot.pause()

    def screen(self) -> list[str]:
        """The lines of the screen, without blanks at their ends."""
        return [strip.text.rstrip() for strip in self.app.screen._compositor.render_strips()]

    def cells(self) -> int:
        """How many cells were refreshed since the last call. A refresh of everything counts as such."""
        regions, self.regions = self.regions, []
        everything = self.widget.size.region
        return len({cell for region in regions for cell in _cells(region or everything)})

    def of(self, kind: type[Message]) -> list[Message]:
        """The messages of this kind since the last call, each once however many widgets it passed."""
        found = {id(message): message for message in self.said if type(message) is kind}
        self.said[:] = [message for message in self.said if type(message) is not kind]
        return list(found.values())


def _cells(region: Region) -> set[tuple[int, int]]:
    return {(x, y) for y in region.line_range for x in range(*region.column_span)}


@pytest.fixture
def staged():
    """`async with staged(widget, width, height) as stage:` a focused widget that fills the screen."""

    @asynccontextmanager
    async def stage(widget: Widget, width: int = 40, height: int = 10):
        class Bare(PaintsSpans):
            def compose(self):
                yield widget

        said: list[Message] = []
        app = Bare()
        async with app.run_test(size=(width, height), message_hook=said.append) as pilot:
            if widget.can_focus:
                widget.focus()
            await pilot.pause()
            yield Stage(app, pilot, widget, said)

    return stage
