"""A page object for the app: `desk.press`, `desk.sees`, `desk.until`; on a workspace of recorded runs and a real host.

Nothing here sleeps for luck: everything waits for something to be so, up to a deadline, and fails with the screen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tui_recordings import NOW, Recorder

from engine.config.settings import Settings
from engine.protocol.messages import DeviceFigures
from loratui.app import Workbench

DEADLINE = float(os.environ.get("LORATUI_DEADLINE", 20))
"""Seconds after which a wait has failed. Nothing takes that long unless it never comes."""


class Desk:
    """The app under test, as a person uses it."""

    def __init__(self, app: Workbench, pilot, workspace: Path):
        self.app, self.pilot, self.workspace = app, pilot, workspace

    async def press(self, *keys: str) -> Desk:
        """Press keys, one after another, and let the app take them in."""
        await self.pilot.press(*keys)
        await self.pilot.pause()
        return self

    async def write(self, text: str) -> Desk:
        """Type a text."""
        named = {" ": "space", "/": "slash", ".": "full_stop", "-": "minus", "_": "underscore"}
        for letter in text:
            await self.pilot.press(named.get(letter, letter))
        await self.pilot.pause()
        return self

    async def until(self, so: Callable[[], object], what: str) -> Desk:
        """Wait until something is so."""
        deadline = time.monotonic() + DEADLINE
        while True:
            with contextlib.suppress(Exception):
                if so():
                    return self
            assert time.monotonic() < deadline, f"never came: {what}\n{self.text()}"
            await self.pilot.pause()
            await asyncio.sleep(0.01)

    async def sees(self, *texts: str) -> Desk:
        """Wait until all these texts are on the screen."""
        return await self.until(lambda: all(text in self.text() for text in texts), f"{texts!r} on the screen")

    async def no_longer_sees(self, text: str) -> Desk:
        return await self.until(lambda: text not in self.text(), f"{text!r} gone from the screen")

    async def calm(self, figures: DeviceFigures | None = None) -> Desk:
        """Have no more figures of this machine come; these are the last, or none are known."""
        await self.app.call("devices.unwatch")
        await self.pilot.pause()
        self.app.devices = None
        if figures is None:
            self.app.news()
        else:
            self.app._told(figures)
        await self.pilot.pause()
        return self

    def text(self) -> str:
        """The screen, trailing blanks cut."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips)

    @property
    def panel(self):
        return self.app.panel

    def said(self) -> str:
        """All toasts so far."""
        return "\n".join(text for _, text in self.app.said)


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "ws"
    folder.mkdir()
    monkeypatch.setenv("LORATUI_WORKSPACE", str(folder))
    monkeypatch.setenv("LORATUI_RUNTIME_DIR", str(tmp_path / "locks"))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    for name in ("TMUX", "NO_COLOR", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    time.tzset()
    return folder


@pytest.fixture
def record(workspace) -> Recorder:
    """Writes runs as the engine would have left them."""
    with contextlib.closing(Recorder(workspace)) as recorder:
        yield recorder


@pytest.fixture
def open_desk(workspace):
    """`async with open_desk(size=(80, 24)) as desk:` the app on the workspace, with the host running."""

    @contextlib.asynccontextmanager
    async def opened(size: tuple[int, int] = (120, 40), settings: Settings | None = None, panel: str = "", host=True):
        app = Workbench(workspace, (settings or Settings()).app, now=lambda: NOW)
        async with app.run_test(size=size, notifications=True) as pilot:
            desk = Desk(app, pilot, workspace)
            if host:
                await desk.until(lambda: app.board.told and app.devices, "the host's first words")
            if panel:
                await app.bring(panel)
                await pilot.pause()
            yield desk

    return opened


@pytest.fixture
def snapshot(request) -> Callable[[Desk], Awaitable[None]]:
    """Wait until the screen's text is what was recorded for this test; LORATUI_SNAPSHOTS=write records it anew."""

    async def compare(desk: Desk) -> None:
        name = re.sub(r"[^\w.-]+", "-", request.node.name)
        path = Path(__file__).parent / "snapshots" / f"{name}.txt"
        if os.environ.get("LORATUI_SNAPSHOTS") == "write":
            path.parent.mkdir(exist_ok=True)
            path.write_text(desk.text() + "\n", encoding="utf-8")
        assert path.exists(), f"no snapshot yet: LORATUI_SNAPSHOTS=write writes {path.name}"
        wanted = path.read_text(encoding="utf-8")
        await desk.until(lambda: desk.text() + "\n" == wanted, f"the screen of {path.name}")

    return compare
