"""An adapter in memory: updates by model part and module path, free of any file's naming.

Every reader makes an `Adapter`, every writer takes one. A module path is that of the adapted model
(`down_blocks.0.attentions.0.proj_in`; in text encoders without the `text_model.` that older versions had in front).
Most layers are plain `Factors`; `engine.formats.layers` has the other kinds, all with the same few properties.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from engine.formats.layers import Layer


@dataclass(frozen=True, eq=False)
class Factors:
    """The two factors of one layer's update, `ΔW = alpha / rank · up @ down` (Hu et al. 2021)."""

    down: Tensor
    """r x in of a linear layer, r x in x kh x kw of a convolution."""
    up: Tensor
    """out x r, or out x r x 1 x 1."""
    alpha: float

    def __post_init__(self) -> None:
        if self.down.ndim != self.up.ndim or self.down.ndim not in (2, 4) or self.up.shape[1] != self.rank:
            raise ValueError(f"factors of {tuple(self.down.shape)} and {tuple(self.up.shape)} don't multiply")

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, ...]:
        """Of ΔW, and so of the weight that it is for."""
        return (self.up.shape[0], *self.down.shape[1:])

    def delta(self, base: Tensor | None = None) -> Tensor:
        """The update of the layer's weight, float64, in the weight's own shape. Dense: for small use and tests."""
        product = self.up.double().flatten(1) @ self.down.double().flatten(1)
        return self.scale * product.reshape(self.shape)

    def factors(self) -> Factors:
        return self


@dataclass(frozen=True, eq=False)
class Adapter:
    """Updates by part (`unet`, `text_encoder`, `text_encoder_2`), then by module path, and what came with them."""

    parts: dict[str, dict[str, Layer]]
    metadata: dict[str, str] = field(default_factory=dict)
    """That of its file, as it stood there."""
    tokens: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Learned tokens: token → text encoder → its vectors, n x width."""
    format: str = ""
    """How the file spelled it: kohya, peft, diffusers, comfyui, cloneofsimo or embedding."""
    family: str = ""
    """sd1, sd2 or sdxl, where names and shapes tell; empty for a base of other sizes."""
    notices: tuple[str, ...] = ()
    """What a reader of the file should know about it."""
