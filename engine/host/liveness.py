"""What state a job is in, told from its directory and its lock.

Alive means that the lock is held, whatever a file says. `status.json` is a summary that its worker may not have lived
to correct, and that a disk, a person or a kill may have damaged: then the journal tells, and where that is missing too
the job has never begun. Nothing here raises for anything that a directory may hold.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from engine import journal, locks, protocol
from engine.protocol.messages import State

SILENCE = {"load": 3600.0, "class-images": 1800.0}
"""Seconds without an event after which a live job counts as stalled, by stage: a base may have to be downloaded."""
USUAL_SILENCE = 900.0

ALIVE: frozenset[State] = frozenset({"running", "paused", "stalled"})
_CLAIMS_LIFE = ("running", "paused")

GOES_ON = "resume it: it goes on from the last saved state"


class Life(NamedTuple):
    """The state of a job, why it is in it, and what would help."""

    state: State
    cause: str = ""
    advice: tuple[str, ...] = ()

    @property
    def alive(self) -> bool:
        return self.state in ALIVE


def status_of(directory: Path) -> protocol.Status:
    """The last summary of a job. It says what the worker last said, which may be long dead."""
    try:
        return _decoder.decode(content(f"{directory}/{protocol.STATUS}"))
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return rebuilt(directory)


_decoder = msgspec.json.Decoder(protocol.Status)


def content(path: str) -> bytes:
    """A small file, in a third of the time that pathlib takes: lists read thousands. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(descriptor, 1 << 16):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def rebuilt(directory: Path) -> protocol.Status:
    """The summary that the journal would have written."""
    try:
        size = os.stat(directory / protocol.JOURNAL).st_size
    except OSError:
        size = 0
    return msgspec.structs.replace(_from_journal(directory / protocol.JOURNAL, size))


@functools.lru_cache(maxsize=64)
def _from_journal(path: Path, size: int) -> protocol.Status:
    status = protocol.Status(state="stopped", cause="it has never been started")
    try:
        for event in protocol.JournalReader(path).read() if size else ():
            journal.summarise(status, event)
    except OSError:
        status.cause = "its journal can't be read"
    return status


def judge(directory: Path, status: protocol.Status) -> Life:
    """Hold what a summary says against the job's lock."""
    claims = status.state in _CLAIMS_LIFE
    if not claims and status.state != "queued":
        return Life(status.state, status.cause)
    if locks.held(directory):
        return _living(status)
    if not claims:
        return Life("queued")
    if status.host and status.host != journal.host() and (status.state == "paused" or not _silent(status)):
        return Life("elsewhere", f"it was last seen alive on {status.host}", ("look after it on that machine",))
    return _crashed(directory, status)


def look(directory: Path) -> tuple[protocol.Status, Life]:
    """The summary of a job and its state."""
    status = status_of(directory)
    life = judge(directory, status)
    if life.state == "crashed" and (later := status_of(directory)) != status:
        # It has ended, in good order, between the look at its summary and the look at its lock.
        return later, judge(directory, later)
    return status, life


def state_of(directory: Path) -> State:
    return look(directory)[1].state


def _living(status: protocol.Status) -> Life:
    if status.state == "queued":
        return Life("running")
    if status.state == "paused":
        return Life("paused")
    if _silent(status):
        minutes = (time.time() - status.updated) / 60
        advice = "engine.log in its folder may tell more; if it stays silent, stop it and resume it"
        return Life("stalled", f"nothing was heard of it for {minutes:.0f} minutes", (advice,))
    return Life("running")


def _silent(status: protocol.Status) -> bool:
    """Whether nothing was heard of a job for too long. A clock that was set back makes nothing silent."""
    return time.time() - status.updated > SILENCE.get(status.stage, USUAL_SILENCE)


def _crashed(directory: Path, status: protocol.Status) -> Life:
    if status.host and status.host != journal.host():
        return Life("crashed", f"it ran on {status.host}, and nothing was heard of it for long", (GOES_ON,))
    if status.boot_id and status.boot_id != journal.boot_id():
        return Life("crashed", "the machine was restarted while it ran", (GOES_ON,))
    words = tail(directory / protocol.LOG, 1)
    cause = status.cause or "its process died without a last word"
    return Life(
        "crashed",
        f"{cause}; the end of its log: {words}" if words else cause,
        (
            GOES_ON,
            "if the system killed it for memory: a smaller training.batch or dataset.resolution, "
            "or runtime.gradient_checkpointing = true",
        ),
    )


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log that say anything, cut to a bearable length; empty where there is none."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    kept = [line[:400] for line in text.splitlines() if line.strip()]
    return "\n".join(kept[-lines:])
