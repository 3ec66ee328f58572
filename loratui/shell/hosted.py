"""The app and its host: one link, what it tells, and what is known from it of runs and devices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from textual.signal import Signal

from engine.config import UserError
from engine.protocol import messages
from loratui.app_client import NOTHING
from loratui.board import Board
from loratui.client import HostError, HostGone, Notification
from loratui.link import Link
from loratui.shell.talking import Talking


class Hosted(Talking):
    """See `bench.Bench`. `start_host` and `end_host` are the link's life; `news` is called after each change."""

    def __init__(self) -> None:
        super().__init__()
        self.board = Board()
        self.board_changed: Signal[set[str]] = Signal(self, "board")
        self.devices: messages.DeviceFigures | None = None
        self.devices_changed: Signal[messages.DeviceFigures] = Signal(self, "devices")
        self.images_checked: Signal[messages.ImagesChecked] = Signal(self, "images")
        self.host_back: Signal[None] = Signal(self, "host")
        self.trouble = ""
        """Why there is no host at the moment, in a word or two; empty where there is one."""
        self._link = Link(self._told, self._link_changed)

    def news(self) -> None:
        """Something was told, or the host has gone or come."""
        raise NotImplementedError

    def start_host(self) -> None:
        self.run_worker(self._linked(), name="host", group="host")

    async def end_host(self) -> None:
        self.workers.cancel_group(self, "host")
        await self._link.close()

    async def call(self, method: str, params: messages.Message = NOTHING) -> Any:
        return await self._link.call(method, params)

    async def tried(self, method: str, params: messages.Message = NOTHING) -> Any | None:
        return await self._trying(self.call(method, params))

    def follow(self, job: str, heard: Callable[[messages.JobEvents], None]) -> None:
        self.run_worker(self._trying(self._link.watch(job, heard)), group=f"watch {job}")

    def unfollow(self, job: str, heard: Callable[[messages.JobEvents], None]) -> None:
        self.run_worker(self._trying(self._link.unwatch(job, heard)), group=f"watch {job}")

    async def _trying(self, asked: Awaitable[Any]) -> Any | None:
        """A failure is said, but for a host that is gone: that was said already."""
        try:
            return await asked
        except (UserError, HostError) as error:
            self.say(str(error), "error")
        except HostGone:
            pass
        return None

    async def _linked(self) -> None:
        try:
            await self._link.run()
        except (UserError, HostError) as error:  # another version's host, say: another try would end the same
            self.say(f"There is no host, and nothing can be done without one. {error}", "error")
            self.trouble = "no host"
            self.news()

    def _link_changed(self, trouble: str) -> None:
        back, self.trouble = bool(self.trouble) and not trouble, trouble and "no host"
        if trouble:
            self.say(f"The host has ended: {trouble}. Another one is being started; runs are untouched.", "error")
        if back:
            self.say("The host is back.")
            self.host_back.publish(None)
        self.news()

    def _told(self, told: Notification) -> None:
        match told:
            case messages.WorkspaceNews():
                self.board_changed.publish(self.board.take(told))
            case messages.DeviceFigures():
                self.devices = told
                self.devices_changed.publish(told)
            case messages.ImagesChecked():
                self.images_checked.publish(told)
        self.news()
