"""A base in one file: an LDM checkpoint of Stable Diffusion 1 or XL, loaded without any config from elsewhere.

Names and shapes decide everything (`checkpoints.layout` has the maps); what the file predicts is told by its own marks.
Keys that belong to none of the parts are left out and named in a notice. No torch until a component is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import Problem, UserError
from engine.formats.container import TensorInfo, listed
from engine.formats.weights import Weights, open_weights
from engine.models import ldm
from engine.models.checkpoints.layout import LAYOUTS, Layout, Place, added_dimensions
from engine.models.checkpoints.recipe import Recipe
from engine.models.folder import ENCODERS
from engine.models.recognise import family_of_unet, trained_family_of_file
from engine.models.source import Component, Source
from engine.models.tokenizer import VOCABULARY, clip_tokenizer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

Described = tuple[dict[str, Any], dict[str, Recipe]]
"""A part's config, and how each tensor of its module is made of the file's."""


def open_single(path: Path, field: str) -> Source:
    """The base in a .safetensors or .ckpt file. Raises UserError where it is none that can be trained, or not whole."""
    weights = open_weights(path)
    family = trained_family_of_file(path, field, weights.tensors)
    layout = LAYOUTS[family]
    parts = {
        part: _described(weights, layout, part, field)
        for part, place in layout.places.items()
        if any(key.startswith(place.prefix) for key in weights.tensors)
    }
    configs = {part: config for part, (config, _) in parts.items()}
    if "text_encoder_2" in configs:
        configs["unet"] |= added_dimensions(configs["unet"], configs["text_encoder_2"])
    _check(path, field, layout, configs)
    return Source(
        path,
        {part: _component(weights, *described) for part, described in parts.items()},
        ldm.SCHEDULE | marked(weights),
        {part: _tokenizer(layout, part, configs[part]) for part in ENCODERS if part in configs},
        (path,),
        _notices(weights, [recipes.values() for _, recipes in parts.values()]),
        family=family,
        empty_is_zero=family == "sdxl",
    )


def _tokenizer(layout: Layout, part: str, config: dict[str, Any]) -> partial[CLIPTokenizer]:
    return partial(clip_tokenizer, config["max_position_embeddings"], layout.pads[ENCODERS[part]])


def open_single_vae(path: Path, field: str, family: str) -> Component:
    """A VAE in a file of its own, for a base of this family: LDM's keys with or without their prefix.

    Raises UserError.
    """
    weights = open_weights(path)
    prefix = ldm.VAE if any(key.startswith(ldm.VAE) for key in weights.tensors) else ""
    if f"{prefix}encoder.down.0.block.0.conv1.weight" not in weights.tensors:
        raise UserError(
            Problem(
                where=str(path),
                field=field,
                expected="a VAE in the layout of Stable Diffusion checkpoints",
                found=f"{len(weights.tensors)} tensors, such as {listed(weights.tensors, 1)}",
                advice="choose a VAE file, or the diffusers folder that has its config.json",
            )
        )
    return _component(weights, *_described(weights, LAYOUTS[family], "vae", field, prefix))


# ---- the parts


def _described(weights: Weights, layout: Layout, part: str, field: str, prefix: str | None = None) -> Described:
    """A part of a file, whose keys begin with `prefix`, or with what they usually begin with."""
    place: Place = layout.places[part]
    prefix = place.prefix if prefix is None else prefix
    shapes: dict[str, TensorInfo] = {
        key.removeprefix(prefix): info
        for key, info in weights.tensors.items()
        if key.startswith(prefix) and not ldm.is_dropped(key)
    }
    try:
        config = place.kind.config(shapes)
        recipes = place.kind.read(shapes, config)
    except (KeyError, IndexError, ValueError, StopIteration) as error:
        missing = prefix + str(error.args[0]) if isinstance(error, KeyError) else f"parts of {prefix}"
        raise UserError(
            Problem(
                where=str(weights.path),
                field=field,
                expected=f"a whole {layout.title} checkpoint",
                found=f"no {missing}",
                advice="the file is incomplete: download or convert it again",
            )
        ) from error
    config |= layout.defaults(part, config, "epsilon")
    return config, {name: recipe.of(prefix) for name, recipe in recipes.items()}


def _component(weights: Weights, config: dict[str, Any], recipes: dict[str, Recipe]) -> Component:
    def read() -> Iterator[tuple[str, Tensor]]:
        reader = weights.reader()
        for name, recipe in recipes.items():
            yield name, recipe.make(reader)

    return Component(config, weights.path, read)


def _check(path: Path, field: str, layout: Layout, configs: dict[str, dict[str, Any]]) -> None:
    """Raise UserError unless UNet and text encoders are there and belong together."""
    unet = configs["unet"]
    family_of_unet(path, field, unet)
    texts = {part: place for part, place in layout.places.items() if part in ENCODERS}
    wrong = [(f"a text encoder ({place.prefix}…)", "none") for part, place in texts.items() if part not in configs]
    taken, made = unet["in_channels"], unet["out_channels"]
    if taken not in (made, 2 * made + 1):
        wrong.append((f"a UNet that takes {made} channels, or {2 * made + 1} to inpaint", f"one that takes {taken}"))
    if all(part in configs for part in texts):
        width, wanted = sum(configs[part]["hidden_size"] for part in texts), unet["cross_attention_dim"]
        if width != wanted:
            kind = "a text encoder" if len(texts) == 1 else "text encoders, together"
            wrong.append((f"{kind} of width {wanted}", f"one of {width}" if len(texts) == 1 else str(width)))
        for part in texts:
            if configs[part]["vocab_size"] < VOCABULARY:
                wrong.append((f"CLIP's vocabulary of {VOCABULARY} tokens", f"one of {configs[part]['vocab_size']}"))
    if wrong:
        advice = f"choose a whole {layout.title} checkpoint, or a diffusers folder"
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


def _notices(weights: Weights, taken: list[Iterable[Recipe]]) -> tuple[str, ...]:
    known = {key for recipes in taken for recipe in recipes for key in recipe.sources}
    strangers = [key for key in weights.tensors if key not in known and not ldm.is_dropped(key)]
    if not strangers:
        return ()
    return (f"{weights.path.name}: left out {len(strangers)} tensors of no known use: {listed(strangers)}",)
