"""The way to the host: it is started here, asked in typed messages, and heard.

`connect` is for commands, which want an answer and no event loop; `loratui.app_client` speaks the same lines in
asyncio. A host ends with its client, by the end of its stdin. If it ends before, every call and whoever listens gets
`HostGone`, and another one can be started: nothing of a job was in it.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from typing import IO, Any

import msgspec

from engine.config import Problem, UserError
from engine.protocol import messages
from loratui.child import engine_environment
from loratui.workspace import workspace_path

Notification = messages.JobEvents | messages.DeviceFigures | messages.WorkspaceNews | messages.ImagesChecked

LOG = "host.log"
CHUNK = 1 << 16
NOTHING = messages.Nothing()


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


class Wire:
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


def result(method: str, reply: messages.Reply) -> Any:
    """What a reply to `method` holds. Raises UserError or HostError."""
    error = reply.error
    if error is None:
        return msgspec.json.decode(reply.result, type=messages.METHODS[method][1])
    if error.code == messages.REFUSED_BY_RULE:
        raise UserError(msgspec.convert(error.data.get("problems", []), list[Problem]))
    raise HostError(error.code, error.message)


def notification(reply: messages.Reply) -> Notification | None:
    """What the host tells unasked; None for what this version does not know."""
    kind = messages.NOTIFICATIONS.get(reply.method)
    return msgspec.json.decode(reply.params, type=kind) if kind else None


def hello() -> messages.HelloParams:
    """What a client says first."""
    return messages.HelloParams(version=messages.VERSION, client=f"loratui {os.getpid()}")


def open_log() -> tuple[IO[bytes], dict[str, Any]]:
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


def last_words(log: IO[bytes], since: int) -> str:
    """The end of what a host has said since it was started at that size of its log."""
    with contextlib.suppress(OSError, ValueError):
        end = log.seek(0, os.SEEK_END)
        log.seek(max(since if since <= end else 0, end - 4096))
        lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        return "\n".join(lines[-3:])
    return ""


COMMAND = (sys.executable, "-m", "engine")


class Host:
    """A host for a command, asked one thing at a time. `connect` starts and ends it."""

    def __init__(self) -> None:
        self._wire = Wire()
        self._unheard: deque[Notification] = deque()
        self._replies: dict[int | str | None, messages.Reply] = {}
        self._log, options = open_log()
        self._since = self._log.tell()
        self._process = subprocess.Popen(COMMAND, bufsize=0, **options)
        try:
            self.hello: messages.Hello = self.call("hello", hello())
        except BaseException:
            self.close()
            raise

    def call(self, method: str, params: messages.Message = NOTHING) -> Any:
        """The result of a method, as messages.METHODS has it. Raises UserError, HostError or HostGone."""
        identity, line = self._wire.request(method, params)
        try:
            self._write(line)
        except BrokenPipeError:
            self._read(None)
            raise self._gone() from None
        while identity not in self._replies:
            self._read(None)
        return result(method, self._replies.pop(identity))

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
            elif (told := notification(reply)) is not None:
                self._unheard.append(told)
        return True

    def _gone(self) -> HostGone:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        return HostGone(self._process.returncode, last_words(self._log, self._since))


@contextlib.contextmanager
def connect() -> Iterator[Host]:
    """A host for the length of a `with`. Raises HostGone where none can be started, UserError for another version's."""
    host = Host()
    try:
        yield host
    finally:
        host.close()
