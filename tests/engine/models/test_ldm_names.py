"""The LDM key maps against diffusers' own converters, at the full structure of Stable Diffusion 1.5."""

from __future__ import annotations

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

from engine.formats.container import TensorInfo
from engine.models import ldm
from engine.models.build import _unet, _vae


def header(shapes):
    return {name: TensorInfo("F16", shape) for name, shape in shapes}


@pytest.fixture(params=["sd15", "small"])
def sizes(request, ldm_layout):
    return getattr(ldm_layout, request.param)


def test_every_unet_key_gets_the_name_that_diffusers_gives_it(ldm_layout, sizes):
    shapes = header(ldm_layout.unet(sizes))
    config = ldm.unet_config(shapes)
    theirs = convert_ldm_unet_checkpoint({ldm.UNET + key: key for key in shapes}, config)
    assert {ldm.unet_name(key, config["layers_per_block"]): key for key in shapes} == theirs


def test_the_unet_config_makes_exactly_the_tensors_of_the_file(ldm_layout, sizes):
    shapes = header(ldm_layout.unet(sizes))
    config = ldm.unet_config(shapes)
    with torch.device("meta"):
        places = {name: tuple(tensor.shape) for name, tensor in _unet(config).state_dict().items()}
    assert {ldm.unet_name(key, 2): info.shape for key, info in shapes.items()} == places


def test_every_vae_key_gets_the_name_that_diffusers_gives_it(ldm_layout, sizes):
    shapes = header(ldm_layout.vae(sizes))
    config = ldm.vae_config(shapes)
    tokens = {key: torch.full((1,) * len(info.shape), number) for number, (key, info) in enumerate(shapes.items())}
    theirs = convert_ldm_vae_checkpoint({ldm.VAE + key: token for key, token in tokens.items()}, config)
    ours = {ldm.vae_name(key, 4): int(token.flatten()[0]) for key, token in tokens.items()}
    assert ours == {name: int(token.flatten()[0]) for name, token in theirs.items()}


def test_the_vae_config_makes_exactly_the_tensors_of_the_file(ldm_layout, sizes):
    shapes = header(ldm_layout.vae(sizes))
    with torch.device("meta"):
        places = {name: tuple(tensor.shape) for name, tensor in _vae(ldm.vae_config(shapes)).state_dict().items()}
    ours = {ldm.vae_name(key, 4): info.shape for key, info in shapes.items()}
    attention = {name: shape[:2] for name, shape in ours.items() if ".attentions." in name}
    assert ours | attention == places


def test_shapes_of_sd15_give_its_published_configs(ldm_layout):
    unet = ldm.unet_config(header(ldm_layout.unet(ldm_layout.sd15)))
    assert unet["block_out_channels"] == [320, 640, 1280, 1280]
    assert (unet["cross_attention_dim"], unet["attention_head_dim"], unet["layers_per_block"]) == (768, 8, 2)
    text = ldm.text_config(header(ldm_layout.text(ldm_layout.sd15)))
    assert (text["num_attention_heads"], text["num_hidden_layers"], text["intermediate_size"]) == (12, 12, 3072)
    vae = ldm.vae_config(header(ldm_layout.vae(ldm_layout.sd15)))
    assert (vae["block_out_channels"], vae["latent_channels"]) == ([128, 256, 512, 512], 4)


@pytest.mark.parametrize("key", ["input_blocks.1.0.stranger.weight", "label_emb.weight", "middle_block", "x"])
def test_a_key_that_is_none_of_the_unet_has_no_name(key):
    assert ldm.unet_name(key, 2) is None


@pytest.mark.parametrize("key", ["encoder.mid.attn_2.q.weight", "encoder.down.0.attn.0.q.weight", "loss.logvar"])
def test_a_key_that_is_none_of_the_vae_has_no_name(key):
    assert ldm.vae_name(key, 4) is None
