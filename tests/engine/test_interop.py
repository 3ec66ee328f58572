"""The adapter file in diffusers: what `load_lora_weights` makes of it draws the picture that our own layers draw.

Two files: one drawn at random over every module that a target set holds, and one that a training run has written. Both
have a rank, alpha and strength that differ, and five DDIM steps with guidance; latents and pictures are compared as
floats.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine import protocol, tiny
from engine.config import Request, to_toml
from engine.formats import kohya
from engine.formats.adapter import Adapter, Factors
from engine.jobs.generate import read_adapter
from engine.lora.compose import compose
from engine.lora.inject import apply, remove
from engine.models.load import load_family
from engine.sampling import sampler
from engine.worker import run_job

PICTURE = sampler.Request("a cat on a red background", "blurry", 42, 64, 64, 5, 4.0)
LIMIT = 1e-4


@pytest.fixture(scope="module")
def family():
    return load_family("tiny", dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def loaded():
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(str(tiny.FOLDER), safety_checker=None, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def pipeline(loaded):
    """diffusers' pipeline, without adapters again after each test."""
    yield loaded
    loaded.unload_lora_weights()
    loaded._lora_scale = 1.0  # of the last call, and otherwise that of the next file


def random_adapter(family, seed: int, rank: int, alpha: float, targets=("locon", "text_encoder")) -> Adapter:
    """An adapter of every module of the target sets, strong enough to change the picture and weak enough to be one."""
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for target in targets:
        for part, paths in family.targets(target).items():
            for path in paths:
                weight = family.parts[part].get_submodule(path).weight
                ones = (1, 1) if weight.ndim == 4 else ()
                down = torch.randn(rank, *weight.shape[1:], generator=generator) / weight[0].numel() ** 0.5
                up = torch.randn(len(weight), rank, *ones, generator=generator) * 0.2 * rank**0.5 / alpha
                parts.setdefault(part, {})[path] = Factors(down, up, alpha)
    return Adapter(parts)


