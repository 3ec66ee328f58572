"""Checkpoints in the LDM layout, written from a description of that layout of their own: the constructors of the
original program walked through, so that the maps under test are not used to make what they are tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

Shapes = dict[str, tuple[int, ...]]


def sizes(**given) -> SimpleNamespace:
    """Sizes of a model; depths: transformer blocks of the UNet's levels; added: width of SDXL's other conditions."""
    usual = {"in_channels": 4, "multipliers": (1, 2, 4, 4), "depths": (1, 1, 1, 0), "linear": False, "added": 0}
    return SimpleNamespace(**usual | given)


SD15 = sizes(unet=320, context=768, vae=128, text_layers=12)
SMALL = sizes(unet=32, context=32, vae=32, text_layers=2)
SD2 = sizes(unet=320, context=1024, vae=128, linear=True, text_layers=24)
SMALL2 = sizes(unet=64, context=64, vae=32, linear=True, text_layers=3)
_XL = {"multipliers": (1, 2, 4), "linear": True}
SDXL = sizes(unet=320, context=2048, vae=128, depths=(0, 2, 10), added=2816, text_layers=12, **_XL)
SDXL.clip, SDXL.big, SDXL.big_layers = 768, 1280, 32
SMALLXL = sizes(unet=64, context=96, vae=32, depths=(0, 1, 2), added=1600, text_layers=2, **_XL)
SMALLXL.clip, SMALLXL.big, SMALLXL.big_layers = 32, 64, 2
VAE_MULTIPLIERS = (1, 2, 4, 4)


def layer(name: str, *shape: int, bias: bool = True) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def unet_shapes(sizes: SimpleNamespace) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, embedding = sizes.unet, sizes.unet * 4

    def resnet(at: str, before: int, after: int):
        yield from layer(f"{at}.in_layers.0", before)
        yield from layer(f"{at}.in_layers.2", after, before, 3, 3)
        yield from layer(f"{at}.emb_layers.1", after, embedding)
        yield from layer(f"{at}.out_layers.0", after)
        yield from layer(f"{at}.out_layers.3", after, after, 3, 3)
        if before != after:
            yield from layer(f"{at}.skip_connection", after, before, 1, 1)

    def transformer(at: str, channels: int, depth: int):
        yield from layer(f"{at}.norm", channels)
        kernel = () if sizes.linear else (1, 1)
        yield from layer(f"{at}.proj_in", channels, channels, *kernel)
        for number in range(depth):
            yield from transformer_block(f"{at}.transformer_blocks.{number}", channels)
        yield from layer(f"{at}.proj_out", channels, channels, *kernel)

    def transformer_block(block: str, channels: int):
        for attention, source in (("attn1", channels), ("attn2", sizes.context)):
            yield from layer(f"{block}.{attention}.to_q", channels, channels, bias=False)
            yield from layer(f"{block}.{attention}.to_k", channels, source, bias=False)
            yield from layer(f"{block}.{attention}.to_v", channels, source, bias=False)
            yield from layer(f"{block}.{attention}.to_out.0", channels, channels)
        yield from layer(f"{block}.ff.net.0.proj", channels * 8, channels)
        yield from layer(f"{block}.ff.net.2", channels, channels * 4)
        for number in (1, 2, 3):
            yield from layer(f"{block}.norm{number}", channels)

    yield from layer("time_embed.0", embedding, width)
    yield from layer("time_embed.2", embedding, embedding)
    if sizes.added:
        yield from layer("label_emb.0.0", embedding, sizes.added)
        yield from layer("label_emb.0.2", embedding, embedding)
    yield from layer("input_blocks.0.0", width, sizes.in_channels, 3, 3)
    channels, skips, number = width, [width], 1
    last = len(sizes.multipliers) - 1
    for level, (multiplier, depth) in enumerate(zip(sizes.multipliers, sizes.depths, strict=True)):
        for _ in range(2):
            yield from resnet(f"input_blocks.{number}.0", channels, width * multiplier)
            channels = width * multiplier
            if depth:
                yield from transformer(f"input_blocks.{number}.1", channels, depth)
            skips.append(channels)
            number += 1
        if level < last:
            yield from layer(f"input_blocks.{number}.0.op", channels, channels, 3, 3)
            skips.append(channels)
            number += 1
    yield from resnet("middle_block.0", channels, channels)
    yield from transformer("middle_block.1", channels, max(sizes.depths))
    yield from resnet("middle_block.2", channels, channels)
    number = 0
    for level in range(last, -1, -1):
        for index in range(3):
            yield from resnet(f"output_blocks.{number}.0", channels + skips.pop(), width * sizes.multipliers[level])
            channels = width * sizes.multipliers[level]
            if sizes.depths[level]:
                yield from transformer(f"output_blocks.{number}.1", channels, sizes.depths[level])
            if level > 0 and index == 2:
                slot = 2 if sizes.depths[level] else 1
                yield from layer(f"output_blocks.{number}.{slot}.conv", channels, channels, 3, 3)
            number += 1
    yield from layer("out.0", width)
    yield from layer("out.2", 4, width, 3, 3)


def vae_shapes(sizes: SimpleNamespace) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, deep = sizes.vae, sizes.vae * 4

    def resnet(at: str, before: int, after: int):
        yield from layer(f"{at}.norm1", before)
        yield from layer(f"{at}.conv1", after, before, 3, 3)
        yield from layer(f"{at}.norm2", after)
        yield from layer(f"{at}.conv2", after, after, 3, 3)
        if before != after:
            yield from layer(f"{at}.nin_shortcut", after, before, 1, 1)

    def middle(at: str):
        yield from resnet(f"{at}.block_1", deep, deep)
        yield from layer(f"{at}.attn_1.norm", deep)
        for name in ("q", "k", "v", "proj_out"):
            yield from layer(f"{at}.attn_1.{name}", deep, deep, 1, 1)
        yield from resnet(f"{at}.block_2", deep, deep)

    channels = width
    yield from layer("encoder.conv_in", width, 3, 3, 3)
    for level, multiplier in enumerate(VAE_MULTIPLIERS):
        for index in range(2):
            yield from resnet(f"encoder.down.{level}.block.{index}", channels, width * multiplier)
            channels = width * multiplier
        if level < 3:
            yield from layer(f"encoder.down.{level}.downsample.conv", channels, channels, 3, 3)
    yield from middle("encoder.mid")
    yield from layer("encoder.norm_out", deep)
    yield from layer("encoder.conv_out", 8, deep, 3, 3)
    yield from layer("decoder.conv_in", deep, 4, 3, 3)
    yield from middle("decoder.mid")
    for level, multiplier in reversed(list(enumerate(VAE_MULTIPLIERS))):
        for index in range(3):
            yield from resnet(f"decoder.up.{level}.block.{index}", channels, width * multiplier)
            channels = width * multiplier
        if level > 0:
            yield from layer(f"decoder.up.{level}.upsample.conv", channels, channels, 3, 3)
    yield from layer("decoder.norm_out", width)
    yield from layer("decoder.conv_out", 3, width, 3, 3)
    yield from layer("quant_conv", 8, 8, 1, 1)
    yield from layer("post_quant_conv", 4, 4, 1, 1)


def text_shapes(sizes: SimpleNamespace) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden = getattr(sizes, "clip", sizes.context)
    yield "embeddings.token_embedding.weight", (49408, hidden)
    yield "embeddings.position_embedding.weight", (77, hidden)
    for number in range(sizes.text_layers):
        at = f"encoder.layers.{number}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from layer(f"{at}.self_attn.{name}", hidden, hidden)
        yield from layer(f"{at}.layer_norm1", hidden)
        yield from layer(f"{at}.layer_norm2", hidden)
        yield from layer(f"{at}.mlp.fc1", hidden * 4, hidden)
        yield from layer(f"{at}.mlp.fc2", hidden, hidden * 4)
    yield from layer("final_layer_norm", hidden)


def openclip_shapes(sizes: SimpleNamespace) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The text half of OpenCLIP: SD2's only one, the second of SDXL."""
    width, layers = getattr(sizes, "big", sizes.context), getattr(sizes, "big_layers", sizes.text_layers)
    yield "positional_embedding", (77, width)
    yield "text_projection", (width, width)
    yield "logit_scale", ()
    yield "token_embedding.weight", (49408, width)
    for number in range(layers):
        at = f"transformer.resblocks.{number}"
        yield from layer(f"{at}.ln_1", width)
        yield f"{at}.attn.in_proj_weight", (3 * width, width)
        yield f"{at}.attn.in_proj_bias", (3 * width,)
        yield from layer(f"{at}.attn.out_proj", width, width)
        yield from layer(f"{at}.ln_2", width)
        yield from layer(f"{at}.mlp.c_fc", width * 4, width)
        yield from layer(f"{at}.mlp.c_proj", width, width * 4)
    yield from layer("ln_final", width)


