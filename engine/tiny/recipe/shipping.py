"""From trained modules to the folders that ship: diffusers' layout, fp16 safetensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors.torch import save
from torch import nn
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from engine.files import write_bytes
from engine.tiny.recipe import denoiser, tokens
from engine.tiny.recipe.pair import Pair

_SD: dict[str, Any] = {
    "_diffusers_version": diffusers.__version__,
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
}
_XL: dict[str, Any] = {
    "_diffusers_version": diffusers.__version__,
    "_class_name": "StableDiffusionXLPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "force_zeros_for_empty_prompt": False,
    "add_watermarker": False,
}
_PARTS = {
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
_PARTS_XL = _PARTS | {
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
}


def base(
    folder: Path, tokenizer: CLIPTokenizer, vae: AutoencoderKL, text: CLIPTextModel, unet: UNet2DConditionModel
) -> None:
    """Write the whole base: a folder that diffusers loads."""
    shutil.rmtree(folder, ignore_errors=True)
    tokens.save(tokenizer, folder / "tokenizer")
    DDIMScheduler(**denoiser.SCHEDULE).save_pretrained(folder / "scheduler")
    _model(folder / "vae", "diffusion_pytorch_model", vae)
    _model(folder / "text_encoder", "model", text)
    _model(folder / "unet", "diffusion_pytorch_model", unet)
    _json(folder / "model_index.json", _SD | _PARTS)


def inpaint(folder: Path, unet: UNet2DConditionModel) -> None:
    """Write the one part of the inpainting base that is its own."""
    shutil.rmtree(folder, ignore_errors=True)
    _model(folder / "unet", "diffusion_pytorch_model", unet)


def xl(folder: Path, unet: UNet2DConditionModel) -> None:
    """Write what the SDXL-shaped base does not share with the base and the scorer."""
    shutil.rmtree(folder, ignore_errors=True)
    _model(folder / "unet", "diffusion_pytorch_model", unet)
    _json(folder / "model_index.json", _XL | _PARTS_XL)


def scorer(folder: Path, pair: Pair, names: list[str]) -> None:
    """Write the contrastive pair and the names that it has learned."""
    shutil.rmtree(folder, ignore_errors=True)
    _model(folder / "text_encoder", "model", pair.text)
    write_bytes(folder / "image_encoder.safetensors", _half(pair.image))
    _json(folder / "image_encoder.json", {"widths": [32, 64, 96, 128], "dimensions": 128, "scale": _scale(pair)})
    write_bytes(folder / "names.txt", "".join(f"{name}\n" for name in names).encode())


def _scale(pair: Pair) -> float:
    return round(float(pair.log_scale.detach().clamp(max=4.6).exp()), 4)


def _model(folder: Path, name: str, module: Any) -> None:
    config = json.loads(
        module.to_json_string() if hasattr(module, "to_json_string") else module.config.to_json_string()
    )
    if "architectures" in config:
        config |= {"architectures": [type(module).__name__], "dtype": "float16"}
    _json(folder / "config.json", {key: value for key, value in config.items() if key != "_name_or_path"})
    write_bytes(folder / f"{name}.safetensors", _half(module))


def _half(module: nn.Module) -> bytes:
    tensors = {
        name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in module.state_dict().items()
    }
    return save(tensors, {"format": "pt"})


def _json(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
