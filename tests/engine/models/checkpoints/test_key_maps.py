"""The key maps of SD1, SD2 and SDXL, both ways, at the full structure of the published models.

diffusers' own converters say what each key of a single file is; its and transformers' modules say what has to come out.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)

from engine.errors import UserError
from engine.formats.container import TensorInfo
from engine.models.build import check_fit
from engine.models.checkpoints.layout import LAYOUTS

FAMILIES = pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
PARTS = pytest.mark.parametrize(
    ("family", "part"),
    [(family, part) for family, layout in LAYOUTS.items() for part in layout.places],
    ids=lambda name: name,
)


@pytest.fixture
def header(ldm_layout, family):
    return {key: TensorInfo("F16", shape) for key, shape in ldm_layout.file(family, ldm_layout.full[family]).items()}


def part_of(header, family, part):
    """Layout, shapes without prefix, config and recipes of one part."""
    place = LAYOUTS[family].places[part]
    shapes = {key.removeprefix(place.prefix): info for key, info in header.items() if key.startswith(place.prefix)}
    config = place.kind.config(shapes)
    return place, shapes, config, place.kind.read(shapes, config)


@PARTS
def test_a_single_file_gives_exactly_the_tensors_of_the_modules(header, family, part):
    _, _, config, recipes = part_of(header, family, part)
    tensors = {name: recipe.info for name, recipe in recipes.items()}
    check_fit(part, config, tensors, Path("x"), "")
    name, info = next(iter(tensors.items()))
    rest = {key: value for key, value in tensors.items() if key != name}
    for wrong in ({}, {name: TensorInfo("F16", (1, *info.shape))}, {name: info, "stranger": info}):
        with pytest.raises(UserError):
            check_fit(part, config, rest | wrong, Path("x"), "")


@PARTS
def test_every_key_gets_the_name_that_diffusers_gives_it(header, family, part):
    place, _, config, recipes = part_of(header, family, part)
    known = {key: info for key, info in header.items() if key.startswith(place.prefix)}
    # every number of a key's tensor is the number of the key: whatever is cut out of it tells where it is from
    order = list(known)
    marks = {key: torch.tensor(float(number)).expand(known[key].shape) for number, key in enumerate(order)}
    if part == "unet":
        theirs = convert_ldm_unet_checkpoint(marks, config)
    elif part == "vae":
        theirs = convert_ldm_vae_checkpoint(marks, config)
    elif "embedders.0" in place.prefix or family == "sd1":
        theirs = convert_ldm_clip_checkpoint(marks)
    else:
        model = SimpleNamespace(config=SimpleNamespace(hidden_size=config["hidden_size"]))
        theirs = convert_open_clip_checkpoint(model, marks, prefix=place.prefix)
    expected = {
        name.removeprefix("text_model."): (order[int(tensor.flatten()[0])], tuple(tensor.shape))
        for name, tensor in theirs.items()
    }
    ours = {name: (place.prefix + recipe.sources[0], recipe.info.shape) for name, recipe in recipes.items()}
    assert ours == expected


@PARTS
def test_the_way_back_gives_every_key_that_a_folder_can_hold(header, family, part):
    place, shapes, config, recipes = part_of(header, family, part)
    back = place.kind.write({name: recipe.info for name, recipe in recipes.items()}, config)
    used = {key for recipe in recipes.values() for key in recipe.sources}
    assert {key: recipe.info for key, recipe in back.items()} == {
        ("text_model." + key.removeprefix("text_model.") if place.prefix.endswith("transformer.") else key): shapes[key]
        for key in used
    }
    assert {key for key in shapes if key not in used} == unread(family, part)


def unread(family: str, part: str) -> set[str]:
    """What a file's part has and a folder's has not."""
    if part == "text_encoder" and family == "sd2":
        layer = "transformer.resblocks.23."
        kinds = [f"{name}.{kind}" for name in ("ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj") for kind in ("weight", "bias")]
        attention = ["attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias"]
        return {"text_projection", "logit_scale", *(layer + name for name in (*kinds, *attention))}
    return {"logit_scale"} if part == "text_encoder_2" else set()


@FAMILIES
def test_shapes_give_the_published_configs(header, family):
    configs = {part: part_of(header, family, part)[2] for part in LAYOUTS[family].places}
    unet, text = configs["unet"], configs["text_encoder"]
    assert configs["vae"]["block_out_channels"] == [128, 256, 512, 512]
    if family == "sd1":
        assert (unet["cross_attention_dim"], unet["attention_head_dim"], unet["use_linear_projection"]) == (
            768,
            8,
            False,
        )
        assert (text["num_hidden_layers"], text["num_attention_heads"], text["hidden_act"]) == (12, 12, "quick_gelu")
    elif family == "sd2":
        assert (unet["attention_head_dim"], unet["transformer_layers_per_block"]) == ([5, 10, 20, 20], 1)
        assert (text["num_hidden_layers"], text["num_attention_heads"], text["hidden_act"]) == (23, 16, "gelu")
    else:
        assert (unet["attention_head_dim"], unet["transformer_layers_per_block"]) == ([5, 10, 20], [1, 2, 10])
        assert unet["down_block_types"] == ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]
        assert (unet["addition_embed_type"], unet["projection_class_embeddings_input_dim"]) == ("text_time", 2816)
        big = configs["text_encoder_2"]
        assert (big["num_hidden_layers"], big["num_attention_heads"], big["projection_dim"]) == (32, 20, 1280)


@pytest.mark.parametrize(
    ("layers", "projection", "read"), [(24, True, 23), (24, False, 23), (23, True, 23), (23, False, 23), (5, False, 5)]
)
def test_sd2_reads_all_layers_but_the_last_of_a_whole_encoder(ldm_layout, layers, projection, read):
    sizes = SimpleNamespace(**vars(ldm_layout.full["sd2"]) | {"text_layers": layers})
    place = LAYOUTS["sd2"].places["text_encoder"]
    shapes = {
        key.removeprefix(place.prefix): TensorInfo("F16", shape)
        for key, shape in ldm_layout.file("sd2", sizes).items()
        if key.startswith(place.prefix) and (projection or not key.endswith("text_projection"))
    }
    config = place.kind.config(shapes)
    assert config["num_hidden_layers"] == read
    assert {int(name.split(".")[2]) for name in place.kind.read(shapes, config) if ".layers." in name} == set(
        range(read)
    )