def file_shapes(family: str, sizes: SimpleNamespace) -> Shapes:
    """All tensors of a single file of a family."""
    texts = {
        "sd1": {"cond_stage_model.transformer.text_model.": text_shapes},
        "sd2": {"cond_stage_model.model.": openclip_shapes},
        "sdxl": {
            "conditioner.embedders.0.transformer.text_model.": text_shapes,
            "conditioner.embedders.1.model.": openclip_shapes,
        },
    }
    parts = {"model.diffusion_model.": unet_shapes, "first_stage_model.": vae_shapes} | texts[family]
    return {prefix + name: shape for prefix, shapes in parts.items() for name, shape in shapes(sizes)}


FULL = {"sd1": SD15, "sd2": SD2, "sdxl": SDXL}
LITTLE = {"sd1": SMALL, "sd2": SMALL2, "sdxl": SMALLXL}


@pytest.fixture(scope="session")
def ldm_layout() -> SimpleNamespace:
    """Names and shapes of the three parts, without prefixes: functions of `sd15` or `small` sizes."""
    return SimpleNamespace(
        unet=unet_shapes, vae=vae_shapes, text=text_shapes, sd15=SD15, small=SMALL, file=file_shapes, full=FULL
    )


@pytest.fixture(scope="session")
def sd1_tensors() -> dict[str, torch.Tensor]:
    """A small random model of SD1's structure, under the names of a single file, fp16. Not to be changed."""
    generator = torch.Generator().manual_seed(1)
    shapes = file_shapes("sd1", SMALL)
    return {name: (torch.randn(shape, generator=generator) * 0.05).half() for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def sd1_file(sd1_tensors: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sd1_tensors` as a .safetensors file."""
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("sd1") / "small.safetensors"
    save_file(sd1_tensors, path)
    return path


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], SimpleNamespace]:
    """A small random model of a family as a single file: `family`, `path`, `tensors`. Not to be changed."""
    from safetensors.torch import save_file

    @cache
    def make(family: str) -> SimpleNamespace:
        generator = torch.Generator().manual_seed(2)
        shapes = file_shapes(family, LITTLE[family])
        tensors = {name: (torch.randn(shape, generator=generator) * 0.05).half() for name, shape in shapes.items()}
        path = tmp_path_factory.mktemp(family) / "small.safetensors"
        save_file(tensors, path, {"modelspec.title": "a small one", "format": "pt"})
        return SimpleNamespace(family=family, path=path, tensors=tensors)

    return make


@pytest.fixture(scope="session", params=["sd1", "sd2", "sdxl"])
def small_model(request: pytest.FixtureRequest, small_models) -> SimpleNamespace:
    return small_models(request.param)


@pytest.fixture(scope="session")
def small_sd1(small_models) -> SimpleNamespace:
    return small_models("sd1")
