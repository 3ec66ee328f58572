"""Telling what a base is by its names and configs, and refusing what can't be trained yet in words that help.

Everything here looks at names, shapes and JSON only. A new family takes its rows out of these tables. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import Problem, UserError

WANTED = "a Stable Diffusion 1.x base"


def not_supported(where: Path | str, field: str, name: str) -> UserError:
    """The refusal of a base of another family."""
    advice = f"{name} is not supported yet: this version trains SD1.x"
    return UserError(Problem(where=str(where), field=field, expected=WANTED, found=name, advice=advice))


def inpainting(where: Path | str, field: str) -> UserError:
    """The refusal of a base whose UNet also reads a mask and a masked image."""
    return UserError(
        Problem(
            where=str(where),
            field=field,
            expected=f"{WANTED} whose UNet has 4 input channels",
            found="9 input channels: an inpainting base",
            advice="this base needs inpainting training, which is not supported yet: choose the base it was made from",
        )
    )


_PIPELINES = (
    ("StableDiffusionXL", "Stable Diffusion XL"),
    ("StableDiffusion3", "Stable Diffusion 3"),
    ("Flux2", "FLUX.2"),
    ("Flux", "FLUX.1"),
    ("PixArt", "PixArt"),
    ("Kandinsky", "Kandinsky"),
    ("StableCascade", "Stable Cascade"),
    ("Wuerstchen", "Würstchen"),
    ("QwenImage", "Qwen-Image"),
    ("ZImage", "Z-Image"),
)


def foreign_pipeline(pipeline: str) -> str | None:
    """The family of a diffusers pipeline class, unless its UNet has to tell (SD1 and SD2 share their classes)."""
    for start, name in _PIPELINES:
        if pipeline.startswith(start):
            return name
    known = pipeline.startswith(("StableDiffusion", "LatentConsistency", "AltDiffusion")) or not pipeline
    return None if known else pipeline.removesuffix("Pipeline")


def foreign_unet(config: Mapping[str, Any]) -> str | None:
    """What a UNet is by its config, where it is no Stable Diffusion 1."""
    if config.get("addition_embed_type") == "text_time":
        return "Stable Diffusion XL"
    if config.get("cross_attention_dim") == 1024 or config.get("use_linear_projection"):
        return "Stable Diffusion 2"
    if config.get("cross_attention_dim") == 2048:
        return "Stable Diffusion XL"
    if config.get("time_cond_proj_dim"):
        return "a guidance-distilled (LCM) UNet"
    if any(config.get(name) for name in ("class_embed_type", "num_class_embeds", "encoder_hid_dim")):
        return "a UNet with more conditions than text"
    return None


_FILES = (
    (r"conditioner\.embedders\.", "Stable Diffusion XL"),
    (r"(model\.diffusion_model\.)?joint_blocks\.", "Stable Diffusion 3"),
    (r"(model\.diffusion_model\.)?double_blocks\.", "FLUX"),
    (r"cond_stage_model\.model\.", "Stable Diffusion 2"),
    (r"model\.diffusion_model\.label_emb\.", "Stable Diffusion XL"),
)
"""Keys by which a checkpoint of another family gives itself away."""

_OTHERS = (
    (
        r".*\.(lora_(down|up|A|B)\b|hada_w|lokr_w)|lora_(unet|te\d?)_|\w+:\d+:(up|down)$",
        "a LoRA",
        "choose the base it was trained on",
    ),
    (r"control_model\.|input_hint_block\.|controlnet_", "a ControlNet", "choose a whole base model"),
    (r"(string_to_param|emb_params|clip_[lg])$", "a textual inversion", "choose a whole base model"),
    (
        r"(unet\.)?(down_blocks|mid_block|up_blocks)\.|text_model\.|encoder\.(down_blocks|layers)\.",
        "a part of a diffusers folder",
        "choose the folder that has model_index.json",
    ),
    (r"(first_stage_model\.)?(encoder|decoder)\.", "a VAE", "name it as model.vae beside a whole base model"),
)
"""Keys of files that are no base model at all."""


def check_file(where: Path, field: str, names: Iterable[str]) -> None:
    """Raise UserError unless a single file with these keys holds an LDM checkpoint of SD1's kind."""
    names = tuple(names)
    for pattern, family in _FILES:
        if any(re.match(pattern, name) for name in names):
            raise not_supported(where, field, family)
    if any(name.startswith("model.diffusion_model.input_blocks.0.0.") for name in names):
        return
    found, advice = "a file without named tensors", "choose a whole base model"
    if names:
        found = f"{len(names)} tensors of no known kind, such as {min(names)}"
    for pattern, kind, what_to_do in _OTHERS:
        if any(re.match(pattern, name) for name in names):
            found, advice = kind, what_to_do
            break
    raise UserError(Problem(where=str(where), field=field, expected=WANTED, found=found, advice=advice))
