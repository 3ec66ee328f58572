"""What the families of Stable Diffusion share: a UNet in latent space, CLIP text encoders, a VAE, DDPM's noise schedule
(Rombach et al. 2022).

Every size comes from the configs, so the embedded bases run the same code as the published ones. Module paths are those
of the bare UNet and text encoders, taken once at the start, since adapters change the tree. A subclass says what its
text encoders tell the UNet, and what files call its parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.errors import Problem, UserError
from engine.formats.names import text_path
from engine.models import attention
from engine.models.base import Family, Targets, adaptable
from engine.models.identity import Identity
from engine.models.source import Source

_ATTENTION = r"\.attn[12]\.to_(q|k|v|out\.0)$"
_TRANSFORMER = rf"{_ATTENTION}|\.attentions\.\d+\.(proj_in|proj_out|.+\.ff\.net\.(0\.proj|2))$"
_CONVOLUTIONS = r"\.resnets\.\d+\.(conv1|conv2|time_emb_proj|conv_shortcut)$|samplers\.0\.conv$"
_TEXT = r"\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])$"
_DENOISER = {
    "attention": _ATTENTION,
    "transformer": _TRANSFORMER,
    "locon": f"{_TRANSFORMER}|{_CONVOLUTIONS}",
}
"""Target set → pattern of its modules in the UNet, as kohya-ss picks them: 128, 192 and 278 of SD 1.5; 560, 722 and 788
of SDXL."""

MASKED = (
    "this base paints into masked pictures, and gets none here: it draws and learns whole pictures, as if all of an "
    "empty one were masked"
)
"""The notice that comes with an inpainting base."""


class StableDiffusion(Family):
    """A loaded base with a UNet and CLIP text encoders."""

    prefixes: ClassVar[dict[str, str]]

    def __init__(self, source: Source, modules: dict[str, nn.Module], identity: Identity, title: str):
        """modules: the frozen parts that `prefixes` names and `vae`, on one device."""
        self.title = title
        self.parts = {part: modules[part] for part in self.prefixes}
        self.texts = {part: module for part, module in self.parts.items() if part != self.denoiser}
        """The text encoders."""
        self.unet, self.vae = modules["unet"], modules["vae"]
        self.default_resolution = source.resolution
        self.latent_channels = source.latent_channels
        self.downscale = source.downscale
        self.size_step = source.size_step
        self.objective = source.prediction
        self.notices = (*source.notices, MASKED) if source.inpaints else source.notices
        self._identity = identity
        self._inpaints = source.inpaints
        self._masked: dict[tuple[int, ...], Tensor] = {}
        self._tokenizers = {part: make() for part, make in source.tokenizers.items()}
        self._scheduler = source.scheduler
        self._window = min(module.config.max_position_embeddings for module in self.texts.values())
        self.max_tokens = self._window - 2
        self.alphas_cumprod = self.make_scheduler().alphas_cumprod.double()
        weight = next(self.unet.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self._paths = {part: adaptable(module) for part, module in self.parts.items()}

    # ---- adapters

    def targets(self, name: str) -> Targets:
        if name == "text_encoder":
            return {part: self._matching(part, _TEXT) for part in self.texts}
        return {self.denoiser: self._matching(self.denoiser, _DENOISER[name])}

    def _matching(self, part: str, pattern: str) -> list[str]:
        return [path for path in self._paths[part] if re.search(pattern, f".{path}")]

    def kohya_name(self, part: str, path: str) -> str:
        # files keep the module that CLIPTextModel had around its layers before transformers 5
        return super().kohya_name(part, path if part == self.denoiser else text_path(path))

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

    def tokenized(self, part: str, captions: list[str]) -> Tensor:
        """Ids of one text encoder, [n, window]."""
        if not captions:
            return torch.empty(0, self._window, dtype=torch.int64)
        tokenizer = self._tokenizers[part]
        encoded = tokenizer(captions, padding="max_length", truncation=True, max_length=self._window)
        return torch.tensor(encoded.input_ids, dtype=torch.int64)

    def count_tokens(self, caption: str) -> int:
        tokenizer = next(iter(self._tokenizers.values()))
        return len(tokenizer(caption, add_special_tokens=False, truncation=False, verbose=False).input_ids)

    def check_clip_skip(self, clip_skip: int, layers: int) -> None:
        """Raise UserError unless `clip_skip` is one of the first so many layers, counted from the end."""
        if not 1 <= clip_skip <= layers:
            several = len(self.texts) > 1
            raise UserError(
                Problem(
                    where=self.title,
                    field="model.clip_skip",
                    expected=f"1 to {layers}, the layers of its text encoder{'s that can be read' if several else ''}",
                    found=str(clip_skip),
                    advice="1 is what the base was made with" if layers < 12 or several else "1 or 2 are usual",
                )
            )

    # ---- the denoiser

    def seen(self, latents: Tensor) -> Tensor:
        """What the UNet takes for noisy latents, in its dtype: of an inpainting base with a mask over all of an empty
        picture beside them, as diffusers makes it."""
        latents = latents.to(self.dtype)
        if not self._inpaints:
            return latents
        count, _, *size = latents.shape
        if tuple(size) not in self._masked:
            self._masked[tuple(size)] = self._everything_masked(*size).to(self.dtype)
        return torch.cat([latents, self._masked[tuple(size)].expand(count, -1, -1, -1)], 1)

    @torch.no_grad()
    def _everything_masked(self, height: int, width: int) -> Tensor:
        """A mask of ones and the latents of a grey picture, [1, 1 + c, h, w]."""
        was = self.vae.device
        grey, _ = self.encode_images(torch.zeros(1, 3, height * self.downscale, width * self.downscale))
        self.vae.to(was)
        return torch.cat([torch.ones_like(grey[:, :1]), grey], 1)

    # ---- what it is

    @property
    def fingerprint(self) -> str:
        return self._identity.fingerprint

    def metadata(self) -> dict[str, str]:
        return self._identity.metadata() | {
            "ss_v2": "False",
            "modelspec.prediction_type": "v" if self.objective == "v" else "epsilon",
        }

    # ---- where and how it runs

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        for module in self.parts.values():
            module.to(device, dtype)
        self.vae.to(device)
        self._masked.clear()
        weight = next(self.unet.parameters())
        self.device, self.dtype = weight.device, dtype or self.dtype

    def enable_gradient_checkpointing(self) -> None:
        self.unet.enable_gradient_checkpointing()
        # transformers' own switch works only on layers in train mode, and was renamed within version 5
        for layer in (layer for module in self.texts.values() for layer in module.encoder.layers):
            layer.forward = _recomputed(layer.forward)

    def set_attention(self, backend: str) -> None:
        self.unet.set_attn_processor(attention.processor(backend))
        # the VAE's one head is wider than xformers' kernels take, and CLIP in transformers knows no xformers
        plain = backend == "plain"
        self.vae.set_attn_processor(attention.processor("plain" if plain else "sdpa"))
        for module in self.texts.values():
            module.set_attn_implementation("eager" if plain else "sdpa")


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A layer's forward that keeps no activations for the backward pass, and computes them again there."""

    def run(*arguments: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **options)
        return checkpoint(forward, *arguments, use_reentrant=False, **options)

    return run
