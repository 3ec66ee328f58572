"""Pictures of SDXL, and of a base that inpaints, against diffusers' pipelines: the same base, prompt and seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.models.load import load_family
from engine.models.stable import MASKED
from engine.sampling import sampler
from engine.sampling.sampler import Request

ONE = Request("a cat on a red background", "blurry, dark", 42, 64, 64, 5, 4.0)
TWO = replace(ONE, prompt="octopus, blue background", seed=7)


@pytest.fixture(scope="module")
def folder(gather):
    return gather("tiny-xl")


@pytest.fixture(scope="module")
def xl(folder):
    return load_family(str(folder), dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def pipeline(folder):
    from diffusers import StableDiffusionXLPipeline

    loaded = StableDiffusionXLPipeline.from_pretrained(str(folder), dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def theirs(pipeline, *requests: Request, output="latent", **options):
    first = requests[0]
    return pipeline(
        [request.prompt for request in requests],
        negative_prompt=[request.negative for request in requests] if first.negative else None,
        generator=[torch.Generator().manual_seed(request.seed) for request in requests],
        num_inference_steps=first.steps,
        guidance_scale=first.guidance_scale,
        width=first.width,
        height=first.height,
        output_type=output,
        **options,
    ).images


@pytest.mark.parametrize(
    "requests",
    [
        (ONE,),
        (ONE, TWO),
        (replace(ONE, negative=""),),
        (replace(ONE, guidance_scale=1.0),),
        (replace(ONE, width=96, height=40),),
    ],
    ids=["one", "two", "no negative", "unguided", "96x40"],
)
def test_latents_and_pictures_of_sdxl_are_those_of_diffusers(xl, pipeline, requests):
    requests = list(requests)
    latents = sampler.denoise(xl, requests)
    torch.testing.assert_close(latents, theirs(pipeline, *requests), rtol=0, atol=1e-4)
    with torch.no_grad():
        pixels = (xl.decode_latents(latents) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(pixels, theirs(pipeline, *requests, output="np"), rtol=0, atol=1e-4)


def test_clip_skip_counts_from_one_where_diffusers_counts_skipped_layers(xl, pipeline):
    request = replace(ONE, guidance_scale=1.0)
    mine = sampler.denoise(xl, [request], clip_skip=2)
    torch.testing.assert_close(mine, theirs(pipeline, request, clip_skip=1), rtol=0, atol=1e-4)
    assert not torch.allclose(mine, sampler.denoise(xl, [request]), atol=1e-3)


# ---- a base that inpaints


def test_a_base_that_inpaints_draws_as_diffusers_does_where_everything_is_masked(gather, monkeypatch):
    from diffusers import StableDiffusionInpaintPipeline
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    folder = gather("tiny-inpaint")
    ours = load_family(str(folder), dtype=torch.float32, device="cpu")
    assert MASKED in ours.notices
    loaded = StableDiffusionInpaintPipeline.from_pretrained(str(folder), safety_checker=None, dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    # diffusers draws the latents of the masked picture from their distribution; its middle is the same in every run
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mean)
    exact = loaded(
        ONE.prompt,
        image=torch.rand(1, 3, 64, 64),
        mask_image=torch.ones(1, 1, 64, 64),
        negative_prompt=ONE.negative,
        generator=torch.Generator().manual_seed(ONE.seed),
        num_inference_steps=ONE.steps,
        guidance_scale=ONE.guidance_scale,
        width=ONE.width,
        height=ONE.height,
        output_type="latent",
    ).images
    torch.testing.assert_close(sampler.denoise(ours, [ONE]), exact, rtol=0, atol=1e-4)
