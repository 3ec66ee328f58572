"""Files in diffusers: five DDIM steps with an adapter are those with its dense ΔW in the weights.

Tiny random SD1 and SDXL pipelines; the adapter's files in kohya's naming and in PEFT's, with alphas and ranks that
differ, and a DoRA. What diffusers draws is compared with a pipeline whose weights were changed by `delta`, as floats.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from engine import tiny
from engine.formats.adapter import Adapter, Factors
from engine.formats.layers import DoRA
from engine.formats.reading import read_adapter
from engine.formats.writing import write_adapter

LIMIT = 1e-4


def text(width: int, kind=CLIPTextModel) -> nn.Module:
    return kind(
        CLIPTextConfig(
            vocab_size=3218,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            projection_dim=width,
            bos_token_id=3216,
            eos_token_id=3217,
            pad_token_id=3217,
        )
    )


def unet(sdxl: bool) -> nn.Module:
    shared = {"sample_size": 8, "layers_per_block": 2, "norm_num_groups": 4}
    if not sdxl:
        return UNet2DConditionModel(
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=2,
            **shared,
        )
    return UNet2DConditionModel(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32 + 48,
        attention_head_dim=2,
        use_linear_projection=True,
        transformer_layers_per_block=(1, 1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=48 + 6 * 8,
        **shared,
    )


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def loaded(request):
    from transformers import AutoTokenizer

    torch.manual_seed(0)
    sdxl = request.param == "sdxl"
    tokenizer = AutoTokenizer.from_pretrained(str(tiny.FOLDER / "tokenizer"))
    vae = AutoencoderKL(
        block_out_channels=(8,), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",), latent_channels=4,
    )  # fmt: skip
    shared = {"vae": vae, "text_encoder": text(32), "tokenizer": tokenizer, "unet": unet(sdxl),
              "scheduler": DDIMScheduler()}  # fmt: skip
    if sdxl:
        pipeline = StableDiffusionXLPipeline(
            **shared, text_encoder_2=text(48, CLIPTextModelWithProjection), tokenizer_2=tokenizer
        )
    else:
        pipeline = StableDiffusionPipeline(
            **shared, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def pipeline(loaded):
    yield loaded
    loaded.unload_lora_weights()


def parts(pipeline) -> dict[str, nn.Module]:
    named = ("unet", "text_encoder", "text_encoder_2")
    return {name: getattr(pipeline, name) for name in named if getattr(pipeline, name, None) is not None}


ADAPTED = (".attn1.", ".attn2.", "proj_in", "proj_out", ".ff.", "conv1", "conv2", "time_emb_proj", "shortcut",
           "samplers", "self_attn", "mlp")  # fmt: skip


def drawn(pipeline, dora: bool = False, alpha: float | None = None, scale: float | None = None) -> Adapter:
    """An adapter of every layer, strong enough to change the picture. Ranks differ from layer to layer, alphas where
    neither they nor the scales are given.
    """
    generator = torch.Generator().manual_seed(1)
    made: dict[str, dict] = {}
    for part, model in parts(pipeline).items():
        for index, (name, layer) in enumerate(model.named_modules()):
            weight = getattr(layer, "weight", None)
            if weight is None or weight.ndim < 2 or not any(mark in name for mark in ADAPTED):
                continue
            rank, ones = 2 + index % 3, (1, 1) if weight.ndim == 4 else ()
            down = torch.randn(rank, *weight.shape[1:], generator=generator) / weight[0].numel() ** 0.5
            up = 0.3 * torch.randn(len(weight), rank, *ones, generator=generator) * weight.std().item()
            made.setdefault(part, {})[name.removeprefix("text_model.")] = factors = Factors(
                down, up, alpha or (rank * scale if scale else 1.0 + index % 4)
            )
            if dora:
                norm = torch.linalg.vector_norm(weight.detach().flatten(1), dim=1)
                made[part][name.removeprefix("text_model.")] = DoRA(factors, norm * 1.2, 0)
    return Adapter(made)


def draw(pipeline) -> torch.Tensor:
    return pipeline(
        "a cat on a red background",
        num_inference_steps=5,
        guidance_scale=4.0,
        height=8,
        width=8,
        output_type="pt",
        generator=torch.Generator().manual_seed(42),
    ).images


def changed(pipeline, adapter: Adapter):
    """A copy of the pipeline with ΔW in its weights."""
    other = copy.deepcopy(pipeline)
    with torch.no_grad():
        for part, modules in adapter.parts.items():
            model = getattr(other, part)
            inside = "text_model." if part != "unet" and hasattr(model, "text_model") else ""
            for path, layer in modules.items():
                weight = model.get_submodule(inside + path).weight
                weight += layer.delta(weight).float()
    return other


@pytest.mark.parametrize(
    ("to", "options"),
    [
        ("kohya", {"alpha": 3.0}),
        ("kohya", {"scale": 1.0}),
        ("peft", {}),
        ("peft", {"alpha": 3.0}),
        ("peft", {"scale": 1}),
    ],
)
def test_a_file_draws_what_its_deltas_draw(tmp_path: Path, pipeline, to, options):
    adapter = drawn(pipeline, **options)
    bare, expected = draw(pipeline), draw(changed(pipeline, adapter))
    written = write_adapter(tmp_path / "cat.safetensors", adapter, to)
    back = read_adapter(written.path)
    assert {part: len(modules) for part, modules in back.parts.items()} == {
        part: len(modules) for part, modules in adapter.parts.items()
    }
    pipeline.load_lora_weights(str(tmp_path), weight_name="cat.safetensors")
    found = draw(pipeline)
    assert (found - bare).abs().max() > 0.01
    assert (found - expected).abs().max() <= LIMIT
    assert next(loading for loading in written.loads if loading.program == "diffusers").loads


def test_where_alphas_differ_diffusers_is_said_to_muddle_them(tmp_path: Path, pipeline):
    adapter = drawn(pipeline)
    expected = draw(changed(pipeline, adapter))
    written = write_adapter(tmp_path / "cat.safetensors", adapter)
    (diffusers, *others) = written.loads
    assert not diffusers.loads and "gives layers the alpha of others" in diffusers.note
    assert all(loading.loads for loading in others)
    with pytest.warns(RuntimeWarning, match="alpha_pattern keys did not match"):
        pipeline.load_lora_weights(str(tmp_path), weight_name="cat.safetensors")
    assert (draw(pipeline) - expected).abs().max() > LIMIT


def test_a_dora_in_pefts_format_draws_what_its_deltas_draw(tmp_path: Path, pipeline):
    adapter = drawn(pipeline, dora=True)
    bare, expected = draw(pipeline), draw(changed(pipeline, adapter))
    write_adapter(tmp_path / "cat.safetensors", adapter, "peft")
    pipeline.load_lora_weights(str(tmp_path), weight_name="cat.safetensors")
    found = draw(pipeline)
    assert (found - bare).abs().max() > 0.01
    assert (found - expected).abs().max() <= LIMIT


def test_a_file_of_diffusers_is_read_with_its_alphas(tmp_path: Path, pipeline):
    """The other way: what diffusers saves of PEFT layers, metadata included, has our deltas."""
    from peft import LoraConfig

    config = LoraConfig(
        r=3, lora_alpha=5, target_modules=["to_q", "to_k", "ff.net.2"], init_lora_weights=False,
        rank_pattern={"to_k": 2}, alpha_pattern={"to_k": 7},
    )  # fmt: skip
    pipeline.unet.add_adapter(config, adapter_name="cat")
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict

    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipeline.unet, adapter_name="cat"))
    type(pipeline).save_lora_weights(
        str(tmp_path), unet_lora_layers=state, unet_lora_adapter_metadata=pipeline.unet.peft_config["cat"].to_dict()
    )
    adapter = read_adapter(tmp_path / "pytorch_lora_weights.safetensors")
    assert adapter.format in ("peft", "diffusers")
    layers = {name: layer for name, layer in pipeline.unet.named_modules() if "cat" in getattr(layer, "lora_A", {})}
    assert layers.keys() == adapter.parts["unet"].keys()
    for name, layer in layers.items():
        found, expected = adapter.parts["unet"][name], layer.get_delta_weight("cat").detach().double()
        torch.testing.assert_close(found.delta(), expected, rtol=1e-5, atol=1e-6)
    pipeline.unet.delete_adapters("cat")
