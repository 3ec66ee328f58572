"""Bases in one file: what is loaded equals what diffusers' converters make of it, and what is no base is refused."""

from __future__ import annotations

import json
import struct
from types import SimpleNamespace

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import save_file

from engine.errors import UserError
from engine.models.load import load_family, resolve_base
from engine.models.single import open_single
from engine.models.stable import MASKED

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."


def load(path, **options):
    return load_family(str(path), dtype=options.pop("dtype", torch.float16), device="cpu", **options)


def refusal(path, **options) -> str:
    with pytest.raises(UserError) as caught:
        load(path, **options)
    return str(caught.value)


def write(tmp_path, tensors, name="base.safetensors", metadata=None):
    save_file(tensors, tmp_path / name, metadata)
    return tmp_path / name


def header_only(path, shapes: dict[str, tuple[int, ...]]):
    """A .safetensors file with these tensors, whose bytes are a hole: large shapes cost nothing."""
    at, header = 0, {}
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    return path


def vae_states(family):
    return family.vae.state_dict()


@pytest.fixture(scope="module")
def expected(sd1_tensors):
    """The three state dicts that diffusers' converters make of the small model."""
    config = {"layers_per_block": 2, "down_block_types": [""] * 4, "up_block_types": [""] * 4}
    return SimpleNamespace(
        unet=convert_ldm_unet_checkpoint(dict(sd1_tensors), config),
        vae=convert_ldm_vae_checkpoint(dict(sd1_tensors), config),
        text={name.removeprefix(TEXT): tensor for name, tensor in sd1_tensors.items() if name.startswith(TEXT)},
    )


def assert_same(states, wanted):
    assert states.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(states[name].float(), tensor.float()), name


def assert_loaded(family, expected):
    assert_same(family.parts["unet"].state_dict(), expected.unet)
    assert_same(family.parts["text_encoder"].state_dict(), expected.text)
    assert_same(vae_states(family), expected.vae)


def test_a_safetensors_file_loads_to_exactly_its_tensors(sd1_file, expected):
    family = load(sd1_file)
    assert_loaded(family, expected)
    assert family.notices == ()
    assert (family.name, family.objective, family.downscale, family.size_step) == ("sd1", "epsilon", 8, 64)
    assert (family.default_resolution, family.latent_channels, family.max_tokens) == (512, 4, 75)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_ckpt_file_with_a_trainers_luggage_loads_to_the_same_tensors(tmp_path, sd1_tensors, expected, zipped):
    luggage = {
        "epoch": 3,
        "global_step": 470000,
        "optimizer_states": [{"state": {}}],
        "state_dict": sd1_tensors
        | {
            "betas": torch.zeros(1000),
            "sqrt_one_minus_alphas_cumprod": torch.zeros(1000),
            "model_ema.decay": torch.tensor(0.99),
            "model_ema.diffusion_modelinput_blocks00weight": torch.ones(3),
            f"{TEXT}embeddings.position_ids": torch.arange(77)[None],
            "first_stage_model.loss.logvar": torch.zeros(()),
        },
    }
    torch.save(luggage, tmp_path / "base.ckpt", _use_new_zipfile_serialization=zipped)
    family = load(tmp_path / "base.ckpt")
    assert_loaded(family, expected)
    assert family.notices == ()


def renamed(tensors, pairs: dict[str, str]):
    out = {}
    for name, tensor in tensors.items():
        for old, new in pairs.items():
            name = name.replace(old, new)
        out[name] = tensor
    return out


@pytest.mark.parametrize("names", [("query", "key", "value", "proj_attn"), ("to_q", "to_k", "to_v", "to_out.0")])
def test_a_vae_attention_under_other_names_and_as_matrices_loads_to_the_same_tensors(
    tmp_path, sd1_tensors, expected, names
):
    pairs = {f"attn_1.{old}.": f"attn_1.{new}." for old, new in zip(("q", "k", "v", "proj_out"), names, strict=True)}
    pairs["attn_1.norm."] = "attn_1.group_norm."
    flat = {
        name: tensor[:, :, 0, 0].contiguous() if ".attn_1." in name and tensor.ndim == 4 else tensor
        for name, tensor in sd1_tensors.items()
    }
    assert_loaded(load(write(tmp_path, renamed(flat, pairs))), expected)


