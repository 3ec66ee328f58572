"""Bases in diffusers' layout: every way that weights are laid out in a folder, and every folder that is no SD1 base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import tiny
from engine.errors import UserError
from engine.models.folder import choose_weights
from engine.models.load import load_family, resolve_base


def load(base, **options):
    return load_family(str(base), dtype=torch.float32, device="cpu", **options)


def refusal(base, **options) -> str:
    with pytest.raises(UserError) as caught:
        load(base, **options)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the embedded base that may be changed."""
    return Path(shutil.copytree(tiny.FOLDER, tmp_path / "base"))


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def original():
    return load("tiny")


def assert_same(family, original):
    for part, module in original.parts.items():
        states = family.parts[part].state_dict()
        assert all(torch.equal(states[name], tensor) for name, tensor in module.state_dict().items())
    states = family.vae.state_dict()
    assert all(torch.equal(states[name], tensor) for name, tensor in original.vae.state_dict().items())


# ---- layouts


def test_weights_named_as_a_variant_are_found(folder, original):
    for part, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        (folder / part / f"{stem}.safetensors").rename(folder / part / f"{stem}.fp16.safetensors")
    assert_same(load(folder), original)


def test_sharded_weights_are_put_together(folder, original):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    path.unlink()
    names = sorted(tensors)
    shards = {"diffusion_pytorch_model-00001-of-00002.safetensors": names[::2],
              "diffusion_pytorch_model-00002-of-00002.safetensors": names[1::2]}  # fmt: skip
    for shard, keys in shards.items():
        save_file({key: tensors[key] for key in keys}, folder / "unet" / shard)
    index = {"weight_map": {key: shard for shard, keys in shards.items() for key in keys}}
    index_path = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index_path.write_text(json.dumps(index))
    assert_same(load(folder), original)
    (folder / "unet" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    assert "shards that lie beside the index" in refusal(folder)


def test_a_shard_index_can_not_point_outside_its_folder(folder, tmp_path):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.move(path, tmp_path / "outside.safetensors")
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": "../../outside.safetensors"}}))
    assert "'../../outside.safetensors', which does not" in refusal(folder)


def test_a_folder_of_pickles_with_old_names_goes_through_the_safe_reader(folder, original):
    for part, old, new in (
        ("unet", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
        ("vae", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
        ("text_encoder", "model.safetensors", "pytorch_model.bin"),
    ):
        tensors = load_file(folder / part / old)
        if part == "text_encoder":
            tensors = {f"text_model.{name}": tensor for name, tensor in tensors.items()}
            tensors["text_model.embeddings.position_ids"] = torch.arange(32)[None]
        torch.save(tensors, folder / part / new)
        (folder / part / old).unlink()
    assert_same(load(folder), original)


def test_a_pickle_in_a_folder_that_asks_for_code_is_refused_by_name(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return eval, (f"open({str(tmp_path / 'payload')!r}, 'w')",)

    torch.save({"x": Evil()}, folder / "unet" / "diffusion_pytorch_model.bin")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert "builtins.eval" in refusal(folder)
    assert not (tmp_path / "payload").exists()


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"], "model.safetensors"),
        (["model.fp16.safetensors", "pytorch_model.bin"], "model.fp16.safetensors"),
        (["model.non_ema.safetensors", "model.fp16.safetensors"], "model.fp16.safetensors"),
        (["pytorch_model.fp16.bin", "pytorch_model.bin"], "pytorch_model.bin"),
        (["model.safetensors.index.json", "model-00001-of-00002.safetensors"], "model.safetensors.index.json"),
        (["model.safetensors.index.fp16.json"], "model.safetensors.index.fp16.json"),
        (["config.json", "model.onnx", "flax_model.msgpack", "openvino_model.bin"], None),
    ],
)
def test_full_precision_comes_before_fp16_and_safetensors_before_pickles(names, chosen):
    assert choose_weights(names) == chosen
    assert choose_weights(reversed(names)) == chosen


def test_a_vae_folder_takes_the_place_of_the_bases_own(folder, original):
    edit(folder / "vae" / "config.json", scaling_factor=0.5)
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    mean, std = original.encode_images(pixels)
    factor = 0.5 / original.vae.config.scaling_factor
    for given in (folder, folder / "vae"):
        family = load("tiny", vae=str(given))
        other_mean, other_std = family.encode_images(pixels)
        assert torch.allclose(other_mean, mean * factor) and torch.allclose(other_std, std * factor)
        assert family.fingerprint != original.fingerprint


def test_an_old_tokenizer_of_two_files_reads_as_the_new_one(folder, original):
    saved = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(saved["vocab"]))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in saved["merges"]]
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    captions = ["a cat on a red background", "Octopus, blue background"]
    assert torch.equal(load(folder).tokenize(captions), original.tokenize(captions))


# ---- facts


