"""Adapter files in kohya's naming, read whole or refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import UserError
from engine.formats.adapter import Factors
from engine.formats.layers import Dense, DoRA, LoHa, LoKr, Tucker
from engine.formats.reading import fitted, read_adapter

LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV, POINT = "down_blocks.0.resnets.0.conv1", "down_blocks.0.attentions.0.proj_in"
TEXT = "encoder.layers.0.self_attn.q_proj"
SHAPES = {
    ("unet", LINEAR): (6, 8),
    ("unet", CONV): (6, 8, 3, 3),
    ("unet", POINT): (6, 8, 1, 1),
    ("text_encoder", TEXT): (8, 8),
}
Q, C, P = (f"lora_unet_{path.replace('.', '_')}" for path in (LINEAR, CONV, POINT))
T = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    """The content of a good file, to be spoiled: rank 1, 2, 3 and 4."""
    torch.manual_seed(0)
    made = {}
    for rank, (name, shape) in enumerate(zip((Q, C, P, T), SHAPES.values(), strict=True), start=1):
        made[f"{name}.lora_down.weight"] = torch.randn(rank, *shape[1:])
        made[f"{name}.lora_up.weight"] = torch.randn(shape[0], rank, *(1 for _ in shape[2:]))
        made[f"{name}.alpha"] = torch.tensor(3.0)
    return made


@pytest.fixture
def saved(tmp_path: Path):
    def saved(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None, name: str = "a") -> Path:
        path = tmp_path / f"{name}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata)
        return path

    return saved


@pytest.fixture
def refusal(saved):
    def refusal(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None, base: bool = False) -> list[str]:
        path = saved(tensors, metadata)
        with pytest.raises(UserError) as caught:
            adapter = read_adapter(path)
            if base:
                fitted(adapter, SHAPES, path)
        return [str(problem) for problem in caught.value.problems]

    return refusal


def test_factors_are_those_of_the_file_and_a_missing_alpha_is_the_rank(saved, tensors):
    del tensors[f"{C}.alpha"]
    adapter = read_adapter(saved(tensors, {"ss_output_name": "cat"}))
    assert (adapter.format, adapter.family, adapter.metadata) == ("kohya", "", {"ss_output_name": "cat"})
    layer = adapter.parts["unet"][LINEAR]
    assert torch.equal(layer.down, tensors[f"{Q}.lora_down.weight"])
    assert (layer.alpha, layer.scale, adapter.parts["unet"][CONV].scale) == (3.0, 3.0, 1.0)


def test_linear_and_pointwise_factors_take_the_dimensions_of_their_layer(saved, tensors):
    original = dict(tensors)
    for key in (f"{Q}.lora_down.weight", f"{Q}.lora_up.weight"):
        tensors[key] = tensors[key][..., None, None]
    for key in (f"{P}.lora_down.weight", f"{P}.lora_up.weight"):
        tensors[key] = tensors[key].flatten(1)
    tensors[f"{C}.lora_up.weight"] = tensors[f"{C}.lora_up.weight"].flatten(1)
    path = saved(tensors)
    modules = fitted(read_adapter(path), SHAPES, path).parts["unet"]
    for module, key in {LINEAR: Q, POINT: P, CONV: C}.items():
        assert torch.equal(modules[module].down, original[f"{key}.lora_down.weight"])
        assert torch.equal(modules[module].up, original[f"{key}.lora_up.weight"])


KINDS = {
    "hada": ({"hada_w1_a": (6, 2), "hada_w1_b": (2, 8), "hada_w2_a": (6, 2), "hada_w2_b": (2, 8)}, LoHa),
    "lokr": ({"lokr_w1": (2, 2), "lokr_w2_a": (3, 2), "lokr_w2_b": (2, 4)}, LoKr),
    "mid": (
        {"lora_down.weight": (2, 8, 1, 1), "lora_mid.weight": (2, 2, 3, 3), "lora_up.weight": (6, 2, 1, 1)},
        Tucker,
    ),
    "dora": ({"lora_down.weight": (2, 8), "lora_up.weight": (6, 2), "dora_scale": (6, 1)}, DoRA),
    "old dora": ({"lora_down.weight": (2, 8), "lora_up.weight": (6, 2), "dora_scale": (1, 8)}, DoRA),
    "diff": ({"diff": (6, 8)}, Dense),
}


@pytest.mark.parametrize(("tensors", "kind"), KINDS.values(), ids=KINDS)
def test_every_kind_is_read(saved, tensors, kind):
    content = {f"{Q}.{name}": torch.randn(shape) for name, shape in tensors.items()}
    layer = read_adapter(saved(content | {f"{Q}.alpha": torch.tensor(1.0)})).parts["unet"][LINEAR]
    assert type(layer) is kind
    assert layer.shape[:2] == (6, 8)
    assert layer.scale == (1.0 if kind is Dense else 0.5)


@pytest.mark.parametrize(("scale", "axis"), [((6, 1), 0), ((1, 8), 1), ((6,), 0)])
def test_the_axis_of_magnitudes_shows_in_their_shape(saved, scale, axis):
    content = {f"{Q}.lora_down.weight": torch.ones(2, 8), f"{Q}.lora_up.weight": torch.ones(6, 2)}
    layer = read_adapter(saved(content | {f"{Q}.dora_scale": torch.ones(scale)})).parts["unet"][LINEAR]
    assert layer.axis == axis


@pytest.mark.parametrize("kind", ["hada", "mid"])
def test_what_has_plain_factors_can_be_used_as_such(saved, kind):
    weight = (6, 8, 3, 3) if kind == "mid" else (6, 8)
    path = saved({f"{Q}.{name}": torch.randn(shape) for name, shape in KINDS[kind][0].items()})
    adapter = read_adapter(path)
    plain = fitted(adapter, {("unet", LINEAR): weight}, path).parts["unet"][LINEAR]
    assert type(plain) is Factors
    torch.testing.assert_close(plain.delta(), adapter.parts["unet"][LINEAR].delta(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "name"), [("lokr", "LoKr"), ("dora", "DoRA"), ("diff", "Dense")])
def test_what_has_none_is_not_taken_for_a_plain_lora(saved, kind, name):
    path = saved({f"{Q}.{name}": torch.randn(shape) for name, shape in KINDS[kind][0].items()})
    with pytest.raises(UserError, match=f"found {name} layers \\(1\\); read as a plain LoRA it would draw other"):
        fitted(read_adapter(path), SHAPES, path)


FOREIGN = {
    "oft_unet_x.oft_blocks": "blocks of an OFT (1 key)",
    "lora_unet_x.a1.weight": "factors of a GLoRA",
    "lora_unet_x.on_input": "scales of an IA3",
    "lora_unet_x.diff_b": "differences of biases",
    "lora_unet_x.w_norm": "trained norms",
    "emb_params": "a textual inversion embedding",
    "model.diffusion_model.input_blocks.0.0.weight": "weights of a whole model",
    "down_blocks.0.resnets.0.conv1.weight": "weights of a part of a diffusers model",
    "something.else": "keys of no kind known here",
}


@pytest.mark.parametrize(("key", "words"), FOREIGN.items())
def test_what_is_not_understood_is_named_and_refused(refusal, tensors, key: str, words: str):
    (message,) = refusal(tensors | {key: torch.zeros(2)})
    assert key in message
    assert words in message


def test_an_alpha_of_a_foreign_module_is_not_reported_twice(refusal):
    content = {f"{Q}.oft_blocks": torch.zeros(2), f"{Q}.alpha": torch.tensor(1.0)}
    assert len(refusal(content)) == 1


def test_a_file_without_tensors_is_no_adapter(refusal):
    (message,) = refusal({})
    assert "without tensors" in message


def test_modules_of_another_base_are_named_with_what_the_file_says_of_it(refusal, tensors):
    other = {key.replace("lora_unet_", "lora_unet_double_blocks_"): tensor for key, tensor in tensors.items()}
    message, *_ = refusal(other, {"ss_base_model_version": "flux1", "ss_sd_model_name": "dev.safetensors"})
    assert "lora_unet_double_blocks_down_blocks_0_resnets_0_conv1" in message
    assert "choose the base that it was trained on (flux1, dev.safetensors)" in message


def test_modules_that_a_base_does_not_have_are_named(refusal, tensors):
    other = {key.replace("blocks_0", "blocks_3"): tensor for key, tensor in tensors.items()}
    (message,) = refusal(other, {"ss_base_model_version": "sd_v1"}, base=True)
    assert "unet.down_blocks.3.attentions.0.proj_in" in message
    assert "expected modules of this base; found no such module" in message
    assert "(sd_v1)" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({f"{Q}.lora_up.weight": None}, [f"{Q}: expected lora_down and lora_up", "no lora_up"]),
        ({f"{Q}.lora_up.weight": torch.zeros(6, 3)}, ["of one rank", "lora_down 1x8, lora_up 6x3"]),
        ({f"{C}.lora_up.weight": torch.zeros(6, 2, 3, 3)}, ["of one rank", "lora_up 6x2x3x3"]),
        ({f"{Q}.lora_down.weight": torch.zeros(1, 8, 3, 3)}, ["for a 6x8 weight", "lora_down 1x8x3x3"]),
        ({f"{Q}.lora_down.weight": torch.zeros(8)}, ["of one rank", "lora_down 8"]),
        ({f"{Q}.lora_down.weight": torch.zeros(0, 8), f"{Q}.lora_up.weight": torch.zeros(6, 0)}, [Q, "0x8"]),
        ({f"{Q}.lora_down.weight": torch.zeros(1, 9)}, ["factors for a 6x8 weight", "lora_down 1x9"]),
        ({f"{Q}.lora_up.weight": torch.zeros(7, 1)}, ["factors for a 6x8 weight", "lora_up 7x1"]),
        ({f"{Q}.lora_down.weight": torch.zeros(1, 8, dtype=torch.int8)}, ["float16", "found int8"]),
        ({f"{Q}.lora_down.weight": torch.full((1, 8), torch.nan)}, [Q, "found NaN or infinity"]),
        ({f"{Q}.alpha": torch.tensor(torch.inf)}, [Q, "found NaN or infinity"]),
        ({f"{Q}.alpha": torch.zeros(2)}, ["an alpha of one number", "2 of them"]),
        ({f"{Q}.hada_w1_a": torch.zeros(6, 2)}, ["tensors of one kind", "hada_w1_a and lora_down and lora_up"]),
        ({f"{Q}.dora_scale": torch.ones(7)}, ["6 magnitudes", "found 7"]),
        ({f"{C}.lora_mid.weight": torch.zeros(3, 2, 3, 3)}, [C, "don't multiply"]),
    ],
)
def test_damaged_factors_name_their_module(refusal, tensors, changes: dict, words: list[str]):
    changed = {key: tensor for key, tensor in (tensors | changes).items() if tensor is not None}
    (message,) = refusal(changed, base=True)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"hada_w1_a": (6, 2), "hada_w1_b": (2, 8), "hada_w2_a": (6, 2)}, "no hada_w2_b"),
        ({"hada_w1_a": (6, 2), "hada_w1_b": (3, 8), "hada_w2_a": (6, 2), "hada_w2_b": (2, 8)}, "don't make a weight"),
        ({"hada_w1_a": (6,), "hada_w1_b": (2, 8), "hada_w2_a": (6, 2), "hada_w2_b": (2, 8)}, "halves of two"),
        ({"lokr_w1": (2, 2)}, "no lokr_w2"),
        ({"lokr_w1": (2, 2), "lokr_w2_a": (3, 2)}, "no lokr_w2_b"),
        ({"lokr_w1": (2,), "lokr_w2": (3, 4)}, "no lokr_w1_a"),
        ({"lokr_w1": (2, 2), "lokr_w2": (3,)}, "two sides"),
        ({"lokr_w1": (2, 2), "lokr_w2_a": (3, 2), "lokr_w2_b": (3, 4)}, "don't multiply"),
        ({"lokr_w1": (2, 2), "lokr_w2": (3, 4), "lokr_t2": (2, 2, 3, 3)}, "beside a side that is whole"),
        ({"diff": (8,)}, "a difference of a weight"),
        ({"dora_scale": (6, 1)}, "dora_scale"),
        ({"lora_mid.weight": (2, 2, 3, 3)}, "no lora_down and no lora_up"),
    ],
)
def test_damaged_tensors_of_other_kinds_name_what_is_wrong(refusal, tensors, words):
    (message,) = refusal({f"{Q}.{name}": torch.ones(shape) for name, shape in tensors.items()})
    assert message.find(Q) >= 0 and words in message, message


def test_all_mistakes_are_told_at_once_and_alike_ones_together(refusal, tensors):
    for key in (Q, C, P, T):
        tensors[f"{key}.w_norm"] = torch.zeros(2)
    tensors[f"{Q}.lora_up.weight"] = torch.full((6, 1), torch.nan)
    tensors[f"{T}.lora_up.weight"] = torch.full((8, 4), torch.nan)
    del tensors[f"{C}.lora_up.weight"]
    messages = refusal(tensors)
    assert len(messages) == 3
    assert "and 1 more: expected tensors of an adapter; found trained norms (4 keys)" in messages[0]
    assert any(f"{T}, {Q}: expected finite numbers" in message for message in messages)


def test_two_names_for_one_module_are_refused(refusal, tensors):
    twice = tensors | {
        key.replace("lora_te_", "lora_te1_"): tensor.clone() for key, tensor in tensors.items() if T in key
    }
    (message,) = refusal(twice)
    assert "one update a module" in message


def test_a_file_that_was_cut_short_is_refused(saved, tensors):
    path = saved(tensors)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="the file was cut short: copy or download it again"):
        read_adapter(path)


def test_a_header_that_only_the_library_refuses_is_refused_in_words(tmp_path: Path):
    header = rb'{"__metadata__":{"\ud800":""},"lora_unet_x.diff":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}'
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UserError, match="that can be mapped"):
        read_adapter(path)


def test_control_characters_of_a_file_do_not_reach_the_terminal(refusal):
    key, said = "lora_unet_\x1b[2J.lora_up.weight", "\x1b]0;title\x07" + "x" * 1000
    (message,) = refusal({key: torch.zeros(2, 2)}, {"ss_base_model_version": said})
    assert message.isprintable()
    assert len(message) < 500


# ---- families


WIDTHS = {"sd1": 768, "sd2": 1024, "sdxl": 2048}


def cross(family: str) -> dict[str, Tensor]:
    """An adapter of two layers that only this family has in these sizes."""
    made = {}
    for name, width in (("attn2_to_k", WIDTHS[family]), ("attn1_to_q", 640)):
        stem = f"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_{name}"
        if family == "sdxl":
            stem = f"lora_unet_input_blocks_4_1_transformer_blocks_0_{name}"
        made |= {f"{stem}.lora_down.weight": torch.ones(2, width), f"{stem}.lora_up.weight": torch.ones(640, 2)}
    return made


@pytest.mark.parametrize("family", WIDTHS)
def test_the_family_shows_in_the_shapes(saved, family):
    path = saved(cross(family))
    assert read_adapter(path).family == family
    assert read_adapter(path, family).family == family
    other = next(name for name in WIDTHS if name != family)
    with pytest.raises(UserError, match=f"expected an adapter for {other}; found one for {family}"):
        read_adapter(path, other)


def test_where_shapes_fit_several_the_metadata_or_the_names_decide(saved):
    both = {key: tensor for key, tensor in cross("sd1").items() if "attn1" in key}
    assert read_adapter(saved(both)).family == ""
    assert read_adapter(saved(both, {"ss_base_model_version": "sd_v2_v"})).family == "sd2"
    assert read_adapter(saved(both), "sd1").family == "sd1"
    named = {key: tensor for key, tensor in cross("sdxl").items() if "attn1" in key}
    assert read_adapter(saved(named)).family == "sdxl"


def test_one_layer_of_another_size_among_many_is_named(refusal):
    content = cross("sd1")
    stem = "lora_unet_mid_block_attentions_0_proj_in"
    content |= {f"{stem}.lora_down.weight": torch.ones(2, 1280), f"{stem}.lora_up.weight": torch.ones(1281, 2)}
    (message,) = refusal(content)
    assert "unet.mid_block.attentions.0.proj_in: expected factors for a 1280x1280x1x1 weight of sd1" in message
    assert "found lora_down 2x1280, lora_up 1281x2" in message


def test_a_kernel_that_tensors_do_not_tell_is_the_familys(saved):
    stem = "lora_unet_down_blocks_0_resnets_0_conv1"
    halves = {"hada_w1_a": (320, 2), "hada_w1_b": (2, 2880), "hada_w2_a": (320, 2), "hada_w2_b": (2, 2880)}
    content = cross("sd1") | {f"{stem}.{name}": torch.ones(shape) for name, shape in halves.items()}
    assert read_adapter(saved(content)).parts["unet"]["down_blocks.0.resnets.0.conv1"].shape == (320, 320, 3, 3)


def test_layers_have_the_dimensions_of_the_familys_weights(saved):
    stem = "lora_unet_down_blocks_0_attentions_0_proj_in"
    pair = {f"{stem}.lora_down.weight": torch.ones(2, 320), f"{stem}.lora_up.weight": torch.ones(320, 2)}
    layer = read_adapter(saved(cross("sd1") | pair)).parts["unet"]["down_blocks.0.attentions.0.proj_in"]
    assert layer.shape == (320, 320, 1, 1)
