"""The UNet and its text encoder: denoising in latent space, conditioned on captions (Rombach et al. 2022).

It predicts v (Salimans & Ho 2022), which at high noise is the picture itself: there a caption decides which drawing it
will be, and an error of the predicted noise would hardly tell one from another.

Latents of a picture never change, so they are kept by scene; more than half of all scenes come again. Timesteps are
spread evenly over a batch. Attention is plain products: on a CPU the fused kernels are slower at these lengths.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from engine.tiny import scenes
from engine.tiny.recipe.autoencoder import levels
from engine.tiny.recipe.fitting import Plan
from engine.tiny.recipe.pair import HIDDEN, ids_of

PLAN = Plan(steps=11_500, rate=2e-3, batch=32, muon="unet.", slow="text.", preview=1500)
WORDING = Plan(steps=8_500, rate=8e-4, batch=32, muon="unet.", preview=1000)
"""Once it draws, it learns other wordings, and more of what is composed."""
SHAPE: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (64, 128, 128),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": HIDDEN,
    "attention_head_dim": (2, 4, 4),
    "norm_num_groups": 16,
}
SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "v_prediction",
}
UNCAPTIONED = 0.1
"""How often a caption is left empty, for classifier-free guidance."""
FIRST, ALL_FROM = 200, 3_500
"""Names to begin with, and the step from which on all are there. A model that tells few apart by their captions takes
others up; with all at once it draws their mean for long."""
HEAVIEST = 5.0
"""Cap of the weight of a picture's error, by its clean latents: at low noise there is little left to learn."""
KEPT = 250_000
"""Latents in memory, 4 KiB each."""


class Denoiser(nn.Module):
    """What is trained together."""

    def __init__(self, text: CLIPTextModel):
        super().__init__()
        self.unet = UNet2DConditionModel(**SHAPE)
        self.unet.set_attn_processor(AttnProcessor())
        self.text = text

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        """The v of latents [n, 4, 16, 16]."""
        states = self.text(ids).last_hidden_state
        return self.unet(noisy, timesteps, states, return_dict=False)[0].float()


class Latents:
    """The latents of scenes, in the denoiser's units, kept as long as there is room."""

    def __init__(self, vae: AutoencoderKL, painter: scenes.Painter):
        self._vae, self._painter = vae, painter
        self._kept: OrderedDict[Any, Tensor] = OrderedDict()

    @torch.no_grad()
    def __call__(self, drawn: Sequence[scenes.Scene]) -> Tensor:
        """[n, 4, 16, 16] float32."""
        keys = [(scene.figures, scene.colour) for scene in drawn]
        missing = {key: scene for key, scene in zip(keys, drawn, strict=True) if key not in self._kept}
        if missing:
            pixels = levels(np.stack([self._painter.paint(scene) for scene in missing.values()]))
            with torch.autocast(self._vae.device.type, torch.bfloat16):
                encoded = self._vae.encode(pixels.to(self._vae.device)).latent_dist.mode().float()
            self._kept.update(zip(missing, encoded * self._vae.config.scaling_factor, strict=True))
        found = torch.stack([self._kept[key] for key in keys])
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found


def spread(chance: Random, count: int, timesteps: int) -> Tensor:
    """Timesteps spread evenly over all, each random within its share: [count]."""
    shares = [(place + chance.random()) / count for place in range(count)]
    return torch.tensor([int(share * timesteps) for share in shares])


class Task:
    """A batch of scenes to denoise."""

    def __init__(self, tokenizer: CLIPTokenizer, latents: Latents, names: Sequence[str], batch: int):
        self._tokenizer, self._latents, self._batch = tokenizer, latents, batch
        self.names = Random("order").sample(names, len(names))
        self._signal = DDIMScheduler(**SCHEDULE).alphas_cumprod

    def first_names(self, step: int) -> list[str]:
        """The names that are shown at a step: ever more, by the same factor each."""
        total = len(self.names)
        grown = FIRST * max(1.0, total / FIRST) ** min(1.0, step / ALL_FROM)
        return self.names[: round(grown)]

    def freer_scenes(self, chance: Random) -> list[scenes.Scene]:
        """A batch of scenes of all names in other wordings too, as the last stages have them."""
        return [scenes.draw(self.names, chance, scenes.COMPOSED, scenes.FREELY) for _ in range(self._batch)]

    def noised(self, drawn: Sequence[scenes.Scene], chance: Random) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Noisy latents, timesteps, what is to be predicted, the weight of each picture's error, and ids."""
        clean = self._latents(drawn)
        timesteps = spread(chance, len(clean), len(self._signal))
        signal = self._signal[timesteps][:, None, None, None].to(clean.device)
        noise = torch.randn(clean.shape).to(clean.device)
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        wanted = signal.sqrt() * noise - (1 - signal).sqrt() * clean
        # an error of v is one of the clean latents times 1 / (1 - signal)
        weight = (HEAVIEST * (1 - signal)).clamp(max=1)
        captions = ["" if chance.random() < UNCAPTIONED else scene.caption for scene in drawn]
        ids = ids_of(self._tokenizer, captions, whole=True)
        return noisy, timesteps.to(clean.device), wanted, weight, ids.to(clean.device)

    def batch(self, step: int, chance: Random) -> tuple[Tensor, ...]:
        """Fresh scenes of the names of a step, noised."""
        names = self.first_names(step)
        return self.noised([scenes.draw(names, chance) for _ in range(self._batch)], chance)

    def freer(self, step: int, chance: Random) -> tuple[Tensor, ...]:
        """Fresh scenes in other wordings, noised."""
        return self.noised(self.freer_scenes(chance), chance)


def loss(model: nn.Module, noisy: Tensor, timesteps: Tensor, wanted: Tensor, weight: Tensor, *given: Tensor) -> Tensor:
    """Weighted squared error of what a model predicts from what it is given."""
    with torch.autocast(noisy.device.type, torch.bfloat16):
        predicted = model(noisy, timesteps, *given)
    return (weight * (predicted - wanted).square()).mean()
