"""The inpainting sibling: the same UNet with nine input channels, trained on masks.

Its channels are the noisy latents, the mask (1 where something is to be drawn) and the latents of the masked picture,
in diffusers' order. The five new ones begin at zero, so it begins as the base. Masks are rectangles, ellipses,
drawings' own outlines, and now and then everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from PIL import Image, ImageDraw
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPTextModel

from engine.tiny import scenes
from engine.tiny.recipe import denoiser
from engine.tiny.recipe.autoencoder import levels
from engine.tiny.recipe.fitting import Plan

PLAN = Plan(steps=500, rate=5e-4, batch=32, muon="unet.")
CHANNELS = 9
WHOLE = 0.15
"""How often everything is masked."""


class Inpainter(nn.Module):
    """The UNet alone learns: the text encoder stays the base's."""

    def __init__(self, base: UNet2DConditionModel, text: CLIPTextModel):
        super().__init__()
        self.unet = widened(base)
        self.unet.set_attn_processor(AttnProcessor())
        object.__setattr__(self, "_text", text)

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        """The v of the first four of nine channels [n, 9, 16, 16]."""
        with torch.no_grad():
            states = self._text(ids).last_hidden_state
        return self.unet(noisy, timesteps, states, return_dict=False)[0].float()


def widened(base: UNet2DConditionModel) -> UNet2DConditionModel:
    """The UNet with five more input channels that it does not look at yet."""
    unet = UNet2DConditionModel(**denoiser.SHAPE | {"in_channels": CHANNELS})
    state = base.state_dict()
    kernel = state["conv_in.weight"]
    state["conv_in.weight"] = torch.cat([kernel, kernel.new_zeros(len(kernel), CHANNELS - 4, *kernel.shape[2:])], 1)
    unet.load_state_dict(state)
    return unet


def mask(scene: scenes.Scene, painter: scenes.Painter, chance: Random) -> np.ndarray:
    """Where a picture is to be drawn anew: [64, 64] of 0 and 1."""
    if chance.random() < WHOLE:
        return np.ones((scenes.FRAME, scenes.FRAME), np.float32)
    if chance.random() < 0.2:
        return (painter.mask(scene) > 0.1).astype(np.float32)
    canvas = Image.new("L", (scenes.FRAME, scenes.FRAME))
    for _ in range(chance.randint(1, 2)):
        width, height = (chance.randint(12, scenes.FRAME) for _ in range(2))
        left, top = chance.randint(0, scenes.FRAME - width), chance.randint(0, scenes.FRAME - height)
        pen = ImageDraw.Draw(canvas)
        shape = pen.ellipse if chance.random() < 0.4 else pen.rectangle
        shape((left, top, left + width, top + height), fill=1)
    return np.asarray(canvas, np.float32)


class Task:
    """Scenes with masks, on top of what the base learned from."""

    def __init__(self, base: denoiser.Task, vae: AutoencoderKL, painter: scenes.Painter):
        self.base, self._vae, self._painter = base, vae, painter

    @torch.no_grad()
    def given(self, drawn: Sequence[scenes.Scene], chance: Random) -> Tensor:
        """Mask and masked latents: [n, 5, 16, 16]."""
        masks = torch.from_numpy(np.stack([mask(scene, self._painter, chance) for scene in drawn]))[:, None]
        pixels = levels(np.stack([self._painter.paint(scene) for scene in drawn]))
        hidden = (pixels * (masks < 0.5)).to(self._vae.device)
        latents = self._vae.encode(hidden).latent_dist.mode() * self._vae.config.scaling_factor
        return torch.cat([F.interpolate(masks, size=latents.shape[-2:]).to(latents.device), latents], 1)

    def batch(self, step: int, chance: Random) -> tuple[Tensor, ...]:
        """As the base's last ones, with what is given beside the noisy latents."""
        drawn = self.base.freer_scenes(chance)
        noisy, *others = self.base.noised(drawn, chance)
        return torch.cat([noisy, self.given(drawn, chance)], 1), *others
