"""The single-file layout of Stable Diffusion ("LDM", after the program that first wrote it) in terms of diffusers.

Three things per part, all functions of names and shapes alone: the diffusers config that a file's shapes imply, the
diffusers name of each of its keys, and the way back. Widths, depths and vocabulary are read from the shapes, so that a
small model of the same structure loads too; what shapes cannot tell is what the families were made with: 32 norm groups
everywhere, 8 attention heads in the UNet of SD1, heads of width 64 elsewhere (a narrower layer has one), quick_gelu in
the text encoder. OpenCLIP's text encoders, which SD2 and SDXL have, are `openclip`'s. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

from engine.formats.container import TensorInfo

UNET = "model.diffusion_model."
VAE = "first_stage_model."
TEXT = "cond_stage_model.transformer."

SCALING_FACTOR = 0.18215
"""Of the SD1 autoencoder's latents (Rombach et al. 2022, the inverse of their standard deviation)."""

SCHEDULE = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
"""The noise schedule that SD1 was trained with, as a diffusers scheduler's config; later ones differ by marks."""

Header = Mapping[str, TensorInfo]

_DROPPED = re.compile(
    r"model_ema\.|.*position_ids$|first_stage_model\.loss\.|cond_stage_model\.(logit_scale|text_projection)"
    r"|(cond_stage_model|conditioner\.embedders\.0)\.transformer\.(logit_scale|text_projection)"
    r"|(cond_stage_model|conditioner\.embedders\.\d)\.model\.(logit_scale|attn_mask)|denoiser\.sigmas$"
    r"|(betas|alphas_cumprod(_prev)?|sqrt_\w+|log_one_minus_\w+|posterior_\w+|logvar|lvlb_weights|v_pred|ztsnr)$"
)
"""Keys without weights of the three parts: averages kept for training, buffers of the schedule, marks, a loss."""


def is_dropped(key: str) -> bool:
    """Whether a key of a single file is known to hold nothing that is needed."""
    return _DROPPED.match(key) is not None


# ---- the UNet


def unet_config(shapes: Header) -> dict[str, Any]:
    """The config of the UNet whose keys, without their prefix, have these shapes. KeyError where one is missing."""
    blocks = count_of(shapes, "input_blocks.{}.")
    downsamplers = [i for i in range(blocks) if f"input_blocks.{i}.0.op.weight" in shapes]
    firsts = [1, *(i + 1 for i in downsamplers)]
    widths = [shapes[f"input_blocks.{i}.0.out_layers.3.weight"].shape[0] for i in firsts]
    attends = [f"input_blocks.{i}.1.proj_in.weight" in shapes for i in firsts]
    depths = [count_of(shapes, f"input_blocks.{i}.1.transformer_blocks.{{}}.") for i in firsts]
    attention = next(f"input_blocks.{i}.1." for i, has in zip(firsts, attends, strict=True) if has)
    linear = len(shapes[attention + "proj_in.weight"].shape) == 2
    config = {
        "in_channels": shapes["input_blocks.0.0.weight"].shape[1],
        "out_channels": shapes["out.2.weight"].shape[0],
        "block_out_channels": widths,
        "down_block_types": ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attends)],
        "layers_per_block": (downsamplers[0] if downsamplers else blocks) - 1,
        "transformer_layers_per_block": _depth(depths),
        "cross_attention_dim": shapes[attention + "transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "attention_head_dim": [max(1, width // 64) for width in widths] if linear else 8,
        "use_linear_projection": linear,
    }
    if "label_emb.0.0.weight" in shapes:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": shapes["label_emb.0.0.weight"].shape[1],
        }
    return config


def _depth(depths: list[int]) -> int | list[int]:
    """Transformer blocks a level: one number where all levels that have any agree, as configs are written."""
    some = {depth for depth in depths if depth}
    return some.pop() if len(some) == 1 else [depth or 1 for depth in depths]


