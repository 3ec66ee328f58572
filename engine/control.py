"""Commands to a live job: a thread reads `control.jsonl`, answers each line in the journal, and leaves wishes.

The answer never waits for the job, whatever stage it is in; the job honours a wish at a moment of its own choosing (see
engine.context), so no command touches what a step computes with. An attempt begins at the file's end: what an earlier
one was told is not obeyed twice. A disk that is slow or refuses keeps this thread waiting and nobody else.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from typing import Literal

import msgspec

from engine import protocol
from engine.config import Job, Optimizer, Train, check
from engine.config.prompts import parse
from engine.journal import Journal

COMMANDS = ("stop", "pause", "resume", "checkpoint", "sample", "set")
ANY_JOB = COMMANDS[:3]
RATES = {"optimizer.lr_unet": "the denoiser", "optimizer.lr_text": "the text encoder"}
"""Fields that can be changed in a live run → the part that they are the rate of."""

LONGEST = 1 << 20
"""Bytes of a line; what is longer is no command."""


class NotTaken(Exception):
    """A command that the job does not take, and why."""


class Control:
    """What somebody outside wants of a job, as far as the job has not done it yet.

    `stop` may also be set by a signal handler; so the job's thread never waits on it, which could deadlock.
    """

    LOOK_SECONDS = 0.25
    CLOSE_SECONDS = 1.0
    """How long the end of a job waits for a disk that keeps the reading thread."""

    def __init__(self, journal: Journal, stop: threading.Event, offset: int | None = None):
        """`offset`: bytes of the file that were not said to this attempt; None for all that is there now."""
        self.stop, self.paused, self.released = stop, False, False
        self.training = False
        """Whether the run has come to its steps."""
        self.held: Literal["", "between", "inside"] = ""
        """Where the job holds still: between two steps, where commands are carried out, or inside something."""
        self._journal, self._path = journal, journal.directory / protocol.CONTROL
        self._offset = offset if offset is not None else self._size()
        self._job: Job | None = None
        self._waiting: deque[protocol.ControlLine] = deque()
        self._over = self._closed = False
        self._mutex = threading.Lock()
        self._told, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._read, name="control", daemon=True)

    def start(self, job: Job) -> None:
        """Begin to read and answer."""
        self._job = job
        self._thread.start()

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def wanted(self) -> bool:
        """Whether the job has anything to honour."""
        return self.paused or self.released or bool(self._waiting) or self.stop.is_set()

    def ending(self) -> Literal["", "stopped", "released"]:
        """How the job is to end here, if it is: then it takes no further command. Who asks this before honouring a wish
        does so behind its answer, in the journal too."""
        with self._mutex:
            wish = "stopped" if self.stop.is_set() else "released" if self.released else ""
            self._over = self._over or bool(wish)
            return wish

    def finish(self) -> None:
        """The job has done its work: it takes no further command."""
        with self._mutex:
            self._over = True

    def take(self) -> protocol.ControlLine | None:
        """The next command that is to be carried out between two steps."""
        with self._mutex:
            return self._waiting.popleft() if self._waiting else None

    def wait(self) -> None:
        """Come back when a command has been taken, and now and then, since a signal may have come."""
        self._told.wait(self.LOOK_SECONDS)
        self._told.clear()

    def close(self) -> None:
        """Answer what was asked until now, and say which promises will not be kept."""
        self.finish()
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(self.CLOSE_SECONDS)
        with self._mutex:
            left, self._closed = list(self._waiting), True
            self._waiting.clear()
        for line in left:
            self._journal.emit(protocol.Notice(text=f"{line.name}: not done, the job has ended before"))

    def _read(self) -> None:
        while not self._closing.wait(self.LOOK_SECONDS):
            self._look()
        self._look()

    def _look(self) -> None:
        damaged = 0
        for line in self._new_lines():
            damaged += not self._heard(line)
        if damaged:
            lines = "a line" if damaged == 1 else f"{damaged} lines"
            self._say(protocol.Notice(text=f"{lines} of {protocol.CONTROL} could not be read as a command"))

    def _new_lines(self) -> list[bytes]:
        """Lines that were completed since the last look; one that is still being written is left for the next."""
        size = self._size()
        if self._offset is None or size is None or size <= self._offset:
            # Cut or replaced: nothing tells what in it is new, so that only what follows counts.
            self._offset = size if size is not None else self._offset
            return []
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            file.seek(self._offset)
            chunk = file.read(LONGEST)
            end = chunk.rfind(b"\n") + 1 or (LONGEST if len(chunk) == LONGEST else 0)
            self._offset += end
            return [line for line in chunk[:end].split(b"\n") if line.strip()]
        return []

    def _size(self) -> int | None:
        """Bytes in the file; None where the disk won't say."""
        try:
            return os.stat(self._path).st_size
        except FileNotFoundError:
            return 0
        except OSError:
            return None

    def _heard(self, content: bytes) -> bool:
        """Answer and obey one line; False for one that can't be answered, since it has no id."""
        try:
            line = _decoder.decode(content)
        except (ValueError, RecursionError) as error:  # msgspec's own, and bytes that are not UTF-8
            return self._malformed(content, str(error))
        with self._mutex:
            try:
                text, taken = self._answer(line), True
            except NotTaken as reason:
                text, taken = str(reason), False
            if taken and not self._closed:
                self._obey(line)
            self._say(protocol.Acknowledged(command=line.id, name=line.name, taken=taken, text=text))
        self._told.set()
        return True

    def _malformed(self, content: bytes, reason: str) -> bool:
        try:
            named = _named.decode(content)
        except (ValueError, RecursionError):
            return False
        name = named.name if isinstance(named.name, str) else ""
        self._say(protocol.Acknowledged(command=named.id, name=name, taken=False, text=reason))
        return True

    def _say(self, event: protocol.Event) -> None:
        if not self._closed:
            self._journal.emit(event)

    def _obey(self, line: protocol.ControlLine) -> None:
        match line.name:
            case "stop":
                self.stop.set()
            case "pause":
                self.paused, self.released = True, self.released or line.release
            case "resume":
                self.paused = self.released = False
            case _:
                self._waiting.append(line)

    def _answer(self, line: protocol.ControlLine) -> str:
        """What will be done about a command. Raises NotTaken."""
        if line.name not in COMMANDS:
            raise NotTaken(f"there is no such command; there are {', '.join(COMMANDS)}")
        if not isinstance(self._job, Train) and line.name not in ANY_JOB:
            raise NotTaken(f"a job that does not train takes {', '.join(ANY_JOB)}")
        if line.name == "stop" and self.stop.is_set():
            return "it is stopping already"
        if self._over or self.stop.is_set():
            raise NotTaken("the job is ending")
        match line.name:
            case "stop":
                return f"it stops {self._soon}, saved" if self.training else f"it stops {self._soon}"
            case "pause":
                return self._pause(line.release)
            case "resume":
                return "it goes on" if self.paused else "it is not paused"
        if self.released:
            raise NotTaken("the job is being released: resume it first")
        match line.name:
            case "checkpoint":
                if not self.training:
                    raise NotTaken("there is nothing to save yet")
                return f"saved {self._between_steps}"
            case "sample":
                self._check_prompt(line.prompt)
                return f"drawn {self._between_steps}"
        self._check_rate(line.field, line.value)
        return f"{line.field} = {line.value:g} from the next step on"

    def _pause(self, release: bool) -> str:
        if release:
            return f"it ends {self._soon}, saved, and gives its device back: resume queues it again"
        return "it is paused already" if self.paused else f"it holds {self._soon} and keeps its device"

    @property
    def _soon(self) -> str:
        return "now" if self.held else "after this step" if self.training else "as soon as it can"

    @property
    def _between_steps(self) -> str:
        if self.held == "between":
            return "now"
        if not self.training:
            return "when training begins"
        return "when the run goes on" if self.held else "after this step"

    def _check_prompt(self, prompt: str) -> None:
        if not prompt.strip() and not self._job.sampling.prompts:
            raise NotTaken("no prompt was given, and the run has none of its own")
        try:
            parse(prompt)
        except ValueError as error:
            raise NotTaken(str(error)) from None

    def _check_rate(self, field: str, value: float) -> None:
        if field not in RATES:
            raise NotTaken(f"expected {' or '.join(RATES)}, found {field!r}: nothing else changes in a live run")
        name = field.removeprefix("optimizer.")
        _, problems = check(Optimizer, {name: value}, lambda _: field)
        if problems:
            raise NotTaken(f"expected {problems[0].expected}, found {problems[0].found}")
        if not getattr(self._job.optimizer, name):
            raise NotTaken(f"{field} is 0 in this run: {RATES[field]} is not adapted")
        if not value:
            raise NotTaken(f"expected a rate above 0, found 0: {RATES[field]} is adapted to the end of the run")


class _Named(msgspec.Struct):
    """What of a line is enough to answer it."""

    id: str
    name: object = ""


_decoder, _named = msgspec.json.Decoder(protocol.ControlLine), msgspec.json.Decoder(_Named)
