"""An adapter in memory: low-rank factors by model part and module path, free of any file's naming.

Every reader makes an `Adapter`, every writer takes one. A module path is that of the adapted model
(`down_blocks.0.attentions.0.proj_in`), and the factors have the dimensions of its layer: two for a linear layer, four
for a convolution, a 1x1 one included.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


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

    def delta(self) -> Tensor:
        """The update of the layer's weight, float64, in the weight's own shape. Dense: for small use and tests."""
        product = self.up.double().flatten(1) @ self.down.double().flatten(1)
        return self.scale * product.reshape(self.up.shape[0], *self.down.shape[1:])


@dataclass(frozen=True, eq=False)
class Adapter:
    """Factors by part (`unet`, `text_encoder`, …), then by module path; and the metadata of its file."""

    parts: dict[str, dict[str, Factors]]
    metadata: dict[str, str] = field(default_factory=dict)
