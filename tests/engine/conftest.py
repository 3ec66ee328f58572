"""Miniatures of embedded bases with random weights, for tests of a family's whole path that need no learned ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import tiny

XL_UNET: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (32, 64),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2),
    "attention_head_dim": (2, 4),
    "cross_attention_dim": 256,
    "use_linear_projection": True,
    "norm_num_groups": 16,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 6 * 32 + 128,
}
"""Two levels of SDXL's structure."""


@pytest.fixture(scope="session")
def little_bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """The places of random weights for `tiny-xl` and `tiny-inpaint`; what they share with `tiny` is its own."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModelWithProjection

    folder = tmp_path_factory.mktemp("little")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        UNet2DConditionModel(**XL_UNET).save_pretrained(folder / "xl" / "unet")
        text = json.loads((tiny.FOLDER / "text_encoder" / "config.json").read_text())
        config = CLIPTextConfig(**text | {"hidden_act": "gelu", "dtype": "float32"})
        CLIPTextModelWithProjection(config).save_pretrained(folder / "scorer" / "text_encoder")
        shape = json.loads((tiny.FOLDER / "unet" / "config.json").read_text()) | {"in_channels": 9}
        UNet2DConditionModel.from_config(shape).save_pretrained(folder / "inpaint" / "unet")
    index = json.loads((tiny.FOLDER / "model_index.json").read_text())
    for name in ("safety_checker", "requires_safety_checker", "feature_extractor", "image_encoder"):
        index.pop(name, None)
    index |= {
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": True,
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
    }
    (folder / "xl" / "model_index.json").write_text(json.dumps(index))
    moved = {
        "tiny-xl": {
            "unet": folder / "xl" / "unet",
            "model_index.json": folder / "xl" / "model_index.json",
            "text_encoder_2": folder / "scorer" / "text_encoder",
        },
        "tiny-inpaint": {"unet": folder / "inpaint" / "unet"},
    }
    return {name: places | moved.get(name, {}) for name, places in tiny.BASES.items()}


@pytest.fixture
def miniatures(little_bases: dict[str, dict[str, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    """`tiny-xl` and `tiny-inpaint` are miniatures with random weights."""
    monkeypatch.setattr(tiny, "BASES", little_bases)


@pytest.fixture(scope="session")
def gather(little_bases: dict[str, dict[str, Path]], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A miniature as one diffusers folder, a new one with each call."""

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name) / "base"
        folder.mkdir()
        for part, place in little_bases[name].items():
            (shutil.copytree if place.is_dir() else shutil.copy)(place, folder / part)
        return folder

    return make
