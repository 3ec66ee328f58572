"""A base in one file: an LDM checkpoint of Stable Diffusion 1, loaded without any config from elsewhere.

Names and shapes decide everything (`ldm` has the maps); what the file predicts is told by its own marks. Keys that
belong to none of the three parts are left out and named in a notice. No torch until a component is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import Problem, UserError
from engine.formats.container import TensorInfo, listed
from engine.formats.weights import Weights, open_weights
from engine.models import ldm
from engine.models.recognise import check_file, foreign_unet, inpainting, not_supported
from engine.models.source import Component, Source
from engine.models.tokenizer import VOCABULARY, clip_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

PREFIXES = {"unet": ldm.UNET, "text_encoder": ldm.TEXT, "vae": ldm.VAE}


def open_single(path: Path, field: str) -> Source:
    """The base in a .safetensors or .ckpt file. Raises UserError where it is no SD1.x base, or not a whole one."""
    weights = open_weights(path)
    check_file(path, field, weights.tensors)
    configs: dict[str, tuple[dict[str, Any], dict[str, str]]] = {}
    for part, describe in _PARTS.items():
        if any(key.startswith(PREFIXES[part]) for key in weights.tensors):
            configs[part] = _described(weights, part, field, describe)
    _check(path, field, weights, configs)
    components = {part: _component(weights, config, names) for part, (config, names) in configs.items()}
    window = configs["text_encoder"][0]["max_position_embeddings"]
    return Source(
        path,
        components,
        ldm.SCHEDULE | marked(weights),
        partial(clip_tokenizer, window),
        (path,),
        _notices(weights, [names for _, names in configs.values()]),
    )


def open_single_vae(path: Path, field: str) -> Component:
    """A VAE in a file of its own: LDM's keys with or without their prefix. Raises UserError."""
    weights = open_weights(path)
    prefix = ldm.VAE if any(key.startswith(ldm.VAE) for key in weights.tensors) else ""
    if f"{prefix}encoder.down.0.block.0.conv1.weight" not in weights.tensors:
        raise UserError(
            Problem(
                where=str(path),
                field=field,
                expected="a VAE in the layout of Stable Diffusion 1 checkpoints",
                found=f"{len(weights.tensors)} tensors, such as {listed(weights.tensors, 1)}",
                advice="choose a VAE file, or the diffusers folder that has its config.json",
            )
        )
    config, names = _described(weights, "vae", field, _vae, prefix)
    return _component(weights, config, names)


# ---- the three parts


def _unet(shapes: ldm.Header) -> tuple[dict[str, Any], Callable[[str], str | None]]:
    config = ldm.unet_config(shapes) | {"sample_size": 64}
    return config, partial(ldm.unet_name, layers=config["layers_per_block"])


def _text(shapes: ldm.Header) -> tuple[dict[str, Any], Callable[[str], str | None]]:
    return ldm.text_config({ldm.text_name(key): info for key, info in shapes.items()}), ldm.text_name


def _vae(shapes: ldm.Header) -> tuple[dict[str, Any], Callable[[str], str | None]]:
    config = ldm.vae_config(shapes)
    return config, partial(ldm.vae_name, levels=len(config["block_out_channels"]))


_PARTS = {"unet": _unet, "text_encoder": _text, "vae": _vae}


def _described(
    weights: Weights, part: str, field: str, describe: Callable, prefix: str | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The config of a part, and the module's names of its keys in the file: `file's key → name`."""
    prefix = PREFIXES[part] if prefix is None else prefix
    shapes: dict[str, TensorInfo] = {
        key.removeprefix(prefix): info for key, info in weights.tensors.items() if key.startswith(prefix)
    }
    try:
        config, name = describe(shapes)
    except (KeyError, IndexError, ValueError, StopIteration) as error:
        missing = prefix + str(error.args[0]) if isinstance(error, KeyError) else f"parts of {prefix}"
        raise UserError(
            Problem(
                where=str(weights.path),
                field=field,
                expected="a whole Stable Diffusion 1.x checkpoint",
                found=f"no {missing}",
                advice="the file is incomplete: download or convert it again",
            )
        ) from error
    names = {prefix + key: name(key) for key in shapes if not ldm.is_dropped(prefix + key)}
    return config, {key: name for key, name in names.items() if name}


def _component(weights: Weights, config: dict[str, Any], names: dict[str, str]) -> Component:
    def read() -> Iterator[tuple[str, Tensor]]:
        for key, tensor in weights.load(names):
            yield names[key], tensor

    return Component(config, weights.path, read)


def _check(path: Path, field: str, weights: Weights, configs: dict[str, tuple[dict[str, Any], dict[str, str]]]) -> None:
    """Raise UserError unless UNet and text encoder are there and are SD1's."""
    unet = configs["unet"][0]
    if name := foreign_unet(unet):
        raise not_supported(path, field, name)
    if unet["in_channels"] == 9:
        raise inpainting(path, field)
    text = configs.get("text_encoder", ({},))[0]
    wrong: list[tuple[str, str]] = []
    if not text:
        wrong.append(("a text encoder (cond_stage_model.transformer.…)", "none"))
    else:
        if text["hidden_size"] != unet["cross_attention_dim"]:
            wrong.append((f"a text encoder of width {unet['cross_attention_dim']}", f"one of {text['hidden_size']}"))
        if text["vocab_size"] < VOCABULARY:
            wrong.append((f"CLIP's vocabulary of {VOCABULARY} tokens", f"one of {text['vocab_size']}"))
    if wrong:
        advice = "choose a whole Stable Diffusion 1.x checkpoint, or a diffusers folder"
        raise UserError(
            Problem(where=str(path), field=field, expected=expected, found=found, advice=advice)
            for expected, found in wrong
        )


# ---- what the file says of itself


def marked(weights: Weights) -> dict[str, Any]:
    """What the marks of a file say of its schedule: what the UNet predicts, and whether it ends in pure noise.

    Marks are a tensor named `v_pred` or `ztsnr`, metadata (modelspec's, kohya's), or the LDM config that web UIs look
    for beside the file. Nothing is said of what has no mark.
    """
    metadata = weights.metadata
    spoken = metadata.get("modelspec.prediction_type", "").lower()
    by_v = (
        "v_pred" in weights.tensors
        or spoken in ("v", "v_prediction", "v-prediction")
        or metadata.get("ss_base_model_version", "").endswith("_v")
        or metadata.get("ss_v_parameterization", "").lower() == "true"
        or (not spoken and _yaml_says_v(weights.path.with_suffix(".yaml")))
    )
    said: dict[str, Any] = {}
    if by_v or spoken:
        said["prediction_type"] = "v_prediction" if by_v else "epsilon"
    if "ztsnr" in weights.tensors:
        said |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return said


def _yaml_says_v(path: Path) -> bool:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return re.search(r"""^\s*parameterization:\s*["']?v["']?\s*$""", text, re.MULTILINE) is not None


def _notices(weights: Weights, taken: list[dict[str, str]]) -> tuple[str, ...]:
    known = {key for names in taken for key in names}
    strangers = [key for key in weights.tensors if key not in known and not ldm.is_dropped(key)]
    if not strangers:
        return ()
    return (f"{weights.path.name}: left out {len(strangers)} tensors of no known use: {listed(strangers)}",)
