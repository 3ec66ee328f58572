"""The kinds of update that are no plain pair of factors, each a frozen set of tensors with its own formula.

All have what `Factors` has: `rank`, `scale` (alpha / rank), `shape` of ΔW, `delta()` and `factors()`. `delta` is the
reference: dense, float64, written for clarity. `factors` gives the same update as a plain pair where there is one, up
to the rounding of one product, and None where there is none. Formulas and tensor names are those of LyCORIS (Yeh et
al. 2023, arXiv:2309.14859).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.formats.adapter import Factors

Shape = tuple[int, ...]


class Layer(Protocol):
    """The update of one layer's weight."""

    @property
    def rank(self) -> int: ...

    @property
    def scale(self) -> float: ...

    @property
    def shape(self) -> Shape: ...

    def delta(self, base: Tensor | None = None) -> Tensor:
        """ΔW, float64, in the weight's own shape. base: the weight, which a DoRA can't do without (ValueError)."""
        ...

    def factors(self) -> Factors | None:
        """The same update as a plain pair, in the dtype of its own tensors but float32 at least; None: there is none.

        The rank is what the formula needs, which may be more than the weight's own.
        """
        ...


@dataclass(frozen=True, eq=False)
class Tucker:
    """A convolution's update with the kernel in a core of its own: ΔW = s · mid ×₁ up ×₂ down (LoCon with a mid)."""

    down: Tensor
    """r x in x 1 x 1."""
    mid: Tensor
    """r x r x kh x kw."""
    up: Tensor
    """out x r x 1 x 1."""
    alpha: float

    def __post_init__(self) -> None:
        if (
            (self.down.ndim, self.mid.ndim, self.up.ndim) != (4, 4, 4)
            or (*self.down.shape[2:], *self.up.shape[2:]) != (1, 1, 1, 1)
            or self.mid.shape[:2] != (self.up.shape[1], self.rank)
        ):
            raise ValueError(f"factors of {_sizes(self.down, self.mid, self.up)} don't multiply")

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def shape(self) -> Shape:
        return (self.up.shape[0], self.down.shape[1], *self.mid.shape[2:])

    def delta(self, base: Tensor | None = None) -> Tensor:
        mid, up, down = self.mid.double(), self.up.double()[:, :, 0, 0], self.down.double()[:, :, 0, 0]
        return self.scale * torch.einsum("abhw,oa,bi->oihw", mid, up, down)

    def factors(self) -> Factors:
        """At the rank of the core's outer side: the core goes into `down`."""
        down = torch.einsum("abhw,bi->aihw", _wide(self.mid), _wide(self.down)[:, :, 0, 0])
        return Factors(down, _wide(self.up), self.scale * len(down))


