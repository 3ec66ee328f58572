"""Checks of images: a child process looks, and what it says becomes notifications `images.checked`.

One check at a time: a new one gives up the old, of which nothing more is heard. The child reads from a pipe that only
this host holds, and ends when the host does, however that ends.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading

import msgspec

from engine.host.launch import engine_environment
from engine.host.pipe import Outbox, read_lines
from engine.host.server import notification
from engine.protocol.browse import CheckImages, ImagesChecked

LONGEST = 1 << 26
"""Bytes of a line: the findings of some hundred thousand images."""

_line = msgspec.json.Decoder(ImagesChecked)


class Checks:
    """The checks of one host."""

    def __init__(self, outbox: Outbox):
        self._outbox = outbox
        self._mutex = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, params: CheckImages) -> None:
        """Begin a check in place of the one that is under way. Whatever becomes of it is told in notifications."""
        with self._mutex:
            if self._process is not None:
                self._process.kill()
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "engine.look"],
                    env=engine_environment(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as error:
                self._process = None
                failed = f"it could not be started: {(error.strerror or str(error)).lower()}"
                self._tell(ImagesChecked(id=params.id, done=0, total=0, finished=True, failed=failed))
                return
            arguments = self._process, params
        threading.Thread(target=self._follow, args=arguments, name="check", daemon=True).start()

    def _follow(self, process: subprocess.Popen[bytes], params: CheckImages) -> None:
        """Pass on what a child says, until it ends or another has taken its place."""
        told = ImagesChecked(id=params.id, done=0, total=0)
        with contextlib.suppress(BrokenPipeError):  # it has ended at once, which is told below
            process.stdin.write(msgspec.json.encode(params) + b"\n")
            process.stdin.flush()
        try:
            for line in read_lines(process.stdout.fileno(), LONGEST):
                told = _line.decode(line or b"")
                self._pass_on(process, told)
        except msgspec.MsgspecError:  # nothing that it could go on from
            process.terminate()
        code = process.wait()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        if not told.finished:
            self._pass_on(process, msgspec.structs.replace(told, finished=True, failed=_end(code)))

    def _pass_on(self, process: subprocess.Popen[bytes], told: ImagesChecked) -> None:
        self._outbox.wait_for_room()
        with self._mutex:
            if self._process is process:
                self._tell(told)

    def _tell(self, told: ImagesChecked) -> None:
        self._outbox.put(notification("images.checked", told))


def _end(code: int) -> str:
    """Why a child has ended without a last word."""
    if code == -signal.SIGKILL:
        return "its process was killed, perhaps by the system for want of memory: check fewer folders at once"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with code {code}; the host's log may tell more"
