"""What a job says: typed events, one JSON line each.

The journal is the only thing that a reader needs to follow a job, live or long after its end. Events are added, never
given a new meaning.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from engine.errors import Problem


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True):
    """Base of all events."""

    t: float = 0.0
    """Seconds since 1970, set by the journal."""


class Attempt(Event, frozen=True, tag="attempt"):
    """A worker has taken the job up. A reader keeps, of each step, what the last attempt says."""

    number: int
    pid: int
    host: str
    boot_id: str
    versions: dict[str, str] = {}


class Resumed(Event, frozen=True, tag="resumed"):
    """The run goes on after this step, from a training state."""

    step: int


class Stage(Event, frozen=True, tag="stage"):
    """The job has turned to something else: check, load, class-images, cache, train, draw."""

    name: str
    total: int = 0
    unit: str = ""


class Progress(Event, frozen=True, tag="progress"):
    """How far the present stage has come."""

    stage: str
    done: int
    total: int


class Notice(Event, frozen=True, tag="notice"):
    """Something that the user should know and that stops nothing."""

    text: str
    where: str = ""


class Refused(Event, frozen=True, tag="refused"):
    """A mistake in the request or its images that stopped the job."""

    where: str
    field: str = ""
    expected: str = ""
    found: str = ""
    advice: str = ""

    def text(self) -> str:
        """As it is told to a person."""
        return str(
            Problem(where=self.where, field=self.field, expected=self.expected, found=self.found, advice=self.advice)
        )


class PlanMade(Event, frozen=True, tag="plan"):
    """The arithmetic of the run."""

    text: str
    steps: int
    epochs: float
    images: int
    class_images: int = 0
    modules: int = 0
    """Modules that are adapted."""
    base: str = ""
    captions: dict[str, int] = {}
    """Where the captions came from: source → images."""


class Step(Event, frozen=True, tag="step"):
    """One optimizer step. Losses are means over the global batch; None stands for a value that is not finite."""

    step: int
    loss: float | None
    instance: float | None = None
    prior: float | None = None
    grad_norm: float | None = None
    lr: dict[str, float] = {}
    seconds: float = 0.0


class Validation(Event, frozen=True, tag="validation"):
    """Loss under fixed noise and timesteps."""

    step: int
    loss: float | None
    images: Literal["held-out", "training"]
    count: int


class Sample(Event, frozen=True, tag="sample"):
    """A picture was drawn. `path` is relative to the job's directory where it lies inside."""

    step: int
    path: str
    prompt: str
    seed: int
    index: int = 0


class Checkpoint(Event, frozen=True, tag="checkpoint"):
    """An adapter file and the training state that goes with it were written."""

    step: int
    adapter: str
    state: str = ""


class Acknowledged(Event, frozen=True, tag="acknowledged"):
    """A command was read. Whether it was taken, and why not, or what was done about it, is in `text`."""

    command: str
    """Id of the command."""
    name: str
    taken: bool
    text: str = ""


class Paused(Event, frozen=True, tag="paused"):
    """The job holds still after this step, and keeps its device."""

    step: int


class Continued(Event, frozen=True, tag="continued"):
    """The job goes on after a pause."""

    step: int


class Changed(Event, frozen=True, tag="changed"):
    """A field was changed in the live job, from the step after this one on."""

    step: int
    field: str
    value: float


class Answer(Event, frozen=True, tag="answer"):
    """What an operation has to say in the end."""

    operation: str
    result: msgspec.Raw
    """The struct of `operations.ANSWERS` for it, as JSON."""


class End(Event, frozen=True, tag="end"):
    """The last event of an attempt that came to an end by itself."""

    state: Literal["done", "stopped", "failed", "refused", "released"]
    """`released`: paused, with everything saved and the device given back."""
    code: int
    cause: str = ""
    advice: list[str] = []
    step: int = 0
    outputs: list[str] = []
    seconds: float = 0.0


AnyEvent = (
    Attempt | Resumed | Stage | Progress | Notice | Refused | PlanMade | Step | Validation | Sample | Checkpoint
    | Acknowledged | Paused | Continued | Changed | Answer | End
)  # fmt: skip

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AnyEvent)


def encode(event: Event) -> bytes:
    """One line of a journal, newline included. NaN and infinities are written as null, so it is always JSON."""
    return _encoder.encode(event) + b"\n"


def decode(line: bytes) -> AnyEvent | None:
    """Read one line; None for a line of a newer version or a damaged one."""
    try:
        return _decoder.decode(line)
    except (ValueError, RecursionError):  # msgspec's own errors, and bytes that are not UTF-8
        return None


def finite(value: float) -> float | None:
    """A number that JSON can carry, or None."""
    return value if math.isfinite(value) else None
