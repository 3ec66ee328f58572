from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.errors import UserError
from engine.formats import kohya
from engine.formats.adapter import Adapter, Factors
from engine.formats.container import read_header
from engine.formats.hashes import tensors_sha256

LINEAR, CONV, POINT, TEXT = "down.0.to_q", "down.0.conv", "down.0.proj_in", "layers.0.q_proj"
SHAPES = {
    ("unet", LINEAR): (6, 8),
    ("unet", CONV): (6, 8, 3, 3),
    ("unet", POINT): (6, 8, 1, 1),
    ("text_encoder", TEXT): (8, 8),
}
METADATA = {"ss_output_name": "cat", "modelspec.sai_model_spec": "1.0.1"}


def name(part: str, path: str) -> str:
    return {"unet": "lora_unet_", "text_encoder": "lora_te_"}[part] + path.replace(".", "_")


NAMES = {name(*target): target for target in SHAPES}
Q, C, P, T = NAMES


def factors(shape: tuple[int, ...], rank: int = 2, alpha: float = 3.0) -> Factors:
    ones = (1, 1) if len(shape) == 4 else ()
    return Factors(torch.randn(rank, *shape[1:]), torch.randn(shape[0], rank, *ones), alpha)


@pytest.fixture
def adapter() -> Adapter:
    torch.manual_seed(0)
    parts: dict[str, dict[str, Factors]] = {}
    for rank, ((part, path), shape) in enumerate(SHAPES.items(), start=1):
        parts.setdefault(part, {})[path] = factors(shape, rank)
    return Adapter(parts, dict(METADATA))


@pytest.fixture
def tensors(tmp_path: Path, adapter: Adapter) -> dict[str, Tensor]:
    """The content of a good file, to be spoiled."""
    kohya.write(tmp_path / "good.safetensors", adapter, name, "fp32")
    return load_file(tmp_path / "good.safetensors")


