"""One optimizer step on the flat buffer: unscale, clip, gate, AdamW, average, cast.

Nothing here reads a number back to the host. A gradient that is not finite leaves parameters, moments and step counts
as they were, decided on the device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from engine.config import Optimizer
from engine.lora.flat import FlatParameters

_GROWTH_INTERVAL = 2000


class LossScale:
    """Scale of an fp16 loss: halved by a gradient that is not finite, doubled after 2000 good steps in a row."""

    def __init__(self, device: torch.device, initial: float = 2.0**14):
        self.scale = torch.full((), initial, device=device)
        self.good = torch.zeros((), device=device)

    def update(self, finite: Tensor) -> None:
        self.good.copy_(torch.where(finite, self.good + 1, 0.0))
        grown = torch.where(self.good == _GROWTH_INTERVAL, self.scale * 2, self.scale)
        self.scale.copy_(torch.where(finite, grown, self.scale * 0.5))
        self.good.copy_(torch.where(self.good == _GROWTH_INTERVAL, 0.0, self.good))

    def state(self) -> dict[str, Tensor]:
        return {"loss_scale": self.scale, "loss_scale_good": self.good}


class FlatAdamW:
    """AdamW (Loshchilov & Hutter 2019, algorithm 2) over the groups of a flat buffer."""

    def __init__(self, flat: FlatParameters, settings: Optimizer, average: float = 0.0, scale: LossScale | None = None):
        self.flat, self.settings, self.decay, self.scale = flat, settings, average, scale
        device = flat.value.device
        self.rates = {group: torch.zeros((), device=device) for group in flat.groups}

    def set_rates(self, rates: dict[str, float]) -> None:
        for group, rate in rates.items():
            self.rates[group].fill_(rate)

    @torch.no_grad()
    def step(self) -> Tensor:
        """Update from the accumulated gradient and zero it. Returns its norm before clipping, on the device."""
        flat, settings = self.flat, self.settings
        if self.scale is not None:
            flat.gradient.div_(self.scale.scale)
        norm = torch.linalg.vector_norm(flat.gradient)
        finite = norm.isfinite()
        if self.scale is not None:
            self.scale.update(finite)
        if settings.clip_norm:
            flat.gradient.mul_((settings.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        for group, span in flat.groups.items():
            adamw(
                [flat.value[span]],
                [flat.gradient[span]],
                [flat.moment1[span]],
                [flat.moment2[span]],
                [],
                [flat.steps[group]],
                fused=True,
                amsgrad=False,
                maximize=False,
                lr=self.rates[group],
                beta1=settings.beta1,
                beta2=settings.beta2,
                eps=settings.eps,
                weight_decay=settings.weight_decay,
                found_inf=(~finite).float(),
            )
        flat.gradient.zero_()
        if flat.average is not None:
            flat.average.lerp_(flat.value, 1.0 - self.decay)
        flat.refresh()
        return norm
