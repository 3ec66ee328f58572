"""The way to the host: it is started here, asked in typed messages, and heard.

Two clients speak the same lines: `Client` for the app, in asyncio, and `Host` for commands, which want an answer and no
event loop. A host ends with its client, by the end of its stdin. If it ends before, every call and whoever listens gets
`HostGone`, and another one can be started: nothing of a job was in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import IO, Any

import msgspec

from engine.config import Problem, UserError
from engine.protocol import messages
from loratui.child import engine_environment
from loratui.workspace import workspace_path

Notification = messages.JobEvents | messages.DeviceFigures

LOG = "host.log"
CHUNK = 1 << 16
MOST_UNHEARD = 64
"""Notifications that a client keeps for a listener who is busy; then it stops reading, and the host stops telling."""

_NOTHING = messages.Nothing()


class HostGone(Exception):
    """The host has ended. `words`: the end of what it said about it, which may be nothing."""

    def __init__(self, code: int | None, words: str):
        self.code, self.words = code, words
        super().__init__(f"the host has ended with code {code}" + (f"; its last words: {words}" if words else ""))


class HostError(Exception):
    """The host could not do what it was asked, and not for a mistake of the user's."""

    def __init__(self, code: int, message: str):
        self.code = code
        super().__init__(message)


class _Wire:
    """Messages to lines and lines to messages."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._last = 0

    def request(self, method: str, params: messages.Message) -> tuple[int, bytes]:
        """An id, and the line that asks under it."""
        self._last += 1
        message = {"jsonrpc": "2.0", "id": self._last, "method": method, "params": params}
        return self._last, msgspec.json.encode(message) + b"\n"

    def feed(self, chunk: bytes) -> Iterator[messages.Reply]:
        """The messages that `chunk` completes."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield _reply(b"".join([*self._parts, end]))
            self._parts.clear()
        self._parts.append(rest)


_reply = msgspec.json.Decoder(messages.Reply).decode


def _result(method: str, reply: messages.Reply) -> Any:
    """What a reply to `method` holds. Raises UserError or HostError."""
    error = reply.error
    if error is None:
        return msgspec.json.decode(reply.result, type=messages.METHODS[method][1])
    if error.code == messages.REFUSED_BY_RULE:
        raise UserError(msgspec.convert(error.data.get("problems", []), list[Problem]))
    raise HostError(error.code, error.message)


def _notification(reply: messages.Reply) -> Notification | None:
    """What the host tells unasked; None for what this version does not know."""
    kind = messages.NOTIFICATIONS.get(reply.method)
    return msgspec.json.decode(reply.params, type=kind) if kind else None


def _hello() -> messages.HelloParams:
    return messages.HelloParams(version=messages.VERSION, client=f"loratui {os.getpid()}")


def _open_log() -> tuple[IO[bytes], dict[str, Any]]:
    """The file for what the host says about itself, and how to start the host with it.

    It has a process group of its own, so that the terminal's Ctrl-C is ours alone.
    """
    try:
        workspace_path().mkdir(parents=True, exist_ok=True)
        log = (workspace_path() / LOG).open("a+b")
    except OSError:  # a workspace that can only be read can still be looked at
        log = tempfile.TemporaryFile("a+b")  # noqa: SIM115
    log.seek(0, os.SEEK_END)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
    return log, pipes | {"env": engine_environment(), "process_group": 0}


def _last_words(log: IO[bytes], since: int) -> str:
    with contextlib.suppress(OSError, ValueError):
        end = log.seek(0, os.SEEK_END)
        log.seek(max(since if since <= end else 0, end - 4096))
        lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        return "\n".join(lines[-3:])
    return ""


_COMMAND = (sys.executable, "-m", "engine")


class Host:
    """A host for a command, asked one thing at a time. `connect` starts and ends it."""

    def __init__(self) -> None:
        self._wire = _Wire()
        self._unheard: deque[Notification] = deque()
        self._replies: dict[int | str | None, messages.Reply] = {}
        self._log, options = _open_log()
        self._since = self._log.tell()
        self._process = subprocess.Popen(_COMMAND, bufsize=0, **options)
        try:
            self.hello: messages.Hello = self.call("hello", _hello())
        except BaseException:
            self.close()
            raise

    def call(self, method: str, params: messages.Message = _NOTHING) -> Any:
        """The result of a method, as messages.METHODS has it. Raises UserError, HostError or HostGone."""
        identity, line = self._wire.request(method, params)
        try:
            self._write(line)
        except BrokenPipeError:
            self._read(None)
            raise self._gone() from None
        while identity not in self._replies:
            self._read(None)
        return _result(method, self._replies.pop(identity))

    def heard(self, timeout: float | None = None) -> Notification | None:
        """The next notification; None after `timeout` seconds without one. Raises HostGone."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._unheard:
            if not self._read(None if deadline is None else max(0.0, deadline - time.monotonic())):
                return None
        return self._unheard.popleft()

    def close(self) -> None:
        """Let the host end. A request that it is at is finished without us."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._log.close()

    def _write(self, line: bytes) -> None:
        """Write a whole line, also where the pipe takes a part of it."""
        view = memoryview(line)
        while view:
            view = view[self._process.stdin.write(view) :]

    def _read(self, timeout: float | None) -> bool:
        """Take in what has come; False where nothing came in time."""
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            return False
        chunk = self._process.stdout.read(CHUNK)
        if not chunk:
            raise self._gone()
        for reply in self._wire.feed(chunk):
            if not reply.method:
                self._replies[reply.id] = reply
            elif (told := _notification(reply)) is not None:
                self._unheard.append(told)
        return True

    def _gone(self) -> HostGone:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        return HostGone(self._process.returncode, _last_words(self._log, self._since))


@contextlib.contextmanager
def connect() -> Iterator[Host]:
    """A host for the length of a `with`. Raises HostGone where none can be started, UserError for another version's."""
    host = Host()
    try:
        yield host
    finally:
        host.close()


class Client:
    """A host for the app: many calls at a time, and one listener to its notifications."""

    def __init__(self) -> None:
        self.hello: messages.Hello | None = None
        self._gone: HostGone | None = None
        self._listener: asyncio.Task | None = None

    async def start(self) -> None:
        """Start a host, or another one after it has gone: then nothing is watched any more. Raises as `connect`."""
        self._wire = _Wire()
        self._calls: dict[int | str | None, asyncio.Future[messages.Reply]] = {}
        self._unheard: deque[Notification] = deque()
        self._stirred = asyncio.Event()
        self._gone, self._closing = None, False
        log, options = _open_log()
        self._process = await asyncio.create_subprocess_exec(*_COMMAND, **options)
        self._listener = asyncio.create_task(self._listen(log, log.tell()))
        try:
            self.hello = await self.call("hello", _hello())
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

    async def call(self, method: str, params: messages.Message = _NOTHING) -> Any:
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
            return _result(method, await future)
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
        self._gone = HostGone(code, _last_words(log, since))
        log.close()
        for future in self._calls.values():
            if not future.done():
                future.set_exception(self._gone)
        self._stirred.set()

    def _take(self, reply: messages.Reply) -> None:
        if reply.method:
            told = _notification(reply)
            if told is not None and not self._closing:
                self._unheard.append(told)
        elif (future := self._calls.get(reply.id)) is not None and not future.done():
            future.set_result(reply)

    async def _news(self) -> None:
        """Wait until something has changed: calls, notifications, or the end."""
        self._stirred.clear()
        await self._stirred.wait()
