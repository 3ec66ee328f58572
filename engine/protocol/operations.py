"""What `python -m engine.operate` says: the events of a job, on stdout, and one `Answer` before the `End`.

The answer of each operation is a struct here, known to both programs; `--json` prints it as it is.
"""

from __future__ import annotations

import msgspec

from engine.protocol.base import Message
from engine.protocol.events import Answer, End, Notice, Progress, Refused, Stage

OperationEvent = Stage | Progress | Notice | Refused | Answer | End

_decoder = msgspec.json.Decoder(OperationEvent)


def decode_operation(line: bytes) -> OperationEvent:
    """Read one line of an operation. Raises ValueError for anything else."""
    return _decoder.decode(line)


class Report(Message, frozen=True, omit_defaults=False):
    """Base of answers and their parts. Scripts read them, so every field is written."""


class Layer(Report, frozen=True):
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


class Composed(Report, frozen=True):
    """An adapter was written: by compose, resize, extract and the like."""

    out: str
    bytes: int
    layers: list[Layer]
    tokens: dict[str, str] = {}
    """Learned token → the file that it went to."""
    renamed: dict[str, str] = {}
    """Tokens under other names than in their files, because of a clash: `file: <s1>` → `<s1-2>`."""


class Interpolated(Report, frozen=True):
    """Adapters on a line, by their t."""

    files: dict[str, float]


class LayerDifference(Report, frozen=True):
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


class Difference(Report, frozen=True):
    """How far two adapters are apart: of each layer, and of all layers as one vector."""

    first: float
    second: float
    distance: float
    cosine: float | None
    layers: list[LayerDifference]


class CheckpointWritten(Report, frozen=True):
    """A whole model was written: converted, or with adapters merged into it."""

    out: str
    family: str
    """sd1, sd2 or sdxl."""
    bytes: int
    """On the disk."""
    tensors: dict[str, int]
    """Part → how many were written of a converted model, or changed by a merge."""
    notes: list[str] = []
    """What could not be kept, or should be known of the result."""


class Fitted(Report, frozen=True):
    """A blend was written, with learned weights."""

    out: str
    adapters: list[str]
    before: list[float]
    """The weight of each adapter at the beginning."""
    weights: dict[str, list[float]]
    """Block, or `all` → the weight of each adapter."""
    loss_before: float
    """Under fixed noise and timesteps, as `loss_after` is."""
    loss_after: float
    images: int


ANSWERS: dict[str, type[Message]] = {
    "compose": Composed,
    "interpolate": Interpolated,
    "resize": Composed,
    "diff": Difference,
    "extract": Composed,
    "fit_weights": Fitted,
    "convert_checkpoint": CheckpointWritten,
    "merge": CheckpointWritten,
}
"""What each operation answers."""
