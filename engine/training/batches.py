"""From picks to tensors: the one place where latents, captions and chance come together into a batch.

A row of a batch belongs to one pick, which holds image, caption, flip and crop together; nothing is paired up by
position in separate lists. Instance images come first, class images behind them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.data.cache import Latents
from engine.data.items import Item, Variant
from engine.data.order import ClassOrder, Order
from engine.models.base import Framing
from engine.training import chance
from engine.training.chance import Noise
from engine.training.text import Conditioning, TextStates

VALIDATION_IMAGES = 8
"""At most so many images are looked at in a validation."""
VALIDATION_TIMESTEPS = 4
"""Each at so many timesteps, in the middle of equal parts of the whole range."""


@dataclass
class Batch:
    """mean, std: latents' posterior [n, c, h, w] float32. `conditioning()` encodes, or looks up, the captions, and
    tells how the pictures were cut."""

    mean: Tensor
    std: Tensor
    noise: Noise
    conditioning: Callable[[], Conditioning]
    instances: int
    """Rows of instance images; the rest are class images."""


@dataclass
class Batches:
    """Batches of a run, by step and micro-batch: what they hold is a function of the seed and these two numbers."""

    order: Order
    class_order: ClassOrder | None
    latents: Latents
    text: TextStates
    timesteps: int
    seed: int
    accumulate: int
    noise_offset: float
    device: torch.device

    def __call__(self, step: int, micro: int) -> Batch:
        """Micro-batch `micro` (from 0) of step `step` (from 1)."""
        k = (step - 1) * self.accumulate + micro
        picks = self.order[k]
        instances = len(picks)
        places = range(micro * instances, (micro + 1) * instances)
        groups = [("train", picks)]
        if self.class_order is not None:
            groups.append(("prior", self.class_order.at(k, picks[0].bucket)))
        picks = [pick for _, group in groups for pick in group]
        mean, std = self.latents.lookup([pick.variant for pick in picks])
        drawn = [
            chance.draw(self.seed, stage, step, places, mean.shape[1:], self.timesteps, self.noise_offset)
            for stage, _ in groups
        ]
        noise = Noise.concatenate(drawn).to(self.device)
        captions = [pick.caption for pick in picks]
        framings = [framing(pick.item, pick.variant) for pick in picks]
        return Batch(mean, std, noise, lambda: self.text(captions, framings), instances)


def variants(order: Order, class_order: ClassOrder | None, validation: list[Item]) -> list[Variant]:
    """Every picture that a run can ask for, each once."""
    pictures = order.variants()
    if class_order is not None:
        pictures += class_order.variants(order.buckets)
    return list(dict.fromkeys([*pictures, *(centre(item) for item in validation)]))


def centre(item: Item) -> Variant:
    """An image as validation sees it: its centre, not mirrored."""
    return Variant(item.path, item.sha256, item.bucket)


def framing(item: Item, variant: Variant) -> Framing:
    """How the picture that the model sees was cut out of the image, as `images.fit` does it."""
    width, height = variant.bucket
    scale = max(width / item.width, height / item.height)
    left = variant.crop[0] * max(0.0, item.width * scale - width)
    top = variant.crop[1] * max(0.0, item.height * scale - height)
    if variant.flip:
        left = max(0.0, item.width * scale - width) - left
    return Framing((item.width, item.height), (round(left), round(top)), (width, height))


def validation_batches(
    items: list[Item], latents: Latents, text: TextStates, timesteps: int, device: torch.device
) -> list[Batch]:
    """The fixed batches of a validation, one an image: the same latents, noise and timesteps whatever the seed."""
    batches = []
    for index, item in enumerate(items):
        mean, std = latents.lookup([centre(item)] * VALIDATION_TIMESTEPS)
        noise = chance.draw(0, "validation", index, range(VALIDATION_TIMESTEPS), mean.shape[1:], timesteps)
        part = timesteps / VALIDATION_TIMESTEPS
        noise.timesteps = torch.tensor([int((place + 0.5) * part) for place in range(VALIDATION_TIMESTEPS)])
        told = [item.caption] * VALIDATION_TIMESTEPS, [framing(item, centre(item))] * VALIDATION_TIMESTEPS
        batches.append(Batch(mean, std, noise.to(device), lambda told=told: text(*told), VALIDATION_TIMESTEPS))
    return batches