def refusal(tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> list[str]:
    save_file(tensors, tmp_path / "bad.safetensors", metadata)
    with pytest.raises(UserError) as caught:
        kohya.read(tmp_path / "bad.safetensors", NAMES, SHAPES)
    return [str(problem) for problem in caught.value.problems]


def test_delta_is_alpha_over_rank_times_up_times_down():
    down, up = torch.randn(2, 3, 3, 3), torch.randn(4, 2, 1, 1)
    expected = torch.zeros(4, 3, 3, 3, dtype=torch.float64)
    for channel in range(2):
        expected += 1.5 * torch.einsum("o,ihw->oihw", up[:, channel, 0, 0].double(), down[channel].double())
    torch.testing.assert_close(Factors(down, up, 3.0).delta(), expected)


def test_factors_that_do_not_multiply_are_no_factors():
    with pytest.raises(ValueError, match="don't multiply"):
        Factors(torch.zeros(2, 3), torch.zeros(3, 4), 1.0)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_what_was_written_is_read_bit_for_bit(tmp_path: Path, adapter: Adapter, precision: str):
    kohya.write(tmp_path / "a.safetensors", adapter, name, precision)
    once = kohya.read(tmp_path / "a.safetensors", NAMES, SHAPES)
    dtype = kohya.PRECISIONS[precision]
    for part, modules in adapter.parts.items():
        for path, original in modules.items():
            found = once.parts[part][path]
            assert torch.equal(found.down, original.down.to(dtype))
            assert torch.equal(found.up, original.up.to(dtype))
            assert (found.alpha, found.rank) == (original.alpha, original.rank)
    kohya.write(tmp_path / "b.safetensors", once, name, precision)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_file_does_not_depend_on_the_order_of_modules(tmp_path: Path, adapter: Adapter):
    backward = {part: dict(reversed(modules.items())) for part, modules in reversed(adapter.parts.items())}
    kohya.write(tmp_path / "a.safetensors", adapter, name, "fp16")
    kohya.write(tmp_path / "b.safetensors", Adapter(backward, adapter.metadata), name, "fp16")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_alpha_is_a_scalar_of_the_files_format_where_that_is_exact(tmp_path: Path):
    parts = {"unet": {LINEAR: factors((6, 8), alpha=16.0), CONV: factors((6, 8, 3, 3), alpha=1.1)}}
    kohya.write(tmp_path / "a.safetensors", Adapter(parts), name, "bf16")
    stored = load_file(tmp_path / "a.safetensors")
    assert (stored[f"{Q}.alpha"].dtype, stored[f"{Q}.alpha"].shape) == (torch.bfloat16, ())
    assert stored[f"{C}.alpha"].item() == pytest.approx(1.1, rel=1e-7)


def test_the_hashes_are_written_and_old_ones_replaced(tmp_path: Path, adapter: Adapter):
    path = tmp_path / "a.safetensors"
    stale = {"sshs_model_hash": "old", "sshs_legacy_hash": "old", "modelspec.hash_sha256": "old"}
    written = kohya.write(path, Adapter(adapter.parts, METADATA | stale), name, "fp16")
    assert read_header(path).metadata == written
    assert written["sshs_model_hash"] == tensors_sha256(path)
    assert written["modelspec.hash_sha256"] == "0x" + tensors_sha256(path)
    assert len(written["sshs_legacy_hash"]) == 8
    assert written["ss_output_name"] == "cat"


def test_a_stale_modelspec_hash_is_dropped_with_nothing_in_its_place(tmp_path: Path, adapter: Adapter):
    stale = Adapter(adapter.parts, {"modelspec.hash_sha256": "old"})
    assert "modelspec.hash_sha256" not in kohya.write(tmp_path / "a.safetensors", stale, name, "fp16")


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_values_that_a_format_cannot_hold_name_their_module_and_write_nothing(tmp_path: Path, adapter, value: float):
    adapter.parts["unet"][CONV].up[0, 0] = value
    with pytest.raises(UserError, match=f"{C}.lora_up.weight: expected finite numbers up to 65504"):
        kohya.write(tmp_path / "a.safetensors", adapter, name, "fp16")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_alpha_means_alpha_equals_rank(tmp_path: Path, tensors: dict[str, Tensor]):
    del tensors[f"{C}.alpha"]
    save_file(tensors, tmp_path / "a.safetensors")
    assert kohya.read(tmp_path / "a.safetensors", NAMES).parts["unet"][CONV].scale == 1.0


def test_linear_and_pointwise_factors_take_the_dimensions_of_their_layer(tmp_path: Path, tensors: dict[str, Tensor]):
    original = {key: tensor.clone() for key, tensor in tensors.items()}
    for key in (f"{Q}.lora_down.weight", f"{Q}.lora_up.weight"):
        tensors[key] = tensors[key][..., None, None].contiguous()
    for key in (f"{P}.lora_down.weight", f"{P}.lora_up.weight"):
        tensors[key] = tensors[key].flatten(1).contiguous()
    tensors[f"{C}.lora_up.weight"] = tensors[f"{C}.lora_up.weight"].flatten(1).contiguous()
    save_file(tensors, tmp_path / "a.safetensors")
    modules = kohya.read(tmp_path / "a.safetensors", NAMES, SHAPES).parts["unet"]
    for path, key in {LINEAR: Q, POINT: P, CONV: C}.items():
        assert torch.equal(modules[path].down, original[f"{key}.lora_down.weight"])
        assert torch.equal(modules[path].up, original[f"{key}.lora_up.weight"])


def test_without_the_layers_shapes_the_down_factor_decides(tmp_path: Path, tensors: dict[str, Tensor]):
    tensors[f"{C}.lora_up.weight"] = tensors[f"{C}.lora_up.weight"].flatten(1).contiguous()
    save_file(tensors, tmp_path / "a.safetensors")
    assert kohya.read(tmp_path / "a.safetensors", NAMES).parts["unet"][CONV].delta().shape == (6, 8, 3, 3)


FOREIGN = {
    "lora_unet_down_0_to_q.dora_scale": "magnitudes of a DoRA (1 key)",
    "lora_unet_x.hada_w1_a": "factors of a LoHa",
    "lora_unet_x.lokr_w2": "factors of a LoKr",
    "lora_unet_down_0_conv.lora_mid.weight": "Tucker-decomposed LoCon",
    "oft_unet_x.oft_blocks": "blocks of an OFT",
    "lora_unet_x.a1.weight": "factors of a GLoRA",
    "lora_unet_x.on_input": "scales of an IA3",
    "lora_unet_x.diff_b": "full-rank differences",
    "lora_unet_x.w_norm": "trained norms",
    "bundle_emb.cat.string_to_param.*": "embeddings bundled with a LoRA",
    "unet.down_blocks.0.attn1.to_q.lora_A.weight": "factors in PEFT's naming",
    "unet.down_blocks.0.attn1.processor.to_q_lora.down.weight": "an old naming of diffusers",
    "text_encoder.layers.0.mlp.fc1.lora_linear_layer.up.weight": "an old naming of diffusers",
    "unet:0:up": "factors of cloneofsimo's lora",
    "<s1>": "learned tokens of cloneofsimo's lora",
    "emb_params": "a textual inversion embedding",
    "model.diffusion_model.input_blocks.0.0.weight": "weights of a whole model",
    "down_blocks.0.resnets.0.conv1.weight": "weights of a part of a diffusers model",
    "something.else": "keys of no kind known here",
}


@pytest.mark.parametrize(("key", "words"), FOREIGN.items())
def test_what_is_no_plain_lora_is_named_and_refused(tmp_path: Path, tensors: dict[str, Tensor], key: str, words: str):
    (message,) = refusal(tmp_path, tensors | {key: torch.zeros(2)})
    assert key in message
    assert words in message


def test_an_alpha_of_a_foreign_module_is_not_reported_twice(tmp_path: Path):
    content = {"lora_unet_x.hada_w1_a": torch.zeros(2), "lora_unet_x.alpha": torch.tensor(1.0)}
    assert len(refusal(tmp_path, content)) == 1


def test_a_safetensors_file_without_tensors_is_no_lora(tmp_path: Path):
    (message,) = refusal(tmp_path, {})
    assert "without tensors" in message


def test_an_adapter_of_another_base_says_which(tmp_path: Path, tensors: dict[str, Tensor]):
    other = {key.replace("lora_unet_", "lora_unet_output_blocks_"): tensor for key, tensor in tensors.items()}
    (message,) = refusal(tmp_path, other, {"ss_base_model_version": "sdxl_base_v1-0", "ss_sd_model_name": "xl.ckpt"})
    assert "lora_unet_output_blocks_down_0_conv" in message
    assert "choose the base that it was trained on (sdxl_base_v1-0, xl.ckpt)" in message


def test_sdxl_is_known_by_its_second_text_encoder(tmp_path: Path, tensors: dict[str, Tensor]):
    other = {key.replace("lora_te_", "lora_te2_"): tensor for key, tensor in tensors.items()}
    assert "SDXL" in refusal(tmp_path, other)[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({f"{Q}.lora_up.weight": None}, [f"{Q}: expected lora_down and lora_up", "no .lora_up.weight"]),
        ({f"{Q}.lora_up.weight": torch.zeros(6, 3)}, ["of one rank", "lora_down 1x8, lora_up 6x3"]),
        ({f"{C}.lora_up.weight": torch.zeros(6, 2, 3, 3)}, ["of one rank", "lora_up 6x2x3x3"]),
        ({f"{Q}.lora_down.weight": torch.zeros(1, 8, 3, 3)}, ["for a 6x8 weight", "lora_down 1x8x3x3"]),
        ({f"{Q}.lora_down.weight": torch.zeros(8)}, ["of one rank", "lora_down 8"]),
        ({f"{Q}.lora_down.weight": torch.zeros(0, 8), f"{Q}.lora_up.weight": torch.zeros(6, 0)}, ["of one rank"]),
        ({f"{Q}.lora_down.weight": torch.zeros(1, 9)}, ["factors for a 6x8 weight", "lora_down 1x9"]),
        ({f"{Q}.lora_up.weight": torch.zeros(7, 1)}, ["factors for a 6x8 weight", "lora_up 7x1"]),
        ({f"{Q}.lora_down.weight": torch.zeros(1, 8, dtype=torch.int8)}, ["float16", "found I8 and F32"]),
        ({f"{Q}.lora_down.weight": torch.full((1, 8), torch.nan)}, [Q, "found NaN or infinity"]),
        ({f"{Q}.alpha": torch.tensor(torch.inf)}, [Q, "found NaN or infinity"]),
        ({f"{Q}.alpha": torch.zeros(2)}, ["an alpha of one number", "2 of them"]),
    ],
)
def test_damaged_factors_name_their_module(tmp_path: Path, tensors, changes: dict, words: list[str]):
    changed = {key: tensor for key, tensor in (tensors | changes).items() if tensor is not None}
    (message,) = refusal(tmp_path, changed)
    assert all(word in message for word in words), message


