"""JSON-RPC over the pipe: each line is answered, whatever it holds, and nothing that a line holds ends the host.

Requests are read by one thread and done by others, so that a slow one delays no other: replies come in the order in
which they are ready. Whoever needs an order waits for the reply. A client that does not read its replies is not read
either.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from engine import __version__
from engine.errors import Problem, UserError
from engine.host.pipe import Outbox, bound_log, read_lines
from engine.protocol import messages

Id = int | str | None


@dataclass(frozen=True)
class Then:
    """The result of a method, and what is to be done once it is on its way: notifications about it come later."""

    result: messages.Message
    act: Callable[[], None]


Method = Callable[[Any], messages.Message | Then]


class Fault(Exception):
    """A message that can't be done as it is: what its error reply says."""

    def __init__(self, code: int, text: str, problems: tuple[Problem, ...] = ()):
        super().__init__(text)
        self.error = {"code": code, "message": text} | ({"data": {"problems": problems}} if problems else {})


class Server:
    """Answers the lines of `source` through `outbox` by `methods`: name → a function of its params."""

    AT_ONCE = 32
    """Requests that are in work at the same time; the next one is not read before one of them is done."""

    def __init__(self, source: int, outbox: Outbox, methods: dict[str, Method], workspace: Path):
        self._source, self._outbox, self._methods, self._workspace = source, outbox, methods, workspace
        self._greeted = False
        self._working = 0
        self._done = threading.Condition()

    def serve(self) -> None:
        """Answer until the source ends."""
        for line in read_lines(self._source, messages.LONGEST):
            self._outbox.wait_for_room()
            if line is None:
                self._reply(None, error={"code": messages.INVALID_REQUEST, "message": _TOO_LONG})
            elif line.strip():
                self._take(line)

    def finish(self, patience: float) -> None:
        """Let requests in work end and replies leave, for as long as somebody listens, else for `patience` seconds."""
        deadline = time.monotonic() + patience
        while self._outbox.listened() or time.monotonic() < deadline:
            with self._done:
                idle = self._done.wait_for(lambda: not self._working, 0.1)
            if idle and self._outbox.drain(0.1):
                return

    def _take(self, line: bytes) -> None:
        """Answer a line, or start a thread that will."""
        identity: Id = None
        answered = True
        try:
            envelope = _envelope(line)
            identity = _identity(envelope)
            method = _method(envelope)
            answered = "id" in envelope
            kind = _kind(method)
            if not self._greeted and method != "hello":
                raise Fault(messages.INVALID_REQUEST, _HELLO_FIRST)
            params = _params(method, kind, envelope)
            if method == "hello":
                self._reply(identity, result=self._hello(params))
                return
        except Fault as fault:
            if answered:
                self._reply(identity, error=fault.error)
            return
        with self._done:
            self._done.wait_for(lambda: self._working < self.AT_ONCE)
            self._working += 1
        arguments = (method, params, identity, answered)
        threading.Thread(target=self._work, args=arguments, name=method, daemon=True).start()

    def _work(self, method: str, params: messages.Message, identity: Id, answered: bool) -> None:
        try:
            reply, act = self._do(method, params, identity)
            if answered:
                self._outbox.put(reply)
            if act:
                act()
        finally:
            with self._done:
                self._working -= 1
                self._done.notify_all()

    def _do(self, method: str, params: messages.Message, identity: Id) -> tuple[bytes, Callable[[], None] | None]:
        """The reply to a request, and what is to be done behind it."""
        try:
            result = self._methods[method](params)
            act = None
            if isinstance(result, Then):
                result, act = result.result, result.act
            return line({"id": identity, "result": result}), act
        except UserError as error:
            fault = Fault(messages.REFUSED_BY_RULE, str(error), error.problems)
        except Exception as error:
            fault = _defect(method, error)
        return line({"id": identity, "error": fault.error}), None

    def _hello(self, params: messages.HelloParams) -> messages.Hello:
        if params.version != messages.VERSION:
            problem = Problem(
                where="hello",
                field="version",
                expected=f"{messages.VERSION}, the version of this host's protocol",
                found=str(params.version),
                advice="the two programs are of different versions: end loratui, update both together, and start again",
            )
            raise Fault(messages.REFUSED_BY_RULE, str(problem), (problem,))
        self._greeted = True
        return messages.Hello(
            version=messages.VERSION,
            program=f"loratui {__version__}",
            pid=os.getpid(),
            host=socket.gethostname(),
            workspace=str(self._workspace),
        )

    def _reply(self, identity: Id, **content: Any) -> None:
        self._outbox.put(line({"id": identity} | content))


