"""The host: `python -m engine`. Requests on stdin, replies and notifications on stdout, one JSON message a line.

It lives as long as its client: it ends when stdin does, or on SIGTERM, SIGHUP or Ctrl-C. Jobs know nothing of it. The
main thread only waits for the end: a signal's handler that raised, in a thread that takes locks, would leave one held.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from engine.host.methods import Methods
from engine.host.pipe import Outbox, bound_log, take_standard_streams
from engine.host.server import Server
from engine.protocol import workspace

PATIENCE = 5.0
"""Seconds for requests that are in work when nobody waits for their replies any more: a submission is finished."""
PARTING = 0.5
"""Seconds for what waits to be read, after a signal."""


def main() -> None:
    source, sink = take_standard_streams()
    sys.stdout = sys.stderr
    bound_log()
    outbox = Outbox(sink)
    server = Server(source, outbox, Methods(workspace(), outbox).table(), workspace())
    ended, end = os.pipe()
    os.set_blocking(end, False)
    signal.set_wakeup_fd(end, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_serve, args=(server, end), name="server", daemon=True).start()
    os.read(ended, 1)
    outbox.drain(PARTING)
    sys.stderr.flush()
    os._exit(0)  # whatever still works in a thread has nobody to tell


def _serve(server: Server, end: int) -> None:
    try:
        server.serve()
        server.finish(PATIENCE)
    finally:
        os.write(end, b".")


if __name__ == "__main__":
    main()