def test_text_keys_of_the_older_form_load_to_the_same_tensors(tmp_path, sd1_tensors, expected):
    older = renamed(sd1_tensors, {"transformer.text_model.": "transformer."})
    assert_loaded(load(write(tmp_path, older)), expected)


def test_a_loaded_base_survives_the_replacement_of_its_file(tmp_path, sd1_tensors, expected):
    path = write(tmp_path, sd1_tensors)
    family = load(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert_loaded(family, expected)


def test_the_whole_base_runs_from_caption_to_picture(sd1_file):
    family = load(sd1_file, dtype=torch.float32)
    text = family.encode_text(family.tokenize(["a photo of a cat"]))
    predicted = family.predict(torch.randn(1, 4, 8, 8), torch.tensor([500]), text)
    assert predicted.shape == (1, 4, 8, 8)
    assert family.decode_latents(predicted).shape == (1, 3, 64, 64)


def test_tensors_of_no_known_use_are_left_out_and_named(tmp_path, sd1_tensors):
    family = load(write(tmp_path, sd1_tensors | {"stranger.weight": torch.zeros(1), f"{UNET}odd": torch.zeros(1)}))
    (notice,) = family.notices
    assert "left out 2 tensors" in notice and "stranger.weight" in notice and f"{UNET}odd" in notice


# ---- what it predicts


@pytest.mark.parametrize(
    ("tensors", "metadata", "objective"),
    [
        ({}, None, "epsilon"),
        ({"v_pred": torch.zeros(0)}, None, "v"),
        ({}, {"modelspec.prediction_type": "v"}, "v"),
        ({}, {"modelspec.prediction_type": "epsilon"}, "epsilon"),
        ({}, {"ss_base_model_version": "sd_v1_v"}, "v"),
        ({}, {"ss_v_parameterization": "True"}, "v"),
    ],
)
def test_the_files_own_marks_say_what_it_predicts(tmp_path, ldm_layout, tensors, metadata, objective):
    shapes = {UNET + name: shape for name, shape in ldm_layout.unet(ldm_layout.small)}
    shapes |= {TEXT + name: shape for name, shape in ldm_layout.text(ldm_layout.small)}
    path = write(
        tmp_path, {name: torch.zeros(shape).half() for name, shape in shapes.items()} | tensors, metadata=metadata
    )
    assert resolve_base(str(path)).prediction == objective


def test_an_ldm_config_beside_the_file_says_what_it_predicts(tmp_path, sd1_file):
    path = tmp_path / "base.safetensors"
    path.symlink_to(sd1_file)
    assert resolve_base(str(path)).prediction == "epsilon"
    (tmp_path / "base.yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    assert resolve_base(str(path)).prediction == "v"


def test_the_user_has_the_last_word_on_what_it_predicts(sd1_file):
    family = load(sd1_file, prediction="v")
    assert family.objective == "v"
    assert family.make_scheduler().config.prediction_type == "v_prediction"
    assert family.metadata()["ss_base_model_version"] == "sd_v1_v"


def test_a_zero_snr_mark_makes_the_last_timestep_pure_noise(tmp_path, sd1_tensors):
    path = write(tmp_path, sd1_tensors | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)})
    assert load(path).alphas_cumprod[-1] < 1e-6
    (tmp_path / "plain").mkdir()
    assert load(write(tmp_path / "plain", sd1_tensors)).alphas_cumprod[-1] > 1e-3


# ---- another VAE


def test_a_vae_file_takes_the_place_of_the_bases_own(tmp_path, sd1_file, sd1_tensors):
    other = {name.removeprefix(VAE): tensor * 0.5 for name, tensor in sd1_tensors.items() if name.startswith(VAE)}
    for name, tensors in {"bare": other, "prefixed": {VAE + key: tensor for key, tensor in other.items()}}.items():
        family = load(sd1_file, vae=str(write(tmp_path, tensors, f"{name}.safetensors")))
        assert torch.equal(vae_states(family)["quant_conv.weight"], other["quant_conv.weight"].float())
        assert family.fingerprint != load(sd1_file).fingerprint
        assert family.metadata()["ss_vae_name"] == f"{name}.safetensors"
    torch.save({"state_dict": other}, tmp_path / "vae.pt")
    family = load(sd1_file, vae=str(tmp_path / "vae.pt"))
    assert torch.equal(vae_states(family)["quant_conv.weight"], other["quant_conv.weight"].float())


