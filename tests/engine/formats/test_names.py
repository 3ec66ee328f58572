"""The tables of modules are those of the models themselves, and every spelling of a module leads back to it."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from engine.formats import keys, names

UNETS = {
    "sd1": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2, 10),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
ALL = [(family, part, path) for family in names.FAMILIES for part in names.modules(family) for path in
       names.modules(family)[part]]  # fmt: skip


@pytest.fixture(scope="module")
def unets() -> dict[str, nn.Module]:
    with torch.device("meta"):
        return {family: UNet2DConditionModel(**config) for family, config in UNETS.items()}


def weights(model: nn.Module) -> dict[str, tuple[int, ...]]:
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    return {name.removeprefix("text_model."): tuple(layer.weight.shape) for name, layer in layers.items()}


@pytest.mark.parametrize("family", UNETS)
def test_the_table_of_a_unet_is_that_of_diffusers(unets, family):
    assert names.modules(family)["unet"] == weights(unets[family])


@pytest.mark.parametrize(
    ("family", "part", "model", "width", "layers"),
    [
        ("sd1", "text_encoder", CLIPTextModel, 768, 12),
        ("sd2", "text_encoder", CLIPTextModel, 1024, 23),
        ("sdxl", "text_encoder", CLIPTextModel, 768, 12),
        ("sdxl", "text_encoder_2", CLIPTextModelWithProjection, 1280, 32),
    ],
)
def test_the_table_of_a_text_encoder_is_that_of_transformers(family, part, model, width, layers):
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        projection_dim=width,
    )
    with torch.device("meta"):
        assert names.modules(family)[part] == weights(model(config))


def test_target_sets_count_as_many_modules_as_kohyas():
    assert (names.count("sd1", "transformer"), names.count("sd1", "locon"), names.count("sd1", "text")) == (
        192,
        278,
        72,
    )
    assert (names.count("sdxl", "transformer"), names.count("sdxl", "locon")) == (722, 788)
    assert names.count("sdxl", "text", "text_encoder") == 72
    assert names.count("sdxl", "text", "text_encoder_2") == 192
    kernels = [shape[2:] for shape in names.modules("sd1")["unet"].values()]
    assert kernels.count((3, 3)) - 2 == 50  # but for conv_in and conv_out
    assert [shape[2:] for shape in names.modules("sdxl")["unet"].values()].count((3, 3)) - 2 == 38


@pytest.mark.parametrize("family", UNETS)
@pytest.mark.parametrize(
    ("extended", "classes"), [(False, ("Attention", "GEGLU")), (True, ("Attention", "GEGLU", "ResnetBlock2D"))]
)
def test_modules_are_numbered_as_they_are_registered(unets, family, extended, classes):
    found = [
        f"{name}.{inner}"
        for name, module in unets[family].named_modules()
        if type(module).__name__ in classes
        for inner, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    assert list(names.numbered(family, "unet", "current", extended)) == found


def test_older_orders_put_geglu_between_the_attentions_or_leave_it_out():
    legacy, bare = names.numbered("sd1", "unet", "legacy"), names.numbered("sd1", "unet", "attention")
    first = "down_blocks.0.attentions.0.transformer_blocks.0"
    assert legacy[3:6] == (f"{first}.attn1.to_out.0", f"{first}.ff.net.0.proj", f"{first}.attn2.to_q")
    assert sorted(legacy) == sorted(names.numbered("sd1", "unet", "current"))
    assert (len(legacy), len(bare)) == (144, 128)


@pytest.mark.parametrize("suffix", [".lora_down.weight", ".alpha", ".hada_w1_a", ".lokr_w2_b", ".dora_scale", ".diff"])
def test_every_name_of_kohyas_leads_to_its_module(suffix):
    for family, part, path in ALL:
        found = keys.parse(names.kohya_name(family, part, path) + suffix)
        assert found and found[:3] == ("kohya", part, path)


def test_every_dotted_name_leads_to_its_module():
    for family, part, path in ALL:
        found = keys.parse(names.diffusers_name(part, path) + ".lora_A.weight")
        assert found and found[:4] == ("peft", part, path, "lora_down")
        if part == "unet":
            found = keys.parse(f"diffusion_model.{names.sgm_name(family, path)}.lora_B.weight")
            assert found and found[:4] == ("comfyui", part, path, "lora_up")


BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
LAYER = "encoder.layers.3.self_attn"


@pytest.mark.parametrize(
    ("key", "spelling", "part", "path", "role"),
    [
        (f"{BLOCK}.attn1.processor.to_q_lora.down.weight", "diffusers", "unet", f"{BLOCK}.attn1.to_q", "lora_down"),
        (f"unet.{BLOCK}.attn2.processor.to_out_lora.up.weight", "diffusers", "unet", f"{BLOCK}.attn2.to_out.0",
         "lora_up"),
        (f"unet.{BLOCK}.attn1.to_out.0.lora.up.weight", "diffusers", "unet", f"{BLOCK}.attn1.to_out.0", "lora_up"),
        (f"unet.{BLOCK}.ff.net.2.lora.down.weight", "diffusers", "unet", f"{BLOCK}.ff.net.2", "lora_down"),
        (f"text_encoder.text_model.{LAYER}.q_proj.lora_linear_layer.up.weight", "diffusers", "text_encoder",
         f"{LAYER}.q_proj", "lora_up"),
        (f"text_encoder.text_model.{LAYER}.to_out_lora.down.weight", "diffusers", "text_encoder",
         f"{LAYER}.out_proj", "lora_down"),
        (f"text_encoder.{LAYER}.q_proj.lora_A.weight", "peft", "text_encoder", f"{LAYER}.q_proj", "lora_down"),
        (f"base_model.model.{BLOCK}.attn1.to_k.lora_B.default.weight", "peft", "unet", f"{BLOCK}.attn1.to_k",
         "lora_up"),
        (f"base_model.model.text_model.{LAYER}.v_proj.lora_A.weight", "peft", "text_encoder", f"{LAYER}.v_proj",
         "lora_down"),
        (f"unet.base_model.model.{BLOCK}.attn1.to_k.lora_A.weight", "peft", "unet", f"{BLOCK}.attn1.to_k", "lora_down"),
        (f"unet.{BLOCK}.attn1.to_k.lora_magnitude_vector", "peft", "unet", f"{BLOCK}.attn1.to_k", "magnitude"),
        (f"unet.{BLOCK}.attn1.to_k.lora_magnitude_vector.weight", "peft", "unet", f"{BLOCK}.attn1.to_k", "magnitude"),
        ("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_up.weight", "comfyui", "unet",
         "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "lora_up"),
        (f"text_encoders.clip_l.transformer.text_model.{LAYER}.q_proj.lora_A.weight", "comfyui", "text_encoder",
         f"{LAYER}.q_proj", "lora_down"),
        ("lora_unet_output_blocks_5_2_conv.alpha", "kohya", "unet", "up_blocks.1.upsamplers.0.conv", "alpha"),
        ("lycoris_mid_block_attentions_0_proj_in.lokr_w1", "kohya", "unet", "mid_block.attentions.0.proj_in",
         "lokr_w1"),
        ("lycoris_text_model_encoder_layers_0_mlp_fc1.alpha", "kohya", "text_encoder", "encoder.layers.0.mlp.fc1",
         "alpha"),
        ("text_encoder_2.text_projection.lora_A.weight", "peft", "text_encoder_2", "text_projection", "lora_down"),
    ],
)  # fmt: skip
def test_older_and_foreign_spellings_lead_to_the_module(key, spelling, part, path, role):
    found = keys.parse(key)
    assert found and found[:4] == (spelling, part, path, role)


@pytest.mark.parametrize(
    "stem",
    [
        "lora_unet_double_blocks_0_img_attn_proj", "lora_unet_down_blocks_0_attentions_0_proj_in_x", "lora_te_x",
        "lora_unet_input_blocks_0_9", "lora_unet_middle_block_9_in_layers_2", "lora_te2_down_blocks_0_resnets_0_conv1",
        "transformer.blocks.0.attn.to_q", "unet.encoder.layers.0.mlp.fc1", "lora_unet_", "lora_unet__", "x", "",
    ],
)  # fmt: skip
def test_a_stem_of_no_such_module_leads_nowhere(stem):
    found = keys.parse(f"{stem}.lora_down.weight")
    assert found is None or (found.part, found.path) == ("", "")


@pytest.mark.parametrize("key", ["lora_unet_conv_in", "unet:0:up", "<s1>", "lora_unet_conv_in.oft_blocks", ".", ""])
def test_a_key_without_an_adapters_suffix_means_nothing(key):
    assert keys.parse(key) is None
