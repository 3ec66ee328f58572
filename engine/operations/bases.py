"""Whole models as operations see them: the weights of their layers by part and module path, and what adapters made from
them say of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from torch import Tensor

from engine.config.structs import EMBEDDED
from engine.errors import Problem, UserError
from engine.lora.compose import Base
from engine.models import embedded, hub
from engine.models.checkpoints.opening import Checkpoint, open_checkpoint
from engine.models.resolve import look, on_hub

PARTS = ("unet", "text_encoder", "text_encoder_2")
"""Parts that adapters are for."""
_WEIGHT = ".weight"
_EMBEDDINGS = ("token_embedding", "position_embedding")

_SAID = {
    "sd1": ("sd_v1", "stable-diffusion-v1", "diffusers"),
    "sd2": ("sd_v2", "stable-diffusion-v2-512", "diffusers"),
    "sdxl": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base", "https://github.com/Stability-AI/generative-models"),
}
"""Family → ss_base_model_version, modelspec's architecture and implementation, as readers tell families by them."""


def open_model(name: str, field: str) -> Checkpoint:
    """The model that is embedded, in a folder or file, or on a hub; the UNet has to be there. Raises UserError."""
    if name in EMBEDDED:
        return open_checkpoint(embedded.home(name), field, whole=False, places=embedded.places(name, field))
    path, kind = look(name)
    if kind:
        return open_checkpoint(path, field, whole=False)
    if on_hub(name):
        return open_checkpoint(hub.fetch(name, field, True), field, whole=False)
    expected = "a diffusers folder, a hub id (owner/name), or a .safetensors or .ckpt file"
    raise UserError(
        Problem(where=name, field=field, expected=expected, found="nothing of that name", advice="check the path")
    )


def layers_of(model: Checkpoint, part: str) -> dict[str, tuple[int, ...]]:
    """Every Linear and Conv2d of a part: module path → shape of its weight."""
    if part not in model.parts:
        return {}
    return {
        name.removesuffix(_WEIGHT): info.shape
        for name, info in model.parts[part].header.items()
        if name.endswith(_WEIGHT) and len(info.shape) in (2, 4) and not name.removesuffix(_WEIGHT).endswith(_EMBEDDINGS)
    }


def open_base(name: str) -> Base:
    """The weights of a model: a function of part and module path. It raises UserError for a layer that is not there."""
    model = open_model(name, "base")
    reader = cache(lambda part: model.parts[part].reader())

    def weight(part: str, path: str) -> Tensor:
        if path not in layers_of(model, part):
            raise UserError(
                Problem(
                    where=name,
                    field=f"{part}.{path}",
                    expected="the base that the adapter was trained on",
                    found="no such layer",
                    advice="choose another base",
                )
            )
        return reader(part)(path + _WEIGHT)

    return weight


def base_metadata(name: str, model: Checkpoint) -> dict[str, str]:
    """What an adapter of this model says of its base."""
    version, architecture, implementation = _SAID[model.family]
    v = model.scheduler.get("prediction_type") == "v_prediction"
    if v and model.family == "sd2":
        architecture = "stable-diffusion-v2-768-v"
    return {
        "ss_v2": str(model.family == "sd2"),
        "ss_base_model_version": version + ("_v" if v and model.family != "sdxl" else ""),
        "ss_sd_model_name": Path(name).name,
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": implementation,
        "modelspec.prediction_type": "v" if v else "epsilon",
    }
