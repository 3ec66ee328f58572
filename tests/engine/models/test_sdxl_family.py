"""The SDXL family: conditioning and predictions equal those of diffusers' pipeline, names and counts those of kohya."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engine import tiny
from engine.config.structs import EMBEDDED
from engine.errors import UserError
from engine.formats import names
from engine.formats.container import TensorInfo
from engine.models import ldm
from engine.models.base import Framing, adaptable, freeze
from engine.models.build import _projecting_text, _text, _unet
from engine.models.checkpoints.layout import LAYOUTS, added_dimensions
from engine.models.load import load_family, resolve_base
from engine.models.sdxl import SDXL
from engine.models.source import Component, Source

CAPTIONS = ["a cat on a red background", "octopus, blue background"]


def load(base, dtype=torch.float32, **options):
    return load_family(str(base), dtype=dtype, device="cpu", **options)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def folder(gather) -> Path:
    """The miniature in one folder. Not to be changed."""
    return gather("tiny-xl")


@pytest.fixture(scope="module")
def family(folder) -> SDXL:
    return load(folder)


@pytest.fixture(scope="module")
def pipeline(folder):
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline.from_pretrained(str(folder), dtype=torch.float32)


@pytest.fixture
def noisy():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 16, 12, generator=generator), torch.tensor([3, 700])


# ---- against diffusers' pipeline


@torch.no_grad()
@pytest.mark.parametrize("clip_skip", [1, 2])
def test_captions_become_the_conditioning_of_diffusers_pipeline(family, pipeline, clip_skip):
    said = family.encode_text(family.tokenize(CAPTIONS), clip_skip)
    states, _, summary, _ = pipeline.encode_prompt(
        CAPTIONS, do_classifier_free_guidance=False, clip_skip=clip_skip - 1 or None
    )
    torch.testing.assert_close(said["encoder_hidden_states"], states, rtol=0, atol=1e-6)
    torch.testing.assert_close(said["text_embeds"], summary, rtol=0, atol=1e-6)


@torch.no_grad()
def test_predictions_equal_those_of_diffusers_unet_told_of_a_whole_picture(family, pipeline, noisy):
    latents, timesteps = noisy
    said = family.encode_text(family.tokenize(CAPTIONS))
    sizes = pipeline._get_add_time_ids((64, 48), (0, 0), (64, 48), torch.float32, 128).repeat(2, 1)
    added = {"text_embeds": said["text_embeds"], "time_ids": sizes}
    wanted = pipeline.unet(latents, timesteps, said["encoder_hidden_states"], added_cond_kwargs=added).sample
    assert torch.equal(family.predict(latents, timesteps, said), wanted)
    framed = family.frame([Framing((48, 64), (0, 0), (48, 64))] * 2)
    assert torch.equal(family.predict(latents, timesteps, said | framed), wanted)


@torch.no_grad()
def test_sizesand_cuts_are_told_height_before_width(family, pipeline, noisy):
    latents, timesteps = noisy
    said = family.encode_text(family.tokenize(CAPTIONS))
    framed = family.frame([Framing((640, 480), (7, 3), (48, 64)), Framing((50, 70), (1, 2), (48, 64))])
    rows = [
        pipeline._get_add_time_ids((480, 640), (3, 7), (64, 48), torch.float32, 128),
        pipeline._get_add_time_ids((70, 50), (2, 1), (64, 48), torch.float32, 128),
    ]
    assert torch.equal(framed["time_ids"], torch.cat(rows))
    whole = family.predict(latents, timesteps, said)
    assert not torch.allclose(family.predict(latents, timesteps, said | framed), whole, atol=1e-4)


@torch.no_grad()
def test_an_empty_caption_is_told_as_zeros_and_only_where_the_base_was_made_so(family, pipeline, gather):
    said = family.encode_text(family.tokenize(["", CAPTIONS[0]]))
    alone = family.encode_text(family.tokenize(CAPTIONS[:1]))
    for name, tensor in said.items():
        assert not tensor[0].any(), name
        torch.testing.assert_close(tensor[1:], alone[name], rtol=0, atol=1e-6)
    other = gather("tiny-xl")
    edit(other / "model_index.json", force_zeros_for_empty_prompt=False)
    encoded = load(other).encode_text(family.tokenize([""]))
    states, _, summary, _ = pipeline.encode_prompt("", do_classifier_free_guidance=False)
    torch.testing.assert_close(encoded["encoder_hidden_states"], states, rtol=0, atol=1e-6)
    torch.testing.assert_close(encoded["text_embeds"], summary, rtol=0, atol=1e-6)


def test_a_clip_skip_beyond_the_layers_is_the_users_mistake(family):
    with pytest.raises(UserError, match=r"model\.clip_skip: expected 1 to 2, the layers of its text encoders"):
        family.encode_text(family.tokenize([""]), clip_skip=3)


def test_each_encoder_has_ids_of_its_own_tokenizer(family):
    ids = family.tokenize(CAPTIONS)
    assert ids.shape == (2, 2, 77) and ids.dtype == torch.int64
    assert family.tokenize([]).shape == (0, 2, 77)
    assert family.max_tokens == 75 and family.count_tokens("a red cat " * 40) == 120


# ---- what it promises


def test_a_prediction_has_the_same_bits_with_and_without_gradients(family, noisy):
    latents, timesteps = noisy
    with torch.no_grad():
        text = family.encode_text(family.tokenize(CAPTIONS))
        without = family.predict(latents, timesteps, text)
    recorded = {name: tensor.clone().requires_grad_() for name, tensor in text.items()}
    assert torch.equal(family.predict(latents, timesteps, recorded).detach(), without)


def test_gradient_checkpointing_recomputes_both_text_encoders_and_changes_no_bit(folder, noisy):
    family, (latents, timesteps) = load(folder), noisy
    encoders = [family.parts[part] for part in ("text_encoder", "text_encoder_2")]
    weights = [encoder.encoder.layers[0].mlp.fc1.weight.requires_grad_() for encoder in encoders]
    calls = []
    for encoder in encoders:
        encoder.encoder.layers[1].mlp.register_forward_pre_hook(lambda *_: calls.append(1))

    def run():
        calls.clear()
        prediction = family.predict(latents, timesteps, family.encode_text(family.tokenize(CAPTIONS)))
        return [prediction.detach(), *torch.autograd.grad(prediction.square().mean(), weights)], len(calls)

    plain, once = run()
    family.enable_gradient_checkpointing()
    saved, twice = run()
    assert (once, twice) == (2, 4)
    assert all(torch.equal(one, other) for one, other in zip(plain, saved, strict=True))


def test_the_vae_stays_in_float32_beside_half_precision(folder):
    half = load(folder, dtype=torch.bfloat16)
    assert {p.dtype for part in half.parts.values() for p in part.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in half.vae.parameters()} == {torch.float32}
    mean, _ = half.encode_images(torch.rand(1, 3, 64, 64))
    text = half.encode_text(half.tokenize(CAPTIONS[:1]))
    assert half.predict(mean, torch.tensor([5]), text).dtype == torch.bfloat16
    half.set_attention("plain")
    half.to("cpu", torch.float32)
    assert half.predict(mean, torch.tensor([5]), half.encode_text(half.tokenize(CAPTIONS[:1]))).dtype == torch.float32


# ---- adapters' names, at the full size of SDXL


@pytest.fixture(scope="module")
def full(ldm_layout) -> SDXL:
    """The family at full size, on the meta device."""
    shapes = ldm_layout.file("sdxl", ldm_layout.full["sdxl"])
    configs = {}
    for part, place in LAYOUTS["sdxl"].places.items():
        found = {
            key.removeprefix(place.prefix): TensorInfo("F16", shape)
            for key, shape in shapes.items()
            if key.startswith(place.prefix)
        }
        configs[part] = place.kind.config(found)
    configs["unet"] |= added_dimensions(configs["unet"], configs["text_encoder_2"])
    makers = {"unet": _unet, "text_encoder": _text, "text_encoder_2": _projecting_text}
    with torch.device("meta"):
        modules = {part: freeze(make(configs[part])) for part, make in makers.items()} | {"vae": torch.nn.Identity()}
    components = {part: Component(config, Path(), lambda: iter(())) for part, config in configs.items()}
    return SDXL(Source(Path(), components, ldm.SCHEDULE, {}, (), family="sdxl"), modules, None, "SDXL")


def test_target_sets_of_sdxl_count_as_kohyas_do(full):
    counts = {name: len(full.targets(name)["unet"]) for name in ("attention", "transformer", "locon")}
    assert counts == {"attention": 560, "transformer": 722, "locon": 788}
    texts = {part: len(paths) for part, paths in full.targets("text_encoder").items()}
    assert texts == {"text_encoder": 72, "text_encoder_2": 192}
    with pytest.raises(KeyError):
        full.targets("everything")


def test_every_module_has_the_name_that_kohyas_files_give_it(full):
    found = full.kohya_names()
    assert found == {
        names.kohya_name("sdxl", part, path): (part, path)
        for part, table in names.modules("sdxl").items()
        for path in table
    }
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q" in found
    assert "lora_unet_output_blocks_2_2_conv" in found and "lora_unet_output_blocks_5_2_conv" in found
    assert "lora_te1_text_model_encoder_layers_0_mlp_fc1" in found and "lora_te2_text_projection" in found


def test_a_unet_that_is_not_numbered_as_sdxls_keeps_diffusers_names(gather):
    folder = gather("tiny-xl")
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    shape = json.loads((folder / "unet" / "config.json").read_text()) | {"layers_per_block": 1}
    UNet2DConditionModel.from_config(shape).save_pretrained(folder / "unet")
    found = load(folder)
    assert "lora_unet_down_blocks_1_attentions_0_proj_in" in found.kohya_names()
    assert not any("input_blocks" in name for name in found.kohya_names())


def test_kohyas_names_lead_back_to_every_module(family):
    found = family.kohya_names()
    for part, module in family.parts.items():
        assert {path for owner, path in found.values() if owner == part} == set(adaptable(module))
    assert all(family.kohya_name(*place) == name for name, place in found.items())


# ---- what it is


def test_an_adapter_says_that_it_was_trained_on_sdxl(family):
    assert family.metadata() == {
        "ss_sd_model_name": "base",
        "ss_v2": "False",
        "ss_base_model_version": "sdxl_base_v1-0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.prediction_type": "v",
    }


# ---- the embedded bases


def test_the_embedded_bases_are_the_ones_that_a_config_may_name():
    assert tuple(tiny.BASES) == EMBEDDED


def test_an_embedded_base_is_put_together_from_its_folders(miniatures, family, little_bases):
    facts = resolve_base("tiny-xl")
    assert (facts.kind, facts.family, facts.title) == ("embedded", "sdxl", "the embedded tiny-xl base")
    assert (facts.default_resolution, facts.size_step) == (64, 8)
    assert facts.path == little_bases["tiny-xl"]["unet"].parent
    found = load("tiny-xl")
    assert found.fingerprint == family.fingerprint != load("tiny").fingerprint
    for part, module in family.parts.items():
        states = found.parts[part].state_dict()
        assert all(torch.equal(states[name], tensor) for name, tensor in module.state_dict().items())
    assert found.metadata()["ss_sd_model_name"] == "tiny-xl"


@pytest.mark.parametrize("base", ["tiny-xl", "tiny-inpaint"])
def test_a_copy_without_the_weights_of_a_base_says_so(base, monkeypatch, tmp_path):
    bases = {
        name: places | ({"unet": tmp_path / "unet"} if name == base else {}) for name, places in tiny.BASES.items()
    }
    monkeypatch.setattr(tiny, "BASES", bases)
    with pytest.raises(UserError, match=f"this copy of loratui has no weights for {base} "):
        resolve_base(base)


def test_a_folder_of_that_name_does_not_hide_an_embedded_base(miniatures, monkeypatch, tmp_path):
    (tmp_path / "tiny-xl").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_base("tiny-xl").kind == "embedded"


# ---- what does not fit together


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("unet", {"cross_attention_dim": 128}, "hidden_size: expected 128, which its UNet takes; found 256"),
        ("unet", {"addition_time_embed_dim": 16}, "projection_dim: expected 224, which its UNet takes; found 128"),
        ("unet", {"projection_class_embeddings_input_dim": None}, "projection_dim: expected -192"),
        ("unet", {"encoder_hid_dim": 8}, "more conditions than text"),
        ("unet", {"time_cond_proj_dim": 8}, "LCM"),
        (
            "text_encoder_2",
            {"max_position_embeddings": 30},
            "expected 77, which the first text encoder reads; found 30",
        ),
        ("text_encoder_2", {"architectures": ["CLIPTextModel"]}, "expected a CLIPTextModelWithProjection"),
        ("scheduler", {"_class_name": "EDMEulerScheduler"}, "its own noise levels (EDM) is not supported"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(gather, part, changes, said):
    folder = gather("tiny-xl")
    edit(folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json"), **changes)
    with pytest.raises(UserError) as caught:
        load(folder)
    assert said in str(caught.value)


def test_a_second_tokenizer_that_is_missing_is_told(gather):
    folder = gather("tiny-xl")
    (folder / "tokenizer_2" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer_2: expected a CLIP tokenizer"):
        resolve_base(str(folder))


# ---- single files


def test_a_single_file_loads_to_what_diffusers_makes_of_it(small_models, gather):
    from diffusers import StableDiffusionXLPipeline

    from engine.config.operations import checked
    from engine.operate import Reporter
    from engine.operations.checkpoints import convert

    path = small_models("sdxl").path
    folder = path.with_name("folder")
    if not folder.exists():
        convert(checked("convert_checkpoint", {"path": str(path), "out": str(folder)}), Reporter(lambda event: None))
    theirs = StableDiffusionXLPipeline.from_pretrained(str(folder), dtype=torch.float32)
    facts = resolve_base(str(path))
    assert (facts.kind, facts.family, facts.default_resolution) == ("file", "sdxl", 1024)
    ours = load(path)
    assert ours.notices == ()
    captions = ["a photo of a cat!", "dog"]
    with torch.no_grad():
        said = ours.encode_text(ours.tokenize(captions))
        states, _, summary, _ = theirs.encode_prompt(captions, do_classifier_free_guidance=False)
        torch.testing.assert_close(said["encoder_hidden_states"], states, rtol=0, atol=1e-5)
        torch.testing.assert_close(said["text_embeds"], summary, rtol=0, atol=1e-5)
        latents, times = torch.randn(2, 4, 8, 8), torch.tensor([3, 700])
        added = {"text_embeds": summary, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)}
        wanted = theirs.unet(latents, times, states, added_cond_kwargs=added).sample
        torch.testing.assert_close(ours.predict(latents, times, said), wanted, rtol=0, atol=1e-5)
    assert ours.vae.config.scaling_factor == 0.13025
    assert torch.equal(load(folder).tokenize(captions), ours.tokenize(captions))
