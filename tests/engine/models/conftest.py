"""Checkpoints in the LDM layout, written from a description of that layout of their own: the constructors of the
original program walked through, so that the maps under test are not used to make what they are tested on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

Shapes = dict[str, tuple[int, ...]]

SD15 = SimpleNamespace(unet=320, context=768, vae=128, text_layers=12, in_channels=4)
SMALL = SimpleNamespace(unet=32, context=32, vae=32, text_layers=2, in_channels=4)
MULTIPLIERS = (1, 2, 4, 4)


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

    def transformer(at: str, channels: int):
        yield from layer(f"{at}.norm", channels)
        yield from layer(f"{at}.proj_in", channels, channels, 1, 1)
        block = f"{at}.transformer_blocks.0"
        for attention, source in (("attn1", channels), ("attn2", sizes.context)):
            yield from layer(f"{block}.{attention}.to_q", channels, channels, bias=False)
            yield from layer(f"{block}.{attention}.to_k", channels, source, bias=False)
            yield from layer(f"{block}.{attention}.to_v", channels, source, bias=False)
            yield from layer(f"{block}.{attention}.to_out.0", channels, channels)
        yield from layer(f"{block}.ff.net.0.proj", channels * 8, channels)
        yield from layer(f"{block}.ff.net.2", channels, channels * 4)
        for number in (1, 2, 3):
            yield from layer(f"{block}.norm{number}", channels)
        yield from layer(f"{at}.proj_out", channels, channels, 1, 1)

    yield from layer("time_embed.0", embedding, width)
    yield from layer("time_embed.2", embedding, embedding)
    yield from layer("input_blocks.0.0", width, sizes.in_channels, 3, 3)
    channels, skips, number = width, [width], 1
    for level, multiplier in enumerate(MULTIPLIERS):
        for _ in range(2):
            yield from resnet(f"input_blocks.{number}.0", channels, width * multiplier)
            channels = width * multiplier
            if level < 3:
                yield from transformer(f"input_blocks.{number}.1", channels)
            skips.append(channels)
            number += 1
        if level < 3:
            yield from layer(f"input_blocks.{number}.0.op", channels, channels, 3, 3)
            skips.append(channels)
            number += 1
    yield from resnet("middle_block.0", channels, channels)
    yield from transformer("middle_block.1", channels)
    yield from resnet("middle_block.2", channels, channels)
    number = 0
    for level, multiplier in reversed(list(enumerate(MULTIPLIERS))):
        for index in range(3):
            yield from resnet(f"output_blocks.{number}.0", channels + skips.pop(), width * multiplier)
            channels = width * multiplier
            if level < 3:
                yield from transformer(f"output_blocks.{number}.1", channels)
            if level > 0 and index == 2:
                yield from layer(f"output_blocks.{number}.{2 if level < 3 else 1}.conv", channels, channels, 3, 3)
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
    for level, multiplier in enumerate(MULTIPLIERS):
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
    for level, multiplier in reversed(list(enumerate(MULTIPLIERS))):
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
    hidden = sizes.context
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


@pytest.fixture(scope="session")
def ldm_layout() -> SimpleNamespace:
    """Names and shapes of the three parts, without prefixes: functions of `sd15` or `small` sizes."""
    return SimpleNamespace(unet=unet_shapes, vae=vae_shapes, text=text_shapes, sd15=SD15, small=SMALL)


@pytest.fixture(scope="session")
def sd1_tensors() -> dict[str, torch.Tensor]:
    """A small random model of SD1's structure, under the names of a single file, fp16. Not to be changed."""
    generator = torch.Generator().manual_seed(1)
    shapes = {f"model.diffusion_model.{name}": shape for name, shape in unet_shapes(SMALL)}
    shapes |= {f"first_stage_model.{name}": shape for name, shape in vae_shapes(SMALL)}
    shapes |= {f"cond_stage_model.transformer.text_model.{name}": shape for name, shape in text_shapes(SMALL)}
    return {name: (torch.randn(shape, generator=generator) * 0.05).half() for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def sd1_file(sd1_tensors: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sd1_tensors` as a .safetensors file."""
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("sd1") / "small.safetensors"
    save_file(sd1_tensors, path)
    return path
