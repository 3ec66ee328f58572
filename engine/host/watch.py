"""Following journals: what is appended to them, and what becomes of their jobs, as notifications `job.events`.

The journal is the buffer: it is read on in bites, and only while the outbox has room, so nothing is lost on a slow
reader and nothing piles up. Journals are looked at five times a second by opening them, which a network file system
answers truly where a mere stat may be seconds old.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine import protocol
from engine.host.pipe import Outbox
from engine.host.server import notification
from engine.protocol import messages

BITE = 1 << 16
"""Bytes of journal that go into one notification, unless a single line is longer."""
LONGEST = 1 << 20
"""No event is as long as that: such a line is damage, and is passed over."""
INTERVAL = 0.2
"""Seconds between two looks at a journal."""


@dataclass
class Tail:
    """A journal from a byte offset on."""

    path: Path
    offset: int = 0
    behind: bool = False
    """Whether the last `read` left something that can be read at once."""
    restarted: bool = False
    """Whether the last `read` had to begin again at the start."""
    _file: tuple[int, int] | None = None
    """Device and inode of what was read last: another file of the same name is another journal."""
    _length: int = BITE
    _torn: int = -1
    """Size of the file when it held nothing but the beginning of a line behind the offset."""
    _skipping: bool = False

    def read(self) -> list[protocol.AnyEvent]:
        """The next events, up to a bite of them; moves the offset behind them. Raises OSError where there is none."""
        self.restarted = self.behind = False
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            facts = os.fstat(descriptor)
            file = facts.st_dev, facts.st_ino
            if self.offset > facts.st_size or (self._file and self._file != file):
                self.offset, self.restarted, self._skipping, self._torn = 0, True, False, -1
            self._file = file
            if facts.st_size in (self.offset, self._torn):
                return []
            events = self._events(os.pread(descriptor, self._length, self.offset), facts.st_size)
            self.behind = self.offset < facts.st_size != self._torn
            return events
        finally:
            os.close(descriptor)

    def _events(self, data: bytes, size: int) -> list[protocol.AnyEvent]:
        end = data.rfind(b"\n") + 1
        if end:
            self.offset, self._length, self._torn = self.offset + end, BITE, -1
            start = data.index(b"\n") + 1 if self._skipping else 0
            self._skipping = False
            return thinned(_decoded(data[start:end]))
        if len(data) < self._length:
            self._torn = size
        elif self._length < LONGEST:
            self._length = LONGEST
        else:
            self._skipping = True
            self.offset += len(data)
        return []


def _decoded(lines: bytes) -> list[protocol.AnyEvent]:
    """The events of whole lines; those that are damaged, or of a newer version, are passed over."""
    try:
        return _decoder.decode_lines(lines)
    except (ValueError, RecursionError):
        return [event for event in map(protocol.decode, lines.split(b"\n")) if event is not None]


_decoder = msgspec.json.Decoder(protocol.AnyEvent)


def thinned(events: list[protocol.AnyEvent]) -> list[protocol.AnyEvent]:
    """The events without the progress that later progress of the same stage makes worthless. All others stay."""
    kept: list[protocol.AnyEvent] = []
    overtaken: set[str] = set()
    for event in reversed(events):
        match event:
            case protocol.Stage():
                overtaken.clear()
            case protocol.Progress(stage=stage):
                if stage in overtaken:
                    continue
                overtaken.add(stage)
        kept.append(event)
    kept.reverse()
    return kept


def whole_lines(path: Path) -> int:
    """Bytes of a journal up to its last newline; a line that is being written is none yet."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - BITE)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    return start + newline + 1
                end = start
    except OSError:
        pass
    return 0


@dataclass
class Watch:
    """A followed job: where its journal has been read to, and what was last said of its state."""

    id: str
    directory: Path
    tail: Tail
    found: messages.State | str = ""
    """Its state when it was looked at last."""
    told: messages.State | str = ""


class Watcher:
    """All jobs that the client follows. The thread starts with the first."""

    def __init__(self, outbox: Outbox, state_of: Callable[[Path], messages.State]):
        self._outbox, self._state_of = outbox, state_of
        self._watches: dict[str, Watch] = {}
        self._mutex = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, identity: str, directory: Path, offset: int) -> None:
        """Follow a job from a byte offset of its journal on; one that is already followed goes on from there."""
        with self._mutex:
            self._watches[identity] = Watch(identity, directory, Tail(directory / protocol.JOURNAL, offset))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
                self._thread.start()
        self._wake.set()

    def unwatch(self, job: str) -> None:
        """Nothing more is told from now on of a job, by its id, the end of it, or its folder."""
        name = Path(job).name
        with self._mutex:
            for identity in [one for one in self._watches if one == name or one.endswith(f"-{name}")]:
                del self._watches[identity]

    def _run(self) -> None:
        while self._round(look=True):
            while self._behind and self._round(look=False):
                pass
            self._wake.wait(INTERVAL if self._watches else None)
            self._wake.clear()

    def _round(self, look: bool) -> bool:
        """Tell one bite of each journal. False: nobody listens any more."""
        self._behind = False
        with self._mutex:
            watches = list(self._watches.values())
        for watch in watches:
            if not self._outbox.wait_for_room():
                return False
            with self._mutex:
                if self._watches.get(watch.id) is watch:
                    try:
                        self._tell(watch, look)
                    except Exception:  # a defect about one job is none of the others' business
                        traceback.print_exc()
                        del self._watches[watch.id]
        return True

    def _tell(self, watch: Watch, look: bool) -> None:
        """Say what is new of a job, if anything is.

        The state is looked at before the journal is read, and a change of it is held back until nothing is left to
        read: so whoever hears that a job has ended has heard all that it said.
        """
        tail, before, gone = watch.tail, watch.tail.offset, False
        if look or not watch.found:
            watch.found = self._state_of(watch.directory)
        events: list[protocol.AnyEvent] = []
        try:
            events = tail.read()
        except OSError:
            tail.behind, gone = False, not _exists(watch.directory)
        self._behind |= tail.behind
        state = watch.told if (tail.behind or gone) and watch.told else watch.found
        if (tail.offset, state) == (before, watch.told) and not gone and not tail.restarted:
            return
        watch.told = state
        told = messages.JobEvents(
            id=watch.id,
            offset=tail.offset,
            events=events,
            state=state,
            start=0 if tail.restarted else before,
            restarted=tail.restarted,
            gone=gone,
        )
        if gone:
            del self._watches[watch.id]
        self._outbox.put(notification("job.events", told))


def _exists(directory: Path) -> bool:
    try:
        directory.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # not now: a network that is down, say
        return True
    return True
