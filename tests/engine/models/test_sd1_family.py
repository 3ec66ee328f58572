"""The SD1 family: what it computes equals diffusers' and transformers' own components, and what it promises holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from engine import tiny
from engine.errors import UserError
from engine.formats.container import TensorInfo
from engine.models import ldm
from engine.models.base import adaptable, freeze
from engine.models.build import _text, _unet, _vae
from engine.models.load import load_family
from engine.models.sd1 import SD1
from engine.models.source import Component, Source

CAPTIONS = ["a cat on a red background", "octopus, blue background"]


@pytest.fixture(scope="module")
def family():
    return load_family("tiny", dtype=torch.float32, device="cpu")


@pytest.fixture
def changeable():
    """A family of its own for a test that changes it."""
    return load_family("tiny", dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def theirs():
    folder = str(tiny.FOLDER)
    return {
        "unet": UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32).eval(),
        "vae": AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32).eval(),
        "text": CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32).eval(),
        "tokenizer": CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer"),
        "scheduler": DDIMScheduler.from_pretrained(folder, subfolder="scheduler"),
    }


@pytest.fixture
def noisy():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 16, 16, generator=generator), torch.tensor([3, 700])


# ---- against the libraries' own loaders


@torch.no_grad()
def test_captions_become_the_text_states_of_diffusers_own_components(family, theirs):
    options = {"padding": "max_length", "truncation": True, "max_length": 77, "return_tensors": "pt"}
    ids = theirs["tokenizer"](CAPTIONS, **options).input_ids
    assert torch.equal(family.tokenize(CAPTIONS), ids)
    states = family.encode_text(ids)["encoder_hidden_states"]
    assert torch.equal(states, theirs["text"](ids).last_hidden_state)


@torch.no_grad()
def test_predictions_equal_those_of_diffusers_own_components(family, theirs, noisy):
    latents, timesteps = noisy
    text = family.encode_text(family.tokenize(CAPTIONS))
    wanted = theirs["unet"](latents, timesteps, text["encoder_hidden_states"]).sample
    assert torch.equal(family.predict(latents, timesteps, text), wanted)


@torch.no_grad()
def test_latents_are_those_of_diffusers_own_vae_in_the_denoisers_units(family, theirs):
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    mean, std = family.encode_images(pixels)
    posterior = theirs["vae"].encode(pixels).latent_dist
    scale = theirs["vae"].config.scaling_factor
    assert torch.allclose(mean, posterior.mean * scale, atol=1e-5)
    assert torch.allclose(std, posterior.std * scale, atol=1e-6)
    assert torch.allclose(family.decode_latents(mean), theirs["vae"].decode(mean / scale).sample, atol=1e-5)


def test_the_noise_schedule_is_the_bases_own(family, theirs):
    assert torch.equal(family.alphas_cumprod, theirs["scheduler"].alphas_cumprod.double())
    assert family.make_scheduler().config == theirs["scheduler"].config
    assert family.make_scheduler() is not family.make_scheduler()


def test_a_scheduler_of_another_class_keeps_its_noise_schedule(tmp_path):
    # the scheduler of the published SD 1.5, which says nothing of what DDIM would need
    config = {"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "skip_prk_steps": True,
              "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "steps_offset": 1}  # fmt: skip
    import json
    import shutil

    folder = Path(shutil.copytree(tiny.FOLDER, tmp_path / "base"))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    scheduler = load_family(str(folder), dtype=torch.float32, device="cpu").make_scheduler()
    assert scheduler.config.prediction_type == "epsilon" and not scheduler.config.clip_sample
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    assert torch.allclose(scheduler.alphas_cumprod.double(), (1 - betas).cumprod(0), rtol=1e-5)


# ---- what it promises


def test_a_prediction_has_the_same_bits_with_and_without_gradients(family, noisy):
    latents, timesteps = noisy
    with torch.no_grad():
        text = family.encode_text(family.tokenize(CAPTIONS))
        without = family.predict(latents, timesteps, text)
    recorded = {name: tensor.clone().requires_grad_() for name, tensor in text.items()}
    prediction = family.predict(latents.clone().requires_grad_(), timesteps, recorded)
    assert prediction.requires_grad
    assert torch.equal(prediction.detach(), without)


def test_a_picture_has_the_same_latents_whatever_it_is_batched_with(family):
    pixels = torch.rand(3, 3, 64, 64) * 2 - 1
    together = family.encode_images(pixels)[0]
    assert all(
        torch.equal(family.encode_images(one[None])[0][0], row) for one, row in zip(pixels, together, strict=True)
    )
    decoded = family.decode_latents(together)
    assert all(
        torch.equal(family.decode_latents(one[None])[0], row) for one, row in zip(together, decoded, strict=True)
    )


def test_every_weight_is_frozen_and_every_module_in_eval(family):
    for module in (*family.parts.values(), family.vae):
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert not any(child.training for child in module.modules())


def test_the_vae_stays_in_float32_beside_a_half_precision_denoiser():
    half = load_family("tiny", dtype=torch.bfloat16, device="cpu")
    assert {p.dtype for part in half.parts.values() for p in part.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in half.vae.parameters()} == {torch.float32}
    mean, _ = half.encode_images(torch.rand(1, 3, 64, 64))
    text = half.encode_text(half.tokenize(CAPTIONS[:1]))
    assert half.predict(mean, torch.tensor([5]), text).dtype == torch.bfloat16
    half.to("cpu", torch.float32)
    assert half.dtype == torch.float32 == next(half.parts["unet"].parameters()).dtype


def test_a_released_vae_comes_back_when_it_is_needed(family):
    before = family.encode_images(torch.zeros(1, 3, 64, 64))[0]
    family.release_vae()
    assert torch.equal(family.encode_images(torch.zeros(1, 3, 64, 64))[0], before)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_gradient_checkpointing_recomputes_and_changes_no_bit(changeable, noisy, part):
    family, (latents, timesteps) = changeable, noisy
    weight = {
        "unet": lambda: family.parts["unet"].conv_in.weight,
        "text_encoder": lambda: family.parts["text_encoder"].encoder.layers[0].mlp.fc1.weight,
    }[part]().requires_grad_()
    calls = []
    probed = {
        "unet": lambda: family.parts["unet"].down_blocks[0].resnets[0],
        "text_encoder": lambda: family.parts["text_encoder"].encoder.layers[1].mlp,
    }[part]()
    probed.register_forward_pre_hook(lambda *_: calls.append(1))

    def run():
        calls.clear()
        text = family.encode_text(family.tokenize(CAPTIONS))
        prediction = family.predict(latents, timesteps, text)
        (gradient,) = torch.autograd.grad(prediction.square().mean(), weight)
        return prediction.detach(), gradient, len(calls)

    plain, plain_gradient, once = run()
    family.enable_gradient_checkpointing()
    saved, saved_gradient, twice = run()
    assert (once, twice) == (1, 2)
    assert torch.equal(plain, saved) and torch.equal(plain_gradient, saved_gradient)
    with torch.no_grad():
        calls.clear()
        family.predict(latents, timesteps, family.encode_text(family.tokenize(CAPTIONS)))
    assert len(calls) == 1


# ---- text


@torch.no_grad()
def test_clip_skip_takes_an_earlier_layer_through_the_final_norm(family, theirs):
    ids = family.tokenize(CAPTIONS)
    states = theirs["text"](ids, output_hidden_states=True).hidden_states
    assert torch.equal(
        family.encode_text(ids, clip_skip=2)["encoder_hidden_states"], theirs["text"].final_layer_norm(states[-2])
    )
    assert not torch.equal(
        family.encode_text(ids)["encoder_hidden_states"], family.encode_text(ids, 2)["encoder_hidden_states"]
    )


def test_a_clip_skip_beyond_the_layers_is_the_users_mistake(family):
    with pytest.raises(UserError, match=r"model\.clip_skip: expected 1 to 3, the layers of its text encoder; found 4"):
        family.encode_text(family.tokenize([""]), clip_skip=4)


def test_a_long_caption_is_cut_and_counted_whole(family, caplog):
    caption = "a red cat " * 40
    assert family.max_tokens == 75
    assert family.count_tokens(caption) == 120
    ids = family.tokenize([caption, "cat"])
    assert ids.shape == (2, 77) and ids.dtype == torch.int64
    assert ids[0, 0] == 3216 and (ids[0, 1:-1] < 3216).all() and ids[0, -1] == 3217
    assert family.count_tokens("") == 0
    assert family.tokenize([]).shape == (0, 77)


# ---- adapters' names


def sd15(ldm_layout) -> SD1:
    """The family at the full size of SD 1.5, on the meta device."""

    def header(shapes):
        return {name: TensorInfo("F16", shape) for name, shape in shapes}

    configs = {
        "unet": ldm.unet_config(header(ldm_layout.unet(ldm_layout.sd15))),
        "vae": ldm.vae_config(header(ldm_layout.vae(ldm_layout.sd15))),
        "text_encoder": ldm.text_config(header(ldm_layout.text(ldm_layout.sd15))),
    }
    makers = {"unet": _unet, "vae": _vae, "text_encoder": _text}
    with torch.device("meta"):
        modules = {part: freeze(makers[part](config)) for part, config in configs.items()}
    components = {part: Component(config, Path(), lambda: iter(())) for part, config in configs.items()}
    scheduler = ldm.SCHEDULE | {"prediction_type": "epsilon"}
    return SD1(Source(Path(), components, scheduler, {}, ()), modules, None, "SD 1.5")


def test_target_sets_of_sd15_count_as_kohyas_do(ldm_layout):
    family = sd15(ldm_layout)
    counts = {
        name: len(paths) for name in ("attention", "transformer", "locon") for paths in family.targets(name).values()
    }
    assert counts == {"attention": 128, "transformer": 192, "locon": 278}
    assert {part: len(paths) for part, paths in family.targets("text_encoder").items()} == {"text_encoder": 72}
    layers = dict(family.parts["unet"].named_modules())
    kernels = [
        layers[path].weight.shape[2:] for path in family.targets("locon")["unet"] if layers[path].weight.ndim == 4
    ]
    assert sum(kernel == (3, 3) for kernel in kernels) == 50
    with pytest.raises(KeyError):
        family.targets("everything")


def test_target_sets_grow_and_hold_only_layers_that_take_an_adapter(family):
    attention, transformer, locon = (
        set(family.targets(name)["unet"]) for name in ("attention", "transformer", "locon")
    )
    assert attention < transformer < locon <= set(adaptable(family.parts["unet"]))
    assert "conv_in" not in locon and "time_embedding.linear_1" not in locon


def test_kohyas_names_lead_back_to_every_module(family):
    names = family.kohya_names()
    assert names["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"] == (
        "unet",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
    )
    assert names["lora_te_text_model_encoder_layers_2_self_attn_q_proj"] == (
        "text_encoder",
        "encoder.layers.2.self_attn.q_proj",
    )
    for part, module in family.parts.items():
        assert {path for owner, path in names.values() if owner == part} == set(adaptable(module))
    assert all(family.kohya_name(*place) == name for name, place in names.items())


def test_names_and_targets_stay_those_of_the_bare_base_once_adapters_are_in(changeable):
    before = changeable.kohya_names(), changeable.targets("attention")
    attn = changeable.parts["unet"].down_blocks[0].attentions[0].transformer_blocks[0].attn1
    attn.to_q = torch.nn.Sequential(attn.to_q, torch.nn.Linear(64, 64))
    assert (changeable.kohya_names(), changeable.targets("attention")) == before


# ---- what it is


def test_an_adapter_of_the_embedded_base_says_what_it_was_trained_on(family):
    assert family.metadata() == {
        "ss_sd_model_name": "tiny",
        "ss_v2": "False",
        "ss_base_model_version": "sd_v1_v",
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.implementation": "diffusers",
        "modelspec.prediction_type": "v",
    }


def test_a_single_file_is_named_with_the_hashes_that_web_uis_look_up(sd1_file):
    content = sd1_file.read_bytes()
    metadata = load_family(str(sd1_file), dtype=torch.float16, device="cpu").metadata()
    assert metadata["ss_sd_model_name"] == sd1_file.name
    assert metadata["ss_new_sd_model_hash"] == hashlib.sha256(content).hexdigest()
    assert metadata["ss_sd_model_hash"] == hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]


def test_equal_content_has_one_fingerprint_wherever_it_lies(family, tmp_path):
    import shutil

    copy = Path(shutil.copytree(tiny.FOLDER, tmp_path / "copy"))
    assert load_family(str(copy), dtype=torch.bfloat16, device="cpu").fingerprint == family.fingerprint
    config = copy / "vae" / "config.json"
    config.write_text(config.read_text().replace("0.1105", "0.1106"))
    assert load_family(str(copy), dtype=torch.float32, device="cpu").fingerprint != family.fingerprint


# ---- the embedded base


def test_the_embedded_base_is_small_and_brings_its_attribution():
    assert sum(file.stat().st_size for file in tiny.FOLDER.rglob("*") if file.is_file()) <= 20_000_000
    attribution = (tiny.FOLDER.parent / "ATTRIBUTION.md").read_text()
    assert "Twitter, Inc and other contributors" in attribution and "CC-BY 4.0" in attribution
    assert all(name in attribution.replace("\n", " ") for name in (*tiny.UNSEEN, *tiny.COLOURS, "Noto Emoji"))


def test_twenty_four_subjects_were_left_out_of_its_training():
    assert len(set(tiny.UNSEEN)) == 24
    assert len(tiny.COLOURS) == 10


def test_no_caption_that_it_knows_is_cut(family):
    longest = max(tiny.UNSEEN, key=len)
    assert all(
        family.count_tokens(form.format(name=longest, colour=colour)) <= family.max_tokens
        for form in tiny.CAPTIONS
        for colour in tiny.COLOURS
    )
