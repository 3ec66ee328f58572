"""Random numbers of training, each a pure function of (seed, stage, step, index in the global batch).

No generator runs on from step to step, so resuming, sampling and validating in between change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine import draws


@dataclass
class Noise:
    """What one forward pass needs: posterior noise and noise [n, c, h, w] float32, timesteps [n] int64."""

    posterior: Tensor
    noise: Tensor
    timesteps: Tensor

    @staticmethod
    def concatenate(parts: list[Noise]) -> Noise:
        return Noise(
            torch.cat([part.posterior for part in parts]),
            torch.cat([part.noise for part in parts]),
            torch.cat([part.timesteps for part in parts]),
        )

    def to(self, device: torch.device) -> Noise:
        return Noise(*(tensor.to(device, non_blocking=True) for tensor in (self.posterior, self.noise, self.timesteps)))


def draw(
    seed: int, stage: str, step: int, indices: range, shape: tuple[int, int, int], timesteps: int, offset: float = 0.0
) -> Noise:
    """Draw for the images at `indices` of a global batch. `shape` is (channels, height, width) of a latent.

    `offset` adds to each channel of the noise one normal number of that size (noise offset).
    """
    posterior, noise = torch.empty(len(indices), *shape), torch.empty(len(indices), *shape)
    times = torch.empty(len(indices), dtype=torch.int64)
    for row, index in enumerate(indices):
        generator = torch.Generator().manual_seed(draws.bits(seed, stage, step, index))
        torch.randn(shape, generator=generator, out=posterior[row])
        torch.randn(shape, generator=generator, out=noise[row])
        times[row] = torch.randint(timesteps, (), generator=generator)
        if offset:
            noise[row] += offset * torch.randn(shape[0], 1, 1, generator=generator)
    return Noise(posterior, noise, times)
