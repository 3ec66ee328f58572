"""Telling what a base is by its names and configs, and refusing what can't be trained yet in words that help.

Everything here looks at names, shapes and JSON only. A new family takes its rows out of these tables. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import Problem, UserError
from engine.formats.container import TensorInfo

TRAINED = "SD1.x and SDXL"
WANTED = "a Stable Diffusion 1.x or XL base"


def not_supported(where: Path | str, field: str, name: str) -> UserError:
    """The refusal of a base of another family."""
    advice = f"{name} is not supported yet: this version trains {TRAINED}"
    return UserError(Problem(where=str(where), field=field, expected=WANTED, found=name, advice=advice))


_PIPELINES = (
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
    """The family of a diffusers pipeline class, unless its UNet has to tell (SD1, SD2 and variants of SDXL)."""
    for start, name in _PIPELINES:
        if pipeline.startswith(start):
            return name
    known = pipeline.startswith(("StableDiffusion", "LatentConsistency", "AltDiffusion")) or not pipeline
    return None if known else pipeline.removesuffix("Pipeline")


def family_of_unet(where: Path | str, field: str, config: Mapping[str, Any]) -> str:
    """`sd1` or `sdxl`, by a UNet's config. Raises UserError where it is another."""
    if name := _foreign_unet(config):
        raise not_supported(where, field, name)
    return "sdxl" if config.get("addition_embed_type") == "text_time" else "sd1"


def _foreign_unet(config: Mapping[str, Any]) -> str | None:
    """What a UNet is by its config, where it is none that can be trained."""
    xl = config.get("addition_embed_type") == "text_time"
    if config.get("time_cond_proj_dim"):
        return "a guidance-distilled (LCM) UNet"
    if xl and config.get("cross_attention_dim") == 1280:
        return _REFINER
    if not xl and config.get("cross_attention_dim") == 2048:
        return "a UNet of Stable Diffusion XL's width without its conditions"
    if not xl and (config.get("cross_attention_dim") == 1024 or config.get("use_linear_projection")):
        return "Stable Diffusion 2"
    more = ("class_embed_type", "num_class_embeds", "encoder_hid_dim", *(() if xl else ("addition_embed_type",)))
    if any(config.get(name) for name in more):
        return "a UNet with more conditions than text"
    return None


_REFINER = "the refiner of Stable Diffusion XL"
_FILES = (
    (r"conditioner\.embedders\.0\.model\.", _REFINER),
    (r"(model\.diffusion_model\.)?joint_blocks\.", "Stable Diffusion 3"),
    (r"(model\.diffusion_model\.)?double_blocks\.", "FLUX"),
    (r"cond_stage_model\.model\.", "Stable Diffusion 2"),
    (r"model\.diffusion_model\.label_emb\.weight", "an upscaler or another UNet with labels"),
    (r"(edm_mean|edm_vpred\.)", "a base with its own noise levels (EDM)"),
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


def trained_family_of_file(where: Path, field: str, names: Iterable[str]) -> str:
    """`sd1` or `sdxl`: the family of a single file with these keys, unless its UNet's config tells otherwise.

    Raises UserError for what is no LDM checkpoint, or one of another family.
    """
    names = tuple(names)
    for pattern, family in _FILES:
        if any(re.match(pattern, name) for name in names):
            raise not_supported(where, field, family)
    if not _has_unet(names):
        raise _no_base(where, field, names, WANTED)
    return "sdxl" if any(re.match(r"model\.diffusion_model\.label_emb\.", name) for name in names) else "sd1"


def _has_unet(names: Iterable[str]) -> bool:
    return any(name.startswith("model.diffusion_model.input_blocks.0.0.") for name in names)


def _no_base(where: Path, field: str, names: tuple[str, ...], wanted: str) -> UserError:
    """The refusal of a file that is something else, and what it is as far as its keys tell."""
    found, advice = "a file without named tensors", "choose a whole base model"
    if names:
        found = f"{len(names)} tensors of no known kind, such as {min(names)}"
    for pattern, kind, what_to_do in _OTHERS:
        if any(re.match(pattern, name) for name in names):
            found, advice = kind, what_to_do
            break
    return UserError(Problem(where=str(where), field=field, expected=wanted, found=found, advice=advice))


# ---- families that can be read and written, trained or not

READABLE = "a Stable Diffusion 1, 2 or XL model"
_UNREADABLE = (
    (r"(model\.diffusion_model\.)?joint_blocks\.", "Stable Diffusion 3"),
    (r"(model\.diffusion_model\.)?double_blocks\.", "FLUX"),
    (r"conditioner\.embedders\.0\.model\.", _REFINER),
    (r"model\.diffusion_model\.label_emb\.weight", "an upscaler or another UNet with labels"),
    (r"(edm_mean|edm_vpred\.)", "Playground 2.5 or another model with its own noise levels"),
)


def family_of_file(where: Path, field: str, header: Mapping[str, TensorInfo]) -> str:
    """`sd1`, `sd2` or `sdxl`: the family of a single file with these tensors, as far as they go. Raises UserError."""
    names = tuple(header)
    for pattern, name in _UNREADABLE:
        if any(re.match(pattern, key) for key in names):
            raise _unreadable(where, field, name)
    if not _has_unet(names):
        raise _no_base(where, field, names, READABLE)
    labelled = "model.diffusion_model.label_emb.0.0.weight" in header
    texts = {family for start, family in _TEXTS.items() if any(name.startswith(start) for name in names)}
    if labelled and texts & {"sd1", "sd2"}:
        raise _unreadable(where, field, "a UNet with more conditions than text")
    linear = any(len(info.shape) == 2 for key, info in header.items() if _PROJ_IN.match(key))
    return "sdxl" if labelled else "sd2" if linear or "sd2" in texts else "sd1"


_PROJ_IN = re.compile(r"model\.diffusion_model\.input_blocks\.\d+\.1\.proj_in\.weight")
_TEXTS = {"cond_stage_model.transformer.": "sd1", "cond_stage_model.model.": "sd2", "conditioner.embedders.1.": "sdxl"}


def family_of_folder(where: Path, field: str, pipeline: str, unet: Mapping[str, Any]) -> str:
    """`sd1`, `sd2` or `sdxl`: the family of a folder, by pipeline class and UNet config. Raises UserError."""
    if foreign := foreign_pipeline(pipeline):
        raise _unreadable(where, field, foreign)
    if unet.get("addition_embed_type") == "text_time":
        return "sdxl"
    if unet.get("time_cond_proj_dim"):
        raise _unreadable(where, field, "a guidance-distilled (LCM) UNet")
    if any(unet.get(name) for name in ("class_embed_type", "num_class_embeds", "encoder_hid_dim")):
        raise _unreadable(where, field, "a UNet with more conditions than text")
    return "sd2" if unet.get("use_linear_projection") else "sd1"


def _unreadable(where: Path, field: str, name: str) -> UserError:
    advice = "choose a model of these families"
    return UserError(Problem(where=str(where), field=field, expected=READABLE, found=name, advice=advice))
