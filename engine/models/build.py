"""Modules from components: made without memory, then given their weights one by one in the wanted precision.

A tensor is copied out of its file straight onto the device: a file is not held twice, and may be replaced while a run
goes on. Every name must find its place with its shape, and every place its tensor; all that do not are reported
together.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import Problem, UserError
from engine.formats.container import TensorInfo, listed
from engine.models.base import freeze
from engine.models.ldm import modern_name
from engine.models.source import Component


def tensors_of(part: str, config: dict[str, Any], origin: Path = Path(), field: str = "") -> dict[str, tuple[int, ...]]:
    """Name, by `ldm.modern_name`, and shape of all tensors that a part with this config has. Takes no memory.

    Raises UserError, which names `origin` and `field`, where the config makes no module.
    """
    module = _empty(part, config, origin, field)
    return {modern_name(name): tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def check_fit(part: str, config: dict[str, Any], tensors: Mapping[str, TensorInfo], origin: Path, field: str) -> None:
    """Raise UserError unless a part with this config has exactly these tensors, by the names of `ldm.modern_name`."""
    places = tensors_of(part, config, origin, field)
    misfits = [
        f"{name} is {list(tensors[name].shape)}, not {list(shape)}"
        for name, shape in places.items()
        if name in tensors and tensors[name].shape != shape
    ]
    missing = [name for name in places if name not in tensors]
    strangers = [name for name in tensors if name not in places]
    _check(part, origin, field, missing, strangers, misfits)


def usual_config(part: str) -> dict[str, Any]:
    """What a part's config says where it says nothing: the defaults of its class."""
    if part.startswith("text_encoder"):
        usual = _text_config({}).to_dict()
        return {name: usual[name] for name in _TEXT_FIELDS if name in usual}
    parameters = inspect.signature(_CLASSES[part]().__init__).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty}


def _empty(part: str, config: dict[str, Any], origin: Path, field: str) -> nn.Module:
    """The module of a config, without memory. Raises UserError where the config makes none."""
    try:
        _check_counts(config)
        with torch.device("meta"):
            return _MAKERS[part](config)
    except Exception as error:  # the libraries raise whatever their constructors and validators raise
        raise UserError(
            Problem(
                where=str(origin),
                field=field,
                expected=f"a config of a {part}",
                found=f"one that makes none ({' '.join(str(error).split())[:200]})",
                advice="copy or download it again",
            )
        ) from error


_BLOCKS = ("block_out_channels", "down_block_types", "up_block_types")
_LAYERS = (
    "layers_per_block", "transformer_layers_per_block", "reverse_transformer_layers_per_block", "num_hidden_layers",
)  # fmt: skip
_MOST = 500


def _check_counts(config: dict[str, Any]) -> None:
    """ValueError for a config that asks for more blocks than any model has: they would be made for hours."""
    for name in (*_BLOCKS, *_LAYERS):
        numbers = _flat(config.get(name))
        if len(numbers) > _MOST or (name in _LAYERS and any(isinstance(n, int) and n > _MOST for n in numbers)):
            raise ValueError(f"{name} is beyond {_MOST}")


def _flat(value: Any) -> list[Any]:
    return [one for item in value for one in _flat(item)] if isinstance(value, (list, tuple)) else [value]


def build(part: str, component: Component, field: str, dtype: torch.dtype, device: torch.device | str) -> nn.Module:
    """The frozen module of a component: unet, vae or a text encoder. Raises UserError where the weights don't fit."""
    module = _empty(part, component.config, component.origin, field)
    places = module.state_dict()
    state: dict[str, Tensor] = {}
    strangers: list[str] = []
    misfits: list[str] = []
    for spelled, tensor in component.read():
        name = modern_name(spelled)
        if name not in places:
            strangers += [name] if not name.endswith("position_ids") else []
            continue
        fitting = _fit(tensor, places[name].shape)
        if fitting is None:
            misfits.append(f"{name} is {list(tensor.shape)}, not {list(places[name].shape)}")
        else:
            state[name] = fitting.to(device, dtype, copy=True)
    _check(part, component.origin, field, [name for name in places if name not in state], strangers, misfits)
    module.load_state_dict(state, assign=True)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:  # the one buffer that is not saved: CLIP's 0, 1, 2 …
            owner = module.get_submodule(name.rpartition(".")[0])
            numbers = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape)
            owner.register_buffer(name.rpartition(".")[2], numbers, persistent=False)
    return freeze(module)


def _unet_class() -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel


def _vae_class() -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL


_CLASSES: dict[str, Callable[[], Any]] = {"unet": _unet_class, "vae": _vae_class}


def _unet(config: dict[str, Any]) -> nn.Module:
    return _unet_class().from_config(config)


def _vae(config: dict[str, Any]) -> nn.Module:
    return _vae_class().from_config(config)


def _text(config: dict[str, Any]) -> nn.Module:
    from transformers.models.clip.modeling_clip import CLIPTextModel

    return CLIPTextModel(_text_config(config))


def _projecting_text(config: dict[str, Any]) -> nn.Module:
    """CLIPTextModelWithProjection without the `text_model.` that its paths still have, and with the projection's input
    beside its output: what it is called with gives `pooler_output`, to which `text_projection` is to be applied."""
    module = _text(config)
    module.text_projection = nn.Linear(module.config.hidden_size, module.config.projection_dim, bias=False)
    return module


def _text_config(config: dict[str, Any]) -> Any:
    from transformers.models.clip.configuration_clip import CLIPTextConfig

    # of a stranger's config only these: others can name code on a hub that transformers would fetch
    return CLIPTextConfig(**{name: config[name] for name in _TEXT_FIELDS if name in config})


_TEXT_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "hidden_act", "layer_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip

_MAKERS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "unet": _unet,
    "vae": _vae,
    "text_encoder": _text,
    "text_encoder_2": _projecting_text,
}


def _fit(tensor: Tensor, shape: torch.Size) -> Tensor | None:
    """The tensor in the wanted shape, if only 1×1 kernels of a convolution stand between; else None."""
    if tensor.shape == shape:
        return tensor
    longer, shorter = sorted((tuple(tensor.shape), tuple(shape)), key=len, reverse=True)
    return tensor.reshape(shape) if longer == (*shorter, 1, 1) else None


def _check(part: str, origin: Path, field: str, missing: list[str], strangers: list[str], misfits: list[str]) -> None:
    findings = (
        ("its tensors all there", f"{len(missing)} missing: {listed(missing)}", missing),
        ("no others", f"{len(strangers)} that have no place: {listed(strangers)}", strangers),
        ("the shapes that its config says", f"{len(misfits)} others: {'; '.join(misfits[:3])}", misfits),
    )
    problems = [
        Problem(
            where=str(origin),
            field=field,
            expected=f"a {part} with {expected}",
            found=found,
            advice="the weights are incomplete or belong to another config: copy or download them again",
        )
        for expected, found, names in findings
        if names
    ]
    if problems:
        raise UserError(problems)