def test_the_embedded_base_is_resolved_without_any_file_of_the_user(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    facts = resolve_base("tiny")
    assert (facts.kind, facts.family, facts.default_resolution, facts.size_step) == ("embedded", "sd1", 64, 16)
    assert facts.prediction == "v" and facts.path == tiny.FOLDER


def test_a_folder_is_resolved_by_its_configs(folder):
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    facts = resolve_base(str(folder))
    assert (facts.kind, facts.path, facts.prediction) == ("folder", folder, "v")
    assert load(folder).objective == "v"


def test_resolving_a_base_imports_neither_torch_nor_diffusers():
    import subprocess
    import sys

    code = (
        "import sys; from engine.models.load import resolve_base; resolve_base('tiny');"
        "print([name for name in ('torch', 'diffusers', 'transformers', 'numpy') if name in sys.modules])"
    )
    root = tiny.FOLDER.parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- what is no base


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        ("StableDiffusion3Pipeline", "Stable Diffusion 3 is not supported yet: this version trains SD1.x and SDXL"),
        ("FluxPipeline", "FLUX.1 is not"),
        ("SomethingNewPipeline", "SomethingNew is not"),
    ],
)
def test_another_pipeline_is_refused_by_its_name(folder, pipeline, said):
    edit(folder / "model_index.json", _class_name=pipeline)
    assert said in refusal(folder)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"cross_attention_dim": 1024}, "Stable Diffusion 2 is not supported yet: this version trains SD1.x and"),
        ({"use_linear_projection": True}, "Stable Diffusion 2"),
        ({"addition_embed_type": "text_time"}, "text_encoder_2/config.json: expected a readable file"),
        (
            {"addition_embed_type": "text_time", "cross_attention_dim": 1280},
            "the refiner of Stable Diffusion XL is not",
        ),
        ({"addition_embed_type": "text"}, "more conditions than text"),
        ({"cross_attention_dim": 2048}, "without its conditions"),
        ({"time_cond_proj_dim": 256}, "LCM"),
        ({"class_embed_type": "timestep"}, "more conditions than text"),
        ({"in_channels": 9}, "conv_in.weight is [64, 4, 3, 3], not [64, 9, 3, 3]"),
        ({"in_channels": 5}, "latent_channels: expected 5, which its UNet takes; found 4"),
        ({"cross_attention_dim": 96}, "hidden_size: expected 96, which its UNet takes; found 128"),
        ({"_class_name": "UNetSpatioTemporalConditionModel"}, "expected a UNet2DConditionModel"),
        ({"block_out_channels": [64, 64, 128]}, "belong to another config"),
        ({"down_block_types": ["Nonsense"] * 3}, "one that makes none"),
    ],
)
def test_a_unet_that_is_not_sd1s_is_refused_by_what_it_is(folder, config, said):
    edit(folder / "unet" / "config.json", **config)
    assert said in refusal(folder)


def test_a_scheduler_that_predicts_something_else_is_refused(folder):
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="sample")
    assert "prediction_type: expected epsilon or v_prediction; found sample" in refusal(folder)


def test_all_that_is_missing_from_a_folder_is_reported_together(folder):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "vae" / "config.json").unlink()
    (folder / "scheduler" / "scheduler_config.json").write_text("{")
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(UserError) as caught:
        load(folder)
    said = [str(problem) for problem in caught.value.problems]
    assert len(said) == 4
    for place in ("unet", "vae/config.json", "scheduler_config.json: expected JSON", "tokenizer"):
        assert any(place in text for text in said), place


def test_truncated_weights_in_a_folder_are_refused_in_words(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:100_000])
    assert "the file was cut short" in refusal(folder)


def test_a_tokenizer_with_more_tokens_than_the_encoder_knows_is_refused(folder):
    path = folder / "tokenizer" / "tokenizer.json"
    saved = json.loads(path.read_text())
    saved["added_tokens"].append(saved["added_tokens"][0] | {"id": 3218, "content": "<s1>", "special": False})
    path.write_text(json.dumps(saved))
    assert "at most 3218 tokens" in refusal(folder)


def test_a_tokenizer_that_can_not_be_read_is_refused(folder):
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    assert "can't be read" in refusal(folder)


def test_folders_that_are_no_base_say_what_they_are(tmp_path):
    assert "a folder without model_index.json" in refusal(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert f"name one of its files, such as {tmp_path / 'model.safetensors'}" in refusal(tmp_path)
    said = refusal(tiny.FOLDER / "unet")
    assert "one part of a base model" in said and str(tiny.FOLDER) in said


@pytest.mark.parametrize("base", ["tinny", "~nobody/x", "x" * 5000, "a\0b", "/"])
def test_a_name_that_is_no_base_is_refused_in_words(base):
    assert "model.base: expected" in refusal(base)


def test_a_name_that_is_nothing_at_all_lists_what_it_could_be():
    assert "a diffusers folder, a hub id (owner/name), or a .safetensors or .ckpt file" in refusal("tinny")


def test_a_config_can_not_make_the_library_fetch_code(folder, original):
    edit(
        folder / "text_encoder" / "config.json", _attn_implementation="someone/kernel", attn_implementation="someone/k"
    )
    assert_same(load(folder), original)