def test_a_base_without_a_vae_asks_for_one_and_takes_it(tmp_path, sd1_file, sd1_tensors):
    bare = write(tmp_path, {name: tensor for name, tensor in sd1_tensors.items() if not name.startswith(VAE)})
    assert "model.vae" in refusal(bare)
    assert load(bare, vae=str(sd1_file)).downscale == 8


def test_a_vae_that_does_not_fit_is_refused(sd1_file):
    from engine import tiny

    said = refusal(sd1_file, vae=str(tiny.FOLDER))
    assert "model.vae: expected latents of 4 channels and 8×8 pixels" in said and "4×4" in said


@pytest.mark.parametrize(("name", "said"), [("absent.pt", "nothing of that name"), ("horse.jpg", "a .jpg file")])
def test_a_vae_that_is_none_is_refused(tmp_path, sd1_file, name, said):
    (tmp_path / "horse.jpg").write_bytes(b"\xff\xd8")
    assert said in refusal(sd1_file, vae=str(tmp_path / name))


# ---- a base that inpaints


def test_an_inpainting_file_loads_and_says_what_it_can_do(tmp_path, sd1_tensors):
    nine = sd1_tensors[f"{UNET}input_blocks.0.0.weight"]
    nine = torch.cat([nine, torch.zeros(len(nine), 5, 3, 3, dtype=nine.dtype)], 1)
    family = load(write(tmp_path, sd1_tensors | {f"{UNET}input_blocks.0.0.weight": nine}), dtype=torch.float32)
    assert family.notices == (MASKED,) and family.latent_channels == 4
    plain = load(write(tmp_path, sd1_tensors), dtype=torch.float32)
    text = plain.encode_text(plain.tokenize(["a photo of a cat"]))
    told = {name: tensor.repeat(2, 1, 1) for name, tensor in text.items()}
    inputs = torch.randn(2, 4, 8, 8), torch.tensor([500, 3]), told
    with torch.no_grad():
        torch.testing.assert_close(family.predict(*inputs), plain.predict(*inputs), rtol=0, atol=1e-5)


def test_an_inpainting_base_sees_a_mask_of_ones_and_the_latents_of_a_grey_picture(tmp_path, sd1_tensors):
    nine = sd1_tensors[f"{UNET}input_blocks.0.0.weight"].repeat(1, 3, 1, 1)[:, :9].contiguous()
    family = load(write(tmp_path, sd1_tensors | {f"{UNET}input_blocks.0.0.weight": nine}), dtype=torch.float32)
    latents = torch.randn(2, 4, 8, 4)
    family.release_vae()
    with torch.no_grad():
        seen = family.seen(latents)
        grey, _ = family.encode_images(torch.zeros(1, 3, 64, 32))
    assert torch.equal(seen[:, :4], latents) and (seen[:, 4] == 1).all()
    assert torch.equal(seen[:, 5:], grey.expand(2, -1, -1, -1))


# ---- what is no base


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            [f"{UNET}input_blocks.0.0.weight", "cond_stage_model.model.ln_final.weight"],
            "Stable Diffusion 2 is not supported yet: this version trains SD1.x and SDXL",
        ),
        ([f"{UNET}input_blocks.0.0.weight", "conditioner.embedders.0.model.ln_final.weight"], "the refiner of"),
        ([f"{UNET}input_blocks.0.0.weight", "edm_mean"], "its own noise levels (EDM) is not"),
        ([f"{UNET}joint_blocks.0.x_block.attn.qkv.weight"], "Stable Diffusion 3 is not"),
        ([f"{UNET}double_blocks.0.img_attn.qkv.weight"], "FLUX is not"),
        (
            ["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"],
            "a LoRA; choose the base it was trained on",
        ),
        (["unet.down_blocks.0.attn1.to_q.lora_A.weight"], "a LoRA"),
        (["unet:0:up"], "a LoRA"),
        (["emb_params"], "a textual inversion"),
        (["control_model.input_blocks.0.0.weight"], "a ControlNet"),
        (["encoder.conv_in.weight"], "a VAE; name it as model.vae"),
        (["down_blocks.0.resnets.0.conv1.weight"], "a part of a diffusers folder"),
        (["text_model.final_layer_norm.weight"], "a part of a diffusers folder"),
        (["blocks.0.weight"], "1 tensors of no known kind, such as blocks.0.weight"),
        ([], "a file without named tensors"),
    ],
)
def test_a_file_of_something_else_is_refused_by_its_name(tmp_path, names, said):
    path = write(tmp_path, {name: torch.zeros(4, 4, 1, 1) for name in names})
    text = refusal(path)
    assert said in text and "base.safetensors: model.base: expected a Stable Diffusion 1.x or XL base" in text


