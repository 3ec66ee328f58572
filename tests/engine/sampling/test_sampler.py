"""Pictures of the sampler against diffusers' own pipeline: the same base, prompt, seed, steps and guidance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from engine.models.load import load_family
from engine.sampling import sampler
from engine.sampling.sampler import Request

ONE = Request("a cat on a red background", "blurry, dark", 42, 64, 64, 5, 4.0)
TWO = replace(ONE, prompt="octopus, blue background", negative="", seed=7)


def theirs(pipeline, *requests: Request, **options) -> torch.Tensor:
    """diffusers' latents."""
    first = requests[0]
    return pipeline(
        [request.prompt for request in requests],
        negative_prompt=[request.negative for request in requests] if first.guidance_scale > 1 else None,
        generator=[torch.Generator().manual_seed(request.seed) for request in requests],
        num_inference_steps=first.steps,
        guidance_scale=first.guidance_scale,
        width=first.width,
        height=first.height,
        output_type="latent",
        **options,
    ).images


@torch.no_grad()
def their_pictures(pipeline, latents: torch.Tensor, output: str):
    """What diffusers makes of them, as its pipeline ends."""
    pixels = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return pipeline.image_processor.postprocess(pixels, output_type=output)


@pytest.mark.parametrize(
    "requests",
    [
        (ONE,),
        (ONE, TWO),
        (replace(ONE, steps=25),),
        (replace(ONE, steps=1),),
        (replace(ONE, guidance_scale=1.0),),
        (replace(ONE, guidance_scale=12.5),),
        (replace(ONE, width=96, height=40),),
        (replace(ONE, prompt=""),),
        (replace(ONE, prompt="a " + "very " * 60 + "long prompt"),),
        (replace(ONE, seed=2**63 - 1),),
    ],
    ids=["one", "two", "25 steps", "1 step", "unguided", "guided", "96x40", "empty", "too long", "large seed"],
)
def test_latents_and_pictures_are_those_of_diffusers(family, pipeline, requests):
    requests = list(requests)
    latents = sampler.denoise(family, requests)
    assert latents.dtype == torch.float32
    exact = theirs(pipeline, *requests)
    torch.testing.assert_close(latents, exact, rtol=0, atol=1e-4)
    with torch.no_grad():
        pixels = (family.decode_latents(latents) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(pixels, their_pictures(pipeline, exact, "np"), rtol=0, atol=1e-4)


def test_pictures_have_the_same_levels_as_diffusers_pictures(family, pipeline):
    mine = sampler.draw(family, [ONE, TWO])
    others = their_pictures(pipeline, theirs(pipeline, ONE, TWO), "pil")
    for image, other in zip(mine, others, strict=True):
        assert image.size == other.size and image.mode == "RGB"
        difference = np.abs(np.asarray(image, dtype=int) - np.asarray(other, dtype=int))
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


def test_clip_skip_counts_from_one_where_diffusers_counts_skipped_layers(family, pipeline, monkeypatch):
    # diffusers looks for a layer that transformers has dissolved, and skips no layer of the negative prompt
    monkeypatch.setitem(vars(pipeline.text_encoder), "text_model", pipeline.text_encoder)
    request = replace(ONE, guidance_scale=1.0)
    mine = sampler.denoise(family, [request], clip_skip=2)
    torch.testing.assert_close(mine, theirs(pipeline, request, clip_skip=1), rtol=0, atol=1e-4)
    assert not torch.allclose(mine, sampler.denoise(family, [request]), atol=1e-2)


def test_a_base_said_to_predict_the_noise_is_sampled_as_diffusers_samples_it(family, pipeline):
    noise = load_family("tiny", prediction="epsilon", dtype=torch.float32, device="cpu")
    mine = sampler.denoise(noise, [ONE])
    scheduler = pipeline.scheduler
    pipeline.scheduler = DDIMScheduler.from_config(scheduler.config, prediction_type="epsilon")
    try:
        torch.testing.assert_close(mine, theirs(pipeline, ONE), rtol=1e-4, atol=1e-4)
    finally:
        pipeline.scheduler = scheduler
    assert not torch.allclose(mine, sampler.denoise(family, [ONE]), atol=1e-1)


def test_a_picture_does_not_depend_on_what_was_drawn_before_and_leaves_torchs_generator_alone(family):
    first = sampler.denoise(family, [ONE])
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert torch.equal(sampler.denoise(family, [ONE]), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_picture_is_the_same_in_company_but_for_rounding(family):
    together = sampler.denoise(family, [TWO, ONE])
    torch.testing.assert_close(together[1:], sampler.denoise(family, [ONE]), rtol=0, atol=1e-4)


def test_every_step_is_told_before_it_begins_and_can_be_the_last(family):
    class Enough(Exception):
        pass

    calls = []

    def tick():
        calls.append(1)
        if len(calls) == 4:
            raise Enough

    with pytest.raises(Enough):
        sampler.draw(family, [ONE], tick=tick)
    assert len(calls) == 4
    calls.clear()
    sampler.draw(family, [replace(ONE, steps=3)], tick=lambda: calls.append(1))
    assert len(calls) == 3


def test_levels_are_rounded_and_clamped():
    pixels = torch.tensor([-3.0, -1.0, -1 + 1.02 / 255, 0.0, 1.0, 7.0]).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    (image,) = sampler.to_images(pixels)
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 1, 128, 255, 255]
