"""Pictures to draw, and the base that draws them in large batches: what the benchmarks on `tiny` share.

Kernels differ by batch size, so a picture is only comparable with one that was drawn in a batch of the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from engine import tiny

SEEDS = (1, 2, 3)
SAMPLER_STEPS, GUIDANCE_SCALE = 25, 4.0
BATCH = 20


@dataclass(frozen=True)
class Shot:
    """One picture to draw: what it should show, and the prompt and seed to draw it with."""

    name: str
    colour: str
    prompt: str
    seed: int


class Painter:
    """A base, loaded once, drawing with or without an adapter."""

    def __init__(self, base: str = "tiny") -> None:
        """base: as in a config. Raises UserError where it can't be read."""
        import torch

        from engine.models.load import load_family

        self.family = load_family(base, dtype=torch.float32, device="cpu")

    def draw(
        self, shots: Sequence[Shot], adapter: Path | None = None, progress: Callable[[int], None] = lambda done: None
    ) -> list[Image.Image]:
        """The pictures of all shots, in their order. `progress` is told how many are done."""
        from engine.jobs.generate import read_adapter
        from engine.lora.compose import compose
        from engine.lora.inject import apply, remove
        from engine.sampling import sampler

        side = tiny.RESOLUTION
        requests = [
            sampler.Request(shot.prompt, "", shot.seed, side, side, SAMPLER_STEPS, GUIDANCE_SCALE) for shot in shots
        ]
        adapters = [(read_adapter(self.family, adapter), 1.0)] if adapter else []
        layers = apply(self.family.parts, compose(adapters))
        images: list[Image.Image] = []
        try:
            for start in range(0, len(requests), BATCH):
                images += sampler.draw(self.family, requests[start : start + BATCH])
                progress(len(images))
        finally:
            remove(self.family.parts, layers)
        return images