_UNET_STEMS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def unet_name(key: str, layers: int) -> str | None:
    """The diffusers name of a UNet key without its prefix; None of a stranger. layers: `layers_per_block`.

    LDM numbers its blocks through; diffusers by level, and keeps resnets, attentions and samplers apart.
    """
    stem, _, kind = key.rpartition(".")
    if stem in _UNET_STEMS:
        return f"{_UNET_STEMS[stem]}.{kind}"
    match re.match(r"(input_blocks|middle_block|output_blocks)\.(\d+)\.(.+)$", key):
        case None:
            return None
        case found:
            side, number, rest = found[1], int(found[2]), found[3]
    if side == "middle_block":
        return f"mid_block.attentions.0.{rest}" if number == 1 else _resnet(f"mid_block.resnets.{number // 2}", rest)
    slot, _, rest = rest.partition(".")
    level, index = divmod(number - 1 if side == "input_blocks" else number, layers + 1)
    block = f"{'down' if side == 'input_blocks' else 'up'}_blocks.{level}"
    if rest.startswith("op."):
        return f"{block}.downsamplers.0.conv.{kind}"
    if rest.startswith("conv."):
        return f"{block}.upsamplers.0.conv.{kind}"
    if slot == "0":
        return _resnet(f"{block}.resnets.{index}", rest)
    return f"{block}.attentions.{index}.{rest}"


def _resnet(block: str, rest: str) -> str | None:
    layer, _, kind = rest.rpartition(".")
    return f"{block}.{_RESNET[layer]}.{kind}" if layer in _RESNET else None


_UNET_STEMS_BACK = {name: stem for stem, name in _UNET_STEMS.items()}
_RESNET_BACK = {name: stem for stem, name in _RESNET.items()}


def unet_key(name: str, config: Mapping[str, Any]) -> str | None:
    """The way back of `unet_name`: the LDM key, without its prefix, of a UNet tensor in diffusers, or None.

    config: the UNet's, of which `layers_per_block` and `up_block_types` are read.
    """
    stem, _, kind = name.rpartition(".")
    if stem in _UNET_STEMS_BACK:
        return f"{_UNET_STEMS_BACK[stem]}.{kind}"
    match re.match(r"(down_blocks\.\d+|mid_block|up_blocks\.\d+)\.(\w+)\.(\d+)\.(.+)$", name):
        case None:
            return None
        case found:
            block, sort, index, rest = found[1], found[2], int(found[3]), found[4]
    side, _, level = block.partition(".")
    each = config["layers_per_block"] + 1
    if side == "mid_block":
        place = {"resnets": f"middle_block.{2 * index}", "attentions": "middle_block.1"}.get(sort)
    elif side == "down_blocks":
        number = int(level) * each + index + 1
        place = {"resnets": f"input_blocks.{number}.0", "attentions": f"input_blocks.{number}.1"}.get(sort)
        if sort == "downsamplers":
            return f"input_blocks.{(int(level) + 1) * each}.0.op.{kind}"
    else:
        number = int(level) * each + index
        place = {"resnets": f"output_blocks.{number}.0", "attentions": f"output_blocks.{number}.1"}.get(sort)
        if sort == "upsamplers":
            slot = 2 if "CrossAttn" in config["up_block_types"][int(level)] else 1
            return f"output_blocks.{(int(level) + 1) * each - 1}.{slot}.conv.{kind}"
    if place is None or sort == "attentions":
        return place and f"{place}.{rest}"
    layer = rest.rpartition(".")[0]
    return f"{place}.{_RESNET_BACK[layer]}.{kind}" if layer in _RESNET_BACK else None


# ---- the autoencoder


def vae_config(shapes: Header) -> dict[str, Any]:
    """The config of the VAE whose keys, without their prefix, have these shapes. KeyError where one is missing."""
    levels = count_of(shapes, "encoder.down.{}.")
    return {
        "in_channels": shapes["encoder.conv_in.weight"].shape[1],
        "out_channels": shapes["decoder.conv_out.weight"].shape[0],
        "latent_channels": shapes["decoder.conv_in.weight"].shape[1],
        "block_out_channels": [shapes[f"encoder.down.{i}.block.0.conv2.weight"].shape[0] for i in range(levels)],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": count_of(shapes, "encoder.down.0.block.{}."),
        "mid_block_add_attention": "encoder.mid.attn_1.norm.weight" in shapes
        or "encoder.mid.attn_1.group_norm.weight" in shapes,
        "scaling_factor": SCALING_FACTOR,
        "sample_size": 512,
    }


ATTENTION = {
    "norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0",
    "query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0",
}  # fmt: skip
"""Names that the layers of a VAE's attention have had (LDM's, then diffusers' first ones) → those of now."""


