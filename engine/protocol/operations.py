"""What `python -m engine.operate` says: the events of a job, on stdout, and one `Answer` before the `End`.

The answer of each operation is a struct here, known to both programs; `--json` prints it as it is.
"""

from __future__ import annotations

import msgspec

from engine.protocol.base import Message
from engine.protocol.events import End, Event, Notice, Progress, Refused, Stage


class Answer(Event, frozen=True, tag="answer"):
    """What an operation has to say in the end: one of the structs of `ANSWERS`."""

    result: msgspec.Raw


OperationEvent = Stage | Progress | Notice | Refused | Answer | End

_decoder = msgspec.json.Decoder(OperationEvent)


def decode_operation(line: bytes) -> OperationEvent:
    """Read one line of an operation. Raises ValueError for anything else."""
    return _decoder.decode(line)


class Layer(Message, frozen=True):
    """What became of one layer."""

    part: str
    path: str
    rank: int
    """Of the result."""
    energy: float = 1.0
    """Share of the squared Frobenius norm that was kept."""
    error: float = 0.0
    """Relative Frobenius error ‖ΔW − result‖ / ‖ΔW‖, from what was cut off or measured; not of the number format."""
    sv_fro: float = 0.0
    """What kohya's resize and extract would print and ask for as `sv_fro`: the root of the energy. 0: not known."""


class Composed(Message, frozen=True):
    """An adapter was written: by compose, resize, extract and the like."""

    out: str
    bytes: int
    layers: list[Layer]
    renamed: dict[str, str] = {}
    """Tokens under other names than in their files, because of a clash: `file: <s1>` → `<s1-2>`."""


class Interpolated(Message, frozen=True):
    """Adapters on a line, by their t."""

    files: dict[str, float]


class LayerDifference(Message, frozen=True):
    """Two updates of one layer; 0 where an adapter does not change it."""

    part: str
    path: str
    first: float
    """Frobenius norm of ΔW in the first adapter."""
    second: float
    distance: float
    """Frobenius norm of the difference."""
    cosine: float | None = None
    """Of the angle between both updates; None where one of them is zero."""


class Difference(Message, frozen=True):
    """How far two adapters are apart: of each layer, and of all layers as one vector."""

    first: float
    second: float
    distance: float
    cosine: float | None
    layers: list[LayerDifference]


ANSWERS: dict[str, type[Message]] = {
    "compose": Composed,
    "interpolate": Interpolated,
    "resize": Composed,
    "diff": Difference,
    "extract": Composed,
}
"""What each operation answers."""