@dataclass(frozen=True, eq=False)
class LoHa:
    """The elementwise product of two low-rank updates: ΔW = s · (A₁ B₁) ∘ (A₂ B₂) (FedPara, Hyeon-Woo et al. 2022).

    With cores t₁, t₂ the halves are t ×₁ A ×₂ B, and A lies on its side.
    """

    w1_a: Tensor
    """out x r; with a core r x out."""
    w1_b: Tensor
    """r x in·kh·kw; with a core r x in."""
    w2_a: Tensor
    w2_b: Tensor
    alpha: float
    shape: Shape
    """Of ΔW; the tensors alone don't tell a kernel from more inputs."""
    t1: Tensor | None = None
    """r x r x kh x kw."""
    t2: Tensor | None = None

    def __post_init__(self) -> None:
        a, b = self.w1_a, self.w1_b
        fits = a.ndim == b.ndim == 2 and a.shape == self.w2_a.shape and b.shape == self.w2_b.shape
        if self.t1 is None or self.t2 is None:
            fits = fits and self.t1 is self.t2 is None and a.shape[1] == b.shape[0]
            fits = fits and math.prod(self.shape) == len(a) * b.shape[1] and self.shape[0] == len(a)
        else:
            core = (len(a), len(b), *self.shape[2:])
            fits = fits and self.t1.shape == self.t2.shape == core and self.shape[:2] == (a.shape[1], b.shape[1])
        if not fits:
            raise ValueError(f"halves of {_sizes(*self.tensors().values())} don't make a weight of {self.shape}")

    @property
    def rank(self) -> int:
        return self.w1_b.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def delta(self, base: Tensor | None = None) -> Tensor:
        if self.t1 is None:
            first = self.w1_a.double() @ self.w1_b.double()
            second = self.w2_a.double() @ self.w2_b.double()
        else:
            first = _rebuilt(self.t1.double(), self.w1_a.double(), self.w1_b.double())
            second = _rebuilt(self.t2.double(), self.w2_a.double(), self.w2_b.double())
        return self.scale * (first * second).reshape(self.shape)

    def factors(self) -> Factors:
        """At rank r²: rows of the ups, and columns of the downs, multiplied each with each."""
        (up1, down1), (up2, down2) = (
            self._half(self.w1_a, self.w1_b, self.t1),
            self._half(self.w2_a, self.w2_b, self.t2),
        )
        up = torch.einsum("oi,oj->oij", up1, up2).flatten(1)
        down = torch.einsum("in,jn->ijn", down1, down2).flatten(0, 1)
        ones = (1, 1) if len(self.shape) == 4 else ()
        return Factors(
            down.reshape(len(down), *self.shape[1:]), up.reshape(*up.shape, *ones), self.scale * down.shape[0]
        )

    @staticmethod
    def _half(a: Tensor, b: Tensor, t: Tensor | None) -> tuple[Tensor, Tensor]:
        """One half as up, out x r, and down, r x in·kh·kw."""
        if t is None:
            return _wide(a), _wide(b)
        return _wide(a).t(), torch.einsum("abhw,bi->aihw", _wide(t), _wide(b)).flatten(1)

    def tensors(self) -> dict[str, Tensor]:
        found = {"hada_w1_a": self.w1_a, "hada_w1_b": self.w1_b, "hada_w2_a": self.w2_a, "hada_w2_b": self.w2_b}
        found |= {"hada_t1": self.t1, "hada_t2": self.t2}
        return {name: tensor for name, tensor in found.items() if tensor is not None}


@dataclass(frozen=True, eq=False)
class LoKr:
    """A Kronecker product: ΔW = s · W₁ ⊗ W₂, where W₁ = A₁B₁ and W₂ = A₂B₂ may be low-rank themselves.

    W₂ has the kernel. With a core t₂ it is t₂ ×₁ A₂ ×₂ B₂, and A₂ lies on its side. The scale is alpha / rank, or 1
    where neither is low-rank.
    """

    alpha: float
    shape: Shape
    w1: Tensor | None = None
    """a x b, or else w1_a, a x r, and w1_b, r x b."""
    w1_a: Tensor | None = None
    w1_b: Tensor | None = None
    w2: Tensor | None = None
    """c x d x kh x kw, or else w2_a, c x r, and w2_b, r x d·kh·kw; with a core r x c and r x d."""
    w2_a: Tensor | None = None
    w2_b: Tensor | None = None
    t2: Tensor | None = None
    """r x r x kh x kw."""

    def __post_init__(self) -> None:
        if not (self._whole(self.w1, self.w1_a, self.w1_b) and self._whole(self.w2, self.w2_a, self.w2_b)):
            raise ValueError(f"{', '.join(self.tensors())} are not both sides of a product")
        if self.t2 is not None and self.w2 is not None:
            raise ValueError("a core beside a side that is whole")
        try:
            rows, columns, *kernel = _meta(self._second)
            first = tuple(_meta(self._first))
        except (RuntimeError, IndexError) as error:
            raise ValueError(f"sides of {_sizes(*self.tensors().values())} don't multiply") from error
        made = math.prod((*first, rows, columns, *kernel))
        if len(first) != 2 or made != math.prod(self.shape) or first[0] * rows != self.shape[0]:
            raise ValueError(f"sides of {_sizes(*self.tensors().values())} don't make a weight of {self.shape}")

    @staticmethod
    def _whole(whole: Tensor | None, a: Tensor | None, b: Tensor | None) -> bool:
        return (whole is not None) == (a is None) == (b is None)

    @property
    def low_rank(self) -> int | None:
        """The rank of the sides that are low-rank; None where both are whole."""
        for factor in (self.w2_b, self.w1_b):
            if factor is not None:
                return factor.shape[0]
        return None

    @property
    def rank(self) -> int:
        """`low_rank`, or the highest rank that a product of two whole sides can have."""
        if self.low_rank is not None:
            return self.low_rank
        rows, *columns = self.w2.shape
        return min(self.w1.shape) * min(rows, math.prod(columns))

    @property
    def scale(self) -> float:
        return 1.0 if self.low_rank is None else self.alpha / self.low_rank

    def _first(self, to) -> Tensor:
        return to(self.w1) if self.w1 is not None else to(self.w1_a) @ to(self.w1_b)

    def _second(self, to) -> Tensor:
        if self.w2 is not None:
            return to(self.w2)
        if self.t2 is not None:
            return _rebuilt(to(self.t2), to(self.w2_a), to(self.w2_b))
        return (to(self.w2_a) @ to(self.w2_b).flatten(1)).reshape(len(self.w2_a), *self.w2_b.shape[1:])

    def delta(self, base: Tensor | None = None) -> Tensor:
        first, second = self._first(Tensor.double), self._second(Tensor.double)
        return self.scale * torch.kron(first, second.flatten(1)).reshape(self.shape)

    def factors(self) -> None:
        """A product of two sides that are not small has no low rank."""

    def tensors(self) -> dict[str, Tensor]:
        names = ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
        return {f"lokr_{name}": tensor for name in names if (tensor := getattr(self, name)) is not None}


