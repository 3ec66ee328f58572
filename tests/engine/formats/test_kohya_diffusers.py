"""The written file in diffusers: the oracle that decides whether an adapter is what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from engine.formats import kohya
from engine.formats.adapter import Adapter, Factors

RANK, ALPHA = 4, 3.0
UNET_PATHS = (
    "down_blocks.0.attentions.0.proj_in",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0",
    "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2",
    "down_blocks.0.downsamplers.0.conv",
    "down_blocks.1.resnets.0.conv1",
    "down_blocks.1.resnets.0.conv_shortcut",
    "down_blocks.1.resnets.0.time_emb_proj",
    "mid_block.attentions.0.proj_out",
    "up_blocks.0.upsamplers.0.conv",
)
TEXT_PATHS = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.1.self_attn.out_proj", "encoder.layers.1.mlp.fc2")


@pytest.fixture(scope="module")
def models() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    text = CLIPTextModel(
        CLIPTextConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    )
    return {"unet": unet, "text_encoder": text}


def kohya_name(part: str, path: str) -> str:
    prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}[part]
    return prefix + path.replace(".", "_")


def random_factors(layer: torch.nn.Module) -> Factors:
    weight = layer.weight
    ones = (1, 1) if weight.ndim == 4 else ()
    down, up = torch.randn(RANK, *weight.shape[1:]), torch.randn(weight.shape[0], RANK, *ones)
    return Factors(down, up, ALPHA)


@pytest.fixture(scope="module")
def adapter(models: dict[str, torch.nn.Module]) -> Adapter:
    torch.manual_seed(1)
    paths = {"unet": UNET_PATHS, "text_encoder": TEXT_PATHS}
    return Adapter(
        {
            part: {path: random_factors(model.get_submodule(path)) for path in paths[part]}
            for part, model in models.items()
        }
    )


def test_every_module_changes_by_alpha_over_rank_times_up_down(tmp_path: Path, models, adapter):
    path = tmp_path / "cat.safetensors"
    kohya.write(path, adapter, kohya_name, "fp32")
    mixin = StableDiffusionLoraLoaderMixin
    state, alphas = mixin.lora_state_dict(path, local_files_only=True)
    mixin.load_lora_into_unet(state, alphas, models["unet"], adapter_name="cat")
    mixin.load_lora_into_text_encoder(state, alphas, models["text_encoder"], adapter_name="cat")

    for part, modules in adapter.parts.items():
        adapted = {
            name: module for name, module in models[part].named_modules() if "cat" in getattr(module, "lora_A", {})
        }
        assert adapted.keys() == modules.keys()
        for module_path, factors in modules.items():
            loaded = adapted[module_path].get_delta_weight("cat").double()
            torch.testing.assert_close(loaded, dense(factors), rtol=1e-5, atol=1e-5)


def dense(factors: Factors) -> torch.Tensor:
    """ΔW entry by entry, written apart from the code under test."""
    down, up = factors.down.detach().double(), factors.up.detach().double()
    if down.ndim == 2:
        return ALPHA / RANK * torch.einsum("or,ri->oi", up, down)
    return ALPHA / RANK * torch.einsum("or,rihw->oihw", up[:, :, 0, 0], down)