def vae_name(key: str, levels: int) -> str | None:
    """The diffusers name of a VAE key without its prefix; None of a stranger. levels: how many the VAE has.

    LDM counts the decoder's levels from the finest, diffusers in the order of use.
    """
    if re.match(r"(quant_conv|post_quant_conv|(en|de)coder\.conv_(in|out))\.", key):
        return key
    match re.match(r"(encoder|decoder)\.(norm_out|mid|down|up)\.(.+)$", key):
        case None:
            return None
        case found:
            coder, where, rest = found.groups()
    if where == "norm_out":
        return f"{coder}.conv_norm_out.{rest}"
    if where == "mid":
        return _vae_mid(coder, rest)
    number, _, rest = rest.partition(".")
    block = f"{coder}.down_blocks.{number}" if where == "down" else f"{coder}.up_blocks.{levels - 1 - int(number)}"
    if sampled := re.match(r"(down|up)sample\.conv\.(.+)$", rest):
        return f"{block}.{sampled[1]}samplers.0.conv.{sampled[2]}"
    if found := re.match(r"block\.(\d+)\.(.+)$", rest):
        return f"{block}.resnets.{found[1]}.{found[2].replace('nin_shortcut', 'conv_shortcut')}"
    return None


def _vae_mid(coder: str, rest: str) -> str | None:
    part, _, rest = rest.partition(".")
    if part in ("block_1", "block_2"):
        return f"{coder}.mid_block.resnets.{int(part[-1]) - 1}.{rest}"
    if part != "attn_1":
        return None
    layer, _, kind = rest.rpartition(".")
    return f"{coder}.mid_block.attentions.0.{ATTENTION.get(layer, layer)}.{kind}"


_LDM_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def vae_key(name: str, levels: int) -> str | None:
    """The way back of `vae_name`: the LDM key, without its prefix, of a VAE tensor in diffusers, or None."""
    if re.match(r"(quant_conv|post_quant_conv|(en|de)coder\.conv_(in|out))\.", name):
        return name
    match re.match(r"(encoder|decoder)\.(conv_norm_out|mid_block|down_blocks|up_blocks)\.(.+)$", name):
        case None:
            return None
        case found:
            coder, where, rest = found.groups()
    if where == "conv_norm_out":
        return f"{coder}.norm_out.{rest}"
    if where == "mid_block":
        sort, _, rest = rest.partition(".")
        number, _, rest = rest.partition(".")
        layer, _, kind = rest.rpartition(".")
        if sort == "attentions" and layer in _LDM_ATTENTION:
            return f"{coder}.mid.attn_1.{_LDM_ATTENTION[layer]}.{kind}"
        return f"{coder}.mid.block_{int(number) + 1}.{rest}" if sort == "resnets" else None
    number, _, rest = rest.partition(".")
    level = f"{coder}.down.{number}" if where == "down_blocks" else f"{coder}.up.{levels - 1 - int(number)}"
    if sampled := re.match(r"(down|up)samplers\.0\.conv\.(.+)$", rest):
        return f"{level}.{sampled[1]}sample.conv.{sampled[2]}"
    if found := re.match(r"resnets\.(\d+)\.(.+)$", rest):
        return f"{level}.block.{found[1]}.{found[2].replace('conv_shortcut', 'nin_shortcut')}"
    return None


# ---- the text encoder


def text_config(shapes: Header) -> dict[str, Any]:
    """The config of the text encoder whose keys, by `text_name`, have these shapes. KeyError where one is missing."""
    vocabulary, hidden = shapes["embeddings.token_embedding.weight"].shape
    return {
        "hidden_size": hidden,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": count_of(shapes, "encoder.layers.{}."),
        "num_attention_heads": max(1, hidden // 64),
        "max_position_embeddings": shapes["embeddings.position_embedding.weight"].shape[0],
        "vocab_size": vocabulary,
        "hidden_act": "quick_gelu",
        "projection_dim": hidden,
    }


def text_name(key: str) -> str:
    """The name of a text encoder's key without its prefix; `text_model.` was there in older versions of the module."""
    return key.removeprefix("text_model.")


def modern_name(name: str) -> str:
    """A tensor's name in a diffusers folder as the libraries of now spell it.

    CLIPTextModel lost its `text_model.` in transformers 5; a VAE's attention was named otherwise before diffusers 0.14.
    """
    name = name.removeprefix("text_model.")
    if found := re.fullmatch(r"((?:en|de)coder\.mid_block\.attentions\.0)\.(\w+)\.(weight|bias)", name):
        return f"{found[1]}.{ATTENTION.get(found[2], found[2])}.{found[3]}"
    return name


def count_of(names: Iterable[str], pattern: str) -> int:
    """How many of `pattern` filled with 0, 1, 2 … begin some name."""
    names = tuple(names)
    return next(i for i in count() if not any(name.startswith(pattern.format(i)) for name in names))