@pytest.fixture(scope="module")
def files(family, tmp_path_factory) -> dict[str, Path]:
    """Adapter files in our own writing, in two number formats."""
    folder = tmp_path_factory.mktemp("adapters")
    made = {
        "first": (random_adapter(family, 1, rank=4, alpha=3.0), "fp32"),
        "second": (random_adapter(family, 2, rank=2, alpha=5.0, targets=("attention", "text_encoder")), "fp16"),
    }
    for name, (adapter, precision) in made.items():
        kohya.write(folder / f"{name}.safetensors", adapter, family.kohya_name, precision)
    return {name: folder / f"{name}.safetensors" for name in made}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The file of a short run over convolutions and text encoder, alpha not the rank and a set with its own rank."""
    folder = tmp_path_factory.mktemp("trained")
    pictures = folder / "pictures"
    pictures.mkdir()
    for index, colour in enumerate(("red", "blue")):
        Image.new("RGB", (64, 64), colour).save(pictures / f"{index}.png")
    request = Request()
    request.lay({"kind": "train", "model": {"base": "tiny"}, "prior": {"weight": 0.0}, "name": "colours"}, "test")
    request.lay({"dataset": {"subsets": [{"path": str(pictures), "class_tokens": "ohwx"}]}}, "test")
    request.lay({"training": {"steps": 6, "validate_every": 0}, "saving": {"every": 0, "precision": "fp32"}}, "test")
    request.lay({"adapter": {"rank": 4, "alpha": 6, "targets": "locon"}}, "test")
    request.lay({"adapter": {"sets": [{"targets": "unet.mid_block.*", "rank": 2, "alpha": 1}]}}, "test")
    request.lay({"optimizer": {"lr_unet": 1e-2, "lr_text": 5e-3}, "runtime": {"device": "cpu"}}, "test")
    (folder / protocol.CONFIG).write_text(to_toml(request.checked()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORATUI_WORKSPACE", str(folder))
        assert run_job(folder) == protocol.DONE
    return folder / "colours.safetensors"


def ours(family, *used: tuple[Path, float]) -> tuple[torch.Tensor, np.ndarray]:
    """Latents, and the picture in 0 … 1, [h, w, 3], of our own layers."""
    adapters = [(read_adapter(family, path), weight) for path, weight in used]
    layers = apply(family.parts, compose(adapters))
    try:
        latents = sampler.denoise(family, [PICTURE])
    finally:
        remove(family.parts, layers)
    with torch.no_grad():
        pixels = (family.decode_latents(latents)[0] / 2 + 0.5).clamp(0, 1)
    return latents, pixels.permute(1, 2, 0).numpy()


def theirs(pipeline, **options) -> tuple[torch.Tensor, np.ndarray]:
    """The same of diffusers with whatever is loaded."""
    latents = pipeline(
        PICTURE.prompt,
        negative_prompt=PICTURE.negative,
        generator=torch.Generator().manual_seed(PICTURE.seed),
        num_inference_steps=PICTURE.steps,
        guidance_scale=PICTURE.guidance_scale,
        width=PICTURE.width,
        height=PICTURE.height,
        output_type="latent",
        **options,
    ).images
    with torch.no_grad():
        pixels = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return latents, pipeline.image_processor.postprocess(pixels, output_type="np")[0]


def load(pipeline, path: Path) -> str:
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=path.stem)
    return path.stem


def assert_same(mine, other) -> None:
    torch.testing.assert_close(mine[0], other[0], rtol=0, atol=LIMIT)
    np.testing.assert_allclose(mine[1], other[1], rtol=0, atol=LIMIT)


def assert_far(mine, other) -> None:
    assert (mine[0] - other[0]).abs().max() > 0.1 and np.abs(mine[1] - other[1]).max() > 0.05


@pytest.mark.parametrize("name", ["first", "second"])
def test_a_written_file_draws_in_diffusers_what_our_layers_draw(family, pipeline, files, name):
    load(pipeline, files[name])
    mine = ours(family, (files[name], 1.0))
    assert_same(mine, theirs(pipeline))
    assert_far(mine, ours(family))


def test_a_trained_file_draws_in_diffusers_what_our_layers_draw(family, pipeline, trained):
    adapter = read_adapter(family, trained)
    modules = [factors for paths in adapter.parts.values() for factors in paths.values()]
    assert {"unet", "text_encoder"} == set(adapter.parts) and {(4, 6.0), (2, 6.0)} == {
        (factors.rank, factors.alpha) for factors in modules
    }
    assert any(factors.down.ndim == 4 and factors.down.shape[-1] == 3 for factors in modules)
    assert all(factors.up.abs().max() > 0 for factors in modules)
    load(pipeline, trained)
    mine = ours(family, (trained, 1.0))
    assert_same(mine, theirs(pipeline))
    assert_far(mine, ours(family))


def test_strength_zero_is_the_base_bit_for_bit(family, files):
    plain = sampler.denoise(family, [PICTURE])
    assert torch.equal(ours(family, (files["first"], 0.0))[0], plain)
    assert torch.equal(ours(family, (files["first"], 0.0), (files["second"], 0.0))[0], plain)
    assert torch.equal(sampler.denoise(family, [PICTURE]), plain)


@pytest.mark.parametrize("strength", [0.6, -0.5, 1.5])
def test_a_strength_is_diffusers_scale(family, pipeline, files, strength):
    name = load(pipeline, files["first"])
    mine = ours(family, (files["first"], strength))
    assert_same(mine, theirs(pipeline, cross_attention_kwargs={"scale": strength}))
    pipeline.set_adapters([name], [strength])
    assert_same(mine, theirs(pipeline))
    assert_far(mine, ours(family, (files["first"], 1.0)))


def test_two_adapters_are_those_of_diffusers_with_the_same_weights(family, pipeline, files):
    names = [load(pipeline, path) for path in files.values()]
    pipeline.set_adapters(names, [0.7, -0.4])
    assert_same(ours(family, (files["first"], 0.7), (files["second"], -0.4)), theirs(pipeline))


def test_two_adapters_draw_what_the_sum_of_their_dense_updates_draws(files):
    """ΔW of both, added up in float64 and put into the weights of a base that knows no adapters."""
    family = load_family("tiny", dtype=torch.float32, device="cpu")
    weights = {"first": 0.7, "second": -0.4}
    mine = ours(family, *((files[name], weight) for name, weight in weights.items()))
    sums: dict[tuple[str, str], torch.Tensor] = {}
    for name, weight in weights.items():
        for part, modules in read_adapter(family, files[name]).parts.items():
            for path, factors in modules.items():
                sums[part, path] = sums.get((part, path), 0) + weight * factors.delta()
    for (part, path), update in sums.items():
        layer = family.parts[part].get_submodule(path)
        layer.weight.data = (layer.weight.double() + update).float()
    assert_same(mine, ours(family))
