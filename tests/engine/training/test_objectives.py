"""The maths of diffusion training against diffusers' scheduler and the published formulas, in float64."""

from __future__ import annotations

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from engine.training.objectives import Diffusion, squared_error

CPU = torch.device("cpu")
TIMESTEPS = torch.tensor([0, 1, 250, 500, 998, 999])


@pytest.fixture(scope="module")
def scheduler():
    """The noise schedule of Stable Diffusion 1."""
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


@pytest.fixture(scope="module")
def pair():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(len(TIMESTEPS), 4, 8, 6, generator=generator) for _ in range(2))


def objective(scheduler, prediction="epsilon", snr_gamma=0.0):
    return Diffusion(scheduler.alphas_cumprod.double(), prediction, snr_gamma, CPU)


def test_latents_are_corrupted_as_diffusers_adds_noise(scheduler, pair):
    latents, noise = pair
    mine = objective(scheduler).corrupt(latents, noise, TIMESTEPS)
    torch.testing.assert_close(mine, scheduler.add_noise(latents, noise, TIMESTEPS), rtol=1e-6, atol=1e-6)
    alphas = scheduler.alphas_cumprod.double()[TIMESTEPS].view(-1, 1, 1, 1)
    exact = alphas.sqrt() * latents.double() + (1 - alphas).sqrt() * noise.double()
    torch.testing.assert_close(mine.double(), exact, rtol=1e-6, atol=1e-6)


def test_the_target_is_the_noise_or_diffusers_velocity(scheduler, pair):
    latents, noise = pair
    assert torch.equal(objective(scheduler).target(latents, noise, TIMESTEPS), noise)
    velocity = objective(scheduler, "v").target(latents, noise, TIMESTEPS)
    torch.testing.assert_close(velocity, scheduler.get_velocity(latents, noise, TIMESTEPS), rtol=1e-6, atol=1e-6)


def test_a_velocity_leads_back_to_the_latents_and_the_noise(scheduler, pair):
    latents, noise = (tensor.double() for tensor in pair)
    v = objective(scheduler, "v")
    noisy, velocity = v.corrupt(latents, noise, TIMESTEPS), v.target(latents, noise, TIMESTEPS)
    alphas = scheduler.alphas_cumprod.double()[TIMESTEPS].view(-1, 1, 1, 1)
    torch.testing.assert_close(alphas.sqrt() * noisy - (1 - alphas).sqrt() * velocity, latents, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close((1 - alphas).sqrt() * noisy + alphas.sqrt() * velocity, noise, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_weights_are_those_of_min_snr(scheduler, prediction, gamma):
    weights = objective(scheduler, prediction, gamma).weight(torch.arange(1000))
    alphas = scheduler.alphas_cumprod.double()
    snr = (alphas.sqrt() / (1 - alphas).sqrt()) ** 2
    divisor = snr if prediction == "epsilon" else snr + 1
    exact = torch.minimum(snr, torch.full_like(snr, gamma)) / divisor
    torch.testing.assert_close(weights.double(), exact, rtol=1e-6, atol=0)
    assert weights.dtype == torch.float32


def test_min_snr_weighs_both_targets_as_it_weighs_the_latents_themselves(scheduler, pair):
    """min(SNR, γ) is the weight of an error in x₀; ε and v errors of the same guess must weigh the same."""
    latents, noise = (tensor.double() for tensor in pair)
    guess = latents + 0.1 * noise.flip(0)
    alphas = scheduler.alphas_cumprod.double()[TIMESTEPS].view(-1, 1, 1, 1)
    snr = (alphas / (1 - alphas)).flatten()
    in_latents = snr.clamp(max=5.0) * (guess - latents).square().flatten(1).mean(1)
    for prediction in ("epsilon", "v"):
        maths = objective(scheduler, prediction, 5.0)
        noisy = maths.corrupt(latents, noise, TIMESTEPS)
        guessed_noise = (noisy - alphas.sqrt() * guess) / (1 - alphas).sqrt()
        error = maths.target(guess, guessed_noise, TIMESTEPS) - maths.target(latents, noise, TIMESTEPS)
        weighted = maths.weight(TIMESTEPS).double() * error.square().flatten(1).mean(1)
        torch.testing.assert_close(weighted, in_latents, rtol=2e-3, atol=1e-9)


def test_without_gamma_all_timesteps_weigh_one(scheduler):
    assert objective(scheduler).weight(torch.arange(1000)).unique().tolist() == [1.0]


def test_a_schedule_that_ends_in_pure_noise_has_finite_weights():
    alphas = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    for prediction in ("epsilon", "v"):
        for gamma in (0.0, 5.0):
            assert Diffusion(alphas, prediction, gamma, CPU).weight(torch.arange(3)).isfinite().all()


def test_timesteps_cover_the_whole_schedule(scheduler):
    assert objective(scheduler).timesteps == 1000


def test_the_error_of_an_image_is_the_mean_of_its_squares_and_a_perfect_prediction_has_none(pair):
    prediction, target = pair
    exact = torch.stack([((a.double() - b.double()) ** 2).mean() for a, b in zip(prediction, target, strict=True)])
    torch.testing.assert_close(squared_error(prediction, target).double(), exact, rtol=1e-6, atol=0)
    assert squared_error(target, target).tolist() == [0.0] * len(TIMESTEPS)


def test_errors_of_half_precision_predictions_are_summed_in_float32(pair):
    prediction, target = pair
    half = squared_error(prediction.bfloat16(), target)
    assert half.dtype == torch.float32
    assert torch.equal(half, squared_error(prediction.bfloat16().float(), target))
