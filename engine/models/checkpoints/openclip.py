"""OpenCLIP's text encoders, which SD2 and SDXL have, in terms of transformers' CLIPTextModel.

They are the same network under other names, but for three things: query, key and value of a layer lie in one tensor;
the projection is stored for a product from the other side; and SD2 reads the last layer but one, so that diffusers'
copy of it ends there and has no projection. No torch.
"""

from __future__ import annotations

import re
from typing import Any

from engine.formats.container import TensorInfo
from engine.models.checkpoints.recipe import Header, Recipe, same
from engine.models.ldm import count_of

_BLOCK = "transformer.resblocks."
_IN_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)$")
_LAYER = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}  # fmt: skip
_LAYER_BACK = {name: key for key, name in _LAYER.items()}
_OUTSIDE = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_OUTSIDE_BACK = {name: key for key, name in _OUTSIDE.items()}
_QKV = ("q_proj", "k_proj", "v_proj")
PROJECTION = "text_projection"


_READ_BY_SD2 = 23
"""Layers of OpenCLIP's ViT-H that SD2 reads, of 24."""


class OpenClip:
    """A text encoder of OpenCLIP; see `layout.Kind`. projected: whether it is read to its end, projection included."""

    def __init__(self, projected: bool):
        self._projected = projected

    def config(self, shapes: Header) -> dict[str, Any]:
        vocabulary, width = shapes["token_embedding.weight"].shape
        projection = shapes[PROJECTION] if self._projected else shapes.get(PROJECTION)
        return {
            "hidden_size": width,
            "intermediate_size": shapes[f"{_BLOCK}0.mlp.c_fc.weight"].shape[0],
            "num_hidden_layers": self._layers(shapes),
            "num_attention_heads": max(1, width // 64),
            "max_position_embeddings": shapes["positional_embedding"].shape[0],
            "vocab_size": vocabulary,
            "hidden_act": "gelu",
            "projection_dim": projection.shape[1] if projection else width,
        }

    def _layers(self, shapes: Header) -> int:
        """How many layers are read: all, or all but the last of a whole encoder.

        SD2's has 24, and some programs write the 23 alone. Of another size the projection tells whether it is whole.
        """
        layers = count_of(shapes, _BLOCK + "{}.")
        if self._projected or layers == _READ_BY_SD2:
            return layers
        return layers - (layers == _READ_BY_SD2 + 1 or PROJECTION in shapes)

    def read(self, shapes: Header, config: dict[str, Any]) -> dict[str, Recipe]:
        recipes: dict[str, Recipe] = {}
        for key, info in shapes.items():
            if key in _OUTSIDE:
                recipes[_OUTSIDE[key]] = same(key, info)
            elif key == PROJECTION and self._projected:
                recipes[PROJECTION + ".weight"] = Recipe(TensorInfo(info.dtype, info.shape[::-1]), (key,), turned=True)
            elif (found := _IN_LAYER.match(key)) and int(found[1]) < config["num_hidden_layers"]:
                recipes |= _read_layer(f"encoder.layers.{found[1]}.", found[2], key, info)
        return recipes

    def write(self, tensors: Header, config: dict[str, Any]) -> dict[str, Recipe]:
        recipes: dict[str, Recipe] = {}
        for name, info in tensors.items():
            if name in _OUTSIDE_BACK:
                recipes[_OUTSIDE_BACK[name]] = same(name, info)
            elif name == PROJECTION + ".weight" and self._projected:
                recipes[PROJECTION] = Recipe(TensorInfo(info.dtype, info.shape[::-1]), (name,), turned=True)
            elif found := re.match(r"encoder\.layers\.(\d+)\.(.+)$", name):
                recipes |= _written_layer(f"{_BLOCK}{found[1]}.", found[2], name, info, tensors)
        return recipes


def _read_layer(layer: str, rest: str, key: str, info: TensorInfo) -> dict[str, Recipe]:
    """The recipes that one key of a layer gives: three of a fused one, one of any other, none of a stranger."""
    if found := re.fullmatch(r"attn\.in_proj_(weight|bias)", rest):
        width = info.shape[0] // 3
        third = TensorInfo(info.dtype, (width, *info.shape[1:]))
        return {
            f"{layer}self_attn.{name}.{found[1]}": Recipe(third, (key,), (i * width, (i + 1) * width))
            for i, name in enumerate(_QKV)
        }
    stem, _, kind = rest.rpartition(".")
    return {f"{layer}{_LAYER[stem]}.{kind}": same(key, info)} if stem in _LAYER else {}


def _written_layer(block: str, rest: str, name: str, info: TensorInfo, tensors: Header) -> dict[str, Recipe]:
    stem, _, kind = rest.rpartition(".")
    if stem in _LAYER_BACK:
        return {f"{block}{_LAYER_BACK[stem]}.{kind}": same(name, info)}
    if not stem.startswith("self_attn.") or stem.removeprefix("self_attn.") not in _QKV:
        return {}
    sources = tuple(name.replace(stem.rpartition(".")[2], other) for other in _QKV)
    if any(tensors.get(source) != info for source in sources):
        return {}
    fused = TensorInfo(info.dtype, (3 * info.shape[0], *info.shape[1:]))
    return {f"{block}attn.in_proj_{kind}": Recipe(fused, sources)}
