"""How a tensor of one layout is made of those of another, without changing a number.

Layouts differ in more than names: OpenCLIP keeps query, key and value of a layer in one tensor and its projection
turned over, a VAE's attention has been linear and a 1x1 convolution. A `Recipe` says so for one tensor; maps of recipes
are made from headers alone, so no torch until one is followed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.formats.container import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

Header = Mapping[str, TensorInfo]
"""What tensors there are, by name."""


@dataclass(frozen=True)
class Recipe:
    """One tensor, made of one or more others."""

    info: TensorInfo
    """What comes out."""
    sources: tuple[str, ...]
    """Names of what it is made of; several are stacked along the first dimension."""
    rows: tuple[int, int] | None = None
    """Begin and end of the part of the first dimension that is taken; None: all of it."""
    turned: bool = False
    """Whether rows become columns."""

    def make(self, load: Callable[[str], Tensor]) -> Tensor:
        """The tensor, a view of what `load` gives wherever that is possible."""
        import torch

        sources = [load(name) for name in self.sources]
        part = self._taken(sources[0] if len(sources) == 1 else torch.cat(sources))
        return (part.t() if self.turned else part).reshape(self.info.shape)

    def of(self, prefix: str) -> Recipe:
        """The same of names that have a prefix."""
        return replace(self, sources=tuple(prefix + name for name in self.sources))

    def place(self, whole: Tensor) -> Tensor:
        """The part of the one source that the tensor is, as a view of it in the tensor's dimensions, to be written to.

        Only for a recipe with one source.
        """
        part = self._taken(whole)
        return (part.t() if self.turned else part).view(self.info.shape)

    def _taken(self, whole: Tensor) -> Tensor:
        return whole if self.rows is None else whole[slice(*self.rows)]


def same(name: str, info: TensorInfo) -> Recipe:
    """The tensor as it is, under another name."""
    return Recipe(info, (name,))


def shaped(name: str, info: TensorInfo, shape: tuple[int, ...]) -> Recipe:
    """The tensor with 1x1 kernels added or left out."""
    return Recipe(TensorInfo(info.dtype, shape), (name,))