def test_an_sd2_unet_is_recognised_by_its_width(tmp_path, ldm_layout):
    sizes = SimpleNamespace(**vars(ldm_layout.sd15) | {"context": 1024})
    path = header_only(tmp_path / "sd2.safetensors", {UNET + name: shape for name, shape in ldm_layout.unet(sizes)})
    assert "Stable Diffusion 2 is not supported yet" in refusal(path)


def test_a_file_with_tensors_missing_names_them(tmp_path, sd1_tensors):
    some = {name: tensor for name, tensor in sd1_tensors.items() if "middle_block.1" not in name}
    said = refusal(write(tmp_path, some))
    assert "26 missing: mid_block.attentions.0" in said
    without = {name: tensor for name, tensor in sd1_tensors.items() if name != f"{UNET}out.2.weight"}
    assert f"no {UNET}out.2.weight" in refusal(write(tmp_path, without))


def test_a_tensor_of_the_wrong_shape_is_named_with_both_shapes(tmp_path, sd1_tensors):
    odd = sd1_tensors | {f"{UNET}middle_block.0.in_layers.2.weight": torch.zeros(3, 3, 3, 3)}
    assert "mid_block.resnets.0.conv1.weight is [3, 3, 3, 3], not [128, 128, 3, 3]" in refusal(write(tmp_path, odd))


def test_a_unet_of_another_number_of_channels_is_refused(tmp_path, sd1_tensors):
    eight = sd1_tensors[f"{UNET}input_blocks.0.0.weight"].repeat(1, 2, 1, 1)
    said = refusal(write(tmp_path, sd1_tensors | {f"{UNET}input_blocks.0.0.weight": eight}))
    assert "expected a UNet that takes 4 channels, or 9 to inpaint; found one that takes 8" in said


def test_a_file_without_a_text_encoder_says_so(tmp_path, sd1_tensors):
    mute = {name: tensor for name, tensor in sd1_tensors.items() if not name.startswith(TEXT)}
    assert "expected a text encoder" in refusal(write(tmp_path, mute))


def test_every_misfit_of_the_text_encoder_is_reported_together(tmp_path, sd1_tensors):
    narrow = dict(sd1_tensors)
    narrow[f"{TEXT}embeddings.token_embedding.weight"] = torch.zeros(1000, 48)
    said = refusal(write(tmp_path, narrow))
    assert "a text encoder of width 32" in said and "vocabulary of 49408" in said


@pytest.mark.parametrize("kept", [4, 1000, 60_000, 200_000])
def test_a_truncated_safetensors_file_is_refused_in_words(tmp_path, sd1_file, kept):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(sd1_file.read_bytes()[:kept])
    assert "cut.safetensors: " in refusal(path)


@pytest.mark.parametrize("name", ["base.txt", "base.gguf", "base"])
def test_a_file_of_another_suffix_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    assert "choose a .safetensors or .ckpt file" in refusal(tmp_path / name)


def test_a_missing_file_is_refused_with_a_look_at_its_folder(tmp_path, sd1_tensors):
    write(tmp_path, {"a": torch.zeros(1)}, "real.safetensors")
    said = refusal(tmp_path / "reel.safetensors")
    assert "nothing of that name" in said and "real.safetensors" in said


def test_looking_a_file_up_reads_no_weights(tmp_path, ldm_layout):
    shapes = {UNET + name: shape for name, shape in ldm_layout.unet(ldm_layout.sd15)}
    shapes |= {VAE + name: shape for name, shape in ldm_layout.vae(ldm_layout.sd15)}
    shapes |= {TEXT + name: shape for name, shape in ldm_layout.text(ldm_layout.sd15)}
    path = header_only(tmp_path / "sd15.safetensors", shapes)
    assert path.stat().st_size > 2e9  # a hole, which would take minutes to read as weights
    facts = resolve_base(str(path))
    assert (facts.kind, facts.family, facts.default_resolution, facts.size_step) == ("file", "sd1", 512, 64)


def test_the_tokenizer_stops_at_the_window_of_the_files_text_encoder(sd1_file):
    tokenizer = open_single(sd1_file, "model.base").tokenizers["text_encoder"]()
    assert tokenizer.model_max_length == 77
