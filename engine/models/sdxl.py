"""Stable Diffusion XL: two text encoders and the sizes of the picture (Podell et al. 2023, section 2.2).

The UNet attends to the last layer but one of both encoders, without their final norms, side by side. Beside the time it
is told the second encoder's projected summary of the caption, and six numbers: the height and width that the picture
had, the top and left of its cut, and the height and width of what was cut out. Unless a batch brings these six, a
picture is taken to be whole and of its own size. `clip_skip` 1 is the last layer but one, as the base was made.

The base was made to take zeros for no caption at all, where its folder says so: an empty one, dropped in training or
negative in sampling, becomes zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from engine.formats.keys import SGM_LAYERS, to_sgm
from engine.models.base import Conditioning, Framing
from engine.models.identity import Identity
from engine.models.source import Source
from engine.models.stable import StableDiffusion


class SDXL(StableDiffusion):
    """A loaded Stable Diffusion XL base."""

    name = "sdxl"
    prefixes: ClassVar = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}

    def __init__(self, source: Source, modules: dict[str, nn.Module], identity: Identity, title: str):
        super().__init__(source, modules, identity, title)
        shape: Any = source.components["unet"].config
        # the first program's names can be read only where its blocks are numbered as in the published models
        self._numbered = shape["layers_per_block"] == SGM_LAYERS
        self._attends = frozenset(level for level, kind in enumerate(shape["up_block_types"]) if "CrossAttn" in kind)
        self._empty = self.tokenize([""])[0] if source.empty_is_zero else None

    def kohya_name(self, part: str, path: str) -> str:
        if part == self.denoiser and self._numbered:
            path = to_sgm(path, self._attends)
        return super().kohya_name(part, path)

    def tokenize(self, captions: list[str]) -> Tensor:
        return torch.stack([self.tokenized(part, captions) for part in self.texts], 1)

    def encode_text(self, ids: Tensor, clip_skip: int = 1) -> Conditioning:
        fewest = min(module.config.num_hidden_layers for module in self.texts.values())
        self.check_clip_skip(clip_skip, fewest - 1)
        ids = ids.to(self.device)
        said = [module(ids[:, place], output_hidden_states=True) for place, module in enumerate(self.texts.values())]
        states = torch.cat([one.hidden_states[-1 - clip_skip] for one in said], -1)
        summary = self.parts["text_encoder_2"].text_projection(said[-1].pooler_output)
        if self._empty is not None:
            empty = (ids == self._empty.to(self.device)).flatten(1).all(1)
            states, summary = states.masked_fill(empty[:, None, None], 0), summary.masked_fill(empty[:, None], 0)
        return {"encoder_hidden_states": states, "text_embeds": summary}

    def frame(self, framings: Sequence[Framing]) -> Conditioning:
        told = [(*one.original[::-1], *one.corner[::-1], *one.size[::-1]) for one in framings]
        return {"time_ids": torch.tensor(told, dtype=torch.float32).to(self.device, non_blocking=True)}

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        sizes = conditioning.get("time_ids")
        return self.unet(
            self.seen(latents),
            timesteps,
            encoder_hidden_states=conditioning["encoder_hidden_states"].to(self.dtype),
            added_cond_kwargs={
                "text_embeds": conditioning["text_embeds"].to(self.dtype),
                "time_ids": self._whole(latents) if sizes is None else sizes,
            },
            return_dict=False,
        )[0]

    def _whole(self, latents: Tensor) -> Tensor:
        """The six numbers of pictures that nothing was cut from, [n, 6]."""
        height, width = (side * self.downscale for side in latents.shape[2:])
        told = torch.zeros(len(latents), 6, device=latents.device)
        told[:, 0::4], told[:, 1::4] = height, width
        return told

    def metadata(self) -> dict[str, str]:
        return super().metadata() | {
            "ss_base_model_version": "sdxl_base_v1-0",
            "modelspec.architecture": "stable-diffusion-xl-v1-base",
            "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        }
