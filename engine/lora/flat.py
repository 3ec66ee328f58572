"""All trainable numbers in one flat float32 buffer, with gradient and moments beside it.

Every parameter is a view into `value`, its `.grad` a view into `gradient`. So clipping, stepping, averaging over ranks,
EMA, saving and resuming are one operation each. Gradients are zeroed in place and never set to None. Segments start at
multiples of 128 bytes; the gaps stay zero. Segments of a group are contiguous: a group is one slice, with one rate.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from engine.lora.inject import Layers
from engine.lora.layers import LoRALayer

ALIGN = 32
"""Numbers between possible starts of segments: 128 bytes of float32."""


class FlatParameters:
    """Takes over the factors of `layers`, grouped by part. Downs of neighbours lie side by side, then their ups.

    value, gradient: parameters and their gradients, [size] float32. moment1, moment2: AdamW's. average: EMA or None.
    """

    def __init__(self, layers: Layers, compute: torch.dtype = torch.float32, average: bool = False):
        self.segments: dict[str, tuple[int, torch.Size]] = {}
        self.groups: dict[str, slice] = {}
        members: list[tuple[str, LoRALayer, str]] = []
        size = 0
        for part, paths in layers.items():
            start = size
            for factor in ("down", "up"):
                for path, layer in paths.items():
                    tensor = getattr(layer, factor)
                    self.segments[f"{part}.{path}.{factor}"] = (size, tensor.shape)
                    members.append((f"{part}.{path}.{factor}", layer, factor))
                    size += -(-tensor.numel() // ALIGN) * ALIGN
            self.groups[part] = slice(start, size)
        device = members[0][1].down.device
        self.value, self.gradient, self.moment1, self.moment2 = (torch.zeros(size, device=device) for _ in range(4))
        self.steps = {group: torch.zeros((), device=device) for group in self.groups}
        self._copy = torch.zeros(size, device=device, dtype=compute) if compute != torch.float32 else None
        with torch.no_grad():
            for name, layer, factor in members:
                self.view(name, self.value).copy_(getattr(layer, factor))
        self.average = self.value.clone() if average else None
        self._bind(members)

    def _bind(self, members: Iterable[tuple[str, LoRALayer, str]]) -> None:
        for name, layer, factor in members:
            parameter = nn.Parameter(self.view(name, self.value))
            parameter.grad = self.view(name, self.gradient)
            setattr(layer, factor, parameter)
        source = self.value if self._copy is None else self._copy
        for name, layer, factor in members:
            if factor == "down":
                layer.compute = (self.view(name, source), self.view(name.removesuffix("down") + "up", source))
        self.refresh()

    def view(self, name: str, buffer: Tensor) -> Tensor:
        """The segment of one factor in a buffer of this layout, in the factor's shape."""
        start, shape = self.segments[name]
        return buffer[start : start + shape.numel()].view(shape)

    @property
    def count(self) -> int:
        """Trainable numbers, without the gaps."""
        return sum(shape.numel() for _, shape in self.segments.values())

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring the copy in compute precision up to date: one cast for all layers."""
        if self._copy is not None:
            self._copy.copy_(self.value)

    def state(self) -> dict[str, Tensor]:
        """Everything that training changes, by name; the tensors are the live ones."""
        tensors = {"value": self.value, "moment1": self.moment1, "moment2": self.moment2}
        if self.average is not None:
            tensors["average"] = self.average
        return tensors | {f"steps.{group}": count for group, count in self.steps.items()}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put a saved state back. Raises KeyError or RuntimeError when it belongs to other layers."""
        for name, live in self.state().items():
            live.copy_(tensors[name].reshape(live.shape))
        self.gradient.zero_()
        self.refresh()

    @torch.no_grad()
    def exchange_average(self) -> None:
        """Swap parameters and average, for sampling and saving; a second call swaps them back."""
        if self.average is not None:
            held = self.value.clone()
            self.value.copy_(self.average)
            self.average.copy_(held)
            self.refresh()
