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


class Loading(Report, frozen=True):
    """What another program makes of an adapter file."""

    program: str
    loads: bool
    """Whether it works there as it should."""
    note: str
    unmatched: list[str] = []
    """Keys that it would pass over."""


class InspectedPart(Report, frozen=True):
    """The layers of one part of a model."""

    layers: int
    ranks: list[int]
    """Those that occur, smallest first; likewise the alphas."""
    alphas: list[float]
    kinds: dict[str, int]
    """LoRA, LoHa, LoKr and so on → how many."""
    norm: float | None = None
    """Frobenius norm of ΔW of all of them together; None where some have no low-rank form, or depend on a base."""


class InspectedLayer(Report, frozen=True):
    """One layer, and what its ΔW looks like from inside; no norm where that depends on a base that was not named."""

    part: str
    path: str
    kind: str
    rank: int
    scale: float
    shape: list[int]
    norm: float | None = None
    """Frobenius norm of ΔW."""
    effective_rank: float | None = None
    """exp of the entropy of the singular values."""
    ranks: dict[str, int] = {}
    """Share of the squared norm → least rank that holds it."""
    values: list[float] = []
    """Singular values, largest first."""


class Inspected(Report, frozen=True):
    """What an adapter file is."""

    path: str
    bytes: int
    format: str
    """kohya, peft, diffusers, comfyui, cloneofsimo or embedding."""
    family: str
    """sd1, sd2 or sdxl; empty for a base of other sizes."""
    parts: dict[str, InspectedPart]
    tokens: dict[str, dict[str, list[int]]]
    """Learned token → text encoder → count and width of its vectors."""
    metadata: dict[str, str]
    notices: list[str]
    loads: list[Loading]
    layers: list[InspectedLayer]
    """Every layer, where they were asked for."""


class Converted(Report, frozen=True):
    """An adapter was written in a format."""

    out: str
    bytes: int
    format: str
    family: str
    parts: dict[str, int]
    """Part → layers."""
    tokens: dict[str, str]
    """Learned token → the file that holds it."""
    notices: list[str]
    """What became something else on the way."""
    loads: list[Loading]


class MetadataEdited(Report, frozen=True):
    """A file has other metadata."""

    out: str
    bytes: int
    metadata: dict[str, str]


class Tag(Report, frozen=True):
    """A word, and the cosine of the image and a caption that has it."""

    text: str
    score: float


class CaptionedImage(Report, frozen=True):
    """What a scorer finds in one image."""

    path: str
    caption: str
    names: list[Tag]
    colour: Tag
    place: Tag
    """Of size and place; its text is empty where neither is worth saying."""
    before: str
    """The caption that was there, empty for none."""
    written: bool


class Captioned(Report, frozen=True):
    """Images were looked at, and captions written where that was asked for."""

    images: list[CaptionedImage]
    unreadable: list[str]
    """Images that could not be read."""


ANSWERS: dict[str, type[Message]] = {
    "inspect": Inspected,
    "convert": Converted,
    "edit_metadata": MetadataEdited,
    "compose": Composed,
    "interpolate": Interpolated,
    "resize": Composed,
    "diff": Difference,
    "extract": Composed,
    "fit_weights": Fitted,
    "convert_checkpoint": CheckpointWritten,
    "merge": CheckpointWritten,
    "caption": Captioned,
}
"""What each operation answers."""
