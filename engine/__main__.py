"""The host: `python -m engine`. Requests on stdin, replies and notifications on stdout, one JSON message a line.

It lives as long as its client: it ends when stdin does, or on SIGTERM, SIGHUP or Ctrl-C. Jobs know nothing of it.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from engine.host.methods import Methods
from engine.host.pipe import Outbox, bound_log, take_standard_streams
from engine.host.server import Server
from engine.protocol import workspace

PATIENCE = 5.0
"""Seconds for requests that are in work when nobody waits for their replies any more: a submission is finished."""


class _Asked(BaseException):
    """A signal that asks the host to end."""


def main() -> None:
    source, sink = take_standard_streams()
    sys.stdout = sys.stderr
    bound_log()
    outbox = Outbox(sink)
    server = Server(source, outbox, Methods(workspace(), outbox).table(), workspace())
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _ask)
    try:
        server.serve()
        server.finish(PATIENCE)
    except _Asked:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        outbox.drain(0.5)
    sys.stderr.flush()
    os._exit(0)  # whatever still works in a thread has nobody to tell


def _ask(number: int, frame: FrameType | None) -> None:
    raise _Asked


if __name__ == "__main__":
    main()
