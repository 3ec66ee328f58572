"""Stable Diffusion 1: one CLIP text encoder, whose last layer but `clip_skip` the UNet attends to."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from engine.models.base import Conditioning
from engine.models.stable import StableDiffusion


class SD1(StableDiffusion):
    """A loaded Stable Diffusion 1.x base."""

    name = "sd1"
    prefixes: ClassVar = {"unet": "lora_unet", "text_encoder": "lora_te"}

    def tokenize(self, captions: list[str]) -> Tensor:
        return self.tokenized("text_encoder", captions)

    def encode_text(self, ids: Tensor, clip_skip: int = 1) -> Conditioning:
        encoder = self.parts["text_encoder"]
        self.check_clip_skip(clip_skip, encoder.config.num_hidden_layers)
        states = encoder(ids.to(self.device), output_hidden_states=True).hidden_states
        return {"encoder_hidden_states": encoder.final_layer_norm(states[-clip_skip])}

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        states = conditioning["encoder_hidden_states"].to(self.dtype)
        return self.unet(self.seen(latents), timesteps, encoder_hidden_states=states, return_dict=False)[0]

    def metadata(self) -> dict[str, str]:
        return super().metadata() | {
            "ss_base_model_version": "sd_v1_v" if self.objective == "v" else "sd_v1",
            "modelspec.architecture": "stable-diffusion-v1",
            "modelspec.implementation": "diffusers",
        }
