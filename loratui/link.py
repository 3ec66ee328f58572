"""The app's link to its host: one client, started again when it dies, and who listens to what.

A host that dies takes nothing with it: the link says so, starts another, and asks again for all that was followed, each
journal from where it had been read to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from engine.config import UserError
from engine.protocol import messages
from loratui.app_client import NOTHING, Client
from loratui.client import HostGone, Notification

Heard = Callable[[messages.JobEvents], None]
PAUSES = (0.0, 0.5, 2.0, 5.0)
"""Seconds before each further host that dies at once; the last holds for all after it."""


class Link:
    """`run` is the link's life. `told` gets what is not about a followed job; `changed` each loss and each return."""

    def __init__(self, told: Callable[[Notification], None], changed: Callable[[str], None]):
        self._told, self._changed = told, changed
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._followed: dict[str, tuple[Heard, int]] = {}
        """Job → who listens, and how far the journal has been told."""

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
        """Follow a job's journal from its start. Raises as `call`."""
        self._followed[job] = heard, 0
        await self.call("jobs.watch", messages.Watch(job=job))

    async def unwatch(self, job: str) -> None:
        if self._followed.pop(job, None):
            await self.call("jobs.unwatch", messages.JobRef(job=job))

    async def _subscribe(self, client: Client) -> None:
        await client.call("workspace.watch")
        await client.call("devices.watch")
        for job, (heard, offset) in list(self._followed.items()):
            try:
                await client.call("jobs.watch", messages.Watch(job=job, offset=offset))
            except UserError:  # it was removed meanwhile
                heard(messages.JobEvents(id=job, offset=offset, events=[], state="done", gone=True))
                del self._followed[job]

    def _take(self, notification: Notification) -> None:
        if not isinstance(notification, messages.JobEvents):
            self._told(notification)
        elif notification.id in self._followed:
            heard, _ = self._followed[notification.id]
            self._followed[notification.id] = heard, notification.offset
            heard(notification)
