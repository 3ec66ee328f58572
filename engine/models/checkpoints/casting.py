"""Tensors on their way into another file: in the number format that was asked for, and looked at as they pass.

A cast that loses a number beyond its format's range stops the writing, since the model would compute infinities; what
was NaN or infinite before stays so, and is remembered to be told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import Problem, UserError
from engine.formats.container import TensorInfo, listed
from engine.formats.streams import LazyTensor
from engine.formats.weights import torch_dtypes

if TYPE_CHECKING:
    from torch import Tensor

PRECISIONS = {"fp16": "F16", "bf16": "BF16", "fp32": "F32"}
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


@dataclass
class Casting:
    """One number format for all tensors of floating-point numbers of a file."""

    where: Path
    precision: str
    """keep, fp16, bf16 or fp32."""
    broken: list[str] = field(default_factory=list)
    """Names of tensors that hold NaN or infinity."""

    def lazy(self, name: str, info: TensorInfo, make: Callable[[], Tensor]) -> LazyTensor:
        """The tensor that `make` gives, cast. name: for messages."""
        floats = info.dtype in FLOATS
        target = TensorInfo(PRECISIONS.get(self.precision, info.dtype) if floats else info.dtype, info.shape)
        return LazyTensor(target, lambda: self._cast(name, make(), target) if floats else make())

    def _cast(self, name: str, tensor: Tensor, target: TensorInfo) -> Tensor:
        was_finite = is_finite(tensor)
        if not was_finite:
            self.broken.append(name)
        cast = tensor.to(torch_dtypes()[target.dtype])
        if was_finite and cast is not tensor and not is_finite(cast):
            raise UserError(
                Problem(
                    where=str(self.where),
                    field=name,
                    expected=f"numbers within the range of {self.precision}",
                    found=f"one of {float(tensor.abs().max()):g}",
                    advice="nothing was written: choose bf16 or fp32, or keep the format of the file",
                )
            )
        return cast

    def notices(self) -> list[str]:
        """What is to be told of the values, once all have passed."""
        if not self.broken:
            return []
        return [f"{len(self.broken)} tensors hold NaN or infinity, as they did before: {listed(self.broken)}"]


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are. The extremes tell, which takes no memory beside the tensor, as `isfinite` would."""
    if not tensor.numel():
        return True
    low, high = tensor.aminmax() if tensor.element_size() > 1 else tensor.float().aminmax()
    return bool(low.isfinite() and high.isfinite())
