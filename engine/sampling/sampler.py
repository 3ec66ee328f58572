"""Drawing pictures: a base's own scheduler, classifier-free guidance, one loop for every family.

A picture is a function of its request alone: its first noise comes from a CPU generator with its own seed, as diffusers
and ComfyUI draw it, and training and validation draw from others. Callers that want the same bits must also keep the
same companions in a batch, since kernels differ by batch size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from engine.models.base import Family


@dataclass(frozen=True)
class Request:
    """One picture: width and height in pixels, guidance_scale 1 for none."""

    prompt: str
    negative: str
    seed: int
    width: int
    height: int
    steps: int
    guidance_scale: float


@torch.no_grad()
def draw(
    family: Family, requests: list[Request], clip_skip: int = 1, tick: Callable[[], None] = lambda: None
) -> list[Image.Image]:
    """Draw pictures that share size, steps and guidance as one batch. `tick` comes before each step and may raise."""
    return to_images(family.decode_latents(denoise(family, requests, clip_skip, tick)))


@torch.no_grad()
def denoise(
    family: Family, requests: list[Request], clip_skip: int = 1, tick: Callable[[], None] = lambda: None
) -> Tensor:
    """The latents of the pictures, [n, c, h, w] float32."""
    first = requests[0]
    guided = first.guidance_scale != 1
    captions = [request.negative for request in requests] if guided else []
    captions += [request.prompt for request in requests]
    conditioning = family.encode_text(family.tokenize(captions), clip_skip)
    scheduler = family.make_scheduler()
    scheduler.set_timesteps(first.steps, device=family.device)
    latents = first_noise(family, requests) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        tick()
        batch = scheduler.scale_model_input(torch.cat([latents, latents]) if guided else latents, timestep)
        prediction = family.predict(batch.to(family.dtype), timestep.expand(len(batch)), conditioning).float()
        if guided:
            plain, wanted = prediction.chunk(2)
            prediction = plain + first.guidance_scale * (wanted - plain)
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return latents


def first_noise(family: Family, requests: list[Request]) -> Tensor:
    """The noise that each picture starts from, by its seed."""
    shape = (family.latent_channels, requests[0].height // family.downscale, requests[0].width // family.downscale)
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(request.seed)) for request in requests]
    return torch.stack(noise).to(family.device)


def to_images(pixels: Tensor) -> list[Image.Image]:
    """[n, 3, h, w] in -1 … 1 as RGB pictures."""
    levels = (pixels.float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    return [Image.fromarray(level.permute(1, 2, 0).cpu().numpy()) for level in levels]
