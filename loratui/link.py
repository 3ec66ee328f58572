"""The app's link to its host: one client, started again when it dies, and who listens to what.

A host that dies takes nothing with it: the link says so, starts another, and asks again for all that was followed, each
journal from where it had been read to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.config import UserError
from engine.protocol import messages
from loratui.app_client import NOTHING, Client
from loratui.client import HostGone, Notification

Heard = Callable[[messages.JobEvents], None]
PAUSES = (0.0, 0.5, 2.0, 5.0)
"""Seconds before each further host that dies at once; the last holds for all after it."""


@dataclass
class _Followed:
    """A job whose journal is told, and to whom."""

    listeners: list[Heard]
    offset: int = 0
    """How far it has been told."""
    again: bool = False
    """Whether it is told from its start once more, for somebody who joined those who know it."""

    def take(self, told: messages.JobEvents) -> None:
        """Pass on what follows on what was told before, or begins anew; what was on its way when that was asked for
        is not told twice."""
        if told.start not in (None, self.offset, 0):
            return
        if told.start == 0 and (self.offset or self.again):
            told = msgspec.structs.replace(told, restarted=True)
        self.offset, self.again = told.offset, False
        for heard in list(self.listeners):
            heard(told)


class Link:
    """`run` is the link's life. `told` gets what is not about a followed job; `changed` each loss and each return."""

    def __init__(self, told: Callable[[Notification], None], changed: Callable[[str], None]):
        self._told, self._changed = told, changed
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._followed: dict[str, _Followed] = {}
        """By job."""

    async def run(self) -> None:
        """Keep a host until cancelled. Raises UserError or HostError where no host can work: another version, say."""
        failures = 0
        while True:
            client = self._client = Client()
            try:
                await client.start()
                await self._subscribe(client)
                self._up.set()
                self._changed("")
                async for notification in client.notifications():
                    failures = 0
                    self._take(notification)
            except HostGone as gone:
                self._up.clear()
                self._changed(gone.words or f"it ended with code {gone.code}")
                await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1

    async def close(self) -> None:
        """Let the host end. `run` is cancelled before."""
        if self._client is not None:
            await self._client.close()

    async def call(self, method: str, params: messages.Message = NOTHING) -> Any:
        """The result of a method; waits for a host. Raises UserError, HostError, or HostGone if it dies meanwhile."""
        await self._up.wait()
        return await self._client.call(method, params)

    async def watch(self, job: str, heard: Heard) -> None:
        """Follow a job's journal from its start, beside others who do. Raises as `call`."""
        followed = self._followed.setdefault(job, _Followed([]))
        followed.offset, followed.again = 0, bool(followed.listeners)
        if heard not in followed.listeners:
            followed.listeners.append(heard)
        await self.call("jobs.watch", messages.Watch(job=job))

    async def unwatch(self, job: str, heard: Heard) -> None:
        """Tell `heard` no more of a job."""
        followed = self._followed.get(job)
        if followed is None or heard not in followed.listeners:
            return
        followed.listeners.remove(heard)
        if not followed.listeners:
            del self._followed[job]
            await self.call("jobs.unwatch", messages.JobRef(job=job))

    async def _subscribe(self, client: Client) -> None:
        await client.call("workspace.watch")
        await client.call("devices.watch")
        for job, followed in list(self._followed.items()):
            offset = followed.offset
            try:
                await client.call("jobs.watch", messages.Watch(job=job, offset=offset))
            except UserError:  # it was removed meanwhile
                followed.take(messages.JobEvents(id=job, offset=offset, events=[], state="done", gone=True))
                self._followed.pop(job, None)

    def _take(self, notification: Notification) -> None:
        if not isinstance(notification, messages.JobEvents):
            self._told(notification)
        elif notification.id in self._followed:
            self._followed[notification.id].take(notification)