_TOO_LONG = f"a line of more than {messages.LONGEST} bytes was passed over"
_HELLO_FIRST = f'say hello first: method "hello" with params {{"version":{messages.VERSION}}}'


def notification(method: str, params: messages.Message) -> bytes:
    """A line that tells the client something it did not ask for just now."""
    return line({"method": method, "params": params})


def line(message: dict[str, Any]) -> bytes:
    """A message as a line. Names of files that are not Unicode are written with their odd bytes as escapes."""
    message = {"jsonrpc": "2.0"} | message
    try:
        return msgspec.json.encode(message) + b"\n"
    except UnicodeEncodeError:
        return msgspec.json.encode(_encodable(msgspec.to_builtins(message))) + b"\n"


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_encodable(key): _encodable(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_encodable(inner) for inner in value]
    return value


def _envelope(line: bytes) -> dict[str, msgspec.Raw]:
    """The members of a message, each unread as yet. Raises Fault."""
    if line.lstrip()[:1] == b"[":
        raise Fault(messages.INVALID_REQUEST, "batches are not taken: send each message on a line of its own")
    try:
        return msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except RecursionError:
        raise Fault(messages.PARSE_ERROR, "not readable: nested too deeply") from None
    except ValueError as error:  # msgspec's own errors, and UnicodeDecodeError
        code = messages.INVALID_REQUEST if isinstance(error, msgspec.ValidationError) else messages.PARSE_ERROR
        raise Fault(code, f"expected one JSON object a line, in UTF-8; {error}") from None


def _identity(envelope: dict[str, msgspec.Raw]) -> Id:
    try:
        return msgspec.json.decode(envelope.get("id", b"null"), type=Id)
    except (ValueError, RecursionError):
        raise Fault(messages.INVALID_REQUEST, "an id is a whole number or a text") from None


def _method(envelope: dict[str, msgspec.Raw]) -> str:
    try:
        request = msgspec.convert(
            {name: msgspec.json.decode(envelope[name]) for name in ("jsonrpc", "method") if name in envelope},
            messages.Request,
        )
    except (ValueError, RecursionError) as error:
        raise Fault(messages.INVALID_REQUEST, f"not a request of JSON-RPC 2.0; {error}") from None
    if request.jsonrpc != "2.0":
        raise Fault(messages.INVALID_REQUEST, 'not a request of JSON-RPC 2.0; its "jsonrpc" is not "2.0"')
    return request.method


def _kind(method: str) -> type[messages.Message]:
    """What the method takes."""
    if method not in messages.METHODS:
        raise Fault(messages.UNKNOWN_METHOD, f"no such method; there are {', '.join(messages.METHODS)}")
    return messages.METHODS[method][0]


def _params(method: str, kind: type[messages.Message], envelope: dict[str, msgspec.Raw]) -> messages.Message:
    """What a message brings for it. Unknown names are refused: they would be ignored otherwise, a typo among them."""
    raw = envelope.get("params", b"{}")
    try:
        unknown = set(msgspec.json.decode(raw, type=dict[str, msgspec.Raw])) - set(kind.__struct_fields__)
        params = msgspec.json.decode(raw, type=kind)
    except (ValueError, RecursionError) as error:
        raise Fault(messages.INVALID_PARAMS, f"params of {method}: {error}") from None
    if unknown:
        known = ", ".join(kind.__struct_fields__) or "none at all"
        raise Fault(messages.INVALID_PARAMS, f"params of {method}: it takes {known}, not {sorted(unknown)[0][:100]!r}")
    return params


def _defect(method: str, error: Exception) -> Fault:
    """What is said of something that should not have happened; the log has the whole of it."""
    traceback.print_exc(file=sys.stderr)
    sys.stderr.flush()
    bound_log()
    if isinstance(error, OSError):  # a full disk, a folder without permission: the user can mend it
        problem = Problem(
            where=str(error.filename or method),
            expected="a file system that does what is asked of it",
            found=error.strerror or str(error),
            advice="free some space, or mend the permissions",
        )
        return Fault(messages.REFUSED_BY_RULE, str(problem), (problem,))
    text = f"{method}: a defect of the host: {type(error).__name__}: {error}; its log has more"
    return Fault(messages.INTERNAL_ERROR, text)