@dataclass(frozen=True, eq=False)
class DoRA:
    """An update with the weight's norms set anew: W + ΔW = m · (W + U) / ‖W + U‖ (Liu et al. 2024, arXiv:2402.09353).

    The norms are taken of each output's row, or, in older files, of each input's column.
    """

    update: Layer
    """U: any kind but a DoRA."""
    magnitude: Tensor
    """m, with as many numbers as the axis has: [out], out x 1 (x 1 x 1), 1 x in (x 1 x 1), or 1 x out x 1 x 1."""
    axis: int
    """0: outputs; 1: inputs."""

    def __post_init__(self) -> None:
        if isinstance(self.update, DoRA) or self.magnitude.numel() != self.shape[self.axis]:
            raise ValueError(f"{self.magnitude.numel()} magnitudes for axis {self.axis} of a weight of {self.shape}")

    @property
    def rank(self) -> int:
        return self.update.rank

    @property
    def scale(self) -> float:
        return self.update.scale

    @property
    def shape(self) -> Shape:
        return self.update.shape

    def delta(self, base: Tensor | None = None) -> Tensor:
        if base is None:
            raise ValueError("the update of a DoRA depends on the weight that it is for")
        weight = base.double()
        moved = weight + self.update.delta().reshape(weight.shape)
        others = tuple(dimension for dimension in range(weight.ndim) if dimension != self.axis)
        norm = torch.linalg.vector_norm(moved, dim=others, keepdim=True)
        scale = self.magnitude.double().reshape(norm.shape) / norm.clamp_min(torch.finfo(torch.float32).tiny)
        return moved * scale - weight

    def factors(self) -> None:
        """None without the weight that it is for."""


@dataclass(frozen=True, eq=False)
class Dense:
    """A difference of full rank, as it stands in the file (`diff`)."""

    diff: Tensor

    @property
    def rank(self) -> int:
        """The highest that it can have."""
        return min(self.shape[0], math.prod(self.shape[1:]))

    @property
    def scale(self) -> float:
        return 1.0

    @property
    def shape(self) -> Shape:
        return tuple(self.diff.shape)

    def delta(self, base: Tensor | None = None) -> Tensor:
        return self.diff.double()

    def factors(self) -> None:
        """None: whether its rank is low isn't known."""


def _rebuilt(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """core ×₁ aᵀ ×₂ bᵀ: r x r x kh x kw, r x out, r x in → out x in x kh x kw."""
    return torch.einsum("abhw,ao,bi->oihw", core, a, b)


def _wide(tensor: Tensor) -> Tensor:
    """In float32 at least, in which sums of products lose nothing that matters."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _meta(build) -> Shape:
    """The shape of what `build` makes of tensors, without making it."""
    return tuple(build(lambda tensor: tensor.to("meta", torch.float32)).shape)


def _sizes(*tensors: Tensor) -> str:
    return ", ".join("×".join(map(str, tensor.shape)) for tensor in tensors)
