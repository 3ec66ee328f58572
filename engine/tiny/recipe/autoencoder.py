"""The autoencoder: 64×64 pictures to 4×16×16 latents and back, learned from crops of both drawing styles.

Flat colours and hard edges: absolute differences, of pixels, of their slopes and of 4×4 means, keep edges; squared ones
lift what is left. Latents are shaken while it learns: a denoiser never gets them quite right, and what it misses by
must not show. Little KL, which only holds their scale.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from engine import tiny
from engine.tiny import scenes
from engine.tiny.recipe.fitting import Plan

PLAN = Plan(steps=4000, rate=2e-3, batch=48, average=0.998, preview=500)
CROP = 32
SHAPE: dict[str, Any] = {
    "block_out_channels": (16, 48, 96),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "mid_block_add_attention": False,
    "norm_num_groups": 8,
    "sample_size": tiny.RESOLUTION,
}
SHAKEN = 0.12
"""Deviation of the noise on latents, in units of their own deviation."""
ANY_COLOUR = 0.3
"""How often the background is no named colour but any: a learned subject may come on others."""


def model() -> AutoencoderKL:
    return AutoencoderKL(**SHAPE)


def crops(painters: list[scenes.Painter], names: list[list[str]], chance: Random, count: int) -> Tensor:
    """Random crops of random scenes: [count, 3, CROP, CROP] in -1..1."""
    taken = []
    for _ in range(count):
        which = chance.randrange(len(painters))
        scene = scenes.draw(names[which], chance)
        rgb = tiny.COLOURS[scene.colour]
        if chance.random() < ANY_COLOUR:
            rgb = (chance.randrange(256), chance.randrange(256), chance.randrange(256))
        picture = painters[which].over(scene.figures, rgb)
        # multiples of 4, as the encoder's strides divide the whole frame
        left, top = (4 * chance.randrange((scenes.FRAME - CROP) // 4 + 1) for _ in range(2))
        taken.append(picture[top : top + CROP, left : left + CROP])
    return levels(np.stack(taken))


def levels(pictures: np.ndarray) -> Tensor:
    """[n, h, w, 3] uint8 → [n, 3, h, w] in -1..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def shaking(count: int) -> Tensor:
    """Noise for the latents of crops, of a deviation of one."""
    return torch.randn(count, SHAPE["latent_channels"], CROP // 4, CROP // 4)


def loss(vae: AutoencoderKL, pixels: Tensor, noise: Tensor) -> Tensor:
    """What the autoencoder loses of pictures whose latents are shaken, and a little of the latents' KL divergence."""
    with torch.autocast(pixels.device.type, torch.bfloat16):
        posterior = vae.encode(pixels).latent_dist
        latents = posterior.mean + SHAKEN * posterior.mean.detach().std() * noise
        restored = vae.decode(latents).sample
    restored = restored.float()
    apart = restored - pixels
    slopes = sum(apart.diff(dim=side).abs().mean() for side in (-1, -2))
    pooled = F.avg_pool2d(apart, 4).abs().mean()
    return apart.abs().mean() + slopes + pooled + 4 * apart.square().mean() + 1e-6 * posterior.kl().mean()


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: np.ndarray) -> float:
    """Mean peak signal-to-noise ratio of pictures [n, h, w, 3] uint8 through the autoencoder, in dB."""
    pixels = levels(pictures).to(vae.device)
    restored = torch.cat([vae.decode(vae.encode(batch).latent_dist.mode()).sample for batch in pixels.split(64)])
    rounded = ((restored + 1) * 127.5).round().clamp(0, 255)
    errors = (rounded - (pixels + 1) * 127.5).square().mean((1, 2, 3)).clamp_min(1e-3)
    return float((20 * math.log10(255) - 10 * errors.log10()).mean())


@torch.no_grad()
def deviation(vae: AutoencoderKL, pixels: Tensor) -> float:
    """The standard deviation of the latents of pictures: its inverse is the scaling factor."""
    return float(torch.cat([vae.encode(batch).latent_dist.mode() for batch in pixels.split(64)]).std())
