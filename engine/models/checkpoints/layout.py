"""What a whole model of each family is made of, in a single file and in a diffusers folder.

A `Kind` is one sort of network: the config that its shapes imply, and the names of its tensors both ways. A `Layout`
is a family: which kinds, under which prefixes of a single file, with what shapes cannot tell. Another family that has
these networks is one more entry of `LAYOUTS`. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from engine.models import ldm
from engine.models.checkpoints.openclip import OpenClip
from engine.models.checkpoints.recipe import Header, Recipe, same, shaped


class Kind(Protocol):
    """A sort of network, as single files of Stable Diffusion spell it. Names of tensors have no prefix."""

    def config(self, shapes: Header) -> dict[str, Any]:
        """The config of diffusers or transformers for a file's tensors. KeyError where one is missing."""
        ...

    def read(self, shapes: Header, config: dict[str, Any]) -> dict[str, Recipe]:
        """diffusers' name of each tensor → how it is made of the file's. Strangers are left out."""
        ...

    def write(self, tensors: Header, config: dict[str, Any]) -> dict[str, Recipe]:
        """The file's key of each tensor → how it is made of diffusers'. Strangers are left out."""
        ...


class UNet:
    def config(self, shapes: Header) -> dict[str, Any]:
        return ldm.unet_config(shapes)

    def read(self, shapes: Header, config: dict[str, Any]) -> dict[str, Recipe]:
        named = {key: ldm.unet_name(key, config["layers_per_block"]) for key in shapes}
        return {name: same(key, shapes[key]) for key, name in named.items() if name}

    def write(self, tensors: Header, config: dict[str, Any]) -> dict[str, Recipe]:
        named = {name: ldm.unet_key(name, config) for name in tensors}
        return {key: same(name, tensors[name]) for name, key in named.items() if key}


class Vae:
    """An autoencoder. Its attention is a linear layer in diffusers and a 1x1 convolution in single files."""

    def config(self, shapes: Header) -> dict[str, Any]:
        return ldm.vae_config(shapes)

    def read(self, shapes: Header, config: dict[str, Any]) -> dict[str, Recipe]:
        recipes = {}
        for key, info in shapes.items():
            if name := ldm.vae_name(key, len(config["block_out_channels"])):
                attends = ".attentions." in name and info.shape[2:] == (1,) * len(info.shape[2:])
                recipes[name] = shaped(key, info, info.shape[:2]) if attends else same(key, info)
        return recipes

    def write(self, tensors: Header, config: dict[str, Any]) -> dict[str, Recipe]:
        recipes = {}
        for name, info in tensors.items():
            if key := ldm.vae_key(name, len(config["block_out_channels"])):
                linear = ".attentions." in name and len(info.shape) == 2
                recipes[key] = shaped(name, info, (*info.shape, 1, 1)) if linear else same(name, info)
        return recipes


class Clip:
    """OpenAI's text encoder, which has the same names in both but for a `text_model.` around them."""

    def config(self, shapes: Header) -> dict[str, Any]:
        return ldm.text_config({ldm.text_name(key): info for key, info in shapes.items()})

    def read(self, shapes: Header, config: dict[str, Any]) -> dict[str, Recipe]:
        return {ldm.text_name(key): same(key, info) for key, info in shapes.items()}

    def write(self, tensors: Header, config: dict[str, Any]) -> dict[str, Recipe]:
        return {"text_model." + name: same(name, info) for name, info in tensors.items()}


@dataclass(frozen=True)
class Place:
    """Where a part of a family lies in a single file."""

    prefix: str
    kind: Kind


@dataclass(frozen=True)
class Layout:
    """A family of models."""

    title: str
    pipeline: str
    """diffusers' class."""
    places: Mapping[str, Place]
    """Part, by the name of its folder → its place in a single file."""
    pixels: int
    """Side of the square pictures that it was made for, where it predicts the noise."""
    pixels_of_v: int
    """The same where it predicts v."""
    scaling_factor: float
    """Of its autoencoder's latents."""
    scheduler: Mapping[str, Any]
    """The noise schedule that it was trained with, as a config of diffusers."""
    pads: Mapping[str, str]
    """Tokenizer → the token that fills up a caption."""

    def defaults(self, part: str, config: Mapping[str, Any], prediction: str) -> dict[str, Any]:
        """What a part's config says beyond the shapes. prediction: `epsilon` or `v_prediction`."""
        pixels = self.pixels_of_v if prediction == "v_prediction" else self.pixels
        if part == "unet":
            # the SD2 of large pictures overflows in half precision
            return {"sample_size": pixels // 8} | ({"upcast_attention": True} if pixels == 768 else {})
        if part == "vae":
            return {"sample_size": pixels, "scaling_factor": self.scaling_factor}
        return {}


_UNET, _VAE, _CLIP = UNet(), Vae(), Clip()
_DENOISER = {"unet": Place(ldm.UNET, _UNET), "vae": Place(ldm.VAE, _VAE)}
_OWN_END, _ZERO = "<|endoftext|>", "!"
_EULER = ldm.SCHEDULE | {
    "_class_name": "EulerDiscreteScheduler",
    "interpolation_type": "linear",
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}

LAYOUTS = {
    "sd1": Layout(
        "Stable Diffusion 1",
        "StableDiffusionPipeline",
        _DENOISER | {"text_encoder": Place(ldm.TEXT, _CLIP)},
        512,
        512,
        ldm.SCALING_FACTOR,
        ldm.SCHEDULE,
        {"tokenizer": _OWN_END},
    ),
    "sd2": Layout(
        "Stable Diffusion 2",
        "StableDiffusionPipeline",
        _DENOISER | {"text_encoder": Place("cond_stage_model.model.", OpenClip(projected=False))},
        512,
        768,
        ldm.SCALING_FACTOR,
        ldm.SCHEDULE,
        {"tokenizer": _ZERO},
    ),
    "sdxl": Layout(
        "Stable Diffusion XL",
        "StableDiffusionXLPipeline",
        _DENOISER
        | {
            "text_encoder": Place("conditioner.embedders.0.transformer.", _CLIP),
            "text_encoder_2": Place("conditioner.embedders.1.model.", OpenClip(projected=True)),
        },
        1024,
        1024,
        0.13025,
        {key: value for key, value in _EULER.items() if key not in ("clip_sample", "set_alpha_to_one")},
        {"tokenizer": _OWN_END, "tokenizer_2": _ZERO},
    ),
}


def added_dimensions(unet: Mapping[str, Any], projecting: Mapping[str, Any]) -> dict[str, Any]:
    """What the config of SDXL's UNet says of its other conditions, by that of its projecting text encoder.

    They are the pooled text, and six sizes of the picture as so many sines and cosines each.
    """
    width = unet.get("projection_class_embeddings_input_dim")
    return {"addition_time_embed_dim": (width - projecting["projection_dim"]) // 6} if width else {}
