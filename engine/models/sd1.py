"""Stable Diffusion 1: a UNet in latent space, one CLIP text encoder, DDPM's noise schedule (Rombach et al. 2022).

The embedded base has the same shape at a smaller size and runs the same code: every size here comes from the configs.
Module paths are those of the bare UNet and text encoder, taken once at the start, since adapters change the tree.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.errors import Problem, UserError
from engine.models import attention
from engine.models.base import Conditioning, Family, Targets, adaptable
from engine.models.identity import Identity
from engine.models.source import Source

_ATTENTION = r"\.attn[12]\.to_(q|k|v|out\.0)$"
_TRANSFORMER = rf"{_ATTENTION}|\.attentions\.\d+\.(proj_in|proj_out|.+\.ff\.net\.(0\.proj|2))$"
_CONVOLUTIONS = r"\.resnets\.\d+\.(conv1|conv2|time_emb_proj|conv_shortcut)$|samplers\.0\.conv$"
TARGETS = {
    "attention": ("unet", _ATTENTION),
    "transformer": ("unet", _TRANSFORMER),
    "locon": ("unet", f"{_TRANSFORMER}|{_CONVOLUTIONS}"),
    "text_encoder": ("text_encoder", r"\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])$"),
}
"""Target set → part and pattern of its modules, as kohya-ss picks them: 128, 192, 278 and 72 of SD 1.5."""


class SD1(Family):
    """A loaded Stable Diffusion 1.x base."""

    name = "sd1"

    def __init__(self, source: Source, modules: dict[str, nn.Module], identity: Identity, title: str):
        """modules: the frozen `unet`, `text_encoder` and `vae`, on one device."""
        self.title = title
        self.parts = {"unet": modules["unet"], "text_encoder": modules["text_encoder"]}
        self.prefixes = {"unet": "lora_unet", "text_encoder": "lora_te"}
        self.default_resolution = source.resolution
        self.latent_channels = modules["unet"].config.in_channels
        self.downscale = source.downscale
        self.size_step = source.size_step
        self.objective = source.prediction
        self.notices = source.notices
        self._identity = identity
        self.vae = modules["vae"]
        self._tokenizer = source.tokenizer()
        self._scheduler = source.scheduler
        self._window = modules["text_encoder"].config.max_position_embeddings
        self.max_tokens = self._window - 2
        self.alphas_cumprod = self.make_scheduler().alphas_cumprod.double()
        weight = next(modules["unet"].parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self._paths = {part: adaptable(module) for part, module in self.parts.items()}

    # ---- adapters

    def targets(self, name: str) -> Targets:
        part, pattern = TARGETS[name]
        return {part: [path for path in self._paths[part] if re.search(pattern, f".{path}")]}

    def kohya_name(self, part: str, path: str) -> str:
        # files keep the module that CLIPTextModel had around its layers before transformers 5
        inside = f"text_model.{path}" if part == "text_encoder" else path
        return super().kohya_name(part, inside)

    def kohya_names(self) -> dict[str, tuple[str, str]]:
        return {self.kohya_name(part, path): (part, path) for part, paths in self._paths.items() for path in paths}

    # ---- noise

    def make_scheduler(self) -> Any:
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        return DDIMScheduler.from_config(self._scheduler)

    # ---- pictures

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        vae = self._placed_vae()
        scale = vae.config.scaling_factor
        posteriors = [vae.encode(picture[None]).latent_dist for picture in pixels.to(self.device, vae.dtype)]
        mean = torch.cat([posterior.mean for posterior in posteriors])
        std = torch.cat([posterior.std for posterior in posteriors])
        return (mean * scale).float(), (std * scale).float()

    def decode_latents(self, latents: Tensor) -> Tensor:
        vae = self._placed_vae()
        unscaled = latents.to(self.device, vae.dtype) / vae.config.scaling_factor
        return torch.cat([vae.decode(picture[None]).sample for picture in unscaled]).float()

    def _placed_vae(self) -> nn.Module:
        """The VAE on the device, wherever it was put meanwhile."""
        if self.vae.device != self.device:
            self.vae.to(self.device)
        return self.vae

    def release_vae(self) -> None:
        self.vae.to("cpu")

    # ---- text

    def tokenize(self, captions: list[str]) -> Tensor:
        if not captions:
            return torch.empty(0, self._window, dtype=torch.int64)
        encoded = self._tokenizer(captions, padding="max_length", truncation=True, max_length=self._window)
        return torch.tensor(encoded.input_ids, dtype=torch.int64)

    def count_tokens(self, caption: str) -> int:
        return len(self._tokenizer(caption, add_special_tokens=False, truncation=False, verbose=False).input_ids)

    def encode_text(self, ids: Tensor, clip_skip: int = 1) -> Conditioning:
        encoder = self.parts["text_encoder"]
        layers = encoder.config.num_hidden_layers
        if not 1 <= clip_skip <= layers:
            raise UserError(
                Problem(
                    where=self.title,
                    field="model.clip_skip",
                    expected=f"1 to {layers}, the layers of its text encoder",
                    found=str(clip_skip),
                    advice="1 is what the base was made with" if layers < 12 else "1 or 2 are usual",
                )
            )
        states = encoder(ids.to(self.device), output_hidden_states=True).hidden_states
        return {"encoder_hidden_states": encoder.final_layer_norm(states[-clip_skip])}

    # ---- the denoiser

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        states = conditioning["encoder_hidden_states"]
        return self.parts["unet"](
            latents.to(self.dtype), timesteps, encoder_hidden_states=states.to(self.dtype), return_dict=False
        )[0]

    # ---- what it is

    @property
    def fingerprint(self) -> str:
        return self._identity.fingerprint

    def metadata(self) -> dict[str, str]:
        v = self.objective == "v"
        return self._identity.metadata() | {
            "ss_v2": "False",
            "ss_base_model_version": "sd_v1_v" if v else "sd_v1",
            "modelspec.architecture": "stable-diffusion-v1",
            "modelspec.implementation": "diffusers",
            "modelspec.prediction_type": "v" if v else "epsilon",
        }

    # ---- where and how it runs

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        for module in self.parts.values():
            module.to(device, dtype)
        self.vae.to(device)
        weight = next(self.parts["unet"].parameters())
        self.device, self.dtype = weight.device, dtype or self.dtype

    def enable_gradient_checkpointing(self) -> None:
        self.parts["unet"].enable_gradient_checkpointing()
        # transformers' own switch works only on layers in train mode, and was renamed within version 5
        for layer in self.parts["text_encoder"].encoder.layers:
            layer.forward = _recomputed(layer.forward)

    def set_attention(self, backend: str) -> None:
        self.parts["unet"].set_attn_processor(attention.processor(backend))
        # the VAE's one head is wider than xformers' kernels take, and CLIP in transformers knows no xformers
        plain = backend == "plain"
        self.vae.set_attn_processor(attention.processor("plain" if plain else "sdpa"))
        self.parts["text_encoder"].set_attn_implementation("eager" if plain else "sdpa")


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A layer's forward that keeps no activations for the backward pass, and computes them again there."""

    def run(*arguments: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **options)
        return checkpoint(forward, *arguments, use_reentrant=False, **options)

    return run