def test_all_mistakes_are_told_at_once_and_alike_ones_together(tmp_path: Path, tensors: dict[str, Tensor]):
    for key in (Q, C, P, T):
        tensors[f"{key}.dora_scale"] = torch.zeros(2)
    tensors[f"{Q}.lora_up.weight"] = torch.full((6, 1), torch.nan)
    tensors[f"{T}.lora_up.weight"] = torch.full((8, 4), torch.nan)
    del tensors[f"{C}.lora_up.weight"]
    messages = refusal(tmp_path, tensors)
    assert len(messages) == 3
    assert "and 1 more: expected a plain LoRA in kohya's naming; found magnitudes of a DoRA (4 keys)" in messages[0]
    assert any(f"{T}, {Q}: expected finite numbers" in message for message in messages)


def test_two_names_for_one_module_are_refused(tmp_path: Path, tensors: dict[str, Tensor]):
    twice = tensors | {key.replace(T, "lora_te1_alias"): tensor.clone() for key, tensor in tensors.items() if T in key}
    save_file(twice, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="one pair of factors a module"):
        kohya.read(tmp_path / "a.safetensors", NAMES | {"lora_te1_alias": ("text_encoder", TEXT)}, SHAPES)


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, tensors: dict[str, Tensor]):
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="the file was cut short: copy or download it again"):
        kohya.read(path, NAMES)


def test_a_file_is_not_replaced_by_one_that_failed(tmp_path: Path, adapter: Adapter):
    path = tmp_path / "a.safetensors"
    kohya.write(path, adapter, name, "fp16")
    before = path.read_bytes()
    adapter.parts["unet"][LINEAR].down[0, 0] = 1e6
    with pytest.raises(UserError):
        kohya.write(path, adapter, name, "fp16")
    assert path.read_bytes() == before


def test_a_header_that_only_the_library_refuses_is_refused_in_words(tmp_path: Path):
    header = rb'{"__metadata__":{"\ud800":""},"lora_unet_x.diff":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}'
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UserError, match="that the library can load"):
        kohya.read(path, NAMES)


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path: Path):
    key, said = "lora_unet_\x1b[2J.lora_up.weight", "\x1b]0;title\x07" + "x" * 1000
    (message, _) = refusal(tmp_path, {key: torch.zeros(2, 2)}, {"ss_base_model_version": said})
    assert message.isprintable()
    assert len(message) < 500
