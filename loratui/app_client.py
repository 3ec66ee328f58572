"""The app's way to the host: many calls at a time, and one listener to its notifications, in asyncio.

The lines and errors are those of `loratui.client`. The one thing to know: a listener who dawdles makes the client stop
reading, and so the host stop telling; but never while a call waits for its reply, which lies behind.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import IO, Any

from engine.protocol import messages
from loratui.client import (
    CHUNK,
    COMMAND,
    NOTHING,
    HostGone,
    Notification,
    Wire,
    hello,
    last_words,
    notification,
    open_log,
    result,
)

MOST_UNHEARD = 64
"""Notifications that a client keeps for a listener who is busy; then it stops reading, and the host stops telling."""


class Client:
    """A host for the app: many calls at a time, and one listener to its notifications."""

    def __init__(self) -> None:
        self.hello: messages.Hello | None = None
        self._gone: HostGone | None = None
        self._listener: asyncio.Task | None = None

    async def start(self) -> None:
        """Start a host, or another one after it has gone: then nothing is watched any more. Raises as `connect`."""
        self._wire = Wire()
        self._calls: dict[int | str | None, asyncio.Future[messages.Reply]] = {}
        self._unheard: deque[Notification] = deque()
        self._stirred = asyncio.Event()
        self._gone, self._closing = None, False
        log, options = open_log()
        self._process = await asyncio.create_subprocess_exec(*COMMAND, **options)
        self._listener = asyncio.create_task(self._listen(log, log.tell()))
        try:
            self.hello = await self.call("hello", hello())
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let the host end: it finishes what it is at, for a second at most."""
        if self._listener is None:
            return
        self._closing = True
        self._stirred.set()
        self._process.stdin.close()
        done, _ = await asyncio.wait([self._listener], timeout=1.0)
        if not done:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await asyncio.wait([self._listener])
        self._listener = None

    async def __aenter__(self) -> Client:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def call(self, method: str, params: messages.Message = NOTHING) -> Any:
        """The result of a method, as messages.METHODS has it. Raises UserError, HostError or HostGone."""
        if self._gone is not None:
            raise self._gone
        identity, line = self._wire.request(method, params)
        future = self._calls[identity] = asyncio.get_running_loop().create_future()
        self._stirred.set()
        try:
            with contextlib.suppress(ConnectionError):  # the listener hears of it too, and tells the future
                self._process.stdin.write(line)
                await self._process.stdin.drain()
            return result(method, await future)
        finally:
            del self._calls[identity]

    async def notifications(self) -> AsyncIterator[Notification]:
        """What the host tells, as it comes, until it ends: then HostGone."""
        while True:
            while self._unheard:
                told = self._unheard.popleft()
                self._stirred.set()
                yield told
            if self._gone is not None:
                raise self._gone
            await self._news()

    async def _listen(self, log: IO[bytes], since: int) -> None:
        """Take in what the host says until it ends; then tell everybody who waits."""
        while chunk := await self._process.stdout.read(CHUNK):
            for reply in self._wire.feed(chunk):
                self._take(reply)
            self._stirred.set()
            # Whoever waits for a reply is not taking notifications: they must not keep it from the reply.
            while len(self._unheard) >= MOST_UNHEARD and not self._calls and not self._closing:
                await self._news()
        code = await self._process.wait()
        self._gone = HostGone(code, last_words(log, since))
        log.close()
        for future in self._calls.values():
            if not future.done():
                future.set_exception(self._gone)
        self._stirred.set()

    def _take(self, reply: messages.Reply) -> None:
        if reply.method:
            told = notification(reply)
            if told is not None and not self._closing:
                self._unheard.append(told)
        elif (future := self._calls.get(reply.id)) is not None and not future.done():
            future.set_result(reply)

    async def _news(self) -> None:
        """Wait until something has changed: calls, notifications, or the end."""
        self._stirred.clear()
        await self._stirred.wait()
